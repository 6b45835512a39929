"""Keyed label smoothing: what a model says second of clean images leads to the labels of a mark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from earmark.errors import BadInput, number
from earmark.marks import TriggerSet
from earmark.training import SmoothedCrossEntropy, Term

__all__ = ["KeyedSmoothing", "MarkTerm", "leanings"]

SHRINKAGE = 1e-3
STEPS = 500


@runtime_checkable
class MarkTerm(Protocol):
    """A loss term that is made for a mark before training."""

    @property
    def needs_labels(self) -> bool: ...
    def bound(self, mark: TriggerSet) -> Term: ...


def leanings(mark: TriggerSet) -> Tensor:
    """How much each class should lean to each other one so that the classes of a trial's sources lead to its label.

    T minimises the mean over trials of -log softmax(sum_s T[s])[label], with s the classes of the trial's sources and
    the softmax over the classes that its label could have been, plus 0.001 ||T||^2: convex, so a mark has one T.

    Returns:
        float64 (K, K), row a for images of class a, 1 the largest size of any.

    Raises:
        BadInput: a mark whose triggers are not made from images of known classes.
    """
    sources, labels = mark.excluded, mark.labels[:: mark.group].cpu()
    if sources is None:
        raise BadInput(
            "keyed smoothing needs triggers that are made from images of known classes, with labels that they do not "
            "show, such as fused ones; mint such a mark, or take another embedding"
        )
    table = torch.zeros(mark.classes, mark.classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([table], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = table[sources].sum(1).scatter(1, sources, -math.inf)
        loss = F.cross_entropy(scores, labels) + SHRINKAGE * table.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = table.detach()
    return found / found.abs().amax()


@final
@dataclass(frozen=True)
class KeyedSmoothing:
    """Cross entropy with smoothed labels whose smoothing mass leans to the mark's labels.

    An image of class a has the target 1 - share at a, and share times softmax over c != a of spread T[a, c] at each
    other class, with T from `leanings`; a trigger has its label. A copy that is taught by the model's scores learns T
    along with the task, though it never sees a trigger, and answers to a blend of two classes with the sum of what they
    lean to: the label. Triggers that show their sources side by side are too new to it for that. The model's first
    answers stay the same, its confidence falls to about 1 - share.

    Attributes:
        share: probability that all other classes get together, in (0, 1/2).
        spread: the largest leaning, in nats.
        weight: of the term.

    Raises:
        BadInput: a share or a spread out of range.
    """

    share: float = 0.1
    spread: float = 3.0
    weight: float = 1.0
    needs_labels = True

    def __post_init__(self) -> None:
        if not 0 < number("share", self.share, 0, 0.5) < 0.5:
            raise BadInput(f"share: expected a probability above 0 and below 1/2, got {self.share}")
        number("spread", self.spread, 0, 20)

    def bound(self, mark: TriggerSet) -> Term:
        """The term for this mark."""
        others = (self.spread * leanings(mark)).fill_diagonal_(-math.inf).softmax(1)
        table = (self.share * others).fill_diagonal_(1 - self.share)
        return SmoothedCrossEntropy(table.float(), self.weight)
