"""A slice of the evidence: k of n trials opened for one dispute, chosen by the claim and a public nonce.

The owner has no say in which k: `selected` draws them from the claim's public key and root, and from a nonce that
nobody knew when the claim was made, such as one that the judge draws or a round of a public beacon. What stays closed
stays unknown: a slice holds the keys, images and carriers of its own trials, and hashes of the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeAlias

import torch
from pydantic import Field

from earmark.errors import BadInput, Tampered, whole
from earmark.evidence.bundle import (
    EVIDENCE_LIMIT,
    TENSORS_LIMIT,
    Bundle,
    FileRecord,
    check_file,
    listed,
    open_mark,
    packed,
    write_folder,
)
from earmark.evidence.claim import Claim, Hex32, Text, known_format
from earmark.evidence.wire import Record, parse, read_regular, render, validated
from earmark.files import canonical_json
from earmark.keys import KeyedStream, MarkKey
from earmark.marks import TriggerSet, audit_paths, leaf_of, rooted, slicing

__all__ = [
    "NONCE_BYTES",
    "SLICE",
    "Draw",
    "Evidence",
    "Slice",
    "Trial",
    "check_nonce",
    "choice_bits",
    "read_evidence",
    "root_of",
    "selected",
]

FORMAT = 1
SLICE = "slice.json"
TENSORS = "slice.safetensors"
SLICE_LIMIT = 16 * EVIDENCE_LIMIT
SEALED = b"earmark/slice/1\n"
NONCE_BYTES = (16, 64)
DEEPEST = 13
"""Hashes between a leaf and the root of a tree of 2^13 trials, the most that a mark has."""

Nonce = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){16,64}$")]


class TrialRecord(Record):
    """One opened trial: its place among all n, its key's secret, and the hashes from its leaf to the root."""

    index: Annotated[int, Field(ge=0, lt=1 << DEEPEST)]
    key: Hex32 = Field(repr=False)
    path: Annotated[tuple[Hex32, ...], Field(strict=False, max_length=DEEPEST)]


class FilesRecord(Record):
    """The files of the folder beside slice.json: one, of a fixed name."""

    mark: FileRecord = Field(alias=TENSORS)


class SliceRecord(Record):
    """The body of slice.json."""

    format: Literal[1]
    scheme: Text
    name: Text
    kind: Literal["triggers"]
    spec: dict[str, Any] = Field(repr=False)
    nonce: Nonce
    trials: Annotated[tuple[TrialRecord, ...], Field(strict=False, min_length=1, max_length=1 << DEEPEST)]
    files: FilesRecord


