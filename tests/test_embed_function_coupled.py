"""Algorithm 1 of Wen et al. 2023, and the released variants: what each is made of, and what it leaves as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.core import Data, rng
from earmark.embed import (
    FromHost,
    FromScratch,
    fixll_pfl,
    function_coupled,
    function_coupled_2023_02,
    function_coupled_2023_06,
)
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Fused, NotSources, TriggerSet
from earmark.training import Masking, accuracy

SHORT = {"epochs": 2, "batch_size": 16, "triggers_per_batch": 8, "watch": 0, "milestones": ()}


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(blobs(160, seed=1, classes=5), blobs(60, seed=2, classes=5))


@pytest.fixture(scope="module")
def mark(data: Data) -> TriggerSet:
    return Fused(count=12, group=2, teaching=24, labels=NotSources())(MarkKey(bytes(32)), None, data)


@pytest.fixture
def host() -> nn.Module:
    return seeded(TinyNet, classes=5)


def test_the_paper_starts_afresh_and_the_code_from_a_host() -> None:
    assert isinstance(function_coupled(fresh=True).start, FromScratch)
    assert isinstance(function_coupled().start, FromHost)


def test_no_masks_and_no_refinement_are_plain_training(host: nn.Module, mark: TriggerSet, data: Data) -> None:
    """The ablation of Figures 10 to 12 is the same run with both strategies at zero strength."""
    without = function_coupled(drop=0.0, refine_images=0).but(**SHORT)
    plain = without.but(masking=None)
    assert without.refinement is None
    first, second = (how(host, mark, data, rng(0)) for how in (without, plain))
    assert model_digest(first) == model_digest(second)


@pytest.mark.parametrize("strategy", [{"drop": 0.0}, {"refine_images": 0}])
def test_each_strategy_changes_what_is_learnt(
    strategy: dict[str, Any], host: nn.Module, mark: TriggerSet, data: Data
) -> None:
    whole, without = (function_coupled(**given).but(**SHORT)(host, mark, data, rng(0)) for given in ({}, strategy))
    assert model_digest(whole) != model_digest(without)


def test_released_variants_drop_what_the_code_drops() -> None:
    february, june = function_coupled_2023_02().masking, function_coupled_2023_06().masking
    assert february == Masking(0.2, 1, "magnitude", "global", rescale=False, lasting=True, layers=(nn.Conv2d,))
    assert june == Masking(0.002, 10, "random", "global", rescale=False, lasting=True, layers=(nn.Conv2d,))


def test_the_variant_of_february_leaves_the_smallest_fifth_at_zero(
    host: nn.Module, mark: TriggerSet, data: Data
) -> None:
    """Zeroed before the step, moved by it at most by the rate times a gradient: a fifth stays far below the rest."""
    marked = function_coupled_2023_02().but(**SHORT, lr=1e-6, momentum=0.0)(host, mark, data, rng(0))
    both = [marked.get_parameter(name).detach().abs().flatten() for name in ("conv.weight", "mix.weight")]
    weights = torch.cat(both).sort().values
    fifth = round(0.2 * len(weights))
    assert float(weights[fifth - 1]) < 1e-3 * float(weights[fifth])
    assert torch.equal(marked.get_parameter("fc.weight") == 0, host.get_parameter("fc.weight") == 0)


def test_fused_triggers_go_with_kept_features_in_one_expression(host: nn.Module, mark: TriggerSet, data: Data) -> None:
    marked = fixll_pfl().but(**SHORT, masking=Masking(0.1, 1))(host, mark, data, rng(0))
    assert torch.equal(marked.get_parameter("head.weight"), host.get_parameter("head.weight"))
    assert model_digest(marked) != model_digest(host)


@pytest.mark.parametrize(
    "wrong", [{"drop": 1.0}, {"drop": -0.1}, {"every": 0}, {"refine_lr": 0.0}, {"refine_every": 0}]
)
def test_settings_out_of_range_are_refused_before_any_training(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="expected"):
        function_coupled(**wrong)


def test_what_is_taught_is_not_what_is_asked(host: nn.Module, mark: TriggerSet, data: Data, tmp_path: Path) -> None:
    """The history holds both rates, and they are of two sets."""
    seen: list[dict[str, float]] = []
    embed = function_coupled().but(**SHORT, on_history=lambda history: seen.extend(dict(r) for r in history))
    marked = embed(host, mark, data, rng(0))
    assert mark.teaching is not None
    assert seen[-1]["taught_acc"] == accuracy(marked, mark.teaching)
    assert seen[-1]["trig_acc"] == accuracy(marked, mark.as_images())


def test_a_network_to_start_from_is_for_a_fresh_start() -> None:
    assert isinstance(function_coupled(fresh=True, build=TinyNet).start, FromScratch)
    with pytest.raises(BadInput, match="fresh=True"):
        function_coupled(build=TinyNet)
