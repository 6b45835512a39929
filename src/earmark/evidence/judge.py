"""The judge: a claim, the opened evidence and a suspect, to one verdict. Every rule is one short function below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from torch import nn

from earmark.core import Mark, Verdict
from earmark.errors import BadInput, probability, whole
from earmark.evidence.bundle import Bundle
from earmark.evidence.claim import Claim, facts_of, rfc3339
from earmark.evidence.kinds import Suspect, kind_of, parameters_of
from earmark.evidence.opening import slice_facts, slice_faults
from earmark.evidence.slices import Draw, Evidence, Slice, read_evidence, root_of
from earmark.files import digest, model_digest
from earmark.keys import MarkKey
from earmark.stats import GRINDING_BITS

__all__ = ["OWNERS_WORD", "asked", "claim_fault", "is_earlier", "judge", "minting_fault", "require_drawn"]

CLOCK_ALLOWANCE = timedelta(days=1)
EARLIER = "no later than the suspect"
UNDATED = "none, for want of an earlier date"
OWNERS_WORD = "the owner's word alone: no time-stamp token and no other source that the judge trusts dates the claim"
UNDRAWN = "because the judge named no nonce that he drew: draw one, and have a slice opened by it"
TRUSTED = "a source that the judge trusts"


def judge(
    claim: Claim | Path | str,
    evidence: Evidence | Path | str,
    suspect: Suspect,
    *,
    alpha: float = 1e-6,
    suspect_known_since: datetime | None = None,
    committed_before: datetime | None = None,
    dated_by: str | None = None,
    draw: Draw | None = None,
    owner_public: bytes | None = None,
    sequential: bool = False,
    released: nn.Module | None = None,
    released_digest: str | None = None,
    innocents: Sequence[Suspect] = (),
    commitments: int = 1,
) -> Verdict:
    """Rule on one claim against one suspect.

    Five steps; the verdict's `details["step"]` names the one that decided.

    1. signature: the claim is signed, and by the owner whom the judge expects.
    2. commitment: the evidence is the one that the claim binds, and its key opens the claim's commitment.
    3. re-minting: the opened key, in the name of the claim's owner, mints exactly this mark. This is what stops
       triggers that were optimised, chosen or read off a model, and evidence that somebody else has opened before.
    4. time: the time by which the claim is said to have existed is not before the claim's own.
    5. suspect: the test of this kind of mark, at the smaller of `alpha` and the claim's own alpha, with p multiplied by
       2^64 for the keys that the claimant may have tried.

    Where a slice is opened and not the whole mark, step 2 asks whether each opened trial stands under the claim's root,
    a step "slice" whether they are the trials that the claim and the nonce choose, and step 3 mints only them. The
    suspect is asked what was opened, and p counts nothing else. Where the judge did not draw the nonce himself, p is
    multiplied by n C(n, k), too, as though the claimant had chosen size and trials by hand.

    p is multiplied whatever the dates. Innocent models of one task agree on odd images, so keys can be tried before the
    commitment as well as after it, and no date tells how many were. `details["commitment"]` says whether the commitment
    is known to be no later than the suspect.

    Args:
        claim: the public claim, or its file.
        evidence: the opened evidence or a slice of it, or its folder.
        suspect: images in [0, 1] to scores or labels, or a module.
        alpha: the error probability that the judge allows.
        suspect_known_since: when the suspect first appeared.
        committed_before: a time by which the claim existed, from a source the judge trusts: a time-stamp token
            (`evidence.timestamp.stamped_time`), a notary, a public log. Without one `details["time"]` says that the
            time rests on the owner's word.
        dated_by: what that source is, in words.
        draw: the nonce and the number of trials that the judge asked the owner to open.
        owner_public: the public key (32 bytes) of the owner whom the judge expects.
        sequential: ask the suspect one trial at a time and stop as soon as it is decided. The error probability is held
            to wherever it stops; p is that of an e-process and larger than the exact one of the same answers, so it
            takes more triggers (`earmark.verify.SequentialTriggerTest`).
        released: the marked model that the claim commits to. Passports are then also read from a suspect whose channels
            were flipped, moved, scaled, folded or padded, by matching them to its own, but only where the commitment is
            known to be no later than the suspect: whoever finds a model can flip a copy of it to show his bits, call
            that his release, and be "found" in the original. `details["comparison"]` says whether that was done.
        released_digest: `files.weights_digest` of the file that `released` was filled from, which may hold the weights
            in another precision than the network runs in; `files.model_digest` of `released` unless given.
        innocents: models of the mark's task that the judge has from elsewhere or had trained. Where a mark's null has
            no basis, one is calibrated on them (`earmark.verify.CalibratedTriggerTest`), but only where the commitment
            is known to be no later than the suspect: whoever knows the suspect can choose carriers that it answers as
            he likes and other models do not. `details["calibration"]` says whether that was done. No alpha of
            1.1 / (M + 1) or less can be held to with M of them. The claimant must have known none of them when he
            committed.
        commitments: J, how many commitments the claimant had made by then that he could have presented, this one
            counted in. p of a calibrated null is for one; of J, the one that fits an innocent suspect by chance is
            found up to J times as often, so alpha / J is what p must fall to, and `stats.innocents_needed(alpha, J)`
            models are needed. An exact null is multiplied by 2^64 in any case, which pays for 2^64 keys in however
            many commitments, and keeps its alpha. `details["commitments"]` tells J.

    Raises:
        Tampered: a file is not as it was written; the message names it.
        BadInput: a file is not of the format, an argument is out of range (a time without its time zone, say), or
            `released` is not the model that the claim commits to; or a draw where the whole mark was opened.
        OSError, MemoryError, torch.OutOfMemoryError: as the suspect raised them; a lost connection is no verdict.
    """
    claim = claim if isinstance(claim, Claim) else Claim.read(claim)
    opened = evidence if isinstance(evidence, Bundle | Slice) else read_evidence(evidence)
    if not callable(suspect):
        raise BadInput(
            f"expected a suspect to ask, a module or a function, got {type(suspect).__name__}; load the file"
        )
    probability("alpha", alpha)
    whole("commitments", commitments, low=1)
    if owner_public is not None and len(owner_public) != 32:
        raise BadInput(f"owner_public: expected the 32 bytes of an Ed25519 public key, got {len(owner_public)}")
    require_drawn(opened, draw)
    alpha, facts = min(alpha, claim.parameters.alpha), _facts(claim, committed_before, dated_by, suspect_known_since)
    if isinstance(opened, Slice):
        facts |= slice_facts(opened, draw)
    facts["commitments"] = commitments
    for step, fault in _faults(claim, opened, draw, owner_public, committed_before):
        if fault is not None:
            facts["step"] = step
            return Verdict(False, 0, claim.parameters.n, opened.mark.null, None, alpha, fault, facts)
    if released is not None and (released_digest or model_digest(released)) != claim.marked_digest:
        raise BadInput("the model shown as released is not the one that the claim commits to; leave it out, or find it")
    dated = facts["commitment"] == EARLIER
    if released is not None and kind_of(opened.mark).compared is not None:
        facts["comparison"] = "with the released model" if dated else UNDATED
    if innocents:
        done = "on innocent models" if dated else UNDATED
        facts["calibration"] = "none, as the null is exact" if opened.mark.null.basis == "exact" else done
    beside, others = (released, innocents) if dated else (None, ())
    verdict = asked(opened.mark, suspect, alpha, beside, sequential, others, facts["grinding_bits"], commitments)
    reason = verdict.reason
    if isinstance(opened, Slice) and draw is None and not verdict.accepted:
        reason += f"; p counts the choice of the trials as the claimant's own, {UNDRAWN}"
    return replace(verdict, reason=reason, details={**verdict.details, **facts})


def asked(
    mark: Mark,
    suspect: Suspect,
    alpha: float,
    released: nn.Module | None,
    sequential: bool = False,
    innocents: Sequence[Suspect] = (),
    bits: int = GRINDING_BITS,
    commitments: int = 1,
) -> Verdict:
    """The verdict of the test that belongs to a mark, beside the claimant's release or innocent models if given."""
    kind = kind_of(mark)
    if innocents and mark.null.basis == "none" and kind.calibrated is not None:
        return kind.calibrated(suspect, mark, alpha, bits, innocents, commitments)
    if released is not None and kind.compared is not None:
        return kind.compared(suspect, mark, alpha, bits, released)
    return (kind.sequential if sequential else kind.test)(suspect, mark, alpha, bits)


