"""Nulls measured on innocent models, for marks whose labels no key has drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

from torch import nn

from earmark import stats
from earmark.core import Null, Query, Verdict
from earmark.errors import BadInput, whole
from earmark.files import model_digest
from earmark.marks import TriggerSet
from earmark.verify.answers import Asking
from earmark.verify.triggers import TriggerTest, check_settings

__all__ = ["CalibratedTriggerTest", "calibrated_null", "innocent_matches"]

MOST = 1 - 1e-9
"""The rate of a null that nothing can reject."""


def innocent_matches(mark: TriggerSet, innocents: Sequence[Query | nn.Module], batch_size: int = 128) -> list[int]:
    """How many trials of a mark each of some innocent models answers with its label.

    Raises:
        BadInput: no model, the same one twice, or one that does not answer every trigger as a classifier of the mark's
            task does, from which nothing could be learnt.
    """
    if not innocents:
        raise BadInput("a null is calibrated on at least one innocent model, got none; train some on data of the task")
    known = [model_digest(model) if isinstance(model, nn.Module) else id(model) for model in innocents]
    if len(set(known)) < len(known):
        raise BadInput("an innocent model is given twice, and counts once; give models that were trained on their own")
    return [_matches(mark, model, at, batch_size) for at, model in enumerate(innocents, start=1)]


def _matches(mark: TriggerSet, model: Query | nn.Module, at: int, batch_size: int) -> int:
    asking, matches, silent = Asking(model, mark, batch_size), 0, 0
    for heard in asking:
        matches += int(heard.matched.sum())
        silent += int(heard.silent.sum())
    if silent:
        raise BadInput(
            f"innocent model {at} left {silent} of {len(mark)} triggers unanswered"
            f"{'' if asking.fault is None else f': {asking.fault}'}; give models of the mark's task"
        )
    return matches


def calibrated_null(mark: TriggerSet, innocents: Sequence[Query | nn.Module], batch_size: int = 128) -> Null:
    """What innocent models score on a mark, at most: the null of `CalibratedTriggerTest`.

    Its rate is `stats.calibrated_rate`, a bound of the *worst* of the models: matches of one model hang together, as
    where all triggers have one label, so that trials of several models cannot be pooled.

    Args:
        mark: any trigger set.
        innocents: models of the mark's task that have nothing to do with its owner, trained as suspects might be.
        batch_size: triggers per query.

    Raises:
        BadInput: as `innocent_matches`.
    """
    return _null(mark, innocent_matches(mark, innocents, batch_size))


def _null(mark: TriggerSet, matches: Sequence[int]) -> Null:
    rate = min(stats.calibrated_rate(matches, mark.trials), MOST)
    return Null(
        "calibrated",
        rate,
        f"Of {len(matches)} models that have nothing to do with the key, the worst answered {max(matches)} of "
        f"{mark.trials} {mark.called} as the mark has it, so its rate is taken to be at most {rate:.4f}. A model "
        "unlike these may match more often; one made as they were does so with a probability of at most 1 in "
        f"{len(matches) + 1}.",
    )


@final
@dataclass(frozen=True)
class CalibratedTriggerTest:
    """`TriggerTest` on a null that is calibrated on innocent models, with what is uncertain about it in the p-value.

    With k matches in n trials and M innocent models,

        p = min(1, 2^g P(X >= k) + 1.1 / (M + 1)),    X ~ Binomial(n, rate), rate = `stats.calibrated_rate`.

    If a suspect's rate is no larger than the largest of the M models', and that is no larger than its bound, the first
    term is as in `TriggerTest`; either fails with a probability that the second term bounds (`stats.calibration_error`)
    if an innocent suspect and the M models are alike: made in the same way, and unknown, all of them, to whoever made
    the mark. So p <= alpha has probability at most alpha, however much innocent models differ from each other, but no
    claim can be accepted at alpha <= 1.1 / (M + 1): 22 models are the fewest for 0.05. That trials are independent is
    not needed for it: whatever is accepted has matched more often than each of the M models, which of M + 1 like ones
    is the suspect with probability 1 / (M + 1) at most.

    That is the probability for *one* mark, fixed before the suspect is known. 2^g pays for keys in the first term
    alone: whoever has committed to J marks early and shows the one that an innocent suspect answers best errs up to
    J times 1.1 / (M + 1), however many keys p is multiplied for. `commitments` says how many there were that could have
    been shown. Then p has to fall to alpha / J (Bonferroni; Dunn 1961, Journal of the American Statistical Association
    56(293), 52-64), which is the `alpha` of the verdict: that any of the J is accepted has probability at most alpha,
    however they hang together. It takes `stats.innocents_needed(alpha, J)` models, J times as many.

    Marks with an exact null need no calibration, and go to `TriggerTest`, at alpha / J as well.

    The verdict:
        accepted True: p <= alpha.
        accepted False: too few matches even if the rate were certain, or a suspect that does not answer.
        accepted None: enough matches for that rate, and too few models for alpha; or a rate so high, or triggers so
            few, that even n matches would not be enough.

    `details` holds what `TriggerTest` tells, computed at the rate (`log10_p_before_grinding`, `critical_count`), and
    `innocents` (M), `innocent_matches` (the most of any), `calibration_error` (the second term), `commitments` (J),
    `alpha_of_all` (alpha before it was shared) and `innocents_needed`.

    Attributes:
        innocents: the models, asked anew for each mark.
        alpha: the error probability to keep to, for all commitments together.
        grinding_bits: g, as in `TriggerTest`.
        batch_size: triggers per query.
        commitments: J, how many marks whoever shows this one had committed to and could have shown instead, with it.

    Raises:
        BadInput: alpha outside (0, 1), negative bits, a batch size below 1 or no commitment; on the call, as
            `innocent_matches`.
        OSError, http.client.HTTPException, MemoryError, torch.OutOfMemoryError: as a model raised them.
    """

    innocents: Sequence[Query | nn.Module] = field(repr=False)
    alpha: float = 0.05
    grinding_bits: int = 0
    batch_size: int = 128
    commitments: int = 1

    def __post_init__(self) -> None:
        check_settings(self.alpha, self.grinding_bits, self.batch_size)
        whole("commitments", self.commitments, low=1)

    @property
    def share(self) -> float:
        """What one commitment may err: alpha / J."""
        return self.alpha / self.commitments

    def __call__(self, suspect: Query, mark: TriggerSet) -> Verdict:
        if mark.null.basis == "exact":
            return TriggerTest(self.share, self.grinding_bits, self.batch_size)(suspect, mark)
        matches = innocent_matches(mark, self.innocents, self.batch_size)
        error = stats.calibration_error(len(matches))
        room = self.share - error
        test = TriggerTest(room if room > 0 else self.share, self.grinding_bits, self.batch_size)
        at_rate = test(suspect, replace(mark, null=_null(mark, matches)))
        log10_p = min(0.0, math.log10(10.0 ** (at_rate.log10_p or 0.0) + error))
        accepted, reason = at_rate.accepted, at_rate.reason
        if accepted is None:
            reason = (
                f"the worst of {len(matches)} innocent models answered {max(matches)} of {mark.trials} {mark.called} "
                f"as the mark has it, so that even {mark.trials} matches prove nothing"
            )
        elif accepted and room <= 0:
            accepted, reason = None, f"{reason}; but {self._too_few(len(matches), error)}"
        if accepted:
            log10_p = min(log10_p, math.log10(self.share))  # what is equal but for rounding
        found = {**at_rate.details, **self._details(matches, error)}
        return Verdict(accepted, at_rate.statistic, at_rate.n, at_rate.null, log10_p, self.share, reason, found)

    def _details(self, matches: Sequence[int], error: float) -> dict[str, Any]:
        return {
            "innocents": len(matches),
            "innocent_matches": max(matches),
            "innocents_needed": stats.innocents_needed(self.alpha, self.commitments),
            "calibration_error": error,
            "commitments": self.commitments,
            "alpha_of_all": self.alpha,
        }

    def _too_few(self, models: int, error: float) -> str:
        limit = f"{self.alpha:g} is allowed"
        if self.commitments > 1:
            limit = (
                f"{self.alpha:g} / {self.commitments} = {self.share:.3g} is allowed for each of {self.commitments} "
                "commitments"
            )
        return (
            f"with {models} innocent models no error probability below {error:.3g} can be stated, and {limit}: "
            f"{stats.innocents_needed(self.alpha, self.commitments)} innocent models are needed and {models} came; "
            "bring more, or allow a larger alpha"
        )
