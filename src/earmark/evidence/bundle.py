"""The secret evidence: a folder with the opened key, the salt and the mark, every byte of it under one digest."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field
from safetensors.torch import save as save_safetensors

from earmark.core import Mark
from earmark.errors import BadInput, Tampered
from earmark.evidence.claim import Hex32, Text, known_format
from earmark.evidence.wire import Record, open_tensors, parse, read_regular, render, validated
from earmark.files import canonical_json, digest, write_atomic
from earmark.keys import MarkKey
from earmark.marks import mark_from_parts

__all__ = [
    "EVIDENCE",
    "EVIDENCE_LIMIT",
    "TENSORS",
    "TENSORS_LIMIT",
    "Bundle",
    "FileRecord",
    "check_file",
    "listed",
    "open_mark",
    "packed",
    "salted_digest",
    "write_folder",
]

FORMAT = 1
EVIDENCE = "evidence.json"
TENSORS = "mark.safetensors"
EVIDENCE_LIMIT = 1 << 20
TENSORS_LIMIT = 1 << 31
SEALED = b"earmark/evidence/1\n"
SALTED = b"earmark/mark/1\n"


class FileRecord(Record):
    """What a file must be: its size in bytes and its SHA-256."""

    sha256: Hex32
    size: Annotated[int, Field(ge=0, le=TENSORS_LIMIT)]


class FilesRecord(Record):
    """The files of the folder beside evidence.json: one, of a fixed name."""

    mark: FileRecord = Field(alias=TENSORS)


class EvidenceRecord(Record):
    """The body of evidence.json."""

    format: Literal[1]
    scheme: Text
    name: Text
    kind: Text
    spec: dict[str, Any] = Field(repr=False)
    salt: Hex32 = Field(repr=False)
    mark_key: Hex32 = Field(repr=False)
    files: FilesRecord


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened evidence bundle, consistent in itself; only a claim says whether it is the one that was committed.

    Attributes:
        scheme: the scheme that the mark was embedded with.
        name: the mark's name.
        mark: the mark.
        secret: the secret of the key that is said to have minted it; the claim says in whose name.
        salt: 32 random bytes that keep the claim's `mark_digest` from being guessed.
        digest: hex SHA-256 over evidence.json, and through the hash in it over mark.safetensors.
        files: the two files, by name.
    """

    scheme: str
    name: str
    mark: Mark = field(repr=False)
    secret: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    digest: str
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def seal(cls, mark: Mark, key: MarkKey, *, name: str, scheme: str, salt: bytes | None = None) -> Bundle:
        """The bundle that opens a mark and its key's secret; `salt` is drawn from the system unless it is given."""
        tensors = packed(mark)
        body = {
            "format": FORMAT,
            "scheme": scheme,
            "name": name,
            "kind": mark.kind,
            "spec": dict(mark.spec()),
            "salt": (secrets.token_bytes(32) if salt is None else salt).hex(),
            "mark_key": key.secret.hex(),
            "files": {TENSORS: {"sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors)}},
        }
        return cls.from_parts(render({"evidence": body, "sha256": _sealed(body)}), tensors)

    @classmethod
    def from_parts(cls, evidence: bytes, tensors: bytes, where: str = "") -> Bundle:
        """The bundle in the bytes of its two files; `where` stands before their names in errors.

        Raises:
            BadInput: a file is not of the format, or holds no mark.
            Tampered: a file is not what evidence.json says it is.
        """
        record, digest = _open_evidence(evidence, where + EVIDENCE)
        check_file(tensors, record.files.mark, where + TENSORS, EVIDENCE)
        mark = open_mark(record.kind, record.spec, tensors, where + TENSORS, where + EVIDENCE)
        secret, salt = bytes.fromhex(record.mark_key), bytes.fromhex(record.salt)
        return cls(record.scheme, record.name, mark, secret, salt, digest, {EVIDENCE: evidence, TENSORS: tensors})

    @classmethod
    def read(cls, path: Path | str) -> Bundle:
        """The bundle in a folder that holds exactly its two files; no name in a file is ever used as a path.

        Raises:
            BadInput: no such folder, one that cannot be listed, a file too many or too few, a link, or as `from_parts`.
            Tampered: as `from_parts`, naming the file.
        """
        folder = Path(path)
        found = listed(folder)
        if found != [EVIDENCE, TENSORS]:
            raise BadInput(
                f"{folder} holds {', '.join(found[:5]) or 'nothing'}; expected only {EVIDENCE} and {TENSORS}"
            )
        evidence = read_regular(folder / EVIDENCE, EVIDENCE_LIMIT)
        return cls.from_parts(evidence, read_regular(folder / TENSORS, TENSORS_LIMIT), f"{folder}/")

    def write(self, folder: Path) -> None:
        """The two files, readable by their owner alone, into a new folder of the same kind.

        Raises:
            BadInput: the folder exists, or cannot be written.
        """
        write_folder(folder, self.files)

    def __reduce__(self) -> NoReturn:
        raise TypeError("opened evidence is never pickled or copied: it holds the mark's key; use write and read")

    @property
    def mark_digest(self) -> str:
        """The salted digest of the mark, as the claim states it."""
        return salted_digest(self.mark, self.salt)


def packed(mark: Mark) -> bytes:
    """A mark's tensors as the bytes of a safetensors file."""
    return save_safetensors(
        {part: tensor.detach().cpu().contiguous().clone() for part, tensor in mark.tensors().items()}
    )


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Files, readable by their owner alone, in a new folder of the same kind.

    Raises:
        BadInput: the folder exists, or cannot be written.
    """
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise BadInput(f"cannot make the folder {folder}: {error.strerror}; give a new name") from error
    for name, content in contents.items():
        write_atomic(folder / name, content, mode=0o600)


def listed(folder: Path) -> list[str]:
    """The names in a folder that is no link, sorted."""
    try:
        if folder.is_symlink() or not folder.is_dir():
            raise BadInput(f"{folder} is no folder; give the evidence folder itself, not a link to it")
        return sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {error.strerror}; make it readable") from error


def salted_digest(mark: Mark, salt: bytes) -> str:
    """Hex SHA-256 of a tag, the salt and the mark's digest: it binds the mark and allows no test of a guess."""
    return hashlib.sha256(SALTED + salt + bytes.fromhex(digest(mark.tensors(), [mark.kind, mark.spec()]))).hexdigest()


def _sealed(body: Any) -> str:
    return hashlib.sha256(SEALED + canonical_json(body)).hexdigest()


def _open_evidence(raw: bytes, name: str) -> tuple[EvidenceRecord, str]:
    outer = parse(raw, name, EVIDENCE_LIMIT)
    body = outer.get("evidence")
    if set(outer) != {"evidence", "sha256"} or not isinstance(body, dict):
        raise BadInput(f'{name}: expected an object with "evidence" and "sha256"; is it the evidence of a mark?')
    if outer["sha256"] != _sealed(body):
        raise Tampered(f"{name} is not as it was sealed; get the original file")
    known_format(body, name, (FORMAT,))
    return validated(EvidenceRecord, body, name), str(outer["sha256"])


def open_mark(kind: str, spec: Mapping[str, Any], tensors: bytes, file: str, described: str) -> Mark:
    """The mark in a file of tensors that another file describes; both are named in errors, as `BadInput`."""
    parts = open_tensors(tensors, file)
    try:
        return mark_from_parts(kind, spec, parts)
    except BadInput as error:
        raise BadInput(f"{described} and {Path(file).name} hold no mark: {error}") from error


def check_file(content: bytes, record: FileRecord, name: str, by: str) -> None:
    """Raise `Tampered` for a file that is not the one that `by` names."""
    if len(content) != record.size:
        raise Tampered(f"{name} has {len(content)} bytes, {by} says {record.size}; get the original file")
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise Tampered(f"{name} is not the file that {by} names by its hash; get the original file")
