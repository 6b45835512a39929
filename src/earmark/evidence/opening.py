"""What a judge checks of an opened slice: it stands in the claim, the nonce chose it, and its keys mint it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from earmark.errors import BadInput
from earmark.evidence.claim import Claim, facts_of
from earmark.evidence.kinds import parameters_of
from earmark.evidence.slices import Draw, Slice, choice_bits, selected
from earmark.files import digest
from earmark.keys import MarkKey
from earmark.marks import TriggerSet, bound_root, leaf_of, root_from, slicing
from earmark.stats import GRINDING_BITS

__all__ = ["slice_facts", "slice_faults"]

JUDGE, CLAIMANT = "the judge", "the claimant, so that p is multiplied as if he had chosen the trials by hand"


def slice_facts(opened: Slice, draw: Draw | None) -> dict[str, Any]:
    """What every verdict on a slice tells: how much was opened, by which nonce, and what p is multiplied by for it."""
    n, k = opened.trials_in_all, len(opened.trials)
    paid = choice_bits(n, k) if draw is None and k <= n else 0
    drawn = JUDGE if draw is not None else CLAIMANT
    told = {"opened": k, "of": n, "nonce": opened.nonce.hex(), "drawn_by": drawn}
    return {"slice": told, "grinding_bits": GRINDING_BITS + paid}


def slice_faults(claim: Claim, opened: Slice, draw: Draw | None) -> Iterator[tuple[str, str | None]]:
    """The steps "commitment", "slice" and "re-minting" in order, each with what speaks against the claim."""
    keys = [MarkKey(trial.secret, bytes.fromhex(claim.public_key)) for trial in opened.trials]
    yield "commitment", _commitment(claim, opened, keys)
    yield "slice", _choice(claim, opened, draw)
    yield "re-minting", _minting(claim, opened, keys)


def _commitment(claim: Claim, opened: Slice, keys: list[MarkKey]) -> str | None:
    if claim.slice_root is None:
        return "the claim has no root over its trials, so it commits to no slice"
    parameters = parameters_of(opened.mark, claim.parameters.alpha).model_copy(update={"n": opened.trials_in_all})
    said = (claim.scheme, claim.mark, claim.kind, facts_of(claim.parameters))
    if said != (opened.scheme, opened.name, opened.mark.kind, facts_of(parameters)):
        return "the claim describes another mark than the slice holds"
    n = opened.trials_in_all
    known: dict[bytes, str] = {}  # all trials of one tree have one root
    for at, (key, trial) in enumerate(zip(keys, opened.trials, strict=True)):
        tree = root_from(leaf_of(key, trial.index, opened.mark, at), trial.index, n, trial.path)
        if tree is not None and tree not in known:
            known[tree] = bound_root(opened.mark, n, tree).hex()
        if tree is None or known[tree] != claim.slice_root:
            return f"the opened trial {trial.index}, in the name of the claim's owner, is not in the claim's root"
    return None


def _choice(claim: Claim, opened: Slice, draw: Draw | None) -> str | None:
    if draw is not None and (draw.nonce, draw.count) != (opened.nonce, len(opened.trials)):
        return "the slice was opened by another nonce, or of another size, than the judge asked for"
    try:
        chosen = selected(claim, opened.nonce, opened.trials_in_all, len(opened.trials))
    except BadInput as error:
        return f"no slice is chosen so: {error}"
    if chosen != [trial.index for trial in opened.trials]:
        return "the opened trials are not those that the claim and the nonce choose"
    return None


def _minting(claim: Claim, opened: Slice, keys: list[MarkKey]) -> str | None:
    mint, places, mark = slicing(opened.mark), [trial.index for trial in opened.trials], opened.mark
    assert mint is not None, "a slice is of a sliced mark"
    assert claim.slice_root is not None, "the step before has seen it"
    try:
        again: TriggerSet = mint.remake(keys, places, bytes.fromhex(claim.slice_root), mark)
    except BadInput as error:
        return f"the opened keys cannot mint these trials: {error}"
    if digest(again.tensors(), again.spec()) == digest(mark.tensors(), mark.spec()) and again.null == mark.null:
        return None
    return "the opened keys do not mint these trials: their content was chosen, not drawn from the keys"
