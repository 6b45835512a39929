"""The trigger test: what it accepts, what it refuses to accept, and suspects that do not answer as they should."""

from __future__ import annotations

import json
import math
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import replace
from http.client import BadStatusLine
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from earmark.core import Null, Query, Verdict
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import Noise, OneClass, TriggerSet, Uniform
from earmark.stats import GRINDING_BITS, critical_count, log_binomial_tail
from earmark.verify import SequentialTriggerTest, TriggerTest

KEY = MarkKey(bytes(range(32)))
MARK = Noise(count=40).make(KEY, (1, 4, 4), 10)
ONE_CLASS = Noise(count=40, labels=OneClass(3)).make(KEY, (1, 4, 4), 10)
CALIBRATED = replace(MARK, null=Null("calibrated", 0.2, "measured on 50 innocent models"))


def answering(mark: TriggerSet, hits: int, classes: int = 10) -> Query:
    """A suspect that gives the first `hits` triggers their label and all others a wrong one, each image by itself."""
    answers = {image.numpy().tobytes(): int(label) for image, label in zip(mark.images, mark.labels, strict=True)}
    wrong = {image.numpy().tobytes() for image in mark.images[hits:]}

    def query(images: Tensor) -> Tensor:
        pixels = [image.numpy().tobytes() for image in images.mul(255).round().to(torch.uint8)]
        labels = [(answers[p] + (p in wrong)) % classes for p in pixels]
        return nn.functional.one_hot(torch.tensor(labels), classes).float()

    return query


def changed(query: Query, change: Callable[[Tensor], object]) -> Query:
    """`query` with its scores passed through `change`, which may break the promise of a query."""
    return lambda images: change(query(images))  # type: ignore[return-value]


# ----------------------------------------------------------------------------------------------- decisions


@pytest.mark.parametrize("hits", range(0, 41, 4))
def test_the_p_value_is_the_exact_binomial_tail(hits: int) -> None:
    verdict = TriggerTest()(answering(MARK, hits), MARK)
    assert verdict.statistic == hits
    assert verdict.n == 40
    assert verdict.log10_p == log_binomial_tail(hits, 40, 0.1) / math.log(10)
    assert verdict.accepted is (hits >= critical_count(40, 0.1, 1e-6))


def test_one_match_less_than_the_critical_count_is_rejected() -> None:
    critical = critical_count(40, 0.1, 1e-6)
    assert TriggerTest()(answering(MARK, critical), MARK).accepted is True
    assert TriggerTest()(answering(MARK, critical - 1), MARK).accepted is False


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.sampled_from([0.2, 0.01, 1e-6, 1e-30]), st.sampled_from([0, 20, 64]))
def test_decision_and_critical_count_and_p_value_agree(hits: int, alpha: float, bits: int) -> None:
    verdict = TriggerTest(alpha=alpha, grinding_bits=bits)(answering(MARK, hits), MARK)
    assert verdict.log10_p is not None
    critical = verdict.details["critical_count"]
    assert verdict.accepted is (hits >= critical if critical <= 40 else None)
    assert bool(verdict.accepted is True) == (verdict.log10_p <= math.log10(alpha))


def test_grinding_is_paid_for() -> None:
    free, paid = (TriggerTest(grinding_bits=bits)(answering(MARK, 18), MARK) for bits in (0, GRINDING_BITS))
    assert free.accepted is True
    assert paid.accepted is False
    assert free.log10_p is not None
    assert paid.log10_p == min(0.0, free.log10_p + 64 * math.log10(2))
    assert paid.details["log10_p_before_grinding"] == free.log10_p
    assert paid.details["critical_count"] > free.details["critical_count"]


