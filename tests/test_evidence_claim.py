from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from earmark.errors import BadInput, Tampered
from earmark.evidence import Claim
from earmark.evidence.claim import rfc3339
from earmark.evidence.wire import render
from earmark.files import canonical_json
from earmark.keys import OwnerKey, verify_signature

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
FIELDS: dict[str, Any] = {
    "owner": "Ada Lovelace",
    "scheme": "deep fidelity",
    "mark": "winter",
    "kind": "triggers",
    "parameters": {
        "n": 100,
        "classes": 10,
        "image_shape": [1, 8, 8],
        "null": {"basis": "exact", "rate": 0.1, "words": "each match has chance 1 in 10"},
        "alpha": 1e-6,
    },
    "mark_key_commitment": "1" * 64,
    "mark_digest": "2" * 64,
    "evidence_digest": "3" * 64,
    "host_digest": None,
    "marked_digest": "4" * 64,
    "time": "2024-05-01T12:00:00Z",
    "timestamp": None,
}


@pytest.fixture
def claim() -> Claim:
    return Claim.sign(OWNER, FIELDS)


def test_a_claim_survives_its_file(claim: Claim, tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_bytes(claim.to_bytes())
    assert Claim.read(tmp_path / "claim.json") == claim
    assert Claim.from_bytes(claim.to_bytes()).to_bytes() == claim.to_bytes()


def test_what_is_signed_is_the_tag_and_the_canonical_json_of_the_body(claim: Claim) -> None:
    outer = json.loads(claim.to_bytes())
    message = b"earmark/claim/1\n" + canonical_json(outer["claim"])
    assert verify_signature(OWNER.public, message, bytes.fromhex(outer["signature"]))
    assert outer["claim"] == {**FIELDS, "format": 1, "public_key": OWNER.public.hex()}


def test_tampering_with_any_bit_of_a_claim_names_the_file(claim: Claim) -> None:
    raw = claim.to_bytes()
    for at in range(8 * len(raw)):
        broken = bytearray(raw)
        broken[at // 8] ^= 1 << at % 8
        with pytest.raises((Tampered, BadInput), match=r"released/claim\.json"):
            Claim.from_bytes(bytes(broken), "released/claim.json")


def test_cutting_a_claim_anywhere_names_the_file(claim: Claim) -> None:
    raw = claim.to_bytes()
    for end in range(len(raw)):
        with pytest.raises((Tampered, BadInput), match=r"claim\.json"):
            Claim.from_bytes(raw[:end])


REFORMATTED: dict[str, Callable[[bytes], bytes]] = {
    "compact": lambda raw: json.dumps(json.loads(raw), separators=(",", ":")).encode(),
    "trailing space": lambda raw: raw + b" ",
    "no final newline": lambda raw: raw.rstrip(),
    "Windows line ends": lambda raw: raw.replace(b"\n", b"\r\n"),
    "other order": lambda raw: json.dumps(dict(reversed(json.loads(raw).items())), indent=2).encode() + b"\n",
    "escaped letter": lambda raw: raw.replace(b"Ada", rb"\u0041da"),
    "longer float": lambda raw: raw.replace(b"0.1,", b"0.10,"),
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
}


@pytest.mark.parametrize("form", REFORMATTED)
def test_a_claim_has_one_form_only(claim: Claim, form: str) -> None:
    with pytest.raises((Tampered, BadInput)):
        Claim.from_bytes(REFORMATTED[form](claim.to_bytes()))


def test_a_key_that_occurs_twice_is_refused(claim: Claim) -> None:
    raw = claim.to_bytes().replace(b'"owner": "Ada Lovelace"', b'"owner": "Eve",\n    "owner": "Ada Lovelace"')
    with pytest.raises(BadInput, match="a key occurs twice"):
        Claim.from_bytes(raw)


WRONG: list[tuple[str, Any]] = [
    ("owner", ""),
    ("owner", "Ada\x1b[31m"),
    ("owner", "x" * 201),
    ("owner", 3),
    ("mark_digest", "A" * 64),
    ("mark_digest", "1" * 63),
    ("evidence_digest", "../../../etc/passwd"),
    ("evidence_digest", None),
    ("time", "2024-05-01T12:00:00"),
    ("time", "2024-05-01T12:00:00+02:00"),
    ("time", "2024-13-01T12:00:00Z"),
    ("time", "２024-05-01T12:00:00Z"),
    ("time", 1714564800),
    ("timestamp", "not base64!"),
    ("timestamp", "QQ"),
    ("timestamp", "QR=="),
    ("parameters", {**FIELDS["parameters"], "alpha": 0.0}),
    ("parameters", {**FIELDS["parameters"], "alpha": 1}),
    ("parameters", {**FIELDS["parameters"], "n": True}),
    ("parameters", {**FIELDS["parameters"], "n": 0}),
    ("parameters", {**FIELDS["parameters"], "n": 100.0}),
    ("parameters", {**FIELDS["parameters"], "image_shape": [1, 8]}),
    ("parameters", {**FIELDS["parameters"], "image_shape": [1, 8, "8"]}),
    ("parameters", {**FIELDS["parameters"], "null": {"basis": "sure", "rate": 0.1, "words": "x"}}),
    ("parameters", {**FIELDS["parameters"], "extra": 1}),
    ("surprise", "a field that the format does not have"),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[f"{field}-{i}" for i, (field, _) in enumerate(WRONG)])
def test_a_field_that_the_format_does_not_have_is_named(field: str, value: Any) -> None:
    body = {**FIELDS, "format": 1, "public_key": OWNER.public.hex(), field: value}
    signature = OWNER.sign(b"earmark/claim/1\n" + canonical_json(body)).hex()
    with pytest.raises(BadInput, match=field):
        Claim.from_bytes(render({"claim": body, "signature": signature}))


def test_a_missing_field_is_named() -> None:
    body = {key: value for key, value in FIELDS.items() if key != "marked_digest"}
    with pytest.raises(BadInput, match="marked_digest: Field required"):
        Claim.sign(OWNER, body)


@pytest.mark.parametrize("version", [0, 4, "1", True, 1.0, None])
def test_a_format_of_another_version_is_refused_before_anything_else(version: Any) -> None:
    with pytest.raises(BadInput, match="this version reads 1 and 2 and 3"):
        Claim.from_bytes(render({"claim": {"format": version, "later": {}}, "signature": ""}))


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000, b"9" * 5000, b" " * (1 << 19)]
)
def test_what_is_no_claim_is_refused(raw: bytes) -> None:
    with pytest.raises((BadInput, Tampered), match=r"claim\.json"):
        Claim.from_bytes(raw)


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999"])
def test_numbers_that_are_none_are_refused(claim: Claim, number: bytes) -> None:
    with pytest.raises(BadInput, match="not finite"):
        Claim.from_bytes(claim.to_bytes().replace(b"0.1,", number + b","))


