"""Everything secret is a function of the owner's key: the key, its sub-keys, and the streams that marks are drawn from.

`OwnerKey` (Ed25519) signs claims. `OwnerKey.mark_key` derives one `MarkKey` per mark by HKDF-SHA256, so that a mark
can be opened to a judge without opening any other. `MarkKey.stream` gives a `KeyedStream`, the only source of what a
mark keeps secret. Its construction uses SHAKE-256 and IEEE 754 arithmetic alone and is written out below, so that any
machine and any language re-derives a mark bit for bit, whatever became of numpy's or torch's random generators.

In what follows frame(a, b, ...) is the concatenation of its parts, each after its length as 8 bytes big-endian.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, final

import numpy as np
import torch
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from torch import Tensor

from earmark.errors import BadInput, WrongPassword
from earmark.files import read_bytes, write_once

__all__ = ["KeyedStream", "MarkKey", "OwnerKey", "verify_signature"]

SECRET_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
KEY_FILE_LIMIT: Final = 64 << 10


def _frame(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _count(what: str, value: int, least: int = 0) -> int:
    if type(value) is not int or value < least:
        raise BadInput(f"{what}: expected an integer of at least {least}, got {value!r}")
    return value


# ---------------------------------------------------------------------------------------------------------- owner's key


@final
class OwnerKey:
    """An Ed25519 key pair (RFC 8032), made by `generate` or `load`; the private half leaves only through `save`."""

    __slots__ = ("_private",)

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> OwnerKey:
        """A new key from the operating system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path | str, password: bytes) -> OwnerKey:
        """The key in an encrypted PKCS#8 PEM file, as `save` or `openssl genpkey -algorithm ed25519 -aes256` writes it.

        Raises:
            WrongPassword: the password does not open the file.
            BadInput: no file there, no encrypted PEM, another kind of key, or a file damaged since it was written.
        """
        pem = read_bytes(path, KEY_FILE_LIMIT)
        if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" not in pem:
            raise BadInput(f"{path} is no encrypted PKCS#8 PEM key; give a file that `OwnerKey.save` wrote")
        try:
            private = serialization.load_pem_private_key(pem, password)
        except (ValueError, TypeError) as error:
            raise WrongPassword(f"the password does not open {path} (or the file is damaged); try another") from error
        except UnsupportedAlgorithm as error:
            raise BadInput(f"{path} is encrypted in an unknown way; write it again with AES-256") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise BadInput(f"{path} holds another kind of key than Ed25519; make one with `OwnerKey.generate`")
        return cls(private)._checked(path, pem)

    def _checked(self, path: Path | str, pem: bytes) -> OwnerKey:
        # The file's cipher (CBC) has no checksum: without this line, some damage would yield another key in silence.
        named = re.search(rb"^Ed25519 public key: ([0-9a-f]{64})\r?$", pem, re.MULTILINE)
        if named and named[1].decode() != self.public.hex():
            raise BadInput(f"{path} is damaged: its key is not the one that its first line names; use your copy of it")
        return self

    def save(self, path: Path | str, password: bytes) -> None:
        """Write the key as encrypted PKCS#8 PEM after a line with its public half; mode 0600, never over another file.

        Raises:
            BadInput: the password is empty or too long, or as `files.write_once`: the file exists, say.
        """
        try:
            cipher = serialization.BestAvailableEncryption(password)
            pem = self._private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
        except (ValueError, TypeError) as error:
            raise BadInput("the password must be 1 to 1023 bytes; choose another") from error
        write_once(path, f"Ed25519 public key: {self.public.hex()}\n".encode() + pem, mode=0o600)

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""
        return self._private.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the 32 public bytes."""
        return hashlib.sha256(self.public).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (64 bytes) of `message`; the caller separates one kind of message from another."""
        return self._private.sign(message)

    def mark_key(self, name: str) -> MarkKey:
        """The sub-key of the mark called `name`: always the same, and it reveals neither this key nor another mark's.

        Its secret: HKDF-SHA256 (RFC 5869), no salt, input the private key's 32-byte seed, info
        frame("earmark/mark-key/1", name). Its owner: this key's public half.
        """
        info = _frame(b"earmark/mark-key/1", name.encode())
        hkdf = HKDF(algorithm=hashes.SHA256(), length=SECRET_BYTES, salt=None, info=info)
        return MarkKey(hkdf.derive(self._private.private_bytes_raw()), self.public)

    def __repr__(self) -> str:
        return f"OwnerKey({self.fingerprint[:16]}...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an owner's key is never pickled or copied: use save and load")


SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The encodings of Edwards25519's points of order 1, 2, 4 and 8, their sign bit cleared."""


