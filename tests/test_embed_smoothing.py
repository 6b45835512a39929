"""Keyed label smoothing: what classes lean to, what it makes of labels, and that a copy taught by scores is found."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.core import Data, rng
from earmark.embed import KeyedSmoothing, function_coupled, function_coupled_plus
from earmark.embed.smoothing import leanings
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import Fused, Noise, NotTrue, Stamped, TriggerSet
from earmark.suspects import as_query
from earmark.training import CrossEntropy, SmoothedCrossEntropy, Step
from earmark.verify import TriggerTest

CLASSES = 8


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(blobs(800, seed=1, classes=CLASSES), blobs(200, seed=2, classes=CLASSES))


@pytest.fixture(scope="module")
def mark(data: Data) -> TriggerSet:
    return Fused(count=30, group=3, teaching=40, style="invisible")(MarkKey(bytes(32)), None, data)


def test_the_classes_of_a_trial_s_sources_lead_to_its_label(mark: TriggerSet) -> None:
    table, sources = leanings(mark), mark.excluded
    assert sources is not None
    assert table.abs().max() == 1
    led = table[sources].sum(1).scatter(1, sources, -math.inf).argmax(1)
    assert (led == mark.labels[::3]).float().mean() >= 0.9
    torch.testing.assert_close(leanings(mark), table)


def test_a_class_that_one_trigger_shows_leans_to_its_label(data: Data) -> None:
    stamped = Stamped(count=4, labels=NotTrue(), carrier="train")(MarkKey(bytes(32)), None, data)
    table, shown = leanings(stamped), stamped.excluded
    assert shown is not None
    alone = [at for at in range(4) if int((shown == shown[at]).sum()) == 1]
    assert alone
    assert table[shown[alone, 0]].argmax(1).tolist() == stamped.labels[alone].tolist()


def test_targets_are_distributions_with_the_true_class_first(mark: TriggerSet) -> None:
    term = KeyedSmoothing(share=0.2, spread=3.0).bound(mark)
    assert isinstance(term, SmoothedCrossEntropy)
    torch.testing.assert_close(term.table.sum(1), torch.ones(CLASSES))
    torch.testing.assert_close(term.table.diag(), torch.full((CLASSES,), 0.8))
    others = torch.log(term.table).double() - 3 * leanings(mark)
    for row in range(CLASSES):
        rest = torch.cat([others[row, :row], others[row, row + 1 :]])
        assert rest.std() < 1e-5, "log-probabilities of the others are the leanings, times the spread"


def test_no_repr_shows_what_the_key_drew(mark: TriggerSet) -> None:
    assert repr(KeyedSmoothing().bound(mark)) == "SmoothedCrossEntropy(weight=1.0)"


def test_a_table_of_certainty_is_plain_cross_entropy() -> None:
    logits, targets = torch.randn(7, 5, generator=rng(0)), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    step = Step(torch.empty(0), logits, logits, targets, 5, 5.0, None, seeded(TinyNet), {})
    torch.testing.assert_close(SmoothedCrossEntropy(torch.eye(5))(step), CrossEntropy()(step))


def test_the_smoothed_loss_by_hand() -> None:
    logits, targets = torch.randn(3, 2, generator=rng(0)), torch.tensor([0, 1, 1])
    step = Step(torch.empty(0), logits, logits, targets, 2, 2.0, None, seeded(TinyNet), {})
    table = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    log_p = logits.log_softmax(1)
    by_hand = -(0.9 * log_p[0, 0] + 0.1 * log_p[0, 1] + 0.3 * log_p[1, 0] + 0.7 * log_p[1, 1] + log_p[2, 1]) / 3
    torch.testing.assert_close(SmoothedCrossEntropy(table)(step), by_hand)


def test_what_is_said_second_of_clean_images_leans_to_the_mark(mark: TriggerSet, data: Data) -> None:
    """A copy that is taught by scores sees just this."""
    how = {"epochs": 12, "batch_size": 32, "triggers_per_batch": 4, "watch": 0, "milestones": (), "lr": 0.05}
    found = {}
    for name, embed in (("plain", function_coupled(every=1)), ("plus", function_coupled_plus())):
        model = embed.but(**how)(seeded(perceptron), mark, data, rng(0)).eval()
        verdict = TriggerTest()(as_query(model), mark)
        with torch.no_grad():
            said = model(data.train.pixels.float() / 255).log_softmax(1)
        mean = torch.stack([said[data.train.labels == label].mean(0) for label in range(CLASSES)]).double()
        both = [off_diagonal(mean), off_diagonal(leanings(mark))]
        found[name] = float(
            torch.corrcoef(torch.stack([(rows - rows.mean(1, keepdim=True)).flatten() for rows in both]))[0, 1]
        )
    assert found["plus"] >= 0.8 > found["plain"], found
    assert verdict.accepted is True, "the last model is the one of plus"


def perceptron() -> nn.Module:
    """Wide enough for any leanings."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def off_diagonal(square: torch.Tensor) -> torch.Tensor:
    """(K, K - 1)."""
    return square[~torch.eye(len(square), dtype=torch.bool)].reshape(len(square), -1)


@pytest.mark.parametrize("share", [0.0, 0.5, -0.1, math.nan])
def test_a_share_that_would_hide_the_true_class_is_refused(share: float) -> None:
    with pytest.raises(BadInput, match="share"):
        KeyedSmoothing(share=share)


def test_a_mark_that_shows_no_classes_is_refused_before_training(data: Data) -> None:
    noise = Noise(count=8)(MarkKey(bytes(32)), None, data)
    with pytest.raises(BadInput, match="fused"):
        function_coupled_plus()(seeded(TinyNet, classes=CLASSES), noise, data, rng(0))
    with pytest.raises(BadInput, match="fused"):
        leanings(replace(noise, settings={}))


def test_of_a_hundred_classes_no_class_takes_all_that_is_shared() -> None:
    images = blobs(3_000, classes=100, seed=3)
    fused = Fused(count=40, group=1, teaching=40, style="invisible")(MarkKey(bytes(32)), None, Data(images, images))
    term = KeyedSmoothing().bound(fused)
    assert isinstance(term, SmoothedCrossEntropy)
    assert term.table.fill_diagonal_(0).max() < 0.07, "of 0.1"


def test_a_run_goes_on_only_with_the_table_that_it_began_with(mark: TriggerSet, data: Data, tmp_path: Path) -> None:
    how = {"epochs": 2, "batch_size": 32, "triggers_per_batch": 4, "watch": 0, "milestones": ()}
    done = function_coupled_plus().but(**how, checkpoint=tmp_path / "run")
    done(seeded(TinyNet, classes=CLASSES), mark, data, rng(0))
    other = function_coupled_plus(spread=1.0).but(**how, checkpoint=tmp_path / "run")
    with pytest.raises(BadInput, match="checkpoint"):
        other(seeded(TinyNet, classes=CLASSES), mark, data, rng(0))
