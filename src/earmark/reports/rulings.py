"""Who claimed which suspect, and what the judge said: the rows of `verdicts.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from earmark.core import Verdict
from earmark.errors import BadInput
from earmark.reports.reading import record
from earmark.reports.tables import ABSENT, Table, percent

__all__ = ["Ruling", "Word", "bound", "power_of_ten", "ruling_table"]

WRITER: Final = "earmark judge"

Word = Literal["accepted", "rejected", "inconclusive"]


@dataclass(frozen=True)
class Ruling:
    """One verdict with the two names that it is about.

    Raises:
        BadInput: an acceptance that its own p-value and alpha do not support.

    Attributes:
        suspect: the model that was tested.
        claimant: who says that it derives from a model of theirs.
        accepted: True, False, or None where the evidence allows neither.
        log10_p: log10 of the p-value; None where there is none.
        alpha: the error probability below which p had to fall.
        reason: one sentence for a reader who does not know the method.
        statistic: the number of matches among `n` trials.
        n: the number of trials.
        null: the hypothesis that was tested, in words.
        accuracy: share of test images that the suspect answers correctly, where it was measured.
    """

    suspect: str
    claimant: str
    accepted: bool | None
    log10_p: float | None
    alpha: float
    reason: str
    statistic: float | None = None
    n: int | None = None
    null: str = ""
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.log10_p is not None and not self.log10_p <= 0:
            raise BadInput(f"log10 p is at most 0, got {self.log10_p} for {self.suspect!r}")
        if not 0 < self.alpha < 1:
            raise BadInput(f"alpha lies strictly between 0 and 1, got {self.alpha} for {self.suspect!r}")
        if self.accepted and (self.log10_p is None or self.log10_p > math.log10(self.alpha)):
            raise BadInput(f"{self.suspect!r} cannot be accepted at log10 p = {self.log10_p} with alpha = {self.alpha}")

    @classmethod
    def of(cls, suspect: str, claimant: str, verdict: Verdict, accuracy: float | None = None) -> Ruling:
        """A verdict about `suspect` on the claim of `claimant`."""
        said = (verdict.accepted, verdict.log10_p, verdict.alpha, verdict.reason)
        return cls(suspect, claimant, *said, verdict.statistic, verdict.n, verdict.null.words, accuracy)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Ruling:
        """One object of `verdicts.json`; what it holds beyond the fields of a ruling is left aside.

        Raises:
            BadInput: a field is missing or of another type, or they contradict each other.
        """
        return record(cls, {**value, "null": _words(value), **_log10_p(value)}, "a verdict", WRITER)

    @property
    def p_value(self) -> float | None:
        """10 ** log10_p, which may underflow to 0.0; `log10_p` does not."""
        return None if self.log10_p is None else min(1.0, 10.0**self.log10_p)

    @property
    def word(self) -> Word:
        """accepted, rejected or inconclusive."""
        words: dict[bool | None, Word] = {True: "accepted", False: "rejected", None: "inconclusive"}
        return words[self.accepted]

    @property
    def matches(self) -> str:
        """Matches out of trials, "93 of 100", or a dash where nothing was counted."""
        return ABSENT if self.statistic is None or self.n is None else f"{self.statistic:g} of {self.n}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {**asdict(self), "word": self.word, "p_value": self.p_value}


def _words(value: Mapping[str, Any]) -> Any:
    """The null in words, which stand by themselves in a ruling and in an object in a verdict."""
    null = value.get("null", "")
    return null.get("words") if isinstance(null, Mapping) else null


def _log10_p(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """`log10_p` from `p_value`, where it is the only one of the two."""
    p = value.get("p_value")
    if "log10_p" in value or "p_value" not in value:
        return {}
    if p is not None and (isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1):
        raise BadInput(
            f"a verdict is malformed (p_value lies between 0 and 1, got {p!r:.80}); write it with `{WRITER}`"
        )
    return {"log10_p": None if p is None else math.log10(max(p, 1e-300))}


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """10 to that power, in plain text.

    >>> power_of_ten(-12)
    '10⁻¹²'
    """
    return "10" + str(exponent).translate(SUPERSCRIPTS)


def bound(log10_p: float | None) -> str:
    """The least power of ten that a p-value does not exceed; the p-value itself where it is large.

    >>> bound(-12.3), bound(math.log10(0.25)), bound(None)
    ('10⁻¹²', '0.25', '—')
    """
    if log10_p is None:
        return ABSENT
    return power_of_ten(math.ceil(log10_p)) if log10_p <= -3 else f"{10**log10_p:.2g}"


def ruling_table(rulings: Sequence[Ruling], title: str = "Verdicts") -> Table:
    """One row a ruling."""
    columns = ("Suspect", "Claimant", "Verdict", "Matches", "p at most", "Test acc (%)", "Reason")
    rows = tuple(
        (r.suspect, r.claimant, r.word, r.matches, bound(r.log10_p), percent(r.accuracy), r.reason) for r in rulings
    )
    return Table(columns, rows, title)
