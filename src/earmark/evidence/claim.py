"""The public claim: who says to have marked a model, with hashes that bind the secret evidence, signed.

Nothing in a claim is secret and nothing in it lets anyone test a guess of the mark: the mark's digest is salted, the
key is only committed to. docs/format.md lists every field and the exact bytes that are hashed and signed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from earmark.errors import BadInput, Tampered
from earmark.evidence.wire import Record, parse, read_regular, render, validated
from earmark.files import canonical_json
from earmark.keys import OwnerKey, verify_signature

__all__ = [
    "CLAIM_LIMIT",
    "FORMATS",
    "Claim",
    "NullRecord",
    "Parameters",
    "check_text",
    "facts_of",
    "known_format",
    "rfc3339",
]

FORMATS = 1, 2, 3
"""The versions of a claim; each has one field more than the one before, and may do without those of earlier ones."""
ADDED = {"slice_root": 2, "class_names": 3}
"""The fields that not every claim has, with the version that they came with."""
CLAIM_LIMIT = 1 << 18
NAMES_LIMIT = CLAIM_LIMIT // 2
"""Bytes of class names in a claim, as they are written."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("text has control characters")
    return text


def _instant(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _encoded(text: str) -> str:
    try:
        if base64.b64encode(base64.b64decode(text, validate=True)).decode() != text:
            raise ValueError("base64 is not in its one form")
    except binascii.Error:
        raise ValueError("text is not base64") from None
    return text


TEXT_LIMIT = 200
Text = Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT), AfterValidator(_printable)]
Words = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_printable)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$"), AfterValidator(_instant)]
Token = Annotated[str, Field(min_length=1, max_length=CLAIM_LIMIT), AfterValidator(_encoded)]
Size = Annotated[int, Field(ge=1, le=1 << 31)]


class NullRecord(Record):
    """`core.Null` as it stands in a claim."""

    basis: Literal["exact", "calibrated", "none"]
    rate: Annotated[float, Field(gt=0, lt=1)] | None
    words: Words


class Parameters(Record):
    """What anyone may know of the mark: `n` trials over `classes` classes, the image shape, the null, and alpha."""

    n: Size
    classes: Annotated[int, Field(ge=2, le=1 << 31)] | None
    image_shape: Annotated[tuple[Size, Size, Size], Field(strict=False)] | None
    null: NullRecord
    alpha: Annotated[float, Field(gt=0, lt=1)]


