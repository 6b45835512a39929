"""Two or more owners claim one suspect, as happens after a thief has embedded a mark of his own: who was first?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from torch import nn

from earmark.core import Null, Verdict
from earmark.errors import BadInput, Tampered, probability
from earmark.evidence.bundle import Bundle
from earmark.evidence.claim import Claim
from earmark.evidence.judge import asked, judge
from earmark.evidence.kinds import Suspect
from earmark.files import model_digest

__all__ = ["Case", "Outcome", "arbitrate"]


@dataclass(frozen=True)
class Case:
    """What one claimant brings.

    Attributes:
        claimant: the name to report under.
        claim: the public claim, or its file.
        evidence: the opened evidence, or its folder.
        committed_before: a time by which the claim existed, from a source that the judge trusts.
        released: the marked model that the claim commits to; one with another digest, or one that does not answer the
            other's triggers as a classifier would, counts as not shown. The digest binds the weights and not the code
            around them, so the judge builds the network himself.
        owner_public: the public key of the owner whom the judge expects.
        released_digest: `files.weights_digest` of the file that `released` was filled from, which may hold the weights
            in another precision than the network runs in; `files.model_digest` of `released` unless given.
        released_fault: why what the claimant shows makes no model that the judge can ask; it counts as not shown.
    """

    claimant: str
    claim: Claim | Path | str
    evidence: Bundle | Path | str = field(repr=False)
    committed_before: datetime | None = None
    released: nn.Module | None = field(default=None, repr=False)
    owner_public: bytes | None = None
    released_digest: str | None = None
    released_fault: str | None = None


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
    bundle: Bundle
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

    Args:
        cases: at least one, under different names.
        suspect: as in `judge`.
        alpha: as in `judge`.
        suspect_known_since: as in `judge`.
        sequential: as in `judge`, for the suspect; the models that claimants show are asked every trigger.
        innocents: as in `judge`, for the suspect alone.

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
    parties = [party for party in heard if isinstance(party, _Party)]
    return [each if isinstance(each, Outcome) else _decided(each, parties) for each in heard]


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
        bundle = case.evidence if isinstance(case.evidence, Bundle) else Bundle.read(case.evidence)
    except (BadInput, Tampered) as error:
        null = Null("none", None, "No mark could be read, so nothing was tested.")
        refused = Verdict(False, 0, 0, null, None, alpha, f"the files do not hold: {error}", {"step": "files"})
        return Outcome(case.claimant, refused, refused)
    released = _committed(case, claim)
    alone = judge(
        claim,
        bundle,
        suspect,
        alpha=alpha,
        suspect_known_since=known_since,
        committed_before=case.committed_before,
        owner_public=case.owner_public,
        sequential=sequential,
        released=released,
        released_digest=case.released_digest,
        innocents=innocents,
    )
    return _Party(case.claimant, claim, bundle, case.committed_before, released, _told(alone, case, released))


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


def _decided(party: _Party, parties: Sequence[_Party]) -> Outcome:
    return Outcome(party.claimant, _rule(party, parties) if party.alone.accepted else party.alone, party.alone)


def _rule(party: _Party, parties: Sequence[_Party]) -> Verdict:
    rivals = [p for p in parties if p.alone.accepted and p.claim.public_key != party.claim.public_key]
    found = {rival.claimant: _earlier(party, rival) for rival in rivals}
    details = {**party.alone.details, "step": "arbitration", "against": {name: why for name, (_, why) in found.items()}}
    outcomes = [first for first, _ in found.values()]
    accepted = False if False in outcomes else None if None in outcomes else True
    deciding = [f"against {name}: {why}" for name, (first, why) in found.items() if first is accepted]
    return replace(party.alone, accepted=accepted, reason="; ".join([party.alone.reason, *deciding]), details=details)


def _earlier(a: _Party, b: _Party) -> tuple[bool | None, str]:
    """Whether `a` was before `b` (None: cannot be told), and why."""
    a_in_b, b_in_a = _carried(a, b), _carried(b, a)
    if a_in_b and b_in_a is False:
        return True, f"the model that {b.claimant} committed to already carries {a.claimant}'s mark, not the reverse"
    if b_in_a and a_in_b is False:
        return False, f"the model that {a.claimant} committed to already carries {b.claimant}'s mark, not the reverse"
    if a_in_b is False and b_in_a is False:
        return None, "neither committed model carries the other's mark, so nothing tells which was in the suspect first"
    if a.committed_before is None or b.committed_before is None or a.committed_before == b.committed_before:
        return None, "both marks are in the suspect, and no trusted time says which commitment is the earlier"
    first, in_first, in_second = (a, b_in_a, a_in_b) if a.committed_before < b.committed_before else (b, a_in_b, b_in_a)
    if in_first is None and in_second is False:
        return None, f"{first.claimant} has the earlier commitment but does not show the model that it commits to"
    return first is a, f"{first.claimant} has the earlier trusted commitment"


def _carried(owner: _Party, other: _Party) -> bool | None:
    """Whether `owner`'s mark is in the model that `other` committed to; None where that model does not show it.

    A model that leaves triggers unanswered is no proof that it does not carry the mark. The owner's own release is
    compared with only where his commitment is known to be the earlier one, as in `judge`.
    """
    if other.released is None:
        return None
    mark, times = owner.bundle.mark, (owner.committed_before, other.committed_before)
    earlier = times[0] is not None and times[1] is not None and times[0] < times[1]
    beside = owner.released if earlier else None
    verdict = asked(mark, other.released, owner.alone.alpha, beside)
    return None if verdict.details["unanswered"] and not verdict.accepted else verdict.accepted
