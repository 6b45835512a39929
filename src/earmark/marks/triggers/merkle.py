"""A Merkle tree as certificate logs have it (RFC 9162, Section 2.1): one hash that binds many leaves, each of which can
be shown to stand in its place without the others.

    MTH([d]) = SHA-256(0x00 + d),    MTH(D) = SHA-256(0x01 + MTH(D[:k]) + MTH(D[k:])),    k the largest power of 2 < |D|

The two leading bytes keep a node from standing in for a leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

from earmark.errors import BadInput

__all__ = ["audit_paths", "root_from", "tree_hash"]

Known: TypeAlias = dict[tuple[int, int], bytes]
"""Hashes of subtrees, by their first leaf and the one behind their last."""


def _leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below `size`, which is 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """The 32 bytes MTH of at least one leaf.

    >>> tree_hash([b""]).hex()
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'

    Raises:
        BadInput: no leaf.
    """
    if not leaves:
        raise BadInput("a Merkle tree needs at least one leaf, got none")
    return _hashed([_leaf(data) for data in leaves], {}, 0, len(leaves))


def audit_paths(leaves: Sequence[bytes], indices: Sequence[int]) -> list[list[bytes]]:
    """For each of `indices` the hashes, from the leaf upward, that lead from that leaf to the root (2.1.3.1).

    Raises:
        BadInput: no leaf, or an index outside 0..n-1.
    """
    size = len(leaves)
    if not size or not all(0 <= at < size for at in indices):
        raise BadInput(f"expected places from 0 to {size - 1} in a tree of {size} leaves; give those of its leaves")
    hashes = [_leaf(data) for data in leaves]
    known: Known = {}
    return [_path(hashes, known, at, 0, size) for at in indices]


def root_from(data: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root of a tree of `size` leaves that has `data` at `index`, by its audit path; None where that fits no tree.

    (Section 2.1.3.2.)
    """
    if not 0 <= index < size:
        return None
    place, last, found = index, size - 1, _leaf(data)
    for other in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            found = _node(other, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = _node(found, other)
        place, last = place >> 1, last >> 1
    return found if last == 0 else None


def _hashed(hashes: Sequence[bytes], known: Known, low: int, high: int) -> bytes:
    """MTH of the leaves from `low` to `high`, each subtree computed once."""
    if high - low == 1:
        return hashes[low]
    if (low, high) not in known:
        middle = low + _split(high - low)
        known[low, high] = _node(_hashed(hashes, known, low, middle), _hashed(hashes, known, middle, high))
    return known[low, high]


def _path(hashes: Sequence[bytes], known: Known, at: int, low: int, high: int) -> list[bytes]:
    if high - low == 1:
        return []
    middle = low + _split(high - low)
    if at < middle:
        return [*_path(hashes, known, at, low, middle), _hashed(hashes, known, middle, high)]
    return [*_path(hashes, known, at, middle, high), _hashed(hashes, known, low, middle)]
