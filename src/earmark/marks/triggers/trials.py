"""What a suspect's answer to a trial is, where a trial may be several images that share one keyed label."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["log_shares", "trial_answers"]

SLACK = 0.05
"""By how much the probabilities of a suspect that rounds them may miss a sum of 1."""
EXACT = 1 << 53
"""Up to here float64 tells whole numbers apart."""


def log_shares(answers: Tensor, classes: int) -> Tensor:
    """The log-probabilities of the K classes, float64 (n, K), that answers of any of the usual forms stand for.

    Rows that are non-negative and add up to 1 are probabilities, of which the logarithm is taken; other scores are
    logits, which go through a log-softmax; a label is a probability of 1. Classes beyond the K of the task count for
    the sum, and are then left out.

    Args:
        answers: scores (n, K or more) of any real type, or labels (n,) of any integer type.
        classes: K.

    Returns:
        NaN in all of a row that is no answer: one with a NaN, or whose largest score is infinite; -inf in all of a row
        whose label is none of the K classes.

    >>> log_shares(torch.tensor([[0.0, 1.0], [3.0, 3.0]]), 2).exp()
    tensor([[0.0000, 1.0000],
            [0.5000, 0.5000]], dtype=torch.float64)
    """
    if answers.ndim == 1:
        hit = answers.to(torch.int64)[:, None] == torch.arange(classes)
        return torch.where(hit, 0.0, -math.inf).to(torch.float64)
    scores = _as_floats(answers)
    usable = ~scores.isnan().any(1) & scores.amax(1).isfinite()
    scores = torch.where(usable[:, None], scores, 0.0)
    distributed = (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < SLACK)
    shares = torch.where(distributed[:, None], scores.clamp_min(0).log(), torch.log_softmax(scores, 1))
    return torch.where(usable[:, None], shares, math.nan)[:, :classes]


def _as_floats(scores: Tensor) -> Tensor:
    """float64; of whole numbers that it cannot tell apart, their distance to the largest of the row."""
    if scores.dtype != torch.int64 or bool((scores.abs() <= EXACT).all()):
        return scores.to(torch.float64)
    most = scores.amax(1, keepdim=True)
    return (torch.maximum(scores, most.clamp_min(-(1 << 62)) - EXACT) - most).to(torch.float64)


def trial_answers(shares: Tensor, excluded: Tensor | None = None) -> Tensor:
    """One label for each trial, int64 (r,): the class that most of its images put first, -1 where there is none.

    Each image has one vote, for the class that has the largest share among those that the key could have drawn; an
    image where two share that place has none. Between classes with equally many votes the shares decide, added up over
    the images, each image's divided by their sum over the classes that the key could have drawn. The rest are ties, and
    no answer: all of them where a suspect gives labels alone. Whole votes first, because a suspect that may choose how
    sure it sounds would otherwise let its doubtful images outvote the others.

    Nothing here depends on the trial's own label, so an innocent suspect has one guess for each trial, among as many
    classes as the key had.

    Args:
        shares: log-probabilities (r, g, K), as `log_shares` makes them.
        excluded: int64 (r, m), classes that the label of a trial cannot be; None where it can be any.
    """
    if excluded is not None:
        shares = shares.scatter(2, excluded[:, None, :].expand(-1, shares.shape[1], -1), -math.inf)
    parts = torch.softmax(shares, 2).nan_to_num_(nan=0.0)
    votes = _alone(parts).sum(1)
    pooled = parts.sum(1).masked_fill_(votes < votes.amax(1, keepdim=True), 0.0)
    first = _alone(pooled)
    return torch.where(first.any(1), first.int().argmax(1), -1)


def _alone(parts: Tensor) -> Tensor:
    """Where along the last dimension the largest value stands, if it is above 0 and nothing equals it: bool."""
    most = parts.amax(-1, keepdim=True)
    top = (parts == most) & (most > 0)
    return top & (top.sum(-1, keepdim=True) == 1)