class Claim(Record):
    """One signed statement. A claim that came from a file has been checked against its signature.

    Attributes:
        format: the version of the format: 3 with `class_names`, else 2 with a `slice_root`, else 1.
        owner: the name that the owner wants to be shown under; it proves nothing.
        public_key: the owner's Ed25519 public key.
        scheme: the scheme that the mark was embedded with.
        mark: the mark's name, under which the owner derived its key.
        kind: the mark's kind, as `earmark.marks` knows it.
        parameters: the public parameters of the mark and its test.
        mark_key_commitment: `MarkKey.commitment()` of the key that minted the mark; it binds `public_key` too.
        mark_digest: the salted digest of the mark.
        evidence_digest: the digest of the evidence bundle.
        host_digest: `files.model_digest` of the model before marking; None where there was none.
        marked_digest: `files.model_digest` of the marked model, as released.
        slice_root: the root over all trials, for a mark that opens in slices (`marks.Sliced`); None for all others.
        class_names: what the released model calls its classes, that of class 0 first; None where nothing is said.
            A service that answers in names is read by them where the claim is known to be no later than the suspect:
            names that are chosen afterwards choose the answers, and p does not pay for that.
        time: RFC 3339 in UTC, as the owner says; never trusted by itself.
        timestamp: an RFC 3161 time-stamp token in base64, or None (see `evidence.timestamp`).
        signature: Ed25519 over `signed_bytes()`.
    """

    format: Literal[1, 2, 3]
    owner: Text
    public_key: Hex32
    scheme: Text
    mark: Text
    kind: Text
    parameters: Parameters
    mark_key_commitment: Hex32
    mark_digest: Hex32
    evidence_digest: Hex32
    host_digest: Hex32 | None
    marked_digest: Hex32
    slice_root: Hex32 | None = None
    class_names: Annotated[tuple[Text, ...], Field(strict=False)] | None = None
    time: Time
    timestamp: Token | None
    signature: Hex64

    @model_validator(mode="after")
    def _of_its_format(self) -> Claim:
        if self.format != _version(self.model_dump(include=set(ADDED))):
            raise ValueError("the format is not the version that the newest of the claim's fields came with")
        return self

    @model_validator(mode="after")
    def _names_each_class(self) -> Claim:
        names = self.class_names
        if names is not None:
            if len(names) != self.parameters.classes or len(set(names)) < len(names):
                raise ValueError(f"class_names: expected {self.parameters.classes} different names, one for each class")
            if len(render({"class_names": names})) > NAMES_LIMIT:
                raise ValueError(f"class_names: they take more than {NAMES_LIMIT} bytes; shorten them")
        return self

    @classmethod
    def sign(cls, owner: OwnerKey, fields: dict[str, Any]) -> Claim:
        """The claim with these fields, `format`, `public_key` and `signature` filled in by the owner's key."""
        fields = {**fields, "format": _version(fields), "public_key": owner.public.hex()}
        unsigned = validated(cls, {**fields, "signature": "0" * 128}, "claim")
        return validated(cls, {**fields, "signature": owner.sign(unsigned.signed_bytes()).hex()}, "claim")

    @classmethod
    def from_bytes(cls, raw: bytes, name: str = "claim.json") -> Claim:
        """The claim in the bytes of a claim file; `name` is how errors call the file.

        Raises:
            BadInput: not the JSON of a claim, or of a format that this version does not know.
            Tampered: the signature does not fit the content.
        """
        outer = parse(raw, name, CLAIM_LIMIT)
        body = outer.get("claim")
        if set(outer) != {"claim", "signature"} or not isinstance(body, dict) or "signature" in body:
            raise BadInput(f'{name}: expected an object with "claim" and "signature"; is it a claim file?')
        known_format(body, name, FORMATS)
        claim = validated(cls, {**body, "signature": outer["signature"]}, name)
        if claim.to_bytes() != raw or not claim.is_signed():
            raise Tampered(f"{name}: the signature does not fit the content; get the file as the owner signed it")
        return claim

    @classmethod
    def read(cls, path: Path | str) -> Claim:
        """The claim in a file; raises as `from_bytes` does, naming the file."""
        return cls.from_bytes(read_regular(Path(path), CLAIM_LIMIT), str(path))

    def to_bytes(self) -> bytes:
        """The bytes of the claim file."""
        return render({"claim": self.body(), "signature": self.signature})

    def body(self) -> dict[str, Any]:
        """Everything but the signature, as JSON; without the fields of `ADDED` that this claim does not have."""
        lacking = {name for name in ADDED if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude={"signature", *lacking})

    def signed_bytes(self) -> bytes:
        """What the owner signs: a domain tag and the canonical JSON of the body."""
        return f"earmark/claim/{self.format}\n".encode() + canonical_json(self.body())

    def stamped_bytes(self) -> bytes:
        """What a time-stamp authority stamps: a domain tag and the canonical JSON of the body without the token."""
        tag = f"earmark/claim/{self.format}/timestamp\n".encode()
        return tag + canonical_json({**self.body(), "timestamp": None})

    def is_signed(self) -> bool:
        """Whether the signature is the one that the public key's owner made of this content."""
        return verify_signature(bytes.fromhex(self.public_key), self.signed_bytes(), bytes.fromhex(self.signature))

    @property
    def claimed_time(self) -> datetime:
        """`time` as an aware datetime: what the owner says, no more."""
        return datetime.fromisoformat(self.time)


def _version(fields: Mapping[str, Any]) -> int:
    """The format of a claim with these fields."""
    return max((version for name, version in ADDED.items() if fields.get(name) is not None), default=1)


def facts_of(parameters: Parameters) -> bytes:
    """All but the words that explain the null: they may change from version to version, its numbers may not."""
    return canonical_json(parameters.model_dump(mode="json", exclude={"null": {"words"}}))


def check_text(what: str, text: str) -> str:
    """`text`, if a claim can carry it: what a mark, an owner or a scheme may be called.

    >>> check_text("the mark's name", "spring")
    'spring'

    Raises:
        BadInput: nothing, more than 200 characters, or some that cannot be printed (tabs, halves of surrogate pairs).
    """
    try:
        return TypeAdapter(Text).validate_python(text)
    except ValidationError as error:
        raise BadInput(f"{what}: expected 1 to {TEXT_LIMIT} printable characters, got {text[:40]!a}") from error


def known_format(fields: dict[str, Any], name: str, known: Sequence[int]) -> None:
    """Refuse a file of a format that this version of earmark does not know, before reading anything else of it."""
    came = fields.get("format")
    if type(came) is not int or came not in known:
        reads = " and ".join(map(str, known))
        raise BadInput(f"{name}: format {came!r:.20} is not known, this version reads {reads}; update earmark")


def rfc3339(moment: datetime) -> str:
    """An aware datetime in UTC to the second, rounded down, as claims write it.

    Raises:
        BadInput: a datetime without a time zone, or one whose UTC date is before year 1 or after year 9999.

    >>> from datetime import timedelta, timezone
    >>> rfc3339(datetime(2024, 5, 1, 14, 0, tzinfo=timezone(timedelta(hours=2))))
    '2024-05-01T12:00:00Z'
    """
    if moment.tzinfo is None:
        raise BadInput(f"expected a time with its time zone, got {moment}; add tzinfo, such as datetime.UTC")
    try:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    except OverflowError as error:
        raise BadInput(f"the time {moment} is outside the years 1 to 9999 in UTC; give another") from error
