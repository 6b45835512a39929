"""Bytes that come from a stranger: JSON of one exact form, safetensors with a checked header, files that are files."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from earmark.errors import BadInput, Tampered

__all__ = ["Record", "open_tensors", "parse", "read_object", "read_regular", "render", "validated"]

DEPTH_LIMIT = 32
INTEGER_LIMIT = 1 << 63
HEADER_LIMIT = 1 << 20
TENSORS_LIMIT = 1024
RANK_LIMIT = 8
DTYPES = {"U8": 1, "I8": 1, "I64": 8, "F32": 4, "F64": 8}
"""The safetensors types of format version 1, with the bytes that one element takes."""


R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """Base of all records in a file: frozen, strict in types, and no field that the format does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def render(value: Any) -> bytes:
    """The one form in which a JSON file of the format is written: ASCII, sorted keys, two spaces, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode("ascii") + b"\n"


def parse(raw: bytes, name: str, limit: int) -> dict[str, Any]:
    """The JSON object in `raw`, which must be in the form that `render` gives: one content, one sequence of bytes.

    Raises:
        BadInput: larger than `limit`, no JSON object, duplicate keys, NaN, integers beyond 64 bits, deep nesting.
        Tampered: JSON in any other form, so that no byte can change without notice.
    """
    value = read_object(raw, name, limit)
    if render(value) != raw:
        raise Tampered(f"{name} is not byte for byte as earmark wrote it; get the original file")
    return value


def read_object(raw: bytes, name: str, limit: int) -> dict[str, Any]:
    """The JSON object in `raw`, in whatever form.

    Raises:
        BadInput: as `parse`.
    """
    if len(raw) > limit:
        raise BadInput(f"{name} is larger than {limit} bytes, which no file of its kind is")
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
        _bounded(value, DEPTH_LIMIT)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} is not the JSON of an earmark file: {_short(error)}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number is not finite")
    return number


def _bounded(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError(f"nested more than {DEPTH_LIMIT} deep")
    if isinstance(value, str):
        value.encode()  # a lone surrogate is no text
    if isinstance(value, int) and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise ValueError("an integer takes more than 64 bits")
    if isinstance(value, list | dict):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            _bounded(inner, levels - 1)


def _short(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]


def validated(kind: type[R], fields: Mapping[str, Any], name: str) -> R:
    """A record from JSON fields; what is wrong is said by field, never with the value, which may be secret.

    Raises:
        BadInput: a field is missing, unknown, of another type or out of range.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))[:80]}: {e['msg'][:120]}" for e in error.errors(include_input=False)]
    raise BadInput(f"{name} has {len(faults)} fields that are not as the format has them: {'; '.join(faults[:3])}")


def open_tensors(raw: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose header has been checked before the library sees it.

    Raises:
        BadInput: a header beyond 1 MiB or beyond the file, duplicate names, a type outside `DTYPES`, a shape that does
            not fit its bytes, or whatever the safetensors library refuses (gaps, overlaps, trailing bytes).
    """
    try:
        _check_header(raw)
        return load_safetensors(raw)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{name} is no safetensors file of this format: {_short(error)}") from None


def _check_header(raw: bytes) -> None:
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > min(HEADER_LIMIT, len(raw) - 8):
        raise ValueError(f"its header would be {length} bytes long")
    header = json.loads(raw[8 : 8 + length].decode(), object_pairs_hook=_unique)
    if not isinstance(header, dict) or len(header) > TENSORS_LIMIT or "__metadata__" in header:
        raise ValueError(f"expected at most {TENSORS_LIMIT} named tensors and nothing else")
    for entry in header.values():
        _check_entry(**entry)


def _check_entry(dtype: Any, shape: Any, data_offsets: Any) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"type {dtype!r:.20} is none of {', '.join(DTYPES)}")
    numbers = [*shape, *data_offsets]
    if len(shape) > RANK_LIMIT or len(data_offsets) != 2 or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a shape or an offset is no list of whole numbers")
    if math.prod(shape) * DTYPES[dtype] != data_offsets[1] - data_offsets[0]:
        raise ValueError("a shape does not fit its bytes")


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; a link, a device or a pipe is refused unread.

    Raises:
        BadInput: not there, no regular file, too large, or not readable.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; a link is not followed, give the file itself") from error
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise BadInput(f"{path} is no regular file; give the file itself")
        if state.st_size > limit:
            raise BadInput(f"{path} is larger than {limit} bytes, which no file of its kind is; it was not read")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(state.st_size)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(handle)
