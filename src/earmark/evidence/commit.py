"""Commit before release: one call writes the public claim and the secret evidence, both or neither."""

from __future__ import annotations

import base64
import glob
import shutil
import tempfile
from collections.abc import Callable, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from torch import nn

from earmark.core import Mark
from earmark.errors import BadInput, Tampered, probability
from earmark.evidence.bundle import Bundle, salted_digest
from earmark.evidence.claim import Claim, check_text, rfc3339
from earmark.evidence.judge import minting_fault
from earmark.evidence.kinds import kind_of, parameters_of
from earmark.evidence.slices import root_of
from earmark.files import model_digest, write_atomic
from earmark.keys import MarkKey, OwnerKey
from earmark.stats import GRINDING_BITS

__all__ = ["CLAIM", "EVIDENCE_FOLDER", "Stamp", "claim_of", "commit"]

CLAIM = "claim.json"
EVIDENCE_FOLDER = "evidence"

Stamp: TypeAlias = Callable[[bytes], bytes]
"""Sends `Claim.stamped_bytes` to a time-stamp authority and returns its RFC 3161 response, DER."""


def commit(
    owner: OwnerKey,
    mark: Mark,
    *,
    name: str,
    host: nn.Module | None,
    marked: nn.Module,
    scheme: str,
    out: Path | str,
    time: datetime | None = None,
    owner_name: str | None = None,
    alpha: float = 1e-6,
    stamp: Stamp | None = None,
    check: bool = True,
    host_digest: str | None = None,
    marked_digest: str | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[Path, Path]:
    """Write `out/claim.json`, to be published before the model is, and `out/evidence/`, to be kept secret.

    The folder is put together under another name and renamed, so that `out` is whole or not there at all. What a killed
    process left of an earlier attempt at the same `out`, an opened key among it, is removed first. If `out` holds this
    very commitment already, which happens where a process was killed after it had written it, that one stands: its
    time and its salt are the earlier ones.

    Args:
        owner: the key that signs.
        mark: what was embedded, as `owner.mark_key(name)` minted it.
        name: the mark's name, from which its key is derived.
        host: the model before marking; None where the marked one was trained from scratch.
        marked: the model that is going to be released.
        scheme: the scheme that embedded the mark.
        out: a folder that does not exist yet, is empty, or holds this very commitment.
        time: when; now unless given.
        owner_name: the name shown to people; the key's fingerprint unless given.
        alpha: the error probability that the owner agrees to be held to; a judge may ask for less, never for more.
        stamp: asks a time-stamp authority for a token (see `evidence.timestamp`).
        check: refuse what no judge would accept later: a mark that the owner's key of this name does not mint, or a
            marked model that does not show it at `alpha`. False plays the forger.
        host_digest: `files.weights_digest` of the file of the host, which may hold its weights in another precision
            than `host` does; `files.model_digest` of `host` unless given.
        marked_digest: likewise, of the file that is going to be released.
        class_names: what the released model calls its classes, that of class 0 first: by these names a judge reads a
            service that does not answer in numbers.

    Returns:
        The path of the claim and the path of the evidence folder.

    Raises:
        BadInput: `out` is in use or not writable, a claim that no judge would accept, a name that does not fit, or
            alpha outside (0, 1).
    """
    shown = owner.fingerprint if owner_name is None else owner_name
    for what, text in (("the mark's name", name), ("the owner's name", shown), ("the scheme's name", scheme)):
        check_text(what, text)
    probability("alpha", alpha)
    mark_key = owner.mark_key(name)
    if check:
        _check(mark, mark_key, marked, alpha)
    bundle = Bundle.seal(mark, mark_key, name=name, scheme=scheme)
    claim = claim_of(
        owner,
        bundle,
        host=host,
        marked=marked,
        time=time,
        owner_name=owner_name,
        alpha=alpha,
        stamp=stamp,
        host_digest=host_digest,
        marked_digest=marked_digest,
        class_names=class_names,
    )
    return _write(claim, bundle, Path(out), DRAWN if time is None else DRAWN - {"time"})


def _check(mark: Mark, mark_key: MarkKey, marked: nn.Module, alpha: float) -> None:
    if fault := minting_fault(mark, mark_key):
        raise BadInput(
            f"no judge would accept this mark: {fault}; if it was minted with another key or under another name, "
            "commit with those"
        )
    verdict = kind_of(mark).test(marked, mark, alpha, GRINDING_BITS)
    if not verdict.accepted:
        raise BadInput(
            f"no judge would accept this claim: {verdict.reason}; embed for longer, or mint a larger mark first"
        )


def claim_of(
    owner: OwnerKey,
    bundle: Bundle,
    *,
    host: nn.Module | None,
    marked: nn.Module,
    time: datetime | None = None,
    owner_name: str | None = None,
    alpha: float = 1e-6,
    stamp: Stamp | None = None,
    host_digest: str | None = None,
    marked_digest: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Claim:
    """The signed claim that binds a bundle; arguments and errors as in `commit`."""
    key = MarkKey(bundle.secret, owner.public)
    fields = {
        "owner": owner.fingerprint if owner_name is None else owner_name,
        "scheme": bundle.scheme,
        "mark": bundle.name,
        "kind": bundle.mark.kind,
        "parameters": parameters_of(bundle.mark, alpha).model_dump(mode="json"),
        "mark_key_commitment": key.commitment(),
        "mark_digest": bundle.mark_digest,
        "evidence_digest": bundle.digest,
        "host_digest": None if host is None else host_digest or model_digest(host),
        "marked_digest": marked_digest or model_digest(marked),
        "slice_root": root_of(bundle.mark, key),
        "class_names": None if class_names is None else tuple(class_names),
        "time": rfc3339(datetime.now(UTC) if time is None else time),
        "timestamp": None,
    }
    claim = Claim.sign(owner, fields)
    if stamp is None:
        return claim
    return Claim.sign(owner, {**fields, "timestamp": base64.b64encode(stamp(claim.stamped_bytes())).decode()})


DRAWN = frozenset({"mark_digest", "evidence_digest", "time", "timestamp", "signature"})
"""The fields of a claim that differ between two commitments to the same: they depend on the salt and the clock."""


def _stands(out: Path, claim: Claim, bundle: Bundle, drawn: Set[str]) -> bool:
    """Whether `out` holds a whole commitment that differs in the `drawn` fields alone, stamped if this one is."""
    try:
        there, opened = Claim.read(out / CLAIM), Bundle.read(out / EVIDENCE_FOLDER)
    except (BadInput, Tampered):
        return False
    same = there.model_dump(exclude=set(drawn)) == claim.model_dump(exclude=set(drawn))
    bound = (there.mark_digest, there.evidence_digest) == (opened.mark_digest, opened.digest)
    marked = salted_digest(opened.mark, bundle.salt) == bundle.mark_digest and opened.secret == bundle.secret
    return same and bound and marked and (claim.timestamp is None or there.timestamp is not None)


def _write(claim: Claim, bundle: Bundle, out: Path, drawn: Set[str]) -> tuple[Path, Path]:
    if not out.is_symlink() and _stands(out, claim, bundle, drawn):
        return out / CLAIM, out / EVIDENCE_FOLDER
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise BadInput(f"{out} is there already, and a commitment is never overwritten; give a new folder")
    prefix = f".{out.name}.uncommitted-"
    for left in out.parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        making = Path(tempfile.mkdtemp(dir=out.parent, prefix=prefix))
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}; give a folder that exists and is writable") from error
    try:
        bundle.write(making / EVIDENCE_FOLDER)
        write_atomic(making / CLAIM, claim.to_bytes())
        making.rename(out)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}; nothing was written") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return out / CLAIM, out / EVIDENCE_FOLDER