@dataclass(frozen=True)
class Trial:
    """One opened trial.

    Attributes:
        index: its place among all n.
        secret: the secret of the trial's key; the claim says in whose name it mints.
        path: the hashes from its leaf to the root of the tree.
    """

    index: int
    secret: bytes = field(repr=False)
    path: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Slice:
    """Some trials of a mark, consistent in themselves; only a claim says whether they are some that were committed.

    Attributes:
        scheme, name: as in the bundle.
        mark: the opened trials, in the order of `trials`; its settings are those of the whole mark.
        nonce: what chose the trials, with the claim.
        trials: the opened trials.
        digest: hex SHA-256 over slice.json, and through the hash in it over slice.safetensors.
        files: the two files, by name.
    """

    scheme: str
    name: str
    mark: TriggerSet = field(repr=False)
    nonce: bytes
    trials: tuple[Trial, ...] = field(repr=False)
    digest: str
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def cut(cls, claim: Claim, bundle: Bundle, nonce: bytes, count: int) -> Slice:
        """The slice of `count` trials that a claim and a nonce choose from its evidence.

        Raises:
            BadInput: a claim without a root, evidence of another claim, a nonce of another length, or more trials than
                there are.
        """
        mark, key = bundle.mark, MarkKey(bundle.secret, bytes.fromhex(claim.public_key))
        if claim.slice_root is None or not isinstance(mark, TriggerSet):
            raise BadInput("this claim has no root over its trials, so its mark opens as a whole; mint it sliced")
        if claim.evidence_digest != bundle.digest:
            raise BadInput("the evidence is not the one that the claim commits to; give both of one commitment")
        mint = slicing(mark)
        assert mint is not None, "a claim with a root is to a sliced mark"
        places = selected(claim, nonce, mint.count, count)
        keys = [key.trial_key(index) for index in range(mint.count)]
        leaves = [leaf_of(own, index, mark, index) for index, own in enumerate(keys)]
        trials = [
            {"index": index, "key": keys[index].secret.hex(), "path": [part.hex() for part in path]}
            for index, path in zip(places, audit_paths(leaves, places), strict=True)
        ]
        tensors = packed(_part(mark, places))
        body = {
            "format": FORMAT,
            "scheme": bundle.scheme,
            "name": bundle.name,
            "kind": mark.kind,
            "spec": dict(mark.spec()),
            "nonce": nonce.hex(),
            "trials": trials,
            "files": {TENSORS: {"sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors)}},
        }
        return cls.from_parts(render({"slice": body, "sha256": _sealed(body)}), tensors)

    @classmethod
    def from_parts(cls, described: bytes, tensors: bytes, where: str = "") -> Slice:
        """The slice in the bytes of its two files; `where` stands before their names in errors.

        Raises:
            BadInput: a file is not of the format, or holds no sliced mark.
            Tampered: a file is not what slice.json says it is.
        """
        record, digest = _open(described, where + SLICE)
        check_file(tensors, record.files.mark, where + TENSORS, SLICE)
        mark = open_mark(record.kind, record.spec, tensors, where + TENSORS, where + SLICE)
        assert isinstance(mark, TriggerSet), "the record's kind says so"
        trials = tuple(
            Trial(each.index, bytes.fromhex(each.key), tuple(map(bytes.fromhex, each.path))) for each in record.trials
        )
        if slicing(mark) is None or len(mark) != len(trials):
            raise BadInput(f"{where}{SLICE}: expected a sliced mark with a key for each of its {len(mark)} triggers")
        files = {SLICE: described, TENSORS: tensors}
        return cls(record.scheme, record.name, mark, bytes.fromhex(record.nonce), trials, digest, files)

    @classmethod
    def read(cls, path: Path | str) -> Slice:
        """The slice in a folder that holds exactly its two files; no name in a file is ever used as a path.

        Raises:
            BadInput: no such folder, one that cannot be listed, a file too many or too few, a link, or as `from_parts`.
            Tampered: as `from_parts`, naming the file.
        """
        folder = Path(path)
        found = listed(folder)
        if found != [SLICE, TENSORS]:
            raise BadInput(f"{folder} holds {', '.join(found[:5]) or 'nothing'}; expected only {SLICE} and {TENSORS}")
        described = read_regular(folder / SLICE, SLICE_LIMIT)
        return cls.from_parts(described, read_regular(folder / TENSORS, TENSORS_LIMIT), f"{folder}/")

    def write(self, folder: Path) -> None:
        """The two files, readable by their owner alone, into a new folder; raises as `bundle.write_folder`."""
        write_folder(folder, self.files)

    def __reduce__(self) -> NoReturn:
        raise TypeError("opened evidence is never pickled or copied: it holds keys of the mark; use write and read")

    @property
    def trials_in_all(self) -> int:
        """n, of which the slice opens `len(trials)`."""
        mint = slicing(self.mark)
        assert mint is not None, "from_parts has checked it"
        return mint.count


Evidence: TypeAlias = Bundle | Slice
"""What a claimant opens: the whole mark, or a slice of it."""


@dataclass(frozen=True)
class Draw:
    """What a judge asks an owner to open: `count` trials, chosen by a nonce that he drew after he had the claim.

    Attributes:
        nonce: 16 to 64 bytes.
        count: k, how many trials.

    Raises:
        BadInput: a nonce of another length, or a count below 1.
    """

    nonce: bytes
    count: int

    def __post_init__(self) -> None:
        check_nonce(self.nonce)
        whole("trials to open", self.count, 1, 1 << DEEPEST)


def read_evidence(path: Path | str) -> Evidence:
    """The slice in a folder that holds a slice.json, else the whole evidence; raises as `Slice.read`, `Bundle.read`."""
    slice_there = SLICE in listed(Path(path))
    return Slice.read(path) if slice_there else Bundle.read(path)


def selected(claim: Claim, nonce: bytes, trials: int, count: int) -> list[int]:
    """Which `count` of a claim's `trials` a nonce opens, in this order.

    The first `count` of a permutation of 0..n-1 from the public stream "slice", whose key is empty and whose context is
    the claim's public key (32 bytes), its root (32 bytes) and the nonce. What else the claim says is left out, so
    signing it again with another time chooses nothing else; another root draws all labels anew.

    Raises:
        BadInput: a claim without a root, a nonce that is not 16 to 64 bytes, or a count outside 1..n.
    """
    if claim.slice_root is None:
        raise BadInput("this claim has no root over its trials, so its mark opens as a whole")
    whole("trials to open", count, 1, trials)
    context = bytes.fromhex(claim.public_key) + bytes.fromhex(claim.slice_root) + check_nonce(nonce)
    return [int(index) for index in KeyedStream(b"", "slice", context).choice(trials, count)]


def check_nonce(nonce: bytes) -> bytes:
    """`nonce`, if it is 16 to 64 bytes.

    Raises:
        BadInput: another length.
    """
    least, most = NONCE_BYTES
    if not least <= len(nonce) <= most:
        raise BadInput(f"expected a nonce of {least} to {most} bytes, got {len(nonce)}; draw one: openssl rand -hex 32")
    return nonce


def choice_bits(trials: int, count: int) -> int:
    """What choosing the slice by oneself is worth at most: ceil(log2(n C(n, k))), any size and any k of n trials.

    >>> choice_bits(4, 2), choice_bits(1, 1)
    (5, 0)
    """
    return math.ceil(math.log2(trials) + math.log2(math.comb(trials, count)))


def root_of(mark: object, key: MarkKey) -> str | None:
    """The root over the trials of a whole mark, hex, as it stands in a claim; None for one that is not sliced.

    Raises:
        BadInput: settings that no mint of this release has, or that do not fit the mark.
    """
    mint = slicing(mark) if isinstance(mark, TriggerSet) else None
    if mint is None or not isinstance(mark, TriggerSet):
        return None
    if mint.count != len(mark):
        raise BadInput(f"the settings speak of {mint.count} triggers and the mark has {len(mark)}")
    return rooted(mark, [key.trial_key(index) for index in range(len(mark))]).hex()


def _part(mark: TriggerSet, places: Sequence[int]) -> TriggerSet:
    at = torch.tensor(places)
    carriers = None if mark.carriers is None else mark.carriers.subset(at)
    return TriggerSet(mark.images[at], mark.labels[at], mark.classes, mark.null, mark.settings, carriers)


def _sealed(body: Any) -> str:
    return hashlib.sha256(SEALED + canonical_json(body)).hexdigest()


def _open(raw: bytes, name: str) -> tuple[SliceRecord, str]:
    outer = parse(raw, name, SLICE_LIMIT)
    body = outer.get("slice")
    if set(outer) != {"slice", "sha256"} or not isinstance(body, dict):
        raise BadInput(
            f'{name}: expected an object with "slice" and "sha256"; is it a slice of the evidence of a mark?'
        )
    if outer["sha256"] != _sealed(body):
        raise Tampered(f"{name} is not as it was sealed; get the original file")
    known_format(body, name, (FORMAT,))
    return validated(SliceRecord, body, name), str(outer["sha256"])
