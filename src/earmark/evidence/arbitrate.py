"""Two or more owners claim one suspect, as happens after a thief has embedded a mark of his own: who was first?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from earmark.core import Null, Verdict
from earmark.errors import BadInput, Tampered, probability
from earmark.evidence.bundle import Bundle
from earmark.evidence.claim import Claim
from earmark.evidence.judge import asked, judge, require_drawn
from earmark.evidence.kinds import Suspect
from earmark.evidence.slices import Draw, Evidence, Slice, read_evidence
from earmark.files import model_digest

__all__ = ["Case", "Outcome", "arbitrate"]

OVERWRITING, TIME, NOTHING = "which mark is in which model", "time", "nothing: the facts leave it open"
FOUND = {True: "found", False: "not found", None: "cannot be told: no model that answers was shown"}
NO_NULL = (
    "cannot be told: the mark has no null of its own, and none is calibrated on innocent models, because its "
    "commitment is not known to be earlier than the other's"
)


@dataclass(frozen=True)
class Case:
    """What one claimant brings.

    Attributes:
        claimant: the name to report under.
        claim: the public claim, or its file.
        evidence: the opened evidence or a slice of it, or its folder.
        committed_before: a time by which the claim existed, from a source that the judge trusts.
        released: the marked model that the claim commits to; one with another digest, or one that does not answer the
            other's triggers as a classifier would, counts as not shown. The digest binds the weights and not the code
            around them, so the judge builds the network himself.
        owner_public: the public key of the owner whom the judge expects.
        released_digest: `files.weights_digest` of the file that `released` was filled from, which may hold the weights
            in another precision than the network runs in; `files.model_digest` of `released` unless given.
        released_fault: why what the claimant shows makes no model that the judge can ask; it counts as not shown.
        dated_by: the source of `committed_before`, in words.
        draw: the nonce and the number of trials that the judge asked this claimant to open.
        commitments: how many commitments he had made that he could have brought, as in `judge`, those of other cases in
            his name counted in.
    """

    claimant: str
    claim: Claim | Path | str
    evidence: Evidence | Path | str = field(repr=False)
    committed_before: datetime | None = None
    released: nn.Module | None = field(default=None, repr=False)
    owner_public: bytes | None = None
    released_digest: str | None = None
    released_fault: str | None = None
    dated_by: str | None = None
    draw: Draw | None = None
    commitments: int = 1


@dataclass(frozen=True)
class Outcome:
    """The outcome for one claimant: `alone`, as if there were no other claim, and `verdict`, against all of them."""

    claimant: str
    verdict: Verdict
    alone: Verdict


@dataclass(frozen=True)
class _Party:
    claimant: str
    claim: Claim
    opened: Evidence
    committed_before: datetime | None
    released: nn.Module | None
    alone: Verdict


def arbitrate(
    cases: Sequence[Case],
    suspect: Suspect,
    *,
    alpha: float = 1e-6,
    suspect_known_since: datetime | None = None,
    sequential: bool = False,
    innocents: Sequence[Suspect] = (),
) -> list[Outcome]:
    """Rule on every case by itself (`judge`), then between those that were accepted.

    Between two owners whose marks are both in the suspect:

    1. overwriting leaves the earlier mark in the later owner's model, and not the other way round: if A's mark is in
       the model that B committed to, and B's is not in A's, then A was first;
    2. if neither mark is in the model that the other committed to, nothing tells which was in the suspect first, and
       dates do not either: neither is accepted, and neither is rejected;
    3. else, where a model is not shown, the earlier trusted commitment was first; but an owner who does not show the
       model that he committed to cannot win by time against one who does and whose model does not carry his mark;
    4. else neither is accepted, and neither is rejected.

    Who was first against all others is accepted, who came second to anyone is rejected. Two marks of one owner (one
    public key) do not compete. A claimant whose file cannot be read or was changed is rejected, with a reason that
    names the file, and the others are ruled on without him. A released model that is not the one that the claim commits
    to does not count; the verdict's reason and `details["released"]` say so.

    What decided is told: `details["against"]` has a sentence for each other claimant, also for one whose claim fell by
    itself, and `details["weighed"]` says for each rival whether either mark is in the other's model, what both times
    rest on, that both marks were minted again, and which of these facts decided.

    Args:
        cases: at least one, under different names.
        suspect: as in `judge`.
        alpha: as in `judge`.
        suspect_known_since: as in `judge`.
        sequential: as in `judge`, for the suspect; the models that claimants show are asked every trigger.
        innocents: as in `judge`, for the suspect; a mark whose null has no basis is also looked for beside them in the
            model that a rival committed to, where its own commitment is known to be the earlier one.

    Returns:
        One outcome per case, in their order.

    Raises:
        BadInput: no case, two under one name, or an argument that `judge` refuses.
        OSError, MemoryError, torch.OutOfMemoryError: as `judge`.
    """
    if not cases or len({case.claimant for case in cases}) < len(cases):
        raise BadInput("expected at least one case and a name of its own for each claimant")
    probability("alpha", alpha)
    heard = [_heard(case, suspect, alpha, suspect_known_since, sequential, innocents) for case in cases]
    return [each if isinstance(each, Outcome) else _decided(each, heard, innocents) for each in heard]


def _heard(
    case: Case,
    suspect: Suspect,
    alpha: float,
    known_since: datetime | None,
    sequential: bool,
    innocents: Sequence[Suspect],
) -> _Party | Outcome:
    """The claimant as a party, or the ruling against one whose files do not hold: he must not stop the others'."""
    try:
        claim = case.claim if isinstance(case.claim, Claim) else Claim.read(case.claim)
        opened = case.evidence if isinstance(case.evidence, Bundle | Slice) else read_evidence(case.evidence)
        require_drawn(opened, case.draw)
    except (BadInput, Tampered) as error:
        null = Null("none", None, "No mark could be read, so nothing was tested.")
        refused = Verdict(False, 0, 0, null, None, alpha, f"the files do not hold: {error}", {"step": "files"})
        return Outcome(case.claimant, refused, refused)
    released = _committed(case, claim)
    alone = judge(
        claim,
        opened,
        suspect,
        alpha=alpha,
        suspect_known_since=known_since,
        committed_before=case.committed_before,
        dated_by=case.dated_by,
        draw=case.draw,
        owner_public=case.owner_public,
        sequential=sequential,
        released=released,
        released_digest=case.released_digest,
        innocents=innocents,
        commitments=case.commitments,
    )
    return _Party(case.claimant, claim, opened, case.committed_before, released, _told(alone, case, released))


