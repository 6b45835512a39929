"""Data by a short text, as the command line takes it."""

from __future__ import annotations

from collections.abc import Callable

from earmark.core import Data
from earmark.data.embedded import digits
from earmark.data.folders import folder
from earmark.data.idx_files import idx
from earmark.data.npz_files import npz
from earmark.errors import BadInput, unknown_name

__all__ = ["open_data"]

_READERS: dict[str, Callable[[str], Data]] = {"idx": idx, "folder": folder, "npz": npz}


def open_data(source: str) -> Data:
    """`digits`, `idx:DIR`, `folder:DIR` or `npz:FILE`.

    Raises:
        BadInput: another kind, no path after the colon, or what the reader of that kind raises.

    >>> len(open_data("digits").train)
    1438
    """
    kind, colon, path = source.partition(":")
    if source == "digits":
        return digits()
    if kind == "digits":
        raise BadInput(f"digits come with the library and take no path, got {source!r}; give digits alone")
    if kind not in _READERS:
        raise unknown_name("data", kind, [*_READERS, "digits"])
    if not colon or not path:
        raise BadInput(f"expected a path as in {kind}:PATH, got {source!r}")
    return _READERS[kind](path)
