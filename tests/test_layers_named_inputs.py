"""Networks whose code calls layers by the input's name, `layer(input=x)`, are read as all others are."""

from __future__ import annotations

import pytest
from passported import DATA, NAME, OWNER, mark_for, marked
from torch import Tensor, nn

from earmark.attacks import PermuteChannels, recalibrated
from earmark.core import rng
from earmark.files import model_digest
from earmark.layers import find_sites, public_scales
from earmark.marks import PassportMint
from earmark.models import dissect
from earmark.verify import PassportTest
from earmark.verify.alignment import align

LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
EXAMPLE = DATA.test.pixels[:1].float() / 255


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a layer becomes one by name."""
    plain = nn.Module.__call__

    def call(layer: nn.Module, *args: Tensor) -> Tensor:
        named = isinstance(layer, LAYERS) and len(args) == 1
        found: Tensor = plain(layer, input=args[0]) if named else plain(layer, *args)
        return found

    monkeypatch.setattr(nn.Module, "__call__", call)


def reading(model: nn.Module) -> list[object]:
    """All that is found out by running a network."""
    found = dissect(model, EXAMPLE)
    scales = public_scales(model, EXAMPLE)
    maps = PassportMint(layers=3, passports="shuffle", images=5)(OWNER.mark_key(NAME), model, DATA)
    return [
        found.head,
        found.read(model, EXAMPLE).features.tolist(),
        find_sites(model, EXAMPLE, "*"),
        {name: scale.tolist() for name, scale in scales.items()},
        maps.digest(),
        model_digest(recalibrated(model, DATA.train)),
        model_digest(PermuteChannels()(model, DATA, rng(2))),
        PassportTest()(model, mark_for("bn")).statistic,
        align(model, marked("bn"), mark_for("bn")).shown.tolist(),
    ]


def test_a_network_is_read_as_one_that_calls_its_layers_by_place(request: pytest.FixtureRequest) -> None:
    wanted = reading(marked("bn"))
    request.getfixturevalue("by_name")
    assert reading(marked("bn")) == wanted
