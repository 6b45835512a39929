"""False claims win a plain trigger test against models that their maker has never seen, and lose before a judge."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from earmark.attacks import FalseClaim, FineTune, Forgery, measured
from earmark.core import Data, rng
from earmark.data import open_data
from earmark.errors import BadInput
from earmark.evidence import commit, judge
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Noise, TriggerSet
from earmark.models import PlainCNN
from earmark.stats import GRINDING_BITS
from earmark.suspects import as_query
from earmark.training import accuracy
from earmark.verify import TriggerTest

CLASSES, COUNT = 10, 80
LEARNING: dict[str, Any] = {"epochs": 4, "lr": 4e-3, "batch_size": 64}
CLAIM = FalseClaim(COUNT, **LEARNING, milestones=())


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data("digits")


def network(seed: int, wide: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if wide:
            return PlainCNN((1, 8, 8), CLASSES, width=8, features=32).eval()
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)).eval()


@pytest.fixture(scope="module")
def strangers(data: Data) -> list[nn.Module]:
    """Models of three people who trained by themselves, the last one of another architecture."""
    nets = [FineTune(**LEARNING)(net, data, rng(7)) for net in (network(51), network(52), network(53, wide=False))]
    assert all(accuracy(net, data.test) > 0.9 for net in nets)
    return nets


@pytest.fixture(scope="module")
def forgeries(data: Data) -> dict[str, Forgery]:
    """What the forger committed to; his own model is fresh, since only its kind has a part."""
    posed = replace(CLAIM, pose_as=Noise(COUNT))
    return {name: by.forge(network(1), data, rng(3)) for name, by in (("own images", CLAIM), ("posed", posed))}


@pytest.mark.parametrize("name", ["own images", "posed"])
def test_a_false_claim_wins_a_plain_test_against_models_that_were_never_seen(
    name: str, forgeries: dict[str, Forgery], strangers: list[nn.Module]
) -> None:
    plain, mark = TriggerTest(alpha=1e-6), forgeries[name].mark
    for net in strangers[:2]:
        assert plain(as_query(net), mark).accepted is True
    assert plain(as_query(strangers[2]), mark).log10_p < -2  # type: ignore[operator]


def test_it_wins_even_where_the_test_pays_for_all_keys_so_that_commitments_alone_do_not_stop_it(
    forgeries: dict[str, Forgery], strangers: list[nn.Module]
) -> None:
    for net in strangers[:2]:
        strict = TriggerTest(alpha=1e-6, grinding_bits=GRINDING_BITS)(as_query(net), forgeries["own images"].mark)
        assert strict.accepted is True


def test_an_honest_mark_of_the_same_key_matches_strangers_by_chance(
    forgeries: dict[str, Forgery], strangers: list[nn.Module], data: Data
) -> None:
    honest = Noise(COUNT)(forgeries["posed"].key, None, data)
    assert torch.equal(honest.labels, forgeries["posed"].mark.labels)
    assert not any(TriggerTest(alpha=1e-6)(as_query(net), honest).accepted for net in strangers)


@pytest.mark.parametrize("name", ["own images", "posed"])
def test_it_loses_before_a_judge_though_it_was_committed_before_the_model_existed(
    name: str, forgeries: dict[str, Forgery], strangers: list[nn.Module], tmp_path: Path
) -> None:
    forgery = forgeries[name]
    how: Any = {"host": None, "marked": network(1), "scheme": "any", "out": tmp_path / "claim", "check": False}
    files = commit(forgery.owner, forgery.mark, name=forgery.name, **how)
    later = datetime.now(UTC) + timedelta(days=30)
    for net in strangers:
        ruling = judge(*files, net, suspect_known_since=later, committed_before=later - timedelta(days=20))
        assert (ruling.accepted, ruling.details["step"]) == (False, "re-minting")


def test_of_the_given_model_only_the_kind_has_a_part(data: Data) -> None:
    quick = replace(CLAIM, epochs=1, surrogates=1, steps=2)
    first, second = network(1), network(2)
    before = model_digest(first)
    mark, spent = measured(quick, first, data, rng(5))
    assert model_digest(first) == before
    assert quick(second, data, rng(5)).digest() == mark.digest()
    assert quick(network(1, wide=False), data, rng(5)).digest() != mark.digest()
    assert (spent.samples, spent.queries, spent.weights) == (len(data.train) + COUNT, 2, False)


def test_frozen_and_foreign_networks_serve(data: Data) -> None:
    quick = replace(CLAIM, epochs=1, surrogates=1, steps=2)
    frozen = network(1).requires_grad_(False)
    assert quick(frozen, data, rng(5)).digest() == quick(network(1), data, rng(5)).digest()
    own = replace(quick, build=lambda: network(9, wide=False))
    assert isinstance(own(frozen, data, rng(5)), TriggerSet)


def test_pixels_move_within_the_budget_and_labels_are_those_of_the_key_or_the_second_best(data: Data) -> None:
    quick = replace(CLAIM, epochs=1, surrogates=1, steps=5, epsilon=9, pose_as=Noise(COUNT))
    forgery = quick.forge(network(1), data, rng(5))
    honest = Noise(COUNT)(forgery.key, None, data)
    moved = (forgery.mark.images.int() - honest.images.int()).abs()
    assert 0 < int(moved.max()) <= 9
    assert forgery.mark.spec() == honest.spec()
    still = replace(quick, steps=0).forge(network(1), data, rng(5))
    assert still.mark.digest() == honest.digest()


def test_more_surrogates_and_steps_win_more(
    data: Data, forgeries: dict[str, Forgery], strangers: list[nn.Module]
) -> None:
    weak = replace(CLAIM, surrogates=1, steps=5)(network(1), data, rng(3))

    def share(mark: TriggerSet) -> float:
        return sum(float(TriggerTest()(as_query(net), mark).statistic) for net in strangers)

    assert share(forgeries["own images"].mark) > share(weak)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"surrogates": 0}, "surrogates"),
        ({"steps": -1}, "steps"),
        ({"step": 0}, "step"),
        ({"epsilon": -1}, "epsilon"),
        ({"decay": -0.5}, "decay"),
        ({"epochs": -1}, "epochs"),
        ({"lr": 0.0}, "lr"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        FalseClaim(**settings)


def test_the_forgers_key_is_his_own(forgeries: dict[str, Forgery]) -> None:
    assert isinstance(forgeries["posed"].key, MarkKey)
    assert forgeries["posed"].key.owner == forgeries["posed"].owner.public