def test_details_are_json_and_say_what_the_decision_rests_on() -> None:
    verdict = TriggerTest()(answering(MARK, 38), MARK)
    assert json.loads(verdict.to_json())["details"] == {
        "matches": 38,
        "share": 0.95,
        "clopper_pearson": pytest.approx([0.8308, 0.9939], abs=1e-4),
        "critical_count": critical_count(40, 0.1, 1e-6),
        "grinding_bits": 0,
        "K": 10,
        "asr": 0.95,
        "scores": True,
        "unanswered": 0,
        "log10_p_before_grinding": verdict.log10_p,
        "classes_told": 1,
        "decimals": 0,
    }
    assert "38 of 40" in verdict.reason


def test_too_few_triggers_to_convict_are_inconclusive_whatever_matched() -> None:
    mark = Noise(count=5).make(KEY, (1, 4, 4), 10)
    for hits in (0, 5):
        verdict = TriggerTest()(answering(mark, hits), mark)
        assert verdict.accepted is None
        assert "too few" in verdict.reason
    assert TriggerTest(alpha=1e-4)(answering(mark, 5), mark).accepted is True


# ----------------------------------------------------------------------------------------------- nulls


@pytest.mark.parametrize("hits", range(0, 41, 5))
def test_a_null_without_a_basis_never_accepts(hits: int) -> None:
    verdict = TriggerTest()(answering(ONE_CLASS, hits), ONE_CLASS)
    few = hits < critical_count(40, 0.1, 1e-6)
    assert verdict.accepted is (False if few else None)
    assert verdict.log10_p is None
    assert ("proves nothing" in verdict.reason) is not few


def test_a_constant_predictor_matches_a_one_class_mark_entirely_and_is_not_convicted() -> None:
    """Why that null has no basis: this suspect has never seen the key."""
    verdict = TriggerTest()(lambda images: torch.full((len(images),), 3), ONE_CLASS)
    assert verdict.statistic == 40
    assert verdict.accepted is None


def test_a_few_triggers_without_a_null_are_still_never_accepted() -> None:
    mark = Noise(count=3, labels=OneClass(3)).make(KEY, (1, 4, 4), 10)
    assert TriggerTest()(answering(mark, 3), mark).accepted is None
    assert TriggerTest()(answering(mark, 2), mark).accepted is False


def test_a_calibrated_null_may_accept_and_says_that_it_is_calibrated() -> None:
    verdict = TriggerTest()(answering(CALIBRATED, 40), CALIBRATED)
    assert verdict.accepted is True
    assert verdict.log10_p == pytest.approx(40 * math.log10(0.2))
    assert "calibrated" in verdict.reason
    assert "calibrated" not in TriggerTest()(answering(MARK, 40), MARK).reason


# ----------------------------------------------------------------------------------------------- answers


def test_labels_alone_give_the_same_verdict_as_scores() -> None:
    scores = answering(MARK, 30)
    for dtype in (torch.int64, torch.int32, torch.uint8):
        labels = changed(scores, lambda s, dtype=dtype: s.argmax(1).to(dtype))  # type: ignore[misc]
        by_labels, by_scores = TriggerTest()(labels, MARK).to_dict(), TriggerTest()(scores, MARK).to_dict()
        told = [[each["details"].pop(name) for name in ("scores", "decimals")] for each in (by_labels, by_scores)]
        assert told == [[False, None], [True, 0]]
        assert by_labels == by_scores


@pytest.mark.parametrize("change", [
    torch.Tensor.half,
    torch.Tensor.bfloat16,
    torch.Tensor.double,
    torch.Tensor.bool,
    torch.Tensor.int,
    lambda s: s.requires_grad_(),
    lambda s: s.log(),
    lambda s: torch.cat([s, torch.full((len(s), 5), -1.0)], dim=1),
])  # fmt: skip
def test_the_form_of_the_scores_changes_nothing(change: Callable[[Tensor], Tensor]) -> None:
    """Precisions, votes, one-hot, log-probabilities with -inf among them, and further classes that never win."""
    scores = answering(MARK, 30)
    verdicts = [TriggerTest()(suspect, MARK).to_dict() for suspect in (changed(scores, change), scores)]
    told = [verdict["details"].pop("classes_told") for verdict in verdicts]
    assert told in ([1, 1], [10, 1]), "of logits every class has a share, of a vote only one"
    assert verdicts[0] == verdicts[1]


