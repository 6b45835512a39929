"""The test of a projection on a network's weights: which bits its signs show, and how likely by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from earmark.core import Query, Verdict
from earmark.errors import CannotCarry
from earmark.marks import Projection
from earmark.verify.answers import NoAnswer, foreign
from earmark.verify.bits import count_bits, unread_bits
from earmark.verify.triggers import check_settings

__all__ = ["ProjectionTest"]


@final
@dataclass(frozen=True)
class ProjectionTest:
    """Read the bits from the mean filter of the mark's layer and test the number of right ones exactly.

    With k of T bits right, p = min(1, 2^g P(X >= k)), X ~ Binomial(T, 1/2), where g are the grinding bits: for a
    network that has nothing to do with the key, its signs are T guesses of bits that the key drew after the projection
    was fixed. A projection of 0 is a wrong bit.

    As in the paper, any projection that is presented is read: one that was fitted to the network (Fan et al. 2021,
    Section 3.2.1; `attacks.ForgedProjection`) passes this test as well as the owner's. That the key mints it is the
    judge's to check.

    Who flips or reorders channels at no cost to the network's answers changes the mean filter, and the bits are gone:
    a rejection does not prove innocence.

    The verdict accepts where p <= alpha; a suspect without the layer, or one that only answers queries, is rejected.
    `details` holds `matches`, `unanswered` (all bits where none can be read), `share`, `exact` (whether all bits are
    right), `hamming`, `critical_count`, `grinding_bits` and `log10_p_before_grinding`.

    Attributes:
        alpha: the error probability to keep to.
        grinding_bits: g; 0 for an owner, `stats.GRINDING_BITS` for a judge.

    Raises:
        BadInput: alpha outside (0, 1) or negative bits.
    """

    alpha: float = 1e-6
    grinding_bits: int = 0

    def __post_init__(self) -> None:
        check_settings(self.alpha, self.grinding_bits, 1)

    def __call__(self, suspect: Query | nn.Module, mark: Projection) -> Verdict:
        if not isinstance(suspect, nn.Module):
            return self._unread(mark, "a projection is read from weights, and this suspect only answers queries")
        try:
            with foreign(CannotCarry):
                shown = mark.shown(suspect)
        except (CannotCarry, NoAnswer) as error:
            return self._unread(mark, str(error))
        return self.judged(shown, mark)

    def judged(self, shown: torch.Tensor, mark: Projection) -> Verdict:
        """The verdict on the bits (T,) that a suspect shows, 0 for none."""
        count = count_bits(shown, mark, self.alpha, self.grinding_bits)
        accepted, reason = count.ruled("mint more bits")
        return Verdict(accepted, count.matches, count.n, mark.null, count.log10_p, self.alpha, reason, count.details)

    def _unread(self, mark: Projection, why: str) -> Verdict:
        return unread_bits(mark, why, self.alpha, self.grinding_bits)
