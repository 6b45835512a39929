"""The claim beside the released files: an in-toto statement in a DSSE envelope, a model card, a bill of materials."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from earmark.cli import app
from earmark.errors import BadInput, EarmarkError, Tampered
from earmark.evidence import Claim, attest, attested
from earmark.evidence.attestation import PAYLOAD, PREDICATE, STATEMENT, pae
from earmark.files import canonical_json
from earmark.keys import OwnerKey
from earmark.reports import bill_of_materials, card_section

GOLDEN = Path(__file__).parent / "golden" / "v2" / "sliced"
OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
THIEF = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
CLAIM = Claim.read(GOLDEN / "claim.json")
ENVELOPE = (GOLDEN / "claim.intoto.json").read_bytes()
BODY: dict[str, Any] = json.loads(ENVELOPE)
STATED: dict[str, Any] = json.loads(base64.b64decode(BODY["payload"]))
EVIL = "Ada | <script>x</script> [a](http://evil) `b` www.evil.example **c** \\| # d"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A released folder: weights, a configuration, and a file in a folder within."""
    shutil.copytree(GOLDEN / "release", tmp_path / "release")
    (tmp_path / "release" / "config.json").write_text("{}")
    (tmp_path / "release" / "code").mkdir()
    (tmp_path / "release" / "code" / "net.py").write_text("x = 1")
    return tmp_path / "release"


