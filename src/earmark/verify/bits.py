"""What tests of bits share: right ones are counted, and the count is tested against guesses."""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Protocol, final

from torch import Tensor

from earmark import stats
from earmark.core import Null, Verdict

__all__ = ["Count", "count_bits", "unread_bits"]


class Bits(Sized, Protocol):
    """A mark of bits."""

    @property
    def bits(self) -> Tensor: ...
    @property
    def null(self) -> Null: ...


@final
@dataclass(frozen=True)
class Count:
    """The right bits of a reading against Binomial(n, 1/2).

    Attributes:
        matches: k, how many are right.
        n: of how many.
        critical: the least k that alpha takes, more than n where none does.
        log10_p: of min(1, 2^g P(X >= k)).
        alpha: the error probability to keep to.
        details: what both tests tell of a reading.
    """

    matches: int
    n: int
    critical: int
    log10_p: float
    alpha: float
    details: dict[str, Any]

    @property
    def enough(self) -> bool:
        """Whether p <= alpha."""
        return stats.accepts(self.log10_p, self.alpha)

    def ruled(self, more: str) -> tuple[bool | None, str]:
        """The decision with its reason; `more` says what to do where no count of so few bits would be enough."""
        if self.critical > self.n:
            return None, f"{self.n} bits are too few: even {self.n} right ones would not be enough; {more}"
        word = "enough" if self.enough else "needed"
        return self.enough, f"{self.matches} of {self.n} bits are the owner's where {self.critical} are {word}"


def count_bits(shown: Tensor, mark: Bits, alpha: float, grinding_bits: int, readings: int = 1) -> Count:
    """The count of the bits (n,) that a suspect shows, 0 for none, of a mark whose bits a key drew.

    Args:
        shown: the bits as read.
        mark: with its own bits, as many.
        alpha: the error probability to keep to.
        grinding_bits: g, what p is multiplied for.
        readings: how many times the suspect is read, a power of 2, each for its share of alpha.
    """
    n, matches, bits = len(mark), int((shown == mark.bits).sum()), grinding_bits + round(math.log2(readings))
    raw = stats.log_binomial_tail(matches, n, 0.5) / math.log(10)
    critical = stats.critical_count(n, 0.5, alpha, bits)
    details = {
        "matches": matches,
        "unanswered": 0,
        "share": matches / n,
        "exact": matches == n,
        "hamming": n - matches,
        "critical_count": critical,
        "grinding_bits": grinding_bits,
        "log10_p_before_grinding": raw,
    }
    return Count(matches, n, critical, stats.grind_log10_p(raw, bits), alpha, details)


def unread_bits(mark: Bits, why: str, alpha: float, grinding_bits: int) -> Verdict:
    """The rejecting verdict on a suspect whose bits cannot be read."""
    details = {"matches": 0, "unanswered": len(mark), "grinding_bits": grinding_bits, "error": why}
    return Verdict(False, 0, len(mark), mark.null, 0.0, alpha, f"no bit can be read: {why}", details)