def _committed(case: Case, claim: Claim) -> nn.Module | None:
    """The model that a claimant shows, if it is the one that his claim commits to."""
    shown = case.released
    if shown is None or case.released_fault is not None:
        return None
    return shown if (case.released_digest or model_digest(shown)) == claim.marked_digest else None


def _told(verdict: Verdict, case: Case, released: nn.Module | None) -> Verdict:
    """The verdict with what became of the model that the claimant showed."""
    if case.released_fault is not None:
        word = f"no model that can be asked, so it does not count ({case.released_fault})"
    elif case.released is not None and released is None:
        word = "not the model that the claim commits to, so it does not count"
    else:
        known = "not shown" if released is None else "the model that the claim commits to"
        return replace(verdict, details={**verdict.details, "released": known})
    reason = f"{verdict.reason}; the model shown as released is {word}"
    return replace(verdict, reason=reason, details={**verdict.details, "released": word})


def _decided(party: _Party, heard: Sequence[_Party | Outcome], innocents: Sequence[Suspect]) -> Outcome:
    verdict = _rule(party, heard, innocents) if party.alone.accepted else party.alone
    return Outcome(party.claimant, verdict, party.alone)


@dataclass(frozen=True)
class _Weighed:
    """What decides between two parties: who was first (None: cannot be told), by which fact, why, and all the facts."""

    first: bool | None
    by: str
    why: str
    facts: Mapping[str, Any]


def _rule(party: _Party, heard: Sequence[_Party | Outcome], innocents: Sequence[Suspect]) -> Verdict:
    own = party.claim.public_key
    others = [each for each in heard if isinstance(each, Outcome) or each.claim.public_key != own]
    rivals = [each for each in others if isinstance(each, _Party) and each.alone.accepted]
    found = {rival.claimant: _earlier(party, rival, innocents) for rival in rivals}
    fallen = {each.claimant: _fell(each) for each in others if not each.alone.accepted}
    outcomes = [weighed.first for weighed in found.values()]
    accepted = False if False in outcomes else None if None in outcomes else True
    deciding = [f"against {name}: {one.why}" for name, one in found.items() if one.first is accepted]
    details = {
        **party.alone.details,
        "step": "arbitration",
        "against": {name: one.why for name, one in found.items()} | fallen,
        "weighed": {name: {**one.facts, "decided_by": one.by} for name, one in found.items()},
    }
    return replace(party.alone, accepted=accepted, reason="; ".join([party.alone.reason, *deciding]), details=details)


