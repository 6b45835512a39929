"""A hearing that ends in a printed ruling: who was heard on what, and what the suspect said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from earmark.cli.claimants import Brought
from earmark.core import Verdict
from earmark.errors import BadInput
from earmark.evidence.claim import rfc3339
from earmark.evidence.hearing import Hearing
from earmark.evidence.kinds import Suspect
from earmark.files import weights_digest
from earmark.marks import TriggerSet
from earmark.reports import CaseFile, CourtRuling, shown_trials
from earmark.suspects import kind_of_suspect, spoken

__all__ = ["heard", "ruling_of"]


def heard(suspect: Suspect, found: Sequence[Brought]) -> Suspect:
    """The suspect, its answers kept where all that can be asked are triggers; bits are read from the module itself."""
    marks = [each.evidence.mark for each in found if each.evidence is not None]
    return Hearing(suspect) if all(isinstance(mark, TriggerSet) for mark in marks) else suspect


def ruling_of(
    text: str, suspect: Suspect, found: Sequence[Brought], verdicts: Mapping[str, Verdict], known_since: str | None
) -> CourtRuling:
    """The page of a hearing."""
    cases = [_case(name, verdict, by, suspect) for (name, verdict), by in zip(verdicts.items(), found, strict=True)]
    facts = {"Suspect": spoken(text), **_digest(text)}
    facts["Known since"] = "not stated" if known_since is None else known_since
    facts["Program"] = f"earmark, with torch {torch.__version__}"
    return CourtRuling(spoken(text), cases, facts, rfc3339(datetime.now(UTC)))


def _digest(text: str) -> Mapping[str, str]:
    if kind_of_suspect(text) is not None:
        return {}
    try:
        return {"Digest of its weights": weights_digest(Path(text))}
    except BadInput:
        return {}


def _case(name: str, verdict: Verdict, by: Brought, suspect: Suspect) -> CaseFile:
    if by.evidence is None:
        return CaseFile(name, verdict, by.claim)
    mark, shown, opened = by.evidence.mark, [], 0
    if isinstance(mark, TriggerSet) and isinstance(suspect, Hearing):
        shown, opened = shown_trials(mark, suspect.answers(mark)), mark.trials
    return CaseFile(name, verdict, by.claim, by.evidence.digest, shown, opened)
