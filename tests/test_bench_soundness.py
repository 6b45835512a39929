"""Soundness: what is counted over models and keys is what the tests say one by one, and chance comes out as chance."""

from __future__ import annotations

import math

import pytest
import torch
from benched import data
from scipy import stats as scipy_stats
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark import stats
from earmark.bench.soundness import innocent_matches, soundness_of
from earmark.core import Data, rng
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import Fused, Noise
from earmark.reports import figures
from earmark.suspects import as_query
from earmark.verify import TriggerTest


class Stubborn(nn.Module):
    """One class for everything: as skewed as a model can be."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 3)
        self.head.weight.data.zero_()
        self.head.bias.data = torch.tensor([0.0, 5.0, 0.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x.mean((1, 2, 3)).unsqueeze(1))
        return logits


@pytest.mark.parametrize("mint", [Noise(count=30), Fused(count=9, group=3, teaching=9)], ids=["alone", "in groups"])
def test_the_batch_counts_what_the_trigger_test_counts(mint: Noise | Fused) -> None:
    images = Data(blobs(200, classes=5), blobs(60, classes=5, seed=2))
    models = [seeded(TinyNet, classes=5, seed=seed).eval() for seed in range(3)]
    marks = [mint(MarkKey(bytes([key] * 32)), None, images) for key in range(4)]
    counted = innocent_matches(models, marks)
    asked = [[TriggerTest()(as_query(model), mark).statistic for mark in marks] for model in models]
    assert counted.tolist() == asked


def test_levels_are_the_exact_tail_beside_the_share_that_was_found() -> None:
    matches = torch.tensor([[0, 1, 5], [0, 2, 5]])
    found = soundness_of(matches, 10, 0.2)
    by_k = {level.matches: level for level in found.levels}
    assert by_k[2].share == 3 / 6
    assert by_k[2].log10_p == pytest.approx(scipy_stats.binom.logsf(1, 10, 0.2) / math.log(10))
    assert found.least_log10_p == by_k[5].log10_p
    assert (found.models, found.keys) == (2, 3)


def test_a_bold_test_is_found_out_and_an_exact_one_is_not() -> None:
    """Draws at the null's own rate against draws at a rate half as high again."""
    draw = torch.full((60, 50), 100.0)
    fair = torch.binomial(draw, torch.full_like(draw, 0.1), generator=rng(0)).long()
    honest = soundness_of(fair, 100, 0.1)
    assert (honest.false_accepts, honest.judged_accepts) == (0, 0)
    assert honest.log10_worst_model > -3
    assert all(level.low <= 10**level.log10_p <= level.high for level in honest.levels if level.share > 0.01)
    unfair = torch.binomial(draw, torch.full_like(draw, 0.15), generator=rng(0)).long()
    assert soundness_of(unfair, 100, 0.1).log10_worst_model < -6


def test_accepts_are_counted_from_the_critical_count_on() -> None:
    critical = stats.critical_count(100, 0.1, 1e-6)
    judged = stats.critical_count(100, 0.1, 1e-6, stats.GRINDING_BITS)
    found = soundness_of(torch.tensor([[critical - 1, critical, judged]]), 100, 0.1)
    assert (found.false_accepts, found.judged_accepts) == (2, 1)
    assert found.expected == pytest.approx(3 * scipy_stats.binom.sf(critical - 1, 100, 0.1))


def test_a_model_with_one_answer_to_everything_is_no_exception() -> None:
    marks = [Noise(count=60)(MarkKey(bytes([key] * 32)), None, data()) for key in range(100)]
    found = soundness_of(innocent_matches([Stubborn()], marks), 60, 1 / 3)
    assert found.false_accepts == 0
    assert found.log10_worst_model > -3


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one mark"):
        innocent_matches([seeded(TinyNet)], [])
    with pytest.raises(BadInput, match="at least one of each"):
        soundness_of(torch.zeros(0, 3, dtype=torch.int64), 10, 0.1)
    with pytest.raises(BadInput, match="at least one scheme"):
        figures.null_plot({})


def test_the_picture_is_the_same_every_time() -> None:
    drawn = torch.randint(0, 20, (8, 9), generator=rng(0))
    found = {"a": soundness_of(drawn, 100, 0.1), "b": soundness_of(drawn, 40, 0.125)}
    assert figures.to_png(figures.null_plot(found)) == figures.to_png(figures.null_plot(found))
