"""What the evidence rooms must know of each kind of mark: its public facts, its mint and its test. One table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from earmark.core import Mark, Query, Verdict
from earmark.errors import unknown_name
from earmark.evidence.claim import NullRecord, Parameters
from earmark.evidence.wire import validated
from earmark.keys import MarkKey
from earmark.marks import Passports, Projection, TriggerSet, passport_mint, projection_mint, remint
from earmark.verify import CalibratedTriggerTest, PassportTest, ProjectionTest, SequentialTriggerTest, TriggerTest

__all__ = ["KINDS", "Kind", "Suspect", "kind_of", "parameters_of"]

Suspect: TypeAlias = Query | nn.Module
"""A model that stands accused: a black box, or a module where the test of a mark needs to look inside."""

Test: TypeAlias = Callable[[Suspect, Any, float, int], Verdict]
"""(suspect, mark, alpha, grinding bits) -> verdict."""


@dataclass(frozen=True)
class Kind:
    """One kind of mark.

    Attributes:
        facts: mark -> `n`, `classes` and `image_shape`, as they stand in a claim.
        remint: (key, mark) -> the mark that the key mints from this mark's public settings; `BadInput` where it cannot.
        test: the test that belongs to this kind; it counts what got no answer as `details["unanswered"]`.
        sequential: the same question, asked one trial at a time until it is decided, for a suspect that is dear to ask.
        compared: the same question, asked with the model that the claimant released beside the suspect; None where that
            tells nothing more. It finds what the claimant's release and the suspect have in common, whoever made it, so
            it may be asked only where the claim is known to be the older.
        calibrated: the same question, asked of innocent models as well, for marks whose null has no basis, with the
            number of commitments that share alpha; None where every null is exact. It supposes that whoever made the
            mark knew none of the models, so it may be asked only where the claim is known to be the older.
    """

    facts: Callable[[Any], Mapping[str, Any]]
    remint: Callable[[MarkKey, Any], Mark]
    test: Test
    sequential: Test
    compared: Callable[[Suspect, Any, float, int, nn.Module], Verdict] | None = None
    calibrated: Callable[[Suspect, Any, float, int, Sequence[Suspect], int], Verdict] | None = None


def _trigger_facts(mark: TriggerSet) -> Mapping[str, Any]:
    return {"n": mark.trials, "classes": mark.classes, "image_shape": mark.shape}


def _test_triggers(suspect: Suspect, mark: TriggerSet, alpha: float, grinding_bits: int) -> Verdict:
    return TriggerTest(alpha=alpha, grinding_bits=grinding_bits)(suspect, mark)


def _test_triggers_in_turn(suspect: Suspect, mark: TriggerSet, alpha: float, grinding_bits: int) -> Verdict:
    return SequentialTriggerTest(alpha=alpha, grinding_bits=grinding_bits)(suspect, mark)


def _calibrate_triggers(
    suspect: Suspect, mark: TriggerSet, alpha: float, grinding_bits: int, innocents: Sequence[Suspect], commitments: int
) -> Verdict:
    test = CalibratedTriggerTest(innocents, alpha=alpha, grinding_bits=grinding_bits, commitments=commitments)
    return test(suspect, mark)


def _passport_facts(mark: Passports) -> Mapping[str, Any]:
    return {"n": len(mark), "classes": None, "image_shape": None}


def _remint_passports(key: MarkKey, mark: Passports) -> Passports:
    return passport_mint(mark.settings).remake(key, mark)


def _test_passports(suspect: Suspect, mark: Passports, alpha: float, grinding_bits: int) -> Verdict:
    return PassportTest(alpha=alpha, grinding_bits=grinding_bits)(suspect, mark)


def _compare_passports(
    suspect: Suspect, mark: Passports, alpha: float, grinding_bits: int, released: nn.Module
) -> Verdict:
    return PassportTest(alpha=alpha, grinding_bits=grinding_bits, released=released)(suspect, mark)


def _projection_facts(mark: Projection) -> Mapping[str, Any]:
    return {"n": len(mark), "classes": mark.classes, "image_shape": mark.shape}


def _remint_projection(key: MarkKey, mark: Projection) -> Projection:
    return projection_mint(mark.settings).remake(key, mark)


def _test_projection(suspect: Suspect, mark: Projection, alpha: float, grinding_bits: int) -> Verdict:
    return ProjectionTest(alpha=alpha, grinding_bits=grinding_bits)(suspect, mark)


KINDS: dict[str, Kind] = {
    "triggers": Kind(_trigger_facts, remint, _test_triggers, _test_triggers_in_turn, calibrated=_calibrate_triggers),
    "passports": Kind(_passport_facts, _remint_passports, _test_passports, _test_passports, _compare_passports),
    "projection": Kind(_projection_facts, _remint_projection, _test_projection, _test_projection),
}
"""Every kind of mark that can be committed and judged; `earmark.marks.MARKS` knows the same kinds, to read them."""


def kind_of(mark: Mark) -> Kind:
    """The row of a mark's kind.

    Raises:
        BadInput: a kind that has none.
    """
    if mark.kind not in KINDS:
        raise unknown_name("kind of mark", mark.kind, KINDS)
    return KINDS[mark.kind]


def parameters_of(mark: Mark, alpha: float) -> Parameters:
    """What a claim says in public of a mark, and the alpha that its owner agrees to be held to."""
    null = NullRecord(basis=mark.null.basis, rate=mark.null.rate, words=mark.null.words)
    return validated(Parameters, {**kind_of(mark).facts(mark), "null": null, "alpha": alpha}, "claim")