def claim_fault(claim: Claim, bundle: Bundle) -> tuple[str, str] | None:
    """The step at which a claim falls before any suspect is asked, with the reason; None for one that holds."""
    found = ((step, fault) for step, fault in _faults(claim, bundle, None, None, None) if fault is not None)
    return next(found, None)


def minting_fault(mark: Mark, key: MarkKey) -> str | None:
    """Why `key` does not mint exactly this mark, or None if it does."""
    try:
        again = kind_of(mark).remint(key, mark)
    except BadInput as error:
        return f"the opened key cannot mint this mark: {error}"
    if digest(again.tensors(), again.spec()) == digest(mark.tensors(), mark.spec()) and again.null == mark.null:
        return None
    return "the opened key does not mint this mark: its content was chosen, not drawn from the key"


def _faults(
    claim: Claim, opened: Evidence, draw: Draw | None, owner_public: bytes | None, committed_before: datetime | None
) -> Iterator[tuple[str, str | None]]:
    """The steps before the last in order, each with what speaks against the claim; a later one runs only if wanted."""
    yield "signature", _signature(claim, owner_public)
    if isinstance(opened, Slice):
        yield from slice_faults(claim, opened, draw)
    else:
        key = MarkKey(opened.secret, bytes.fromhex(claim.public_key))
        yield "commitment", _commitment(claim, opened, key)
        yield "re-minting", minting_fault(opened.mark, key)
    yield "time", _time(claim, committed_before)