def sealed(statement: Any, signer: OwnerKey = OWNER) -> bytes:
    payload = canonical_json(statement)
    signature = {"keyid": "", "sig": base64.b64encode(signer.sign(pae(PAYLOAD, payload))).decode()}
    return json.dumps(
        {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": [signature]}
    ).encode()


# ------------------------------------------------------------------------------------------------------------- the case


def test_the_golden_envelope_is_written_and_read_as_it_was() -> None:
    assert attest(OWNER, CLAIM, GOLDEN / "release") == ENVELOPE
    held = attested(ENVELOPE, GOLDEN / "release", OWNER.public)
    assert held.claim == CLAIM
    assert (held.weights, held.others) == ("marked.safetensors", ())
    raw = (GOLDEN / "release" / "marked.safetensors").read_bytes()
    assert held.files == {"marked.safetensors": hashlib.sha256(raw).hexdigest()}


def test_the_envelope_is_one_that_any_reader_of_dsse_and_in_toto_can_check() -> None:
    """Written out here from the two specifications, with nothing of ours but the file."""
    assert set(BODY) == {"payload", "payloadType", "signatures"}
    assert BODY["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(BODY["payload"], validate=True)
    kind = BODY["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (signature,) = BODY["signatures"]
    Ed25519PublicKey.from_public_bytes(OWNER.public).verify(base64.b64decode(signature["sig"]), message)
    assert signature["keyid"] == OWNER.fingerprint
    assert (STATED["_type"], STATED["predicateType"]) == (STATEMENT, PREDICATE)
    assert [*STATED["subject"][0]] == ["digest", "name"]
    assert STATED["predicate"]["claim"]["marked_digest"] == CLAIM.marked_digest


@pytest.mark.parametrize(
    ("kind", "payload", "encoded"),
    [
        ("http://example.com/HelloWorld", b"hello world", b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"),
        ("", b"", b"DSSEv1 0  0 "),
        ("é", b"\n", b"DSSEv1 2 \xc3\xa9 1 \n"),
    ],
)
def test_the_signed_bytes_are_those_of_the_dsse_protocol(kind: str, payload: bytes, encoded: bytes) -> None:
    assert pae(kind, payload) == encoded


def test_a_file_whose_name_no_statement_can_hold_is_refused(release: Path) -> None:
    (release / os.fsdecode(b"net\xff.bin")).write_bytes(b"")
    with pytest.raises(BadInput, match=r"cannot be printed, so no statement can hold it"):
        attest(OWNER, CLAIM, release)


def test_a_whole_folder_is_bound_and_what_is_new_in_it_is_named(release: Path) -> None:
    envelope = attest(OWNER, CLAIM, release)
    (release / "model.sig").write_text("{}")
    held = attested(envelope, release, OWNER.public)
    assert set(held.files) == {"marked.safetensors", "config.json", "code/net.py"}
    assert held.others == ("model.sig",)
    assert attest(OWNER, CLAIM, release, without=[release / "model.sig"]) == envelope


def test_any_other_form_of_the_same_json_will_do() -> None:
    safe = {**BODY, "payload": BODY["payload"].replace("+", "-").replace("/", "_")}
    assert attested(json.dumps(safe).encode(), GOLDEN / "release", OWNER.public).claim == CLAIM


# -------------------------------------------------------------------------------------------------------------- forgers


@pytest.mark.parametrize("file", ["config.json", "code/net.py", "marked.safetensors"])
def test_a_changed_or_missing_file_is_named(file: str, release: Path) -> None:
    envelope = attest(OWNER, CLAIM, release)
    content = (release / file).read_bytes()
    (release / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Tampered, match=f"{file}' is not the file that was attested"):
        attested(envelope, release, OWNER.public)
    (release / file).unlink()
    with pytest.raises(Tampered, match=f"{file}' is not there"):
        attested(envelope, release, OWNER.public)


def altered(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(STATED), **changes}


FORGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "another signer": (lambda: sealed(STATED, THIEF), "not signed by the owner whom you expect"),
    "no signature": (lambda: json.dumps({**BODY, "signatures": []}).encode(), "signatures"),
    "another type": (lambda: json.dumps({**BODY, "payloadType": "text/plain"}).encode(), "payloadType"),
    "another payload": (
        lambda: json.dumps({**BODY, "payload": base64.b64encode(b"{}").decode()}).encode(),
        "not signed by the owner",
    ),
    "another statement": (lambda: sealed(altered(_type="x")), "_type"),
    "another predicate": (lambda: sealed(altered(predicateType="https://slsa.dev/provenance/v1")), "predicateType"),
    "no subject": (lambda: sealed(altered(subject=[])), "subject"),
    "a file elsewhere": (
        lambda: sealed(
            altered(subject=[*STATED["subject"], {"name": "../claim.json", "digest": {"sha256": "0" * 64}}])
        ),
        "is not there",
    ),
    "other weights": (
        lambda: sealed(altered(predicate={**STATED["predicate"], "weights": "../release/marked.safetensors"})),
        "does not hold the weights",
    ),
    "a changed claim": (
        lambda: sealed(
            altered(predicate={**STATED["predicate"], "claim": {**STATED["predicate"]["claim"], "owner": "Eve"}})
        ),
        "signature does not fit",
    ),
}


@pytest.mark.parametrize("case", FORGED)
def test_what_does_not_hold_is_an_error_that_says_so(case: str) -> None:
    forge, says = FORGED[case]
    with pytest.raises(EarmarkError, match=says):
        attested(forge(), GOLDEN / "release", OWNER.public)


def test_a_claim_of_another_key_in_ones_own_envelope_is_refused() -> None:
    with pytest.raises(Tampered, match="of another key"):
        attested(sealed(STATED, THIEF), GOLDEN / "release", THIEF.public)
    with pytest.raises(BadInput, match="not signed by this owner"):
        attest(THIEF, CLAIM, GOLDEN / "release")


def test_a_release_without_the_committed_weights_is_refused(release: Path, tmp_path: Path) -> None:
    (release / "marked.safetensors").rename(release / "marked.bytes")
    with pytest.raises(BadInput, match="no weights of the digest"):
        attest(OWNER, CLAIM, release)
    with pytest.raises(BadInput, match="no file and no folder"):
        attest(OWNER, CLAIM, tmp_path / "nowhere")


def test_a_link_is_not_followed(release: Path) -> None:
    (release / "link").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="is a link"):
        attest(OWNER, CLAIM, release)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(ENVELOPE)), st.integers(0, 30))
def test_any_bytes_in_an_envelope_are_refused_or_change_nothing(odd: bytes, at: int, cut: int) -> None:
    try:
        held = attested(ENVELOPE[:at] + odd + ENVELOPE[at + cut :], GOLDEN / "release", OWNER.public)
    except EarmarkError:
        return
    assert held.claim == CLAIM


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.sampled_from([*STATED, "claim", "signature", "weights", "name", "digest"]), ODD)
def test_any_value_in_a_signed_statement_is_refused_or_is_the_claim(name: str, odd: Any) -> None:
    statement = copy.deepcopy(STATED)
    for place in (statement, statement["predicate"], statement["subject"][0]):
        if name in place:
            place[name] = odd
    try:
        payload = json.dumps(statement).encode()
        signature = base64.b64encode(OWNER.sign(pae(PAYLOAD, payload))).decode()
        outer = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": signature}],
        }
        held = attested(json.dumps(outer).encode(), GOLDEN / "release", OWNER.public)
    except EarmarkError:
        return
    assert held.claim == CLAIM


# ---------------------------------------------------------------------------------------------- beside other signatures