def test_a_label_that_is_no_class_is_no_answer() -> None:
    for label in (-1, 10):
        verdict = TriggerTest()(lambda images, label=label: torch.full((len(images),), label), MARK)  # type: ignore[misc]
        assert verdict.details["unanswered"] == 40
        assert "no class, and say nothing" in verdict.reason


@pytest.mark.parametrize("answer", [lambda n: torch.zeros(1, 1).expand(n, 10**12), lambda n: torch.zeros(n, 1 << 18)])
def test_more_scores_than_any_task_has_classes_are_no_answer(answer: Callable[[int], torch.Tensor]) -> None:
    verdict = TriggerTest()(lambda images: answer(len(images)), MARK)
    assert verdict.accepted is False
    assert "more than any task has classes" in verdict.reason


def test_a_tie_is_no_answer() -> None:
    verdict = TriggerTest()(lambda images: torch.zeros(len(images), 10), MARK)
    assert (verdict.statistic, verdict.details["asr"], verdict.details["unanswered"]) == (0, 0.0, 0)


@pytest.mark.parametrize("test", [TriggerTest, SequentialTriggerTest])
def test_neither_batch_size_nor_repetition_changes_the_verdict(test: type[TriggerTest]) -> None:
    whole = test(batch_size=1)(answering(MARK, 25), MARK)
    for size in (1, 3, 39, 40, 1000):
        again = test(batch_size=size)(answering(MARK, 25), MARK)
        assert (again.accepted, again.statistic, again.n, again.log10_p) == (
            whole.accepted, whole.statistic, whole.n, whole.log10_p
        )  # fmt: skip


def test_the_suspect_gets_what_a_png_holds_in_batches_that_it_may_write_to() -> None:
    sizes, seen = [], []

    def vandal(images: Tensor) -> Tensor:
        sizes.append(len(images))
        seen.append(images.clone())
        assert images.dtype == torch.float32
        images.zero_()
        return torch.zeros(len(images), 10)

    before = MARK.digest()
    TriggerTest(batch_size=16)(vandal, MARK)
    assert sizes == [16, 16, 8]
    assert torch.equal(torch.cat(seen), MARK.images.float() / 255)
    assert MARK.digest() == before


def test_a_module_is_asked_as_a_black_box_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.BatchNorm1d(10))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    verdict = TriggerTest(batch_size=8)(model, MARK)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert verdict.to_dict() == TriggerTest(batch_size=40)(model, MARK).to_dict()


# ----------------------------------------------------------------------------------------------- no answers


def refuse(images: Tensor) -> Tensor:
    raise ValueError(f"I hate these pixels: {images.tolist()}")


