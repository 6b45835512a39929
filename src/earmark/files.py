"""Files that are never half written and never unpickled, and the digests that evidence is made of."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as _load_safetensors
from safetensors.torch import save as _save_safetensors
from torch import Tensor, nn

from earmark.errors import BadInput

__all__ = [
    "canonical_json",
    "digest",
    "load_tensors",
    "load_weights",
    "model_digest",
    "read_bytes",
    "read_json",
    "save_tensors",
    "state_tensors",
    "weights_digest",
    "write_atomic",
    "write_json",
    "write_once",
]

JSON_LIMIT = 64 << 20
TENSORS_LIMIT = 64 << 30
WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems without hard links answer to one."""


def write_atomic(path: Path | str, content: bytes, mode: int = 0o644) -> None:
    """Write `content` so that `path` holds either its old content or all of the new, whatever happens in between.

    Raises:
        BadInput: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    with _written_beside(path, content, mode) as temporary:
        temporary.replace(path)


def write_once(path: Path | str, content: bytes, mode: int = 0o644) -> None:
    """Write `content` to a path where nothing lies: afterwards all of it is there, or nothing, and nothing is replaced.

    A hard link gives the finished file its name, so no moment exists in which a killed program leaves an empty file.

    Raises:
        BadInput: something is there already, the folder is missing or not writable, the disk is full, or the file
            system has no hard links; nothing is left behind.
    """
    path = Path(path)
    with _written_beside(path, content, mode) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError as error:
            raise BadInput(f"{path} exists and is never overwritten; give another path") from error
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            raise BadInput(
                f"cannot write {path}: its file system makes no hard links, which keep a new file from being half "
                "written; write it to another folder and copy it there"
            ) from error


@contextmanager
def _written_beside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A file in the same folder that holds all of `content`, safe on the disk; gone afterwards, unless it was moved."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; give a folder that exists and is writable") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        yield temporary
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; what was there before is untouched") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path | str, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        BadInput: missing, a folder, too large or not readable.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} is not there or is no regular file; check the path")
    if path.stat().st_size > limit:
        raise BadInput(f"{path} is larger than {limit} bytes, which no file of its kind is; it was not read")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and no NaN: the same bytes on every machine, so fit to be hashed and signed.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def write_json(path: Path | str, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")


def read_json(path: Path | str, limit: int = JSON_LIMIT) -> Any:
    """The JSON value in a file of at most `limit` bytes.

    Raises:
        BadInput: missing, too large, or not JSON, as NaN and numbers beyond float64 are not.
    """
    content = read_bytes(path, limit)
    try:
        return json.loads(content, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error}); it may be cut short or of another kind") from error


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.40} is no finite number")
    return number


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Tensors as one safetensors file, atomically; metadata is text by name."""
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, _save_safetensors(flat, metadata=dict(metadata) if metadata else None))


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        BadInput: missing, cut short, or not safetensors.
    """
    content = read_bytes(path, TENSORS_LIMIT)
    try:
        return _load_safetensors(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError, OverflowError) as error:
        raise BadInput(f"{path} is no readable safetensors file ({error}); it may be cut short") from error


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """A state dict from `.safetensors`, or from `.pt`/`.pth`/`.bin` read with `weights_only=True`.

    Raises:
        BadInput: missing, unreadable, or a file that would need unpickling of more than tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_tensors(path)
    if not path.is_file():
        raise BadInput(f"{path} is not there; give a .safetensors or .pt file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on hostile bytes torch's reader raises nearly anything: IndexError, struct.error, ...
        raise BadInput(
            f"{path} holds more than plain tensors or is cut short; save its state_dict as safetensors"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise BadInput(f"{path} holds no state dict (names to tensors); save model.state_dict() as safetensors")
    return loaded


def digest(tensors: Mapping[str, Tensor], meta: Any = None) -> str:
    """Hex SHA-256 of named tensors and a JSON value, the same on every machine.

    Hashed, for each name in sorted order: the length-prefixed canonical JSON of [name, dtype, shape], then the
    tensor's bytes, little-endian and contiguous; at the end the canonical JSON of `meta`.
    """
    state = hashlib.sha256(b"earmark/digest/1")
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        _update(state, canonical_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]))
        _update(state, tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    _update(state, canonical_json(meta))
    return state.hexdigest()


def _update(state: hashlib._Hash, part: bytes) -> None:
    state.update(len(part).to_bytes(8, "big"))
    state.update(part)


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict, tensors only, detached."""
    return {name: value.detach() for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def model_digest(model: nn.Module) -> str:
    """`digest` of a model's state dict: the identity of a set of weights."""
    return digest(state_tensors(model))


def weights_digest(path: Path | str) -> str:
    """`digest` of a file of weights as it stands: that of the model, unless a network holds them in another precision.

    Raises:
        BadInput: as `load_weights`, or tensors that are not dense.
    """
    try:
        return digest(load_weights(path))
    except (RuntimeError, TypeError) as error:
        raise BadInput(f"{path} holds tensors that are not plain numbers ({error}); save them dense") from error