def verify_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the Ed25519 signature of `message` under `public`; False where either is malformed.

    Under a point of small order anybody can sign anything, so such a key is malformed, too.
    """
    if len(public) != 32 or public[:31] + bytes([public[31] & 0x7F]) in SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# ----------------------------------------------------------------------------------------------------------- mark's key


@final
@dataclass(frozen=True, slots=True)
class MarkKey:
    """What one mark is minted from: a secret, and the owner in whose name it mints.

    Every stream and the commitment depend on both. A judge rebuilds the key from the secret in the opened evidence and
    the public key in the claim, so whoever has seen an opened secret mints other marks with it in his own name, and
    cannot claim the marks that its owner minted.

    Attributes:
        secret: 32 bytes.
        owner: the owner's Ed25519 public key, 32 bytes; empty for a key that is nobody's, whose marks cannot be
            claimed (a split, a baseline, a test).

    Raises:
        BadInput: the secret or the owner has another size.
    """

    secret: bytes = field(repr=False)
    owner: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if type(self.secret) is not bytes or len(self.secret) != SECRET_BYTES:
            raise BadInput(f"a mark's key is {SECRET_BYTES} bytes; take it from OwnerKey.mark_key or from evidence")
        if type(self.owner) is not bytes or len(self.owner) not in (0, PUBLIC_BYTES):
            raise BadInput(f"a mark key's owner is a public key of {PUBLIC_BYTES} bytes; give OwnerKey.public")

    def commitment(self) -> str:
        """Hex SHA-256 of frame("earmark/mark-key-commitment/1", secret + owner): binds both, hides the secret."""
        return hashlib.sha256(_frame(b"earmark/mark-key-commitment/1", self.secret + self.owner)).hexdigest()

    def trial_key(self, index: int) -> MarkKey:
        """The sub-key of one trial of a mark that opens in slices: it reveals neither this key nor another trial's.

        Its secret: HKDF-SHA256 (RFC 5869), no salt, input this key's secret, info frame("earmark/trial-key/1", the
        index as 8 bytes big-endian). Its owner: this key's.
        """
        info = _frame(b"earmark/trial-key/1", _count("index", index).to_bytes(8, "big"))
        hkdf = HKDF(algorithm=hashes.SHA256(), length=SECRET_BYTES, salt=None, info=info)
        return MarkKey(hkdf.derive(self.secret), self.owner)

    def stream(self, purpose: str, context: bytes = b"") -> KeyedStream:
        """The stream for one purpose ("labels", "pixels") within one context (say, a hash that it is bound to)."""
        return KeyedStream(self.secret + self.owner, purpose, context)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mark's key is never pickled or copied: pass its evidence")


# --------------------------------------------------------------------------------------------------------------- stream


@final
class KeyedStream:
    """An endless, reproducible source of bytes, integers and reals, drawn from a key for one purpose and context.

    Construction, complete. Block i = 0, 1, 2, ... is the first 4096 bytes of

        SHAKE-256( frame("earmark/stream/1", secret + owner, purpose in UTF-8, context) + i as 8 bytes big-endian )

    and the stream is block 0, block 1, ... in order. A *word* is the next 8 bytes as an unsigned little-endian integer.

        integers(bound)  words w in order, those with w >= 2^64 - (2^64 mod bound) thrown away; w mod bound
        uniforms         floor(w / 2^11) * 2^-53
        normals          the normal quantile of (2 floor(w / 2^12) + 1) * 2^-53, computed as `_normal_quantile` says
        signs            ceil(size / 8) bytes; the bits of each, lowest first, 1 for +1, 0 for -1; spare bits are lost
        permutation(n)   n words; all n are thrown away and n new ones taken while any two are equal; the order of
                         positions that sorts them ascending
        choice(n, k)     the first k of permutation(n)

    Every method takes from the stream exactly what this says, so a call for a + b numbers gives the same as a call for
    a and then a call for b (read, integers, uniforms and normals; signs where a is a multiple of 8).

    Raises (every method):
        BadInput: a size that is no integer or is negative, a bound outside 1 to 2^63, a choice of more than there are.

    >>> stream = MarkKey(bytes(32)).stream("labels")
    >>> stream.integers(10, 8).tolist()
    [5, 3, 4, 5, 1, 3, 5, 0]
    """

    __slots__ = ("_base", "_block", "_next", "_purpose")

    _BLOCK: Final = 4096
    _CHUNK: Final = 1 << 15

    def __init__(self, key: bytes, purpose: str, context: bytes = b"") -> None:
        self._base = hashlib.shake_256(_frame(b"earmark/stream/1", key, purpose.encode(), context))
        self._purpose = purpose
        self._next = 0
        self._block = b""

    def read(self, n: int) -> bytes:
        """The next `n` bytes."""
        _count("bytes to read", n)
        parts, missing = [self._block[:n]], n - len(self._block)
        self._block = self._block[n:]
        while missing > 0:
            block = self._squeeze()
            parts.append(block[:missing])
            self._block = block[missing:]
            missing -= len(block)
        return b"".join(parts)

    def _squeeze(self) -> bytes:
        shake = self._base.copy()
        shake.update(self._next.to_bytes(8, "big"))
        self._next += 1
        return shake.digest(self._BLOCK)

    def _words(self, n: int) -> NDArray[np.uint64]:
        return np.frombuffer(self.read(8 * n), dtype="<u8").astype(np.uint64)

    def integers(self, bound: int, size: int) -> Tensor:
        """`size` integers, each uniform on 0..bound-1 without bias: int64 (size,). `bound` is 1 to 2^63."""
        _count("size", size)
        if _count("bound", bound, least=1) > 1 << 63:
            raise BadInput(f"bound: expected at most 2^63, got {bound}")
        highest = np.uint64((1 << 64) - (1 << 64) % bound - 1)
        out = np.empty(size, dtype=np.int64)
        filled = 0
        while filled < size:  # asks for exactly what is missing, so no word beyond the last one kept is ever taken
            words = self._words(min(size - filled, self._CHUNK))
            kept = words[words <= highest] % np.uint64(bound)
            out[filled : filled + len(kept)] = kept
            filled += len(kept)
        return torch.from_numpy(out)

    def uniforms(self, size: int) -> Tensor:
        """`size` multiples of 2^-53, uniform on [0, 1): float64 (size,)."""
        words = self._words(_count("size", size))
        return torch.from_numpy((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def normals(self, size: int) -> Tensor:
        """`size` standard normal numbers: float64 (size,), the same last bit on every machine; |z| stays below 8.3."""
        out = np.empty(_count("size", size), dtype=np.float64)
        for at in range(0, size, self._CHUNK):
            words = self._words(min(self._CHUNK, size - at))
            odd = (words >> np.uint64(12)).astype(np.float64) * 2.0 + 1.0
            out[at : at + len(words)] = _normal_quantile(odd * 2.0**-53)
        return torch.from_numpy(out)

    def signs(self, size: int) -> Tensor:
        """`size` fair signs: int8 (size,) of -1 and +1."""
        octets = np.frombuffer(self.read((_count("size", size) + 7) // 8), dtype=np.uint8)
        bits = np.unpackbits(octets, bitorder="little")[:size]
        return torch.from_numpy(bits.astype(np.int8) * np.int8(2) - np.int8(1))

    def permutation(self, n: int) -> Tensor:
        """A uniformly random order of 0..n-1: int64 (n,)."""
        _count("n", n)
        words = self._words(n)
        while len(np.unique(words)) < n:
            words = self._words(n)
        return torch.from_numpy(np.argsort(words, kind="stable").astype(np.int64))

    def choice(self, n: int, k: int) -> Tensor:
        """`k` distinct integers of 0..n-1, every ordered selection equally likely: int64 (k,)."""
        if _count("k", k) > _count("n", n):
            raise BadInput(f"cannot choose {k} distinct of {n}; choose at most {n}")
        return self.permutation(n)[:k].clone()

    def __repr__(self) -> str:
        return f"KeyedStream({self._purpose!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyed stream is never pickled or copied: draw it from its key again")


# ------------------------------------------------------------------------------------------------------ normal quantile

_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_TAIL = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.2426609473880784386e-3, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip
_LOG_SERIES = tuple(1.0 / k for k in range(25, 0, -2))
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")

Reals = NDArray[np.float64]


def _normal_quantile(u: Reals) -> Reals:
    """The z with Phi(z) = u, for 0 < u < 1: Wichura 1988, Algorithm AS 241 (PPND16), Applied Statistics 37(3), 477-484.

    With q = u - 0.5: for |q| <= 0.425, z = q C(0.180625 - q^2); else, with r = sqrt(-log(min(u, 1 - u))), |z| is
    T(r - 1.6) for r <= 5 and F(r - 5) beyond, with the sign of q. C, T and F are ratios of the polynomials of degree 7
    above, coefficients from the highest power down, by Horner's rule. Every step is one IEEE 754 operation on float64,
    rounded on its own (numpy fuses none); `_log` is built the same way. Within 1e-15 of the true quantile, relatively.
    """
    q = u - 0.5
    z = q * _ratio(_CENTRE, 0.180625 - q * q)
    tail = np.abs(q) > 0.425
    r = np.sqrt(-_log(np.minimum(u, 1.0 - u)[tail]))
    z[tail] = np.copysign(np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0)), q[tail])
    return z


def _log(x: Reals) -> Reals:
    """The natural logarithm of x > 0.

    With x = m 2^e, sqrt(1/2) <= m < sqrt(2), and s = (m - 1) / (m + 1), it is
    e ln2_high + (2 s (1 + s^2/3 + s^4/5 + ... + s^24/25) + e ln2_low).
    """
    m, exponent = np.frexp(x)
    low = m < math.sqrt(0.5)
    m, e = np.where(low, m * 2.0, m), exponent - low.astype(np.float64)
    s = (m - 1.0) / (m + 1.0)
    return e * _LN2_HIGH + (2.0 * s * _horner(_LOG_SERIES, s * s) + e * _LN2_LOW)


def _ratio(polynomials: tuple[Sequence[float], Sequence[float]], x: Reals) -> Reals:
    above, below = polynomials
    return _horner(above, x) / _horner(below, x)


def _horner(coefficients: Sequence[float], x: Reals) -> Reals:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += coefficient
    return value