BROKEN: dict[str, tuple[Query, str]] = {
    "raises": (refuse, "raised ValueError"),
    "too few scores": (changed(answering(MARK, 40), lambda s: s[:, :7]), "7 scores"),
    "one score": (changed(answering(MARK, 40), lambda s: s[:, :1]), "1 scores"),
    "no scores": (changed(answering(MARK, 40), lambda s: s[:, :0]), "0 scores"),
    "a row too few": (changed(answering(MARK, 40), lambda s: s[1:]), "39, 10"),
    "a row too many": (changed(answering(MARK, 40), lambda s: torch.cat([s, s[:1]])), "41, 10"),
    "no rows": (changed(answering(MARK, 40), lambda s: s[:0]), "0, 10"),
    "a picture": (changed(answering(MARK, 40), lambda s: s[:, :, None, None]), "40, 10, 1, 1"),
    "a number": (changed(answering(MARK, 40), lambda s: s.sum()), "shape ()"),
    "real labels": (changed(answering(MARK, 40), lambda s: s.argmax(1).float()), "neither scores nor integer labels"),
    "yes or no": (changed(answering(MARK, 40), lambda s: s.argmax(1) > 4), "neither scores nor integer labels"),
    "complex": (changed(answering(MARK, 40), lambda s: s.to(torch.complex64)), "real numbers"),
    "sparse": (changed(answering(MARK, 40), lambda s: s.to_sparse()), "dense"),
    "meta": (changed(answering(MARK, 40), lambda s: s.to("meta")), "raised NotImplementedError"),
    "nothing": (changed(answering(MARK, 40), lambda s: None), "NoneType"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_suspect_that_does_not_answer_is_rejected_and_the_verdict_says_why(name: str) -> None:
    suspect, says = BROKEN[name]
    verdict = TriggerTest()(suspect, MARK)
    assert verdict.accepted is False
    assert (verdict.statistic, verdict.n, verdict.log10_p) == (0, 40, 0.0)
    assert says in verdict.reason
    json.loads(verdict.to_json())


@pytest.mark.parametrize("name", BROKEN)
def test_a_suspect_that_does_not_answer_is_rejected_sequentially_too(name: str) -> None:
    verdict = SequentialTriggerTest(batch_size=40)(BROKEN[name][0], MARK)
    assert verdict.accepted is False
    assert BROKEN[name][1] in verdict.reason


def test_a_raised_error_is_named_and_its_text_with_the_triggers_in_it_is_not_repeated() -> None:
    verdict = TriggerTest()(refuse, MARK)
    assert verdict.details["error"] == "ValueError"
    assert "pixels" not in verdict.to_json()


def test_a_suspect_without_answers_on_a_mark_without_null_is_rejected() -> None:
    verdict = TriggerTest()(refuse, ONE_CLASS)
    assert verdict.accepted is False
    assert verdict.log10_p is None


def test_a_suspect_that_exits_ends_nothing() -> None:
    for way_out in (SystemExit, CancelledError, GeneratorExit):

        def leave(images: Tensor, way_out: type[BaseException] = way_out) -> Tensor:
            raise way_out

        for test in (TriggerTest(), SequentialTriggerTest()):
            verdict = test(leave, MARK)
            assert (verdict.accepted, verdict.details["unanswered"]) == (False, verdict.n)
            assert f"raised {way_out.__name__}" in verdict.reason


@pytest.mark.parametrize("test", [TriggerTest(), TriggerTest(batch_size=7), SequentialTriggerTest(alpha=1e-9)])
def test_an_error_on_one_image_costs_that_image_alone(test: TriggerTest | SequentialTriggerTest) -> None:
    scores, odd = answering(MARK, 40), MARK.images[9].float() / 255

    def touchy(images: Tensor) -> Tensor:
        if any(torch.equal(image, odd) for image in images):
            raise ValueError
        return scores(images)

    verdict = test(touchy, MARK)
    assert verdict.accepted is True
    assert verdict.details["unanswered"] == 1
    assert verdict.statistic == verdict.n - 1
    assert "raised ValueError" in verdict.reason


def test_a_suspect_that_takes_one_image_at_a_time_is_asked_so() -> None:
    scores = answering(MARK, 40)
    verdict = TriggerTest()(lambda images: scores(images)[: len(images) if len(images) == 1 else 0], MARK)
    assert (verdict.accepted, verdict.statistic, verdict.details["unanswered"]) == (True, 40, 0)


@pytest.mark.parametrize("form", [Tensor.numpy, Tensor.tolist, lambda scores: tuple(scores.tolist())])
def test_arrays_and_lists_of_numbers_are_answers(form: Callable[[Tensor], Any]) -> None:
    scores = answering(MARK, 40)
    for answer in (lambda images: form(scores(images)), lambda images: form(scores(images).argmax(1))):
        assert TriggerTest()(answer, MARK).accepted is True


@pytest.mark.parametrize(
    "error", [ConnectionError, TimeoutError, BadStatusLine, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt]
)
def test_what_says_nothing_about_the_model_gives_no_verdict(error: type[BaseException]) -> None:
    def unreachable(images: Tensor) -> Tensor:
        raise error("?")

    for test in (TriggerTest(), SequentialTriggerTest()):
        with pytest.raises(error):
            test(unreachable, MARK)


def test_a_machine_without_enough_memory_gives_no_verdict() -> None:
    for test in (TriggerTest(), SequentialTriggerTest()):
        with pytest.raises(MemoryError, match="smaller batches"):
            test(lambda images: torch.empty(2**60), MARK)


def spoilt(rows: int, value: float, column: int | slice) -> Query:
    scores = answering(MARK, 40)

    def query(images: Tensor) -> Tensor:
        answers = scores(images)
        answers[:rows, column] = value
        return answers

    return query


@pytest.mark.parametrize(
    ("value", "column"), [(math.nan, 0), (math.nan, slice(None)), (math.inf, slice(None)), (-math.inf, slice(None))]
)
def test_rows_that_are_no_answer_match_nothing_and_are_counted(value: float, column: int | slice) -> None:
    partly, wholly = (TriggerTest()(spoilt(rows, value, column), MARK) for rows in (4, 40))
    assert (partly.accepted, partly.statistic, partly.details["unanswered"]) == (True, 36, 4)
    assert (wholly.accepted, wholly.statistic, wholly.details["unanswered"]) == (False, 0, 40)
    assert "40 answers were no finite scores" in wholly.reason


def test_labels_outside_the_classes_match_nothing() -> None:
    for label in (-1, 10, 1 << 40):
        verdict = TriggerTest()(lambda images, label=label: torch.full((len(images),), label), MARK)  # type: ignore[misc]
        assert (verdict.accepted, verdict.statistic) == (False, 0)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(38, 42),
    rest=st.sampled_from([(), (10,), (11,), (3,), (10, 1)]),
    value=st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, -7.0]),
    dtype=st.sampled_from([torch.float32, torch.int64, torch.float16, torch.bool, torch.complex64]),
)
def test_no_constant_answer_of_any_form_is_a_crash(
    rows: int, rest: tuple[int, ...], value: float, dtype: torch.dtype
) -> None:
    answer = torch.full((rows, *rest), value).to(dtype)
    verdict: Verdict = TriggerTest()(lambda images: answer, MARK)
    assert verdict.accepted is False
    json.loads(verdict.to_json())


