"""What a protected network costs, in training and when it answers, over its baseline (Tables 11 and 12)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from earmark.recipes.deepipr.bench import Bench, Protection
from earmark.recipes.rows import Point
from earmark.training import predict

__all__ = ["timed"]

ROUNDS = 3


def timed(bench: Bench, schemes: Sequence[Protection]) -> Mapping[str, Point]:
    """By scheme, times over the baseline of the same norm, each measured in turn with the others.

    A training step's time is the difference between two runs that do nothing different but `effort.timed` more
    steps, divided by these; an answer's is that of all test images. Of `ROUNDS` rounds the fastest counts.
    """

    def measure() -> dict[str, Point]:
        every = [*schemes, *dict.fromkeys(one.baseline for one in schemes)]
        steps = _fastest({one: lambda one=one: _step(bench, one) for one in every})  # type: ignore[misc]
        answers = _fastest({one: lambda one=one: _answer(bench, one) for one in every})  # type: ignore[misc]
        return {
            one.slug: {
                "train_x": steps[one] / steps[one.baseline],
                "infer_x": answers[one] / answers[one.baseline],
            }
            for one in schemes
        }

    return bench.store.value("timed", measure)


def _fastest(timers: Mapping[Protection, Callable[[], float]]) -> dict[Protection, float]:
    rounds = [{one: timer() for one, timer in timers.items()} for _ in range(ROUNDS)]
    return {one: min(each[one] for each in rounds) for one in timers}


def _step(bench: Bench, one: Protection) -> float:
    few, more = (_seconds(lambda steps=steps: bench.trained(one, steps=steps)) for steps in (2, 2 + bench.effort.timed))  # type: ignore[misc]
    return (more - few) / bench.effort.timed


def _answer(bench: Bench, one: Protection) -> float:
    model = bench.network(one)
    return _seconds(lambda: predict(model, bench.data.test))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
