"""Networks whose code calls layers by the input's name, `layer(input=x)`, are read as all others are."""

from __future__ import annotations

import pytest
import torch
from passported import DATA, NAME, OWNER, mark_for, marked, network
from torch import Tensor, nn

from earmark.attacks import PermuteChannels, recalibrated
from earmark.core import rng
from earmark.files import model_digest
from earmark.layers import expose, find_sites, protect, public_scales
from earmark.layers.passport import PassportNorm, on_path
from earmark.marks import PassportMint
from earmark.models import dissect
from earmark.models.blocks import BasicBlock
from earmark.verify import PassportTest
from earmark.verify.alignment import align

LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.Linear, PassportNorm, BasicBlock)
EXAMPLE = DATA.test.pixels[:1].float() / 255


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a layer becomes one by name."""
    plain = nn.Module.__call__

    def call(layer: nn.Module, *args: Tensor) -> Tensor:
        if len(args) == 1 and isinstance(layer, LAYERS):
            found: Tensor = plain(layer, **{"x" if isinstance(layer, BasicBlock) else "input": args[0]})
        else:
            found = plain(layer, *args)
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


@pytest.mark.parametrize("norm", ["bn", "gn", "resnet"])
def test_such_a_network_takes_passports_on_both_paths(request: pytest.FixtureRequest, norm: str) -> None:
    """In a chain the paths part at a norm, in the ResNet at the module that holds all passport layers."""

    def answers() -> list[Tensor]:
        model = protect(network(norm).eval(), mark_for(norm).layers(), EXAMPLE)
        with torch.no_grad():
            with on_path(model, "both"):
                both = model(EXAMPLE)
            return [both, *(expose(model, path).eval()(EXAMPLE) for path in ("public", "private"))]

    wanted = answers()
    request.getfixturevalue("by_name")
    found = answers()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    torch.testing.assert_close(found[0], torch.cat(found[1:]), rtol=1e-4, atol=1e-4)
