"""What a suspect's answer to a trial is, where a trial may be several images that share one keyed label."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["log_shares", "trial_answers"]

SLACK = 1e-3
"""By how much the probabilities of a suspect that rounds them may miss a sum of 1."""


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
    scores = answers.to(torch.float64)
    usable = ~scores.isnan().any(1) & scores.amax(1).isfinite()
    scores = torch.where(usable[:, None], scores, 0.0)
    distributed = (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < SLACK)
    shares = torch.where(distributed[:, None], scores.clamp_min(0).log(), torch.log_softmax(scores, 1))
    return torch.where(usable[:, None], shares, math.nan)[:, :classes]


def trial_answers(shares: Tensor, excluded: Tensor | None = None) -> Tensor:
    """One label for each trial, int64 (r,): the class with the largest share of the trial's images, -1 where none has.

    Of each image, what is looked at is how it shares itself out among the classes that the key could have drawn, so
    that each has one vote, in parts: for r trials of g images the answer is

        argmax over c not excluded of   sum over the g images of   p(c) / sum over c' not excluded of p(c').

    It is the most frequent answer where the suspect gives labels only or is sure of itself. An image whose p is 0 for
    all classes that are left, or which got no answer, has no vote; a tie is no answer. Nothing here depends on the
    trial's own label, so an innocent suspect has one guess for each trial, among as many classes as the key had.

    Args:
        shares: log-probabilities (r, g, K), as `log_shares` makes them.
        excluded: int64 (r, m), classes that the label of a trial cannot be; None where it can be any.
    """
    if excluded is not None:
        shares = shares.scatter(2, excluded[:, None, :].expand(-1, shares.shape[1], -1), -math.inf)
    votes = torch.softmax(shares, 2).nan_to_num(nan=0.0).sum(1)
    most = votes.amax(1)
    single = (most > 0) & ((votes == most[:, None]).sum(1) == 1)
    return torch.where(single, votes.argmax(1), -1)
