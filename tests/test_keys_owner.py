"""An owner's key: what its file protects, what it signs, and what its sub-keys reveal."""

from __future__ import annotations

import copy
import errno
import hashlib
import hmac
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import BadInput, WrongPassword
from earmark.keys import MarkKey, OwnerKey, verify_signature

PASSWORD = b"a long enough password"
SEED = bytes(range(32))


@pytest.fixture
def owner() -> OwnerKey:
    return OwnerKey(ed25519.Ed25519PrivateKey.from_private_bytes(SEED))


@pytest.fixture
def saved(owner: OwnerKey, tmp_path: Path) -> Path:
    owner.save(tmp_path / "owner.pem", PASSWORD)
    return tmp_path / "owner.pem"


def test_a_saved_key_loads_as_the_same_key(owner: OwnerKey, saved: Path) -> None:
    again = OwnerKey.load(saved, PASSWORD)
    assert again.public == owner.public
    assert again.fingerprint == owner.fingerprint == hashlib.sha256(owner.public).hexdigest()
    assert again.mark_key("m") == owner.mark_key("m")


def test_two_generated_keys_differ() -> None:
    assert OwnerKey.generate().public != OwnerKey.generate().public


def test_the_key_file_is_private_and_encrypted(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in saved.read_bytes()
    assert [path.name for path in saved.parent.iterdir()] == ["owner.pem"]


def test_a_key_file_is_never_overwritten(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        OwnerKey.generate().save(saved, PASSWORD)
    assert saved.read_bytes() == before


def test_a_failed_save_leaves_nothing(owner: OwnerKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="No space left"):
        owner.save(tmp_path / "owner.pem", PASSWORD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", ["fsync", "link"])
def test_a_save_that_is_killed_does_not_bar_the_next(owner: OwnerKey, tmp_path: Path, at: str) -> None:
    """The program dies before the bytes are safe on the disk, or before the file has its name."""
    path = tmp_path / "owner.pem"
    killed = f"import os; os.{at} = lambda *_, **__: os._exit(9); " + (
        f"from earmark.keys import OwnerKey; OwnerKey.generate().save({str(path)!r}, b'password')"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    assert {stat.S_IMODE(left.stat().st_mode) for left in tmp_path.iterdir()} == {0o600}
    owner.save(path, PASSWORD)
    assert OwnerKey.load(path, PASSWORD).public == owner.public


def test_a_missing_folder_is_named(owner: OwnerKey, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        owner.save(tmp_path / "nowhere" / "owner.pem", PASSWORD)
    with pytest.raises(BadInput, match="nowhere"):
        OwnerKey.load(tmp_path / "nowhere" / "owner.pem", PASSWORD)


@pytest.mark.parametrize("password", [b"", b"x" * 2000])
def test_a_password_that_cannot_encrypt_is_refused(owner: OwnerKey, tmp_path: Path, password: bytes) -> None:
    with pytest.raises(BadInput, match="password"):
        owner.save(tmp_path / "owner.pem", password)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("password", [b"wrong", b"", PASSWORD + b"\n"])
def test_a_wrong_password_is_told_apart(saved: Path, password: bytes) -> None:
    with pytest.raises(WrongPassword, match=r"owner\.pem"):
        OwnerKey.load(saved, password)


def test_a_file_that_is_no_encrypted_ed25519_key_is_bad_input(tmp_path: Path) -> None:
    plain = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD),
    )
    for content in (b"", b"not a key", b"\0" * 100, plain, other, b"x" * 70_000):
        path = tmp_path / "key.pem"
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"key\.pem"):
            OwnerKey.load(path, PASSWORD)


def test_a_key_written_by_another_program_loads(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD),
    )
    (tmp_path / "key.pem").write_bytes(pem)
    assert OwnerKey.load(tmp_path / "key.pem", PASSWORD).public == private.public_key().public_bytes_raw()


def test_a_damaged_key_file_never_loads_as_another_key(owner: OwnerKey, saved: Path) -> None:
    """CBC would turn a flipped character of the last ciphertext blocks into other key bytes, silently."""
    content = saved.read_bytes()
    refused = 0
    for at in range(len(content) - 110, len(content) - 35):
        if content[at : at + 1].isalnum():
            damaged = content[:at] + (b"A" if content[at : at + 1] != b"A" else b"B") + content[at + 1 :]
            saved.write_bytes(damaged)
            try:
                assert OwnerKey.load(saved, PASSWORD).public == owner.public
            except (BadInput, WrongPassword):
                refused += 1
    assert refused > 60


def test_the_public_line_is_what_catches_damage_to_the_seed(saved: Path) -> None:
    lines = saved.read_bytes().split(b"\n", 1)
    assert lines[0] == b"Ed25519 public key: " + OwnerKey.load(saved, PASSWORD).public.hex().encode()
    saved.write_bytes(b"Ed25519 public key: " + b"0" * 64 + b"\n" + lines[1])
    with pytest.raises(BadInput, match="damaged"):
        OwnerKey.load(saved, PASSWORD)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_signatures_verify_only_for_their_message_key_and_bytes(message: bytes) -> None:
    owner = OwnerKey(ed25519.Ed25519PrivateKey.from_private_bytes(SEED))
    signature = owner.sign(message)
    assert verify_signature(owner.public, message, signature)
    assert not verify_signature(owner.public, message + b"\0", signature)
    assert not verify_signature(OwnerKey.generate().public, message, signature)
    assert not verify_signature(owner.public, message, bytes([signature[0] ^ 1]) + signature[1:])


def test_malformed_keys_and_signatures_do_not_verify(owner: OwnerKey) -> None:
    signature = owner.sign(b"m")
    for public, sign in (
        (b"", signature),
        (b"\xff" * 33, signature),
        (owner.public, b""),
        (owner.public, signature[:-1]),
    ):
        assert not verify_signature(public, b"m", sign)


def test_signature_is_rfc_8032() -> None:
    """RFC 8032, section 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    owner = OwnerKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
    assert owner.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert owner.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


def hkdf_by_hand(seed: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, one block of output."""
    extracted = hmac.digest(bytes(32), seed, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_a_mark_key_is_hkdf_of_the_seed_and_the_name(name: str) -> None:
    owner = OwnerKey(ed25519.Ed25519PrivateKey.from_private_bytes(SEED))
    parts = (b"earmark/mark-key/1", name.encode())
    info = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert owner.mark_key(name).secret == hkdf_by_hand(SEED, info)


def test_mark_keys_differ_by_name_and_by_owner(owner: OwnerKey) -> None:
    keys = [owner.mark_key(name).secret for name in ("", "a", "b", "ab")] + [OwnerKey.generate().mark_key("a").secret]
    assert len(set(keys)) == len(keys)


def test_golden_mark_key(owner: OwnerKey) -> None:
    key = owner.mark_key("noise-1")
    assert owner.fingerprint == "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c"
    assert key.secret.hex() == "cf43ee71362578e7d4a82ecdb617e762f00d0f8c7dc741b3cfe7cacb834d8931"
    assert MarkKey(key.secret).commitment() == "3bcf56de43586e8f72963742fb162d97ebb8935c5abfbc4974c703a16cd66b08"
    assert key.owner == owner.public
    parts = (b"earmark/mark-key-commitment/1", key.secret + owner.public)
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert key.commitment() == hashlib.sha256(framed).hexdigest()


def test_a_mark_key_rebuilt_from_its_secret_and_owner_is_the_same(owner: OwnerKey) -> None:
    key = owner.mark_key("m")
    again = MarkKey(key.secret, owner.public)
    assert again == key
    assert again.commitment() == key.commitment()
    assert again.stream("labels").read(64) == key.stream("labels").read(64)


def test_a_secret_is_another_key_in_another_name(owner: OwnerKey) -> None:
    secret = owner.mark_key("m").secret
    keys = [owner.mark_key("m"), MarkKey(secret), MarkKey(secret, OwnerKey.generate().public)]
    assert len({key.commitment() for key in keys}) == 3
    assert len({key.stream("labels", b"context").read(64) for key in keys}) == 3


@pytest.mark.parametrize("public", [bytes(31), bytes(33), bytearray(32), "0" * 64, None])
def test_an_owner_of_another_size_or_type_is_refused(public: object) -> None:
    with pytest.raises(BadInput, match="public key of 32 bytes"):
        MarkKey(bytes(32), public)  # type: ignore[arg-type]


def test_commitments_bind(owner: OwnerKey) -> None:
    assert owner.mark_key("a").commitment() != owner.mark_key("b").commitment()


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), bytearray(32), "0" * 32, None])
def test_a_secret_of_another_size_or_type_is_refused_unseen(secret: object) -> None:
    with pytest.raises(BadInput, match="32 bytes") as caught:
        MarkKey(secret)  # type: ignore[arg-type]
    assert repr(secret) not in str(caught.value) or not secret


def test_secrets_never_show(owner: OwnerKey) -> None:
    key = owner.mark_key("m")
    stream = key.stream("labels", b"context of the stream")
    stream.read(10)
    for value in (owner, key, stream):
        shown = repr(value) + str(value) + f"{value}"
        for secret in (SEED, key.secret, key.secret[:4]):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
        with pytest.raises(TypeError):
            vars(value)


def test_keys_and_streams_are_never_pickled(owner: OwnerKey) -> None:
    key = owner.mark_key("m")
    for value in (owner, key, key.stream("labels")):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="never pickled"):
                pickle.dumps(value, protocol)
        with pytest.raises(TypeError, match="never pickled"):
            copy.deepcopy(value)


def test_nobody_can_sign_for_a_key_of_small_order() -> None:
    """Under the identity point, R = identity and s = 0 fit every message."""
    identity = b"\x01" + bytes(31)
    assert not verify_signature(identity, b"anything", identity + bytes(32))
    assert not verify_signature(identity[:31] + b"\x80", b"anything", identity + bytes(32))