def test_a_claim_signed_by_another_key_is_refused(claim: Claim) -> None:
    other = Claim.sign(OwnerKey.generate(), FIELDS)
    forged = render({"claim": claim.body(), "signature": other.signature})
    with pytest.raises(Tampered, match="the signature does not fit"):
        Claim.from_bytes(forged)


def test_a_signature_for_another_purpose_signs_no_claim(claim: Claim) -> None:
    bare = OWNER.sign(canonical_json(claim.body())).hex()
    assert not claim.model_copy(update={"signature": bare}).is_signed()


def test_the_token_is_signed_but_does_not_stamp_itself(claim: Claim) -> None:
    stamped = Claim.sign(OWNER, {**FIELDS, "timestamp": "AAAA"})
    assert stamped.stamped_bytes() == claim.stamped_bytes()
    assert stamped.signed_bytes() != claim.signed_bytes()
    assert claim.stamped_bytes() != claim.signed_bytes()


def test_a_claim_does_not_change(claim: Claim) -> None:
    with pytest.raises(ValidationError):
        claim.owner = "Eve"  # type: ignore[misc]


def test_a_link_is_not_followed(claim: Claim, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(claim.to_bytes())
    (tmp_path / "claim.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(BadInput, match="a link is not followed"):
        Claim.read(tmp_path / "claim.json")


@pytest.mark.parametrize("what", ["nothing", "folder"])
def test_a_path_without_a_file_is_refused(tmp_path: Path, what: str) -> None:
    if what == "folder":
        (tmp_path / "claim.json").mkdir()
    with pytest.raises(BadInput, match=r"claim\.json"):
        Claim.read(tmp_path / "claim.json")


def test_times_are_written_in_utc() -> None:
    moment = datetime(2024, 5, 1, 1, 30, 59, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2024-04-30T23:30:59Z"
    assert Claim.sign(OWNER, {**FIELDS, "time": rfc3339(moment)}).claimed_time == moment.replace(microsecond=0)
    with pytest.raises(BadInput, match="add tzinfo"):
        rfc3339(datetime(2024, 5, 1))
    assert rfc3339(datetime(33, 1, 1, tzinfo=UTC)) == "0033-01-01T00:00:00Z"


# --------------------------------------------------------------------------------------------------------- class names

NAMES = [f"kind {at}" for at in range(10)]


def test_class_names_make_a_claim_of_format_3_and_come_back_in_their_order() -> None:
    claim = Claim.sign(OWNER, {**FIELDS, "class_names": NAMES})
    again = Claim.from_bytes(claim.to_bytes())
    assert (again.format, again.class_names) == (3, tuple(NAMES))
    assert b"slice_root" not in claim.to_bytes()
    assert claim.signed_bytes().startswith(b"earmark/claim/3\n")


def test_a_claim_has_the_version_of_its_newest_field() -> None:
    root = {"slice_root": "5" * 64}
    added: list[dict[str, Any]] = [{}, root, {"class_names": NAMES}, {**root, "class_names": NAMES}]
    signed = [Claim.sign(OWNER, {**FIELDS, **each}) for each in added]
    assert [claim.format for claim in signed] == [1, 2, 3, 3]
    assert len({claim.signature for claim in signed}) == 4
    for claim in signed:
        body = {**claim.body(), "format": claim.format % 3 + 1}
        raw = render({"claim": body, "signature": claim.signature})
        with pytest.raises((BadInput, Tampered)):
            Claim.from_bytes(raw)


@pytest.mark.parametrize(
    "names", [NAMES[:9], [*NAMES, "kind 10"], [*NAMES[:9], NAMES[0]], [*NAMES[:9], ""], [*NAMES[:9], "a\nb"]]
)
def test_class_names_are_as_many_as_the_classes_different_and_printable(names: list[str]) -> None:
    with pytest.raises(BadInput, match="class_names"):
        Claim.sign(OWNER, {**FIELDS, "class_names": names})


def test_class_names_leave_room_for_the_rest_of_a_claim() -> None:
    many = {**FIELDS, "parameters": {**FIELDS["parameters"], "classes": 1000}}
    with pytest.raises(BadInput, match="131072 bytes"):
        Claim.sign(OWNER, {**many, "class_names": [f"{at}{'é' * 190}" for at in range(1000)]})
    claim = Claim.sign(
        OWNER, {**many, "class_names": [f"n{at:08}, a rather long name of WordNet" for at in range(1000)]}
    )
    assert Claim.from_bytes(claim.to_bytes()) == claim
