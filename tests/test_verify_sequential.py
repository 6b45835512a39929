"""The sequential trigger test: it stops early, decides as the whole would, and asks no more than it needs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark.core import Null, Query
from earmark.keys import MarkKey
from earmark.marks import Noise, OneClass, TriggerSet
from earmark.stats import SequentialBinomial
from earmark.verify import SequentialTriggerTest, TriggerTest

KEY = MarkKey(bytes(range(32)))
MARK = Noise(count=40).make(KEY, (1, 4, 4), 10)


class Suspect:
    """Answers a trigger right where `matches` says so; keeps what it was asked, in order, as positions in the mark."""

    def __init__(self, mark: TriggerSet, matches: list[bool]) -> None:
        self._at = {image.numpy().tobytes(): i for i, image in enumerate(mark.images)}
        self._labels = torch.tensor([(int(y) + (not m)) % 10 for y, m in zip(mark.labels, matches, strict=True)])
        self.asked: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        now = [self._at[image.numpy().tobytes()] for image in images.mul(255).round().to(torch.uint8)]
        self.asked += now
        return nn.functional.one_hot(self._labels[now], 10).float()


def test_seven_of_seven_are_enough_and_nothing_more_is_asked() -> None:
    suspect = Suspect(MARK, [True] * 40)
    verdict = SequentialTriggerTest()(suspect, MARK)
    assert verdict.accepted is True
    assert (verdict.statistic, verdict.n, verdict.details["queries"]) == (7, 7, 7)
    assert suspect.asked == list(range(7))
    assert "7 of the first 7" in verdict.reason


def test_an_innocent_suspect_is_given_up_before_the_end() -> None:
    suspect = Suspect(MARK, [False] * 40)
    verdict = SequentialTriggerTest()(suspect, MARK)
    assert verdict.accepted is False
    assert len(suspect.asked) == verdict.n < 40
    assert verdict.log10_p == 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=40, max_size=40), st.integers(1, 45), st.sampled_from([1e-3, 1e-6]))
def test_stopping_early_and_batching_never_change_the_decision(matches: list[bool], batch: int, alpha: float) -> None:
    """The decision is that of the whole sequence: whether its p-value ever falls to alpha."""
    evidence = SequentialBinomial(0.1)
    for match in matches:
        evidence.update(match)
    verdict = SequentialTriggerTest(alpha=alpha, batch_size=batch)(Suspect(MARK, matches), MARK)
    one_by_one = SequentialTriggerTest(alpha=alpha)(Suspect(MARK, matches), MARK)
    assert verdict.accepted is (evidence.p_value <= alpha)
    assert (verdict.statistic, verdict.n, verdict.log10_p) == (one_by_one.statistic, one_by_one.n, one_by_one.log10_p)
    assert verdict.n <= verdict.details["queries"] < verdict.n + batch


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_it_accepts_nothing_that_the_exact_test_would_not_on_the_triggers_that_it_asked(matches: list[bool]) -> None:
    verdict = SequentialTriggerTest()(Suspect(MARK, matches), MARK)
    if verdict.accepted:
        asked = TriggerSet(MARK.images[: verdict.n], MARK.labels[: verdict.n], 10, MARK.null, {})
        assert TriggerTest()(Suspect(asked, matches[: verdict.n]), asked).accepted


def test_a_key_draws_the_order_and_the_same_key_the_same_order() -> None:
    asked = []
    for key in (KEY, KEY, MarkKey(bytes(32))):
        suspect = Suspect(MARK, [True] * 40)
        SequentialTriggerTest(order=key)(suspect, MARK)
        asked.append(suspect.asked)
    assert asked[0] == asked[1] == KEY.stream("query-order").permutation(40)[:7].tolist()
    assert asked[2] != asked[0]


def test_labels_stay_with_their_images_in_any_order() -> None:
    matches = [i % 3 > 0 for i in range(40)]
    order = KEY.stream("query-order").permutation(40).tolist()
    verdict = SequentialTriggerTest(order=KEY)(Suspect(MARK, matches), MARK)
    assert verdict.statistic == sum(matches[i] for i in order[: verdict.n])


def test_grinding_is_paid_for_with_more_queries() -> None:
    few, many = (
        SequentialTriggerTest(grinding_bits=bits)(Suspect(MARK, [True] * 40), MARK) for bits in (0, 64)
    )  # fmt: skip
    assert few.accepted is many.accepted is True
    assert many.n > few.n + 15
    assert many.log10_p is not None
    assert many.log10_p <= -6 < many.log10_p + 1


def test_too_few_triggers_are_inconclusive_and_the_suspect_is_not_bothered() -> None:
    mark = Noise(count=6).make(KEY, (1, 4, 4), 10)
    suspect = Suspect(mark, [True] * 6)
    verdict = SequentialTriggerTest()(suspect, mark)
    assert verdict.accepted is None
    assert suspect.asked == []
    assert "too few" in verdict.reason


def test_rows_that_are_no_answer_count_against_the_claim() -> None:
    verdict = SequentialTriggerTest()(lambda images: torch.full((len(images), 10), math.nan), MARK)
    assert verdict.accepted is False
    assert verdict.details["unanswered"] == verdict.n
    assert "no finite scores" in verdict.reason


def test_a_null_without_a_basis_never_accepts_sequentially() -> None:
    mark = Noise(count=40, labels=OneClass(3)).make(KEY, (1, 4, 4), 10)
    suspect: Query = lambda images: torch.full((len(images),), 3)  # noqa: E731
    verdict = SequentialTriggerTest()(suspect, mark)
    assert verdict.accepted is None
    assert verdict.to_dict() == TriggerTest(batch_size=1)(suspect, mark).to_dict()


def test_a_calibrated_null_says_so() -> None:
    mark = TriggerSet(MARK.images, MARK.labels, 10, Null("calibrated", 0.2, "50 innocent models"), {})
    verdict = SequentialTriggerTest()(Suspect(mark, [True] * 40), mark)
    assert verdict.accepted is True
    assert "calibrated" in verdict.reason


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_fewer_queries_than_the_whole_set_where_many_triggers_survive(share: float) -> None:
    mark = Noise(count=100).make(KEY, (1, 4, 4), 10)
    survive = (KEY.stream("survivors").uniforms(100) < share).tolist()
    verdict = SequentialTriggerTest()(Suspect(mark, survive), mark)
    assert verdict.accepted is True
    assert verdict.n < 80