def _fell(rival: _Party | Outcome) -> str:
    """Why a claim that is not accepted by itself does not compete."""
    return f"the claim of {rival.claimant} is {rival.alone.word} by itself, at the step {rival.alone.details['step']!r}"


def _earlier(a: _Party, b: _Party, innocents: Sequence[Suspect]) -> _Weighed:
    """Whether `a` was before `b`, and why."""
    a_in_b, b_in_a = _carried(a, b, innocents), _carried(b, a, innocents)
    facts = {
        "minted_again": "both marks, each from its opened key",
        "own_mark_in_the_others_model": _found(a, b, a_in_b),
        "the_others_mark_in_own_model": _found(b, a, b_in_a),
        "own_time": a.alone.details["time"],
        "the_others_time": b.alone.details["time"],
    }
    return _Weighed(*_first(a, b, a_in_b, b_in_a), facts)


def _first(a: _Party, b: _Party, a_in_b: bool | None, b_in_a: bool | None) -> tuple[bool | None, str, str]:
    """Whether `a` was before `b`, which fact decides it, and why."""
    if a_in_b and b_in_a is False:
        why = f"the model that {b.claimant} committed to already carries {a.claimant}'s mark, not the reverse"
        return True, OVERWRITING, why
    if b_in_a and a_in_b is False:
        why = f"the model that {a.claimant} committed to already carries {b.claimant}'s mark, not the reverse"
        return False, OVERWRITING, why
    if a_in_b is False and b_in_a is False:
        why = "neither committed model carries the other's mark, so nothing tells which was in the suspect first"
        return None, NOTHING, why
    if a.committed_before is None or b.committed_before is None or a.committed_before == b.committed_before:
        why = "both marks are in the suspect, and no trusted time says which commitment is the earlier"
        return None, NOTHING, why
    first, in_first, in_second = (a, b_in_a, a_in_b) if a.committed_before < b.committed_before else (b, a_in_b, b_in_a)
    if in_first is None and in_second is False:
        second = b if first is a else a
        why = f"{first.claimant} has the earlier commitment but does not show the model that it commits to"
        if _without_null(second, first):
            why = (
                f"{first.claimant} has the earlier commitment, but whether its model carries {second.claimant}'s mark "
                "cannot be told, since that mark has no null of its own"
            )
        return None, NOTHING, why
    return first is a, TIME, f"{first.claimant} has the earlier trusted commitment"


def _found(owner: _Party, other: _Party, carried: bool | None) -> str:
    return NO_NULL if carried is None and _without_null(owner, other) else FOUND[carried]


def _without_null(owner: _Party, other: _Party) -> bool:
    """Whether it is the owner's mark and not a missing model that leaves open if the other's model carries it."""
    return other.released is not None and owner.opened.mark.null.basis == "none" and not _dated_before(owner, other)


def _dated_before(owner: _Party, other: _Party) -> bool:
    mine, theirs = owner.committed_before, other.committed_before
    return mine is not None and theirs is not None and mine < theirs


def _carried(owner: _Party, other: _Party, innocents: Sequence[Suspect]) -> bool | None:
    """Whether `owner`'s mark is in the model that `other` committed to; None where that model does not show it.

    A model that leaves triggers unanswered is no proof that it does not carry the mark. The owner's own release is
    compared with, and innocent models are asked, only where his commitment is known to be the earlier one, as in
    `judge`. What he has to keep to is the limit of his own verdict, his commitments' share of it already.
    """
    if other.released is None:
        return None
    mark, told, earlier = owner.opened.mark, owner.alone, _dated_before(owner, other)
    beside, others = (owner.released, innocents) if earlier else (None, ())
    verdict = asked(mark, other.released, told.alpha, beside, innocents=others, bits=told.details["grinding_bits"])
    return None if verdict.details["unanswered"] and not verdict.accepted else verdict.accepted