def test_it_stands_beside_the_openssfs_model_signature_of_the_same_folder(release: Path, tmp_path: Path) -> None:
    pytest.importorskip("OpenSSL")
    signing = pytest.importorskip("model_signing.signing")
    verifying = pytest.importorskip("model_signing.verifying")
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "private.pem").write_bytes(pem)
    (tmp_path / "public.pem").write_bytes(public)
    (release / "claim.intoto.json").write_bytes(attest(OWNER, CLAIM, release))

    signature = tmp_path / "model.sig"
    signing.Config().use_elliptic_key_signer(private_key=tmp_path / "private.pem").sign(release, signature)
    checked = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "public.pem")
    checked.verify(release, signature)
    held = attested((release / "claim.intoto.json").read_bytes(), release, OWNER.public)
    assert held.others == ("claim.intoto.json",)

    theirs = json.loads(base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))
    files = {file["name"]: file["digest"] for file in theirs["predicate"]["resources"]}
    assert {name: files[name] for name in held.files} == held.files, "both name the same files by the same digests"
    assert "claim.intoto.json" in files

    weights = release / "marked.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"marked\.safetensors"):
        checked.verify(release, signature)
    with pytest.raises(Tampered, match=r"marked\.safetensors"):
        attested((release / "claim.intoto.json").read_bytes(), release, OWNER.public)


def test_the_statement_is_valid_by_the_in_toto_library() -> None:
    statement_pb2 = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    statement = pytest.importorskip("in_toto_attestation.v1.statement")
    json_format = pytest.importorskip("google.protobuf.json_format")
    parsed = json_format.Parse(base64.b64decode(BODY["payload"]), statement_pb2.Statement())
    statement.Statement.copy_from_pb(parsed).validate()


@pytest.mark.parametrize("claim", [CLAIM, CLAIM.model_copy(update={"owner": EVIL, "slice_root": None, "format": 1})])
def test_the_bill_of_materials_is_valid_cyclonedx_1_6(claim: Claim) -> None:
    bill = bill_of_materials(claim, "marked.safetensors", "0" * 64, ENVELOPE)
    assert bill == bill_of_materials(claim, "marked.safetensors", "0" * 64, ENVELOPE)
    (component,) = bill["components"]
    assert component["type"] == "machine-learning-model"
    said = {entry["name"]: entry["value"] for entry in component["properties"]}
    assert said["earmark:marked_digest"] == claim.marked_digest
    assert component["externalReferences"][0]["hashes"][0]["content"] == hashlib.sha256(ENVELOPE).hexdigest()
    json_validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = json_validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    assert validator.validate_str(json.dumps({**bill, "components": [{"type": "x"}]})) is not None


class Elements(HTMLParser):
    """Collects the elements that a text would open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def test_a_model_card_says_who_and_what_and_keeps_a_claims_text_quiet() -> None:
    card = card_section(CLAIM, "marked.safetensors", "0" * 64)
    for said in (CLAIM.public_key, CLAIM.marked_digest, str(CLAIM.slice_root), "as the owner says", "60 trials"):
        assert said in card
    evil = card_section(CLAIM.model_copy(update={"owner": EVIL, "mark": EVIL, "scheme": EVIL}), EVIL, "0" * 64)
    quiet = Elements()
    quiet.feed(evil)
    assert quiet.found == []
    assert "](http" not in evil
    assert "://" not in evil
    assert "www." not in evil
    assert len(evil.splitlines()) == len(card.splitlines())
    rows = [line.count("|") for line in evil.splitlines() if line.startswith("|")]
    assert set(rows) == {3}


# ------------------------------------------------------------------------------------------------------ by command line


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env={"EARMARK_PASSWORD": "x"})


def test_an_owner_attests_and_anybody_checks(release: Path, tmp_path: Path) -> None:
    OWNER.save(tmp_path / "owner.pem", b"x")
    given = ("--key", tmp_path / "owner.pem", "--claim", GOLDEN / "claim.json", "--released", release, "--out", release)
    made = run("attest", *given)
    assert made.exit_code == 0, made.stderr
    assert {path.name for path in release.iterdir()} >= {"claim.intoto.json", "ownership.md", "model.cdx.json"}
    assert run("attest", *given).exit_code == 0, "the same command again changes nothing"
    check = ("attested", release, "--envelope", release / "claim.intoto.json", "--owner-public", OWNER.public.hex())
    found = run(*check, "--json")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["claim"] == CLAIM.body()
    assert told["others"] == ["model.cdx.json", "ownership.md"]
    (release / "config.json").write_text("[]")
    changed = run(*check)
    assert (changed.exit_code, changed.stdout) == (2, "")
    assert "config.json" in changed.stderr
    assert "expected a public key" in run(*check[:-1], "zz").stderr
