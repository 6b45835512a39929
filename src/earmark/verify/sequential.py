"""The same question with as few queries as it takes: for suspects that are dear to ask or that might notice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from earmark import stats
from earmark.core import Query, Verdict
from earmark.keys import MarkKey
from earmark.marks import TriggerSet
from earmark.verify.answers import Asking, NoAnswer
from earmark.verify.triggers import TriggerTest, check_settings, hedge, unread

__all__ = ["SequentialTriggerTest"]


@final
@dataclass(frozen=True)
class SequentialTriggerTest:
    """Ask triggers one after the other and stop as soon as the matches are enough, or no longer can be.

    After each trigger p = min(1, 2^g / max e), with e the e-value of `stats.log_e_value` against the mark's null rate
    and g the grinding bits. By Ville's inequality an innocent suspect has p <= alpha at any time with probability at
    most alpha, so stopping early costs no validity; it costs some power, since this p is larger than the exact one of
    `TriggerTest` on the same matches. For ten classes and alpha = 1e-6, seven matches of seven are enough. The test
    gives up when even matches on all that is left would not be enough.

    The verdict's `n` and `statistic` count the trials up to the decision, whatever the batch size. `details` holds
    `matches`, `share`, `queries` (images asked: those of the n trials, and the rest of the last batch), `triggers` (how
    many the mark has), `log10_e_max`, `unanswered`, `grinding_bits`, `K`, and what `TriggerTest` tells of the answers;
    no interval, since stopping by the data would bias it. A mark whose null has no basis gives nothing to stop early
    for and goes to `TriggerTest`. What counts as an answer, and the other outcomes, are as there.

    Attributes:
        alpha: the error probability to keep to.
        grinding_bits: g, as in `TriggerTest`.
        batch_size: triggers per query.
        order: draws the order of the triggers (its stream "query-order"); None asks in the mark's order. Any order that
            does not look at the labels is valid.

    Raises:
        BadInput: alpha outside (0, 1), negative bits or a batch size below 1.
        OSError, http.client.HTTPException, MemoryError, torch.OutOfMemoryError: as the suspect raised them; no verdict
            follows from a lost connection or a full machine.
    """

    alpha: float = 1e-6
    grinding_bits: int = 0
    batch_size: int = 1
    order: MarkKey | None = None

    def __post_init__(self) -> None:
        check_settings(self.alpha, self.grinding_bits, self.batch_size)

    def __call__(self, suspect: Query, mark: TriggerSet) -> Verdict:
        if mark.null.rate is None:
            return TriggerTest(self.alpha, self.grinding_bits, self.batch_size)(suspect, mark)
        evidence = stats.SequentialBinomial(mark.null.rate)
        return self._verdict(mark, evidence, *self._question(suspect, mark, evidence))

    def _question(
        self, suspect: Query, mark: TriggerSet, evidence: stats.SequentialBinomial
    ) -> tuple[dict[str, Any], NoAnswer | None]:
        """Ask until the matter is decided, counting into `evidence`; what else was seen, and the first fault."""
        n = mark.trials
        order = None if self.order is None else self.order.stream("query-order").permutation(n)
        asking, queries, unanswered = Asking(suspect, mark, self.batch_size, order), 0, 0
        batches = iter(asking)
        while self._open(evidence, n):  # with nothing left to ask it is decided, so there is always a next batch
            heard = next(batches)
            queries += heard.images
            for match, silent in zip(heard.matched.tolist(), heard.silent.tolist(), strict=True):
                if self._open(evidence, n):
                    evidence.update(match)
                    unanswered += silent
        seen = {"queries": queries, "unanswered": unanswered, **asking.seen}
        return seen, asking.fault

    def _open(self, evidence: stats.SequentialBinomial, n: int) -> bool:
        """Whether the matches so far are not enough, but still may come to be."""
        return not self._enough(evidence.log_e_max) and self._enough(evidence.attainable(n - evidence.trials))

    def _enough(self, log_e: float) -> bool:
        return stats.accepts(stats.grind_log10_p(-log_e / math.log(10), self.grinding_bits), self.alpha)

    def _verdict(
        self, mark: TriggerSet, evidence: stats.SequentialBinomial, seen: dict[str, Any], fault: NoAnswer | None
    ) -> Verdict:
        accepted: bool | None = self._enough(evidence.log_e_max)
        outcome = "which is enough" if accepted else f"and no answers to the rest of the {mark.trials} would be enough"
        reason = f"{evidence.matches} of the first {evidence.trials} {mark.called} matched, {outcome}{hedge(mark)}"
        if not evidence.trials:
            accepted = None
            reason = f"{mark.trials} {mark.called} are too few: even all matches would not be enough; mint more"
        details = self._details(mark, evidence) | seen
        log10_p = stats.grind_log10_p(evidence.log10_p, self.grinding_bits)
        reason += unread(seen["unanswered"], fault)
        return Verdict(accepted, evidence.matches, evidence.trials, mark.null, log10_p, self.alpha, reason, details)

    def _details(self, mark: TriggerSet, evidence: stats.SequentialBinomial) -> dict[str, Any]:
        return {
            "matches": evidence.matches,
            "share": evidence.matches / max(1, evidence.trials),
            "triggers": len(mark),
            "log10_e_max": evidence.log_e_max / math.log(10),
            "grinding_bits": self.grinding_bits,
            "K": mark.classes,
        }
