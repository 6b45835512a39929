"""The claim where supply-chain tools look: an in-toto statement about the released files, in a DSSE envelope.

The statement (in-toto Attestation Framework, Statement v1) names each released file by its SHA-256 and carries the
whole claim as its predicate. The envelope (Dead Simple Signing Envelope 1.0.2) is signed by the owner's Ed25519 key
over

    PAE = "DSSEv1" SP len(type) SP type SP len(payload) SP payload,        lengths in bytes, decimal ASCII

so it stands beside the signature of the OpenSSF's model signing, whose statement names the same files by the same
digests, and neither has to know of the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from earmark.errors import BadInput, Tampered
from earmark.evidence.claim import Claim, Hex32
from earmark.evidence.wire import Record, read_object, render, validated
from earmark.files import canonical_json, weights_digest
from earmark.keys import OwnerKey, verify_signature

__all__ = ["ENVELOPE", "PREDICATE", "Attested", "attest", "attested", "pae", "released_files"]

ENVELOPE: Final = "claim.intoto.json"
PAYLOAD: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "urn:earmark:claim:1"
ENVELOPE_LIMIT: Final = 1 << 24
MOST_FILES: Final = 1 << 14
MOST_SIGNATURES: Final = 16
WEIGHTS: Final = frozenset({".safetensors", ".pt", ".pth", ".bin"})
PASSED: Final = frozenset({".git", ".gitattributes", ".github", ".gitignore"})
"""What is never part of a release, as in model signing."""

Name = Annotated[str, Field(min_length=1, max_length=4096)]
Base64 = Annotated[str, Field(max_length=ENVELOPE_LIMIT)]


class Digests(Record):
    """The digests of one file."""

    sha256: Hex32


class Subject(Record):
    """One released file."""

    name: Name
    digest: Digests


class Predicate(Record):
    """What is said of the files: the claim, and which of them holds the weights that it commits to."""

    claim: dict[str, Any]
    signature: str
    weights: Name


class Statement(Record):
    """An in-toto statement of this predicate."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[tuple[Subject, ...], Field(strict=False, min_length=1, max_length=MOST_FILES)]
    predicateType: Literal["urn:earmark:claim:1"]
    predicate: Predicate


class Signature(Record):
    """One signature of an envelope."""

    sig: Base64
    keyid: Annotated[str, Field(max_length=4096)] = ""


class Envelope(Record):
    """A DSSE envelope of an in-toto payload."""

    payload: Base64
    payloadType: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[tuple[Signature, ...], Field(strict=False, min_length=1, max_length=MOST_SIGNATURES)]


@dataclass(frozen=True)
class Attested:
    """What an envelope says, after all of it has been checked.

    Attributes:
        claim: the claim, signed by the same key.
        files: SHA-256 by name, of the files that are as the envelope says.
        weights: which of them holds the weights that the claim commits to.
        others: files of the release that the envelope does not speak of.
    """

    claim: Claim
    files: Mapping[str, str]
    weights: str
    others: tuple[str, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature is made over.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def attest(owner: OwnerKey, claim: Claim, release: Path | str, without: Iterable[Path] = ()) -> bytes:
    """The envelope, as the bytes of a JSON file, that binds a claim to the files of a release.

    Args:
        owner: the key that signed the claim.
        claim: the claim.
        release: the file of the released weights, or the folder that holds it with whatever else is released.
        without: files in that folder that are not part of the release.

    Raises:
        BadInput: another owner's claim, no file there, a link among them, or none that holds the weights that the claim
            commits to.
    """
    if claim.public_key != owner.public.hex() or not claim.is_signed():
        raise BadInput("the claim is not signed by this owner's key; give the key that committed")
    root, files = Path(release), released_files(release, without)
    weights = next((name for name in files if _holds(_at(root, name), claim)), None)
    if weights is None:
        raise BadInput(f"{root} holds no weights of the digest that the claim commits to; give the released model")
    outer = {"claim": claim.body(), "signature": claim.signature}
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())],
        "predicateType": PREDICATE,
        "predicate": {**outer, "weights": weights},
    }
    payload = canonical_json(statement)
    signature = {"keyid": owner.fingerprint, "sig": _encoded(owner.sign(pae(PAYLOAD, payload)))}
    return render({"payload": _encoded(payload), "payloadType": PAYLOAD, "signatures": [signature]})


