"""Soundness, measured: what innocent models answer to marks that they have never met, against the exact null.

For any model that was made without the key, matches are Binomial(n, rate) over the keys. Nothing here is assumed of the
models: they may answer alike, be badly trained, or say one class to everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from torch import Tensor, nn

from earmark import stats
from earmark.core import Images
from earmark.errors import BadInput
from earmark.marks import TriggerSet, log_shares
from earmark.training import predict

__all__ = ["Level", "Soundness", "innocent_matches", "soundness_of"]

BATCH = 2_048


def innocent_matches(models: Sequence[nn.Module], marks: Sequence[TriggerSet]) -> Tensor:
    """How many trials of each mark each model matches: int64 (models, marks).

    Each model is asked about the triggers of all marks in one pass, and answers each of them once.

    Raises:
        BadInput: no mark, or marks of different tasks.
    """
    if not marks or any((mark.shape, mark.classes) != (marks[0].shape, marks[0].classes) for mark in marks):
        raise BadInput("expected at least one mark, all for images of one shape and one number of classes")
    pixels, labels = torch.cat([mark.images for mark in marks]), torch.cat([mark.labels for mark in marks])
    asked = Images(pixels, labels, marks[0].classes, "triggers")
    sizes = [len(mark) for mark in marks]
    found = torch.zeros(len(models), len(marks), dtype=torch.int64)
    for row, model in enumerate(models):
        shares = log_shares(predict(model, asked, BATCH), marks[0].classes)
        for column, (mark, own) in enumerate(zip(marks, torch.split(shares, sizes), strict=True)):
            found[row, column] = int(mark.trials_matched(own).sum())
    return found


@final
@dataclass(frozen=True)
class Level:
    """One value that p can take.

    Attributes:
        matches: k.
        log10_p: log10 of P(X >= k), the exact probability of a p so small or smaller.
        share: of the tests, those with k matches or more.
        low, high: the 95 % interval of that share; keys are independent, the models under one key are not.
    """

    matches: int
    log10_p: float
    share: float
    low: float
    high: float


@final
@dataclass(frozen=True)
class Soundness:
    """What came of testing innocent models for marks of one kind.

    Attributes:
        models, keys, n, rate: how many, the trials of a mark, and the null's rate.
        levels: every value of p that occurred, from the largest to the smallest.
        least_log10_p: the smallest p of all.
        false_accepts: tests with p <= alpha, without any allowance for keys that were tried.
        judged_accepts: those that a judge would accept, who multiplies p by 2^64.
        expected: how many tests with p <= alpha an exact null lets expect at most.
        alpha: the error probability.
        log10_worst_model: log10 of the least p of any one model, of an exact two-sided test that its matches over all
            keys are Binomial(keys n, rate), times the number of models (Bonferroni).
    """

    models: int
    keys: int
    n: int
    rate: float
    levels: tuple[Level, ...]
    least_log10_p: float
    false_accepts: int
    judged_accepts: int
    expected: float
    alpha: float
    log10_worst_model: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {**vars(self), "levels": [vars(level) for level in self.levels]}


def soundness_of(matches: Tensor, n: int, rate: float, alpha: float = 1e-6) -> Soundness:
    """What `innocent_matches` found, against Binomial(n, rate).

    >>> drawn = torch.distributions.Binomial(100, torch.tensor(0.1)).sample((50, 40)).long()
    >>> found = soundness_of(drawn, 100, 0.1)
    >>> found.false_accepts, found.log10_worst_model > -4
    (0, True)

    Raises:
        BadInput: no matches, or a rate or alpha out of range.
    """
    if matches.ndim != 2 or not matches.numel():
        raise BadInput(f"expected matches (models, keys), at least one of each, got {tuple(matches.shape)}")
    counts = matches.numpy()
    exact = {k: stats.log_binomial_tail(k, n, rate) / math.log(10) for k in range(int(counts.max()) + 1)}
    levels = tuple(_level(counts, k, exact[k]) for k in range(int(counts.min()), int(counts.max()) + 1))
    critical, judged = (stats.critical_count(n, rate, alpha, bits) for bits in (0, stats.GRINDING_BITS))
    tail = math.exp(stats.log_binomial_tail(critical, n, rate)) if critical <= n else 0.0
    models, keys = counts.shape
    return Soundness(
        models=models,
        keys=keys,
        n=n,
        rate=rate,
        levels=levels,
        least_log10_p=exact[int(counts.max())],
        false_accepts=int((counts >= critical).sum()),
        judged_accepts=int((counts >= judged).sum()),
        expected=tail * counts.size,
        alpha=alpha,
        log10_worst_model=_worst_model(counts, n, rate),
    )


def _level(counts: NDArray[np.int64], k: int, log10_p: float) -> Level:
    by_key = (counts >= k).mean(0)
    share = float(by_key.mean())
    spread = 1.96 * float(by_key.std(ddof=1)) / math.sqrt(len(by_key)) if len(by_key) > 1 else 0.0
    return Level(k, log10_p, share, max(0.0, share - spread), min(1.0, share + spread))


def _worst_model(counts: NDArray[np.int64], n: int, rate: float) -> float:
    trials = n * counts.shape[1]
    least = min(float(scipy_stats.binomtest(int(sum_), trials, rate).pvalue) for sum_ in counts.sum(1))
    return min(0.0, math.log10(max(least, 1e-300) * len(counts)))