def _signature(claim: Claim, owner_public: bytes | None) -> str | None:
    if not claim.is_signed():
        return "the claim's signature does not fit its content"
    if owner_public is not None and claim.public_key != owner_public.hex():
        return "the claim is signed by another key than that of the owner whom the judge expects"
    return None


def _commitment(claim: Claim, bundle: Bundle, key: MarkKey) -> str | None:
    if claim.mark_key_commitment != key.commitment():
        return "the opened key, in the name of the claim's owner, is not the one that the claim commits to"
    if claim.mark_digest != bundle.mark_digest:
        return "the opened mark is not the one that the claim commits to"
    if claim.evidence_digest != bundle.digest:
        return "the evidence is not the one that the claim commits to"
    said = (claim.scheme, claim.mark, claim.kind, facts_of(claim.parameters))
    parameters = facts_of(parameters_of(bundle.mark, claim.parameters.alpha))
    if said != (bundle.scheme, bundle.name, bundle.mark.kind, parameters):
        return "the claim describes another mark than the evidence holds"
    return _root(claim, bundle, key)


def _root(claim: Claim, bundle: Bundle, key: MarkKey) -> str | None:
    try:
        root = root_of(bundle.mark, key)
    except BadInput as error:
        return f"the opened key cannot mint this mark: {error}"
    return None if claim.slice_root == root else "the claim's root is not the one over the trials of the opened mark"


def _time(claim: Claim, committed_before: datetime | None) -> str | None:
    if committed_before is not None and claim.claimed_time - committed_before > CLOCK_ALLOWANCE:
        return (
            f"the claim gives its own time as {claim.time}, after {rfc3339(committed_before)}, by when it is said to "
            "have existed: that date belongs to another claim"
        )
    return None


def require_drawn(opened: Evidence, draw: Draw | None) -> None:
    """Raise `BadInput` where a slice was asked for and the whole mark was opened."""
    if draw is not None and not isinstance(opened, Slice):
        raise BadInput(
            "a nonce chooses a slice, and the whole mark was opened; ask for a slice, or leave the nonce out"
        )


def is_earlier(committed_before: datetime | None, suspect_known_since: datetime | None) -> bool:
    """Whether a claim is known to be no later than a suspect: where it is not, the claimant may have looked at it."""
    return committed_before is not None and suspect_known_since is not None and committed_before <= suspect_known_since


def _facts(
    claim: Claim, committed_before: datetime | None, dated_by: str | None, suspect_known_since: datetime | None
) -> dict[str, Any]:
    """What every verdict on this claim tells; its step is the last one unless an earlier one decides."""
    for moment in (committed_before, suspect_known_since):
        if moment is not None:
            rfc3339(moment)  # refuses a time without its zone, and one that has no UTC date
    known = is_earlier(committed_before, suspect_known_since)
    return {
        "step": "suspect",
        "owner": claim.owner,
        "owner_public": claim.public_key,
        "scheme": claim.scheme,
        "mark": claim.mark,
        "claimed_time": claim.time,
        "time": OWNERS_WORD if committed_before is None else f"{dated_by or TRUSTED}, by {rfc3339(committed_before)}",
        "commitment": EARLIER if known else "later than the suspect, or not known to be earlier",
        "grinding_bits": GRINDING_BITS,
    }
