"""The test of a trigger set on a black box: count the matches and compare with what innocence would give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from earmark import stats
from earmark.core import Query, Verdict
from earmark.errors import BadInput, probability
from earmark.marks import TriggerSet
from earmark.verify.answers import Asking, NoAnswer

__all__ = ["TriggerTest", "check_settings", "hedge", "unanswered_verdict", "unread"]

CONFIDENCE = 0.95


@final
@dataclass(frozen=True)
class TriggerTest:
    """Ask a suspect every trigger once and test the number of matches exactly.

    A trial is a trigger, or a group of triggers that share one keyed label. The suspect's answer to it is the class
    that it puts first among those that the key could have drawn, over all images of the group
    (`marks.triggers.trials.trial_answers`): a model that was worn down, or copied from answers, may say the class of a
    source where it still puts the mark's label next. With k matches among n trials,
    p = min(1, 2^g P(X >= k)), X ~ Binomial(n, rate), where `rate` is the mark's null and g the grinding bits; the
    suspect is found to carry the mark where p <= alpha. For an exact null, an innocent suspect is accepted with
    probability at most alpha, whatever it answers and however its answers hang together: the labels it would have to
    guess were drawn from a key that it does not know. That the mark's labels were drawn so is the judge's to check, by
    minting the mark again from the opened key; this test takes the mark's null as it stands.

    The verdict:
        accepted True: p <= alpha, on an exact or calibrated null (the reason says where it is calibrated).
        accepted False: too few matches, or a suspect that raises an error or does not answer as a classifier would.
        accepted None: a null without a basis and more matches than guessing would give; or so few triggers that even n
            matches would not be enough.

    `details` holds `matches`, `share` (k / n), `asr` (the authentication success rate of the papers: the share of
    triggers whose label the suspect puts first of the task's K classes), `clopper_pearson` (95 % interval of the
    suspect's match rate), `critical_count` (the least k with p <= alpha), `grinding_bits`, `K`, `unanswered` (images
    without an answer) and `log10_p_before_grinding`. Of the answers it tells `scores` (whether there were any, or
    labels alone, of which less can be read), `classes_told` (the least number of classes that an answer gave a share
    to: 1 of a label, k of a list of the first k), `decimals` (to how many all scores were rounded, None where they were
    not) and, of suspects in `earmark.suspects`, `suspect` (how it was reached). The batch size changes none of them for
    a suspect that answers each image by itself.

    Attributes:
        alpha: the error probability to keep to.
        grinding_bits: g; 0 for an owner who tests his own mark, `stats.GRINDING_BITS` for a judge, who cannot know how
            many keys a claimant has tried.
        batch_size: triggers per query.

    Raises:
        BadInput: alpha outside (0, 1), negative bits or a batch size below 1.
        OSError, http.client.HTTPException, MemoryError, torch.OutOfMemoryError: as the suspect raised them; no verdict
            follows from a lost connection or a full machine.
    """

    alpha: float = 1e-6
    grinding_bits: int = 0
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_settings(self.alpha, self.grinding_bits, self.batch_size)

    def __call__(self, suspect: Query, mark: TriggerSet) -> Verdict:
        asking = Asking(suspect, mark, self.batch_size)
        matches = unanswered = on_top = 0
        for heard in asking:
            matches += int(heard.matched.sum())
            unanswered += int(heard.silent.sum())
            on_top += heard.on_top
        if asking.fault is not None and unanswered == len(mark):
            verdict = unanswered_verdict(mark, asking.fault, self.alpha, self.grinding_bits)
            return replace(verdict, details={**verdict.details, **asking.seen})
        seen = {"asr": on_top / len(mark), "unanswered": unanswered, **asking.seen}
        if mark.null.rate is None:
            return self._without_null(mark, matches, seen, asking.fault)
        return self._with_null(mark, mark.null.rate, matches, seen, asking.fault)

    def _with_null(
        self, mark: TriggerSet, rate: float, matches: int, seen: Mapping[str, Any], fault: NoAnswer | None
    ) -> Verdict:
        n = mark.trials
        raw = stats.log_binomial_tail(matches, n, rate) / math.log(10)
        log10_p = stats.grind_log10_p(raw, self.grinding_bits)
        critical = stats.critical_count(n, rate, self.alpha, self.grinding_bits)
        details = self._details(mark, matches, critical, seen) | {"log10_p_before_grinding": raw}
        accepted: bool | None = stats.accepts(log10_p, self.alpha)
        outcome = "enough" if accepted else "needed"
        reason = f"{matches} of {n} {mark.called} matched where {critical} are {outcome}{hedge(mark)}"
        if critical > n:
            accepted, reason = None, f"{n} {mark.called} are too few: even {n} matches would not be enough; mint more"
        reason += unread(seen["unanswered"], fault)
        return Verdict(accepted, matches, n, mark.null, log10_p, self.alpha, reason, details)

    def _without_null(self, mark: TriggerSet, matches: int, seen: Mapping[str, Any], fault: NoAnswer | None) -> Verdict:
        n = mark.trials
        guessing = min(n, stats.critical_count(n, 1 / mark.classes, self.alpha))
        details = self._details(mark, matches, None, seen) | {"log10_p_before_grinding": None}
        if matches < guessing:
            accepted, reason = False, f"{matches} of {n} {mark.called} matched, no more than guessing could"
        else:
            accepted = None
            reason = (
                f"{matches} of {n} {mark.called} matched, but this mark's null has no basis, so that proves nothing"
            )
        return Verdict(
            accepted, matches, n, mark.null, None, self.alpha, reason + unread(seen["unanswered"], fault), details
        )

    def _details(self, mark: TriggerSet, matches: int, critical: int | None, seen: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "matches": matches,
            "share": matches / mark.trials,
            "clopper_pearson": list(stats.clopper_pearson(matches, mark.trials, CONFIDENCE)),
            "critical_count": critical,
            "grinding_bits": self.grinding_bits,
            "K": mark.classes,
            **seen,
        }


def check_settings(alpha: float, grinding_bits: int, batch_size: int) -> None:
    """Raise `BadInput` for settings that no trigger test can use."""
    probability("alpha", alpha)
    if not 0 <= grinding_bits < math.inf or batch_size < 1:
        raise BadInput(f"expected grinding bits >= 0 and a batch size >= 1, got {grinding_bits} and {batch_size}")


def hedge(mark: TriggerSet) -> str:
    """What a reason must add where the null is not exact."""
    return " (by a null calibrated on innocent models, not an exact one)" if mark.null.basis == "calibrated" else ""


def unanswered_verdict(mark: TriggerSet, silence: NoAnswer, alpha: float, grinding_bits: int) -> Verdict:
    """The rejecting verdict on a suspect that did not answer; `details["error"]` names what it raised, if it did."""
    reason = f"the suspect gave no answer to judge by: {silence}; so it is not shown to carry the mark"
    log10_p = None if mark.null.rate is None else 0.0
    details = {
        "matches": 0,
        "grinding_bits": grinding_bits,
        "K": mark.classes,
        "unanswered": len(mark),
        "error": silence.error,
    }
    return Verdict(False, 0, mark.trials, mark.null, log10_p, alpha, reason, details)


def unread(unanswered: int, fault: NoAnswer | None) -> str:
    """What a reason must add where answers were none; `fault` is the first thing that was not even scores."""
    if not unanswered:
        return ""
    first = "" if fault is None else f" (at first {fault})"
    return f"; {unanswered} answers were no finite scores or no class, and say nothing{first}"