def attested(envelope: bytes, release: Path | str, owner_public: bytes, name: str = ENVELOPE) -> Attested:
    """What an envelope says of a release, if all of it holds.

    Only files that are found in the release are opened: no name in the envelope is used as a path.

    Args:
        envelope: the bytes of the envelope.
        release: the file or the folder that it speaks of.
        owner_public: the public key (32 bytes) of the owner whom the reader expects.
        name: how errors call the envelope.

    Raises:
        BadInput: no such envelope or release.
        Tampered: no signature of that owner fits, the claim within is not his, or a file is missing or not as it was.
    """
    payload = _signed_payload(envelope, owner_public, name)
    statement = validated(Statement, read_object(payload, f"the statement in {name}", ENVELOPE_LIMIT), name)
    said = statement.predicate
    claim = Claim.from_bytes(render({"claim": said.claim, "signature": said.signature}), f"the claim in {name}")
    if claim.public_key != owner_public.hex():
        raise Tampered(f"the claim in {name} is of another key than that of the envelope's signer")
    named = {subject.name: subject.digest.sha256 for subject in statement.subject}
    found = released_files(release, ())
    for file, digest in named.items():
        if found.get(file) != digest:
            what = "is not there" if file not in found else "is not the file that was attested"
            raise Tampered(f"{file[:200]!r} {what} ({name}); get the release as its owner published it")
    if said.weights not in named or not _holds(_at(Path(release), said.weights), claim):
        raise Tampered(f"{name}: {said.weights[:200]!r} does not hold the weights that the claim commits to")
    return Attested(claim, named, said.weights, tuple(sorted(set(found) - set(named))))


def released_files(release: Path | str, without: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by name of a file, or of all files below a folder, whose names are paths with "/" from there.

    Raises:
        BadInput: no such file, a link, a name that cannot be printed, or more files than a release has.
    """
    root = Path(release)
    if root.is_file() and not root.is_symlink():
        return {root.name: _sha256(root)}
    if not root.is_dir():
        raise BadInput(f"{root} is no file and no folder; give the released model")
    left_out = {path.resolve() for path in without}
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        inner = path.relative_to(root)
        if path.is_symlink():
            raise BadInput(f"{path} is a link, which a release cannot bind; put the file itself there")
        if not inner.as_posix().isprintable():
            raise BadInput(f"{str(path)!a}: the name cannot be printed, so no statement can hold it; rename the file")
        if path.is_file() and not PASSED & {*inner.parts} and path.resolve() not in left_out:
            found[inner.as_posix()] = _sha256(path)
        if len(found) > MOST_FILES:
            raise BadInput(f"{root} holds more than {MOST_FILES} files, which no release does; give its own folder")
    return found


def _signed_payload(envelope: bytes, owner_public: bytes, name: str) -> bytes:
    if len(owner_public) != 32:
        raise BadInput(f"owner_public: expected the 32 bytes of an Ed25519 public key, got {len(owner_public)}")
    record = validated(Envelope, read_object(envelope, name, ENVELOPE_LIMIT), name)
    payload = _decoded(record.payload, name)
    message = pae(record.payloadType, payload)
    if not any(verify_signature(owner_public, message, _decoded(one.sig, name)) for one in record.signatures):
        raise Tampered(f"{name} is not signed by the owner whom you expect, or was changed since")
    return payload


def _holds(path: Path, claim: Claim) -> bool:
    """Whether a file holds the weights that a claim commits to."""
    if path.suffix not in WEIGHTS:
        return False
    try:
        return weights_digest(path) == claim.marked_digest
    except BadInput:
        return False


def _at(root: Path, name: str) -> Path:
    """The file of a release that `released_files` calls `name`."""
    return root if root.is_file() else root / name


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decoded(text: str, name: str) -> bytes:
    """Base64 in either of its alphabets, as DSSE allows it."""
    try:
        return base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"{name} is no DSSE envelope: a field is not base64") from error