# ----------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("test", [TriggerTest, SequentialTriggerTest])
@pytest.mark.parametrize(
    "settings",
    [{"alpha": 0.0}, {"alpha": 1.0}, {"alpha": math.nan}, {"grinding_bits": -1}, {"batch_size": 0}],
)
def test_settings_that_cannot_be_are_bad_input(test: type[TriggerTest], settings: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="expected"):
        test(**settings)  # type: ignore[arg-type]


class _Agreeable(torch.Tensor):
    """A tensor that says yes to every comparison."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return torch.ones_like(result) if func in (torch.eq, torch.Tensor.eq, torch.Tensor.__eq__) else result


def test_a_suspect_cannot_redefine_equality_or_crash_the_judge_with_odd_tensors() -> None:
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4).contiguous()
    labels = 1 + torch.arange(40) % 9
    mark = TriggerSet(images, labels, 10, Uniform().null(10), {"mint": "noise", "labels": {"policy": "uniform"}})
    zeros = torch.zeros(40, dtype=torch.int64)
    assert TriggerTest()(lambda _: zeros.as_subclass(_Agreeable), mark).accepted is False
    assert TriggerTest()(lambda _: torch.rand(40, 10).to_sparse(), mark).accepted is False
    assert TriggerTest()(lambda _: torch.empty(40, 10, device="meta"), mark).accepted is False
