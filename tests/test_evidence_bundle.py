from __future__ import annotations

import hashlib
import json
import os
import pickle
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import save
from torch import Tensor, nn

from earmark import files
from earmark.core import Images, Verdict
from earmark.data import digits
from earmark.errors import BadInput, EarmarkError, Tampered
from earmark.evidence import Bundle, Claim, commit, judge
from earmark.evidence.wire import render
from earmark.files import canonical_json
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import Noise, TriggerSet

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = OWNER.mark_key("winter")
MARK = Noise(count=12).make(KEY, (1, 4, 4), 10)
SALT = bytes(32)
EVIDENCE, TENSORS = "evidence.json", "mark.safetensors"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.seal(MARK, KEY, name="winter", scheme="deep fidelity", salt=SALT)


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    bundle.write(tmp_path / "evidence")
    return tmp_path / "evidence"


def resealed(bundle: Bundle, tensors: bytes | None = None, **changes: Any) -> tuple[bytes, bytes]:
    """The two files of a bundle with other content and right hashes, as a stranger can always make them."""
    tensors = bundle.files[TENSORS] if tensors is None else tensors
    body = json.loads(bundle.files[EVIDENCE])["evidence"]
    body["files"] = {TENSORS: {"sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors)}}
    body.update(changes)
    seal = hashlib.sha256(b"earmark/evidence/1\n" + canonical_json(body)).hexdigest()
    return render({"evidence": body, "sha256": seal}), tensors


def safetensors(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


# ----------------------------------------------------------------------------------------------------------- round trip


def test_mark_to_bundle_to_mark_is_the_identity(folder: Path, bundle: Bundle) -> None:
    opened = Bundle.read(folder)
    assert isinstance(opened.mark, TriggerSet)
    assert opened.mark.digest() == MARK.digest()
    assert opened.mark.null == MARK.null
    assert (opened.secret, opened.salt, opened.name, opened.scheme) == (KEY.secret, SALT, "winter", "deep fidelity")
    assert (opened.digest, opened.mark_digest) == (bundle.digest, bundle.mark_digest)


def test_a_mark_with_carriers_survives_its_bundle() -> None:
    carriers = Images(MARK.images.flip(0), MARK.labels.flip(0), 10, "digits")
    mark = TriggerSet(MARK.images, MARK.labels, 10, MARK.null, MARK.settings, carriers)
    opened = Bundle.seal(mark, KEY, name="winter", scheme="x").mark
    assert isinstance(opened, TriggerSet)
    assert opened.digest() == mark.digest()


def test_the_salt_is_new_each_time() -> None:
    one, two = (Bundle.seal(MARK, KEY, name="winter", scheme="x") for _ in range(2))
    assert one.mark_digest != two.mark_digest
    assert one.digest != two.digest


def test_the_digests_are_those_of_the_format(bundle: Bundle) -> None:
    body = json.loads(bundle.files[EVIDENCE])["evidence"]
    assert bundle.digest == hashlib.sha256(b"earmark/evidence/1\n" + canonical_json(body)).hexdigest()
    mark = bytes.fromhex(files.digest(MARK.tensors(), ["triggers", MARK.spec()]))
    assert bundle.mark_digest == hashlib.sha256(b"earmark/mark/1\n" + SALT + mark).hexdigest()


def test_a_bundle_shows_nothing_of_its_secrets(bundle: Bundle) -> None:
    shown = repr(bundle)
    for secret in (KEY.secret.hex(), repr(KEY.secret), SALT.hex(), repr(SALT), "images", "labels"):
        assert secret not in shown


def test_errors_show_nothing_of_the_secrets(bundle: Bundle) -> None:
    secret = KEY.secret.hex().upper()
    with pytest.raises(BadInput, match="mark_key") as error:
        Bundle.from_parts(*resealed(bundle, mark_key=secret))
    assert secret not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


# ------------------------------------------------------------------------------------------------------------ tampering


def test_tampering_with_any_bit_of_the_evidence_names_the_file(bundle: Bundle) -> None:
    raw = bundle.files[EVIDENCE]
    for at in range(8 * len(raw)):
        with pytest.raises((Tampered, BadInput), match=r"kept/evidence\.json"):
            Bundle.from_parts(_flipped(raw, at), bundle.files[TENSORS], "kept/")


def test_tampering_with_any_bit_of_the_tensors_names_the_file(bundle: Bundle) -> None:
    raw = bundle.files[TENSORS]
    for at in range(8 * len(raw)):
        with pytest.raises(Tampered, match=r"kept/mark\.safetensors"):
            Bundle.from_parts(bundle.files[EVIDENCE], _flipped(raw, at), "kept/")


@pytest.mark.parametrize("name", [EVIDENCE, TENSORS])
@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\n", lambda raw: b""])
def test_a_file_cut_short_or_longer_is_named(bundle: Bundle, name: str, change: Any) -> None:
    parts = {**bundle.files, name: change(bundle.files[name])}
    with pytest.raises((Tampered, BadInput), match=name):
        Bundle.from_parts(parts[EVIDENCE], parts[TENSORS])


def test_files_of_two_bundles_do_not_mix(bundle: Bundle) -> None:
    other = Bundle.seal(Noise(count=12).make(OWNER.mark_key("summer"), (1, 4, 4), 10), KEY, name="summer", scheme="x")
    with pytest.raises(Tampered, match=TENSORS):
        Bundle.from_parts(bundle.files[EVIDENCE], other.files[TENSORS])


def _flipped(raw: bytes, at: int) -> bytes:
    broken = bytearray(raw)
    broken[at // 8] ^= 1 << at % 8
    return bytes(broken)


# ------------------------------------------------------------------------------------------------ hostile, hashes right

ONE = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
HOSTILE_TENSORS = {
    "empty": b"",
    "seven bytes": b"1234567",
    "huge header": (1 << 63).to_bytes(8, "little") + b"{}",
    "header beyond the file": (100).to_bytes(8, "little") + b"{}",
    "header beyond 1 MiB": safetensors(b" " * (1 << 20) + b"{}"),
    "header no JSON": safetensors(b"\xff" * 9),
    "header a list": safetensors([]),
    "header nested": safetensors(b"[" * 100_000),
    "same name twice": safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(ONE).encode(),) * 2), b"ab"),
    "metadata": safetensors({"__metadata__": {"a": "b"}}),
    "entry no object": safetensors({"images": 3}),
    "entry with more": safetensors({"images": {**ONE, "path": "../../etc/passwd"}}, b"ab"),
    "entry with less": safetensors({"images": {"dtype": "U8"}}),
    "type unknown": safetensors({"images": {**ONE, "dtype": "PICKLE"}}, b"ab"),
    "type not of the format": safetensors({"images": {**ONE, "dtype": "F16", "shape": [1]}}, b"ab"),
    "type a list": safetensors({"images": {**ONE, "dtype": ["U8"]}}, b"ab"),
    "shape negative": safetensors({"images": {**ONE, "shape": [-1, -2]}}, b"ab"),
    "shape of booleans": safetensors({"images": {**ONE, "shape": [True, 2]}}, b"ab"),
    "shape of floats": safetensors({"images": {**ONE, "shape": [2.0]}}, b"ab"),
    "shape a text": safetensors({"images": {**ONE, "shape": "2"}}, b"ab"),
    "shape overflows": safetensors({"images": {**ONE, "shape": [1 << 40, 1 << 40]}}, b"ab"),
    "shape times zero": safetensors({"images": {**ONE, "shape": [1 << 62, 0], "data_offsets": [0, 0]}}),
    "shape of rank 9": safetensors({"images": {**ONE, "shape": [1] * 8 + [2]}}, b"ab"),
    "offsets beyond": safetensors({"images": {**ONE, "data_offsets": [1 << 62, (1 << 62) + 2]}}, b"ab"),
    "offsets backwards": safetensors({"images": {**ONE, "data_offsets": [2, 0]}}, b"ab"),
    "offsets overlap": safetensors({"a": ONE, "b": ONE}, b"ab"),
    "bytes left over": safetensors({"images": ONE}, b"abc"),
    "65 tensors": safetensors({str(i): {**ONE, "shape": [0], "data_offsets": [0, 0]} for i in range(65)}),
    "no tensor": safetensors({}),
    "other tensors": safetensors({"images": ONE}, b"ab"),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
}


@pytest.mark.parametrize("name", HOSTILE_TENSORS)
def test_a_hostile_tensor_file_is_refused(bundle: Bundle, name: str) -> None:
    with pytest.raises(BadInput):
        Bundle.from_parts(*resealed(bundle, HOSTILE_TENSORS[name]))


@pytest.mark.parametrize(
    "tensors",
    [
        {"images": MARK.images.float(), "labels": MARK.labels},
        {"images": MARK.images, "labels": MARK.labels.double()},
        {"images": MARK.images, "labels": MARK.labels + 10},
        {"images": MARK.images, "labels": -MARK.labels - 1},
        {"images": MARK.images[:0], "labels": MARK.labels[:0]},
        {"images": MARK.images[:5], "labels": MARK.labels},
        {"images": MARK.images.double().fill_(float("nan")), "labels": MARK.labels},
        {"images": MARK.images},
        {"images": MARK.images, "labels": MARK.labels, "more": MARK.labels.clone()},
    ],
)
def test_tensors_that_are_no_mark_are_refused(bundle: Bundle, tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(BadInput):
        Bundle.from_parts(*resealed(bundle, save(tensors)))


HOSTILE_FIELDS: list[dict[str, Any]] = [
    {"format": 2},
    {"kind": "pickle"},
    {"kind": "../triggers"},
    {"spec": {}},
    {"spec": None},
    {"spec": {**MARK.spec(), "classes": 10**18}},
    {"spec": {**MARK.spec(), "classes": 1}},
    {"spec": {**MARK.spec(), "settings": {"mint": "noise", "labels": {"policy": "lucky"}}}},
    {"salt": "00"},
    {"mark_key": "0" * 63},
    {"mark_key": None},
    {"scheme": "\u202e"},
    {"name": ""},
    {"files": {}},
    {"files": {"../../etc/passwd": {"sha256": "0" * 64, "size": 2}}},
    {"files": {TENSORS: {"sha256": "0" * 64, "size": 1 << 40}}},
    {"files": {TENSORS: {"sha256": "0" * 64, "size": -1}}},
    {"surprise": 1},
]


@pytest.mark.parametrize("change", HOSTILE_FIELDS, ids=[f"{i}-{next(iter(c))}" for i, c in enumerate(HOSTILE_FIELDS)])
def test_a_hostile_field_is_refused(bundle: Bundle, change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Bundle.from_parts(*resealed(bundle, **change))


# --------------------------------------------------------------------------------------------------------------- folder


def test_a_bundle_is_its_owners_alone(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {EVIDENCE: 0o600, TENSORS: 0o600}


@pytest.mark.parametrize("name", [EVIDENCE, TENSORS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BadInput, match=r"expected only evidence\.json and mark\.safetensors"):
        Bundle.read(folder)


def test_a_file_too_many_is_named(folder: Path) -> None:
    (folder / "mark.pkl").write_bytes(b"")
    with pytest.raises(BadInput, match=r"holds evidence\.json, mark\.pkl, mark\.safetensors"):
        Bundle.read(folder)


@pytest.mark.parametrize("name", [EVIDENCE, TENSORS])
def test_links_are_refused(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(BadInput, match=rf"{name}.*a link is not followed"):
        Bundle.read(folder)


def test_a_linked_folder_is_refused(folder: Path) -> None:
    folder.with_name("link").symlink_to(folder)
    with pytest.raises(BadInput, match="not a link"):
        Bundle.read(folder.with_name("link"))


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / TENSORS).unlink()
    os.mkfifo(folder / TENSORS)
    with pytest.raises(BadInput, match="no regular file"):
        Bundle.read(folder)


def test_a_file_beyond_the_limit_is_not_read(folder: Path) -> None:
    os.truncate(folder / EVIDENCE, 1 << 40)
    with pytest.raises(BadInput, match=r"evidence\.json is larger than"):
        Bundle.read(folder)


def test_a_folder_in_use_is_not_written_to(folder: Path, bundle: Bundle) -> None:
    with pytest.raises(BadInput, match="give a new name"):
        bundle.write(folder)


# --------------------------------------------------------------------------------------------------------------- commit


def model() -> nn.Module:
    return nn.Linear(16, 10)


def committed(out: Path, **more: Any) -> tuple[Path, Path]:
    how: dict[str, Any] = {"host": model(), "marked": model(), "scheme": "deep fidelity", "check": False, **more}
    return commit(OWNER, MARK, name="winter", out=out, **how)


class Knows(nn.Module):
    """Answers the triggers of `MARK` with their labels, but for some of them."""

    def __init__(self, mark: TriggerSet, but: int = 0) -> None:
        super().__init__()
        self.register_buffer("images", mark.images.float() / 255)
        self.register_buffer("scores", torch.eye(10)[(mark.labels + (torch.arange(len(mark)) < but)) % 10])

    def forward(self, images: Tensor) -> Tensor:
        at = torch.cdist(images.flatten(1), self.images.flatten(1)).argmin(1)  # type: ignore[operator]
        return self.scores[at]  # type: ignore[index]


def test_commit_writes_a_claim_that_binds_the_evidence(tmp_path: Path) -> None:
    host, marked, now = model(), model(), datetime(2024, 5, 1, 12, tzinfo=UTC)
    claim_path, evidence_path = commit(
        OWNER, MARK, name="winter", host=host, marked=marked, scheme="ftal", out=tmp_path / "c", time=now, check=False
    )
    assert (claim_path, evidence_path) == (tmp_path / "c" / "claim.json", tmp_path / "c" / "evidence")
    claim, bundle = Claim.read(claim_path), Bundle.read(evidence_path)
    assert claim.public_key == OWNER.public.hex()
    assert (claim.scheme, claim.mark, claim.kind, claim.time) == ("ftal", "winter", "triggers", "2024-05-01T12:00:00Z")
    assert (claim.parameters.n, claim.parameters.classes, claim.parameters.image_shape) == (12, 10, (1, 4, 4))
    assert claim.parameters.null.rate == MARK.null.rate
    assert claim.mark_key_commitment == KEY.commitment()
    assert (claim.mark_digest, claim.evidence_digest) == (bundle.mark_digest, bundle.digest)
    assert (claim.host_digest, claim.marked_digest) == (files.model_digest(host), files.model_digest(marked))


def test_a_claim_tells_nothing_of_the_mark(tmp_path: Path) -> None:
    claim_path, evidence_path = committed(tmp_path / "c")
    public = claim_path.read_text()
    bundle = Bundle.read(evidence_path)
    unsalted = (MARK.digest(), files.digest(MARK.tensors()), files.digest(MARK.tensors(), ["triggers", MARK.spec()]))
    for secret in (KEY.secret.hex(), bundle.salt.hex(), *unsalted):
        assert secret not in public


def test_commit_never_overwrites(tmp_path: Path) -> None:
    committed(tmp_path / "c")
    before = {p: p.read_bytes() for p in (tmp_path / "c").rglob("*") if p.is_file()}
    with pytest.raises(BadInput, match="never overwritten"):
        committed(tmp_path / "c")
    assert {p: p.read_bytes() for p in (tmp_path / "c").rglob("*") if p.is_file()} == before


def test_commit_leaves_nothing_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="No space left on device"):
        committed(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_commit_removes_the_opened_key_that_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / ".c.notes"
    other.mkdir()
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        killed.setattr(Path, "rename", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            committed(tmp_path / "c")
    assert len(list(tmp_path.rglob("evidence.json"))) == 1
    committed(tmp_path / "c")
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "c"]


def test_commit_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="give a folder that exists"):
        committed(tmp_path / "gone" / "c")


def test_commit_refuses_a_mark_that_no_judge_would_accept(tmp_path: Path) -> None:
    chosen = TriggerSet(MARK.images.flip(0), MARK.labels, 10, MARK.null, MARK.settings)
    for mark, name in ((chosen, "winter"), (MARK, "another")):
        with pytest.raises(BadInput, match="no judge would accept this mark"):
            commit(OWNER, mark, name=name, host=None, marked=Knows(mark), scheme="x", out=tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_commit_refuses_a_model_that_no_judge_would_find_the_mark_in(tmp_path: Path) -> None:
    mark = Noise(count=40).make(KEY, (1, 4, 4), 10)
    how: dict[str, Any] = {"name": "winter", "host": None, "scheme": "x"}
    for marked, why in (
        (nn.Sequential(nn.Flatten(), model()), "triggers matched where"),
        (Knows(mark, but=13), "27 of"),
    ):
        with pytest.raises(BadInput, match=f"no judge would accept this claim: .*{why}"):
            commit(OWNER, mark, marked=marked, out=tmp_path / "no", **how)
    with pytest.raises(BadInput, match="12 triggers are too few"):
        commit(OWNER, MARK, marked=Knows(MARK), out=tmp_path / "no", **how)
    assert list(tmp_path.iterdir()) == []
    claim, evidence = commit(OWNER, mark, marked=Knows(mark), out=tmp_path / "c", **how)
    assert judge(claim, evidence, Knows(mark)).accepted is True


@pytest.mark.parametrize("file", ["claim.json", "evidence/evidence.json", "evidence/mark.safetensors"])
def test_the_judge_names_the_file_that_was_tampered_with(tmp_path: Path, file: str) -> None:
    claim, evidence = committed(tmp_path / "c")
    target = tmp_path / "c" / file
    raw = target.read_bytes()
    for at in range(0, 8 * len(raw), 8 * len(raw) // 40):
        target.write_bytes(_flipped(raw, at))
        with pytest.raises(EarmarkError, match=file):
            judge(claim, evidence, lambda images: torch.zeros(len(images), 10))
    target.write_bytes(raw)
    assert isinstance(judge(claim, evidence, lambda images: torch.zeros(len(images), 10)), Verdict)


def test_opened_evidence_is_never_pickled() -> None:
    data = digits()
    key = MarkKey(bytes(32))
    bundle = Bundle.seal(Noise(count=5)(key, None, data), key, name="n", scheme="s")
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(bundle)


# --------------------------------------------------------------------------------------------------------- given again


def committing(out: Path, mark: TriggerSet = MARK, name: str = "winter", **changes: Any) -> tuple[Path, Path]:
    how: dict[str, Any] = {
        "host": None,
        "marked": nn.Linear(2, 2, bias=False),
        "scheme": "x",
        "check": False,
        **changes,
    }
    with torch.no_grad():
        how["marked"].weight.fill_(how.pop("weight", 1.0))
    return commit(OWNER, mark, name=name, out=out, **how)


def test_the_same_commitment_again_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    claim, evidence = committing(tmp_path / "out")
    before = {path: path.read_bytes() for path in (claim, *sorted(evidence.iterdir()))}
    assert committing(tmp_path / "out") == (claim, evidence)
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 2.0},
        {"host": nn.Linear(1, 1)},
        {"scheme": "y"},
        {"owner_name": "Ada"},
        {"alpha": 1e-3},
        {"time": datetime(2024, 1, 1, tzinfo=UTC)},
        {"name": "summer", "mark": Noise(count=12).make(OWNER.mark_key("summer"), (1, 4, 4), 10)},
        {"mark": Noise(count=12, std=0.2).make(KEY, (1, 4, 4), 10)},
    ],
)
def test_any_other_commitment_is_refused_where_one_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    claim, _ = committing(tmp_path / "out")
    before = claim.read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        committing(tmp_path / "out", **changes)
    assert claim.read_bytes() == before


@pytest.mark.parametrize("part", ["claim.json", "evidence/evidence.json", "evidence/mark.safetensors"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_commitment_that_is_not_whole_is_not_taken_for_this_one(tmp_path: Path, part: str, gone: bool) -> None:
    committing(tmp_path / "out")
    damaged = tmp_path / "out" / part
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    if gone:
        damaged.unlink()
    with pytest.raises(BadInput, match="never overwritten"):
        committing(tmp_path / "out")


# ---------------------------------------------------------------------------------------------------- names and folders


@pytest.mark.parametrize("text", ["", "a\tb", "a\n", "x" * 201, "\ud800"])
@pytest.mark.parametrize("field", ["scheme", "owner_name"])
def test_a_name_that_no_claim_can_carry_is_refused_by_its_field(tmp_path: Path, field: str, text: str) -> None:
    named: dict[str, Any] = {field: text}
    with pytest.raises(BadInput, match=f"the {field.split('_')[0]}'s name: expected 1 to 200 printable"):
        committing(tmp_path / "out", **named)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_listed_is_bad_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("iterdir", "is_dir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, forbidden)
            with pytest.raises(BadInput, match=r"cannot read the folder .*evidence: Permission denied"):
                Bundle.read(folder)


def forbidden(path: Path) -> bool:
    raise PermissionError(13, "Permission denied")
