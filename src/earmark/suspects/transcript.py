"""A record of every question and answer, chained by hashes, that is resumed, and is itself a suspect.

One JSON object a line, in canonical form. The first line says how the suspect was reached; each later one holds the
SHA-256 of an image's pixels and what was said of it. Every line holds the hash of the line before it, and its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, final

import torch
from torch import Tensor

from earmark.errors import BadInput, Tampered, whole
from earmark.files import canonical_json, digest
from earmark.suspects.answers import Answer
from earmark.suspects.pixels import as_pixels
from earmark.suspects.reached import Heard, Reached, Unreachable

__all__ = ["Recorded", "Transcript", "image_digest", "is_transcript"]

FORMAT: Final = 1
CHAINED: Final = b"earmark/transcript/1\n"
LINE_LIMIT: Final = 8 << 20
BEGINNING: Final = b'{"classes":'


def image_digest(pixels: Tensor) -> str:
    """Hex SHA-256 of one image, uint8 (C, H, W), with its shape: `files.digest` of it under the name "image"."""
    return digest({"image": pixels})


def is_transcript(path: Path) -> bool:
    """Whether a regular file begins as a transcript does."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(BEGINNING)) == BEGINNING
    except OSError:
        return False


@final
class Recorded(Reached):
    """A suspect whose every answer is kept: an image that was asked before is not asked again.

    With a file, each answer is written as soon as it is heard; a file that is there is gone on with, so an audit
    that broke off costs nothing twice; only images that had no answer are asked again, and the later line counts. It is
    readable by its owner alone.

    Args:
        suspect: what is asked.
        file: the transcript; None keeps the answers in memory.

    Raises:
        BadInput: a file that cannot be written, that is something else, or the transcript of another suspect.
        Tampered: a line of it was changed.
    """

    def __init__(self, suspect: Reached, file: Path | None = None) -> None:
        self._suspect, self.classes = suspect, suspect.classes
        self._known: dict[str, Answer] = {}
        self._file: BinaryIO | None = None
        self._count, self._hash = 0, ""
        about = {"classes": suspect.classes, "earmark_transcript": FORMAT, "suspect": dict(suspect.facts)}
        if file is not None:
            self._open(file, about)

    @property
    def facts(self) -> Mapping[str, Any]:
        chain = {"transcript": {"lines": self._count, "sha256": self._hash}} if self._file else {}
        return {**self._suspect.facts, **chain}

    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        pixels = as_pixels(images)
        names = [image_digest(each) for each in pixels]
        new: dict[str, int] = {}
        for at, name in enumerate(names):
            if name not in self._known:
                new.setdefault(name, at)
            elif heard is not None:
                heard(at, self._known[name])
        first = list(new.values())

        def keep(at: int, answer: Answer) -> None:
            self._keep(names[first[at]], answer)
            if heard is not None:
                heard(first[at], answer)

        if first:
            self._suspect.ask(images[torch.tensor(first)], keep)
        return [self._known[name] for name in names]

    def close(self) -> None:
        self._suspect.close()
        if self._file is not None:
            self._file.close()

    def _keep(self, name: str, answer: Answer) -> None:
        self._known[name] = answer
        if self._file is not None:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._write({"answer": answer.to_json(), "image": name, "n": self._count, "time": now})

    def _write(self, body: Mapping[str, Any]) -> None:
        assert self._file is not None, "nothing is written without a file"
        self._hash = _chained(self._hash, body)
        self._file.write(canonical_json({**body, "sha256": self._hash}) + b"\n")
        self._file.flush()
        self._count += 1

    def _open(self, path: Path, about: Mapping[str, Any]) -> None:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise BadInput(
                f"cannot write {path}: {error.strerror}; give a folder that exists and is writable"
            ) from error
        self._file = os.fdopen(handle, "ab+")
        try:
            self._go_on(path, about)
        except BaseException:
            self._file.close()
            raise

    def _go_on(self, path: Path, about: Mapping[str, Any]) -> None:
        assert self._file is not None, "opened just now"
        self._file.seek(0)
        if not BEGINNING.startswith(begun := self._file.read(len(BEGINNING))):
            raise BadInput(f"{path} is there and is no transcript; it is left as it is, name a new file")
        if not _cut_torn(self._file) or not begun:
            self._write({**about, "n": 0, "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")})
            return
        lines = _lines(path)
        head, self._hash = next(lines)
        if {name: head[name] for name in about} != json.loads(canonical_json(dict(about))):
            raise BadInput(
                f"{path} is the transcript of another suspect, or of one reached in another way; name a new file"
            )
        self._count = 1
        for body, self._hash in lines:
            self._known[body["image"]] = Answer.from_json(body["answer"])
            self._count += 1
        self._known = {name: answer for name, answer in self._known.items() if answer.fault is None}


@final
class Transcript(Reached):
    """The suspect as a transcript has it: what was said then of an image is said again, and of others nothing.

    Args:
        file: what `Recorded` wrote.
        classes: K, of the task that it is asked about; None for that of the transcript.

    Raises:
        BadInput: no transcript, or one of another task.
        Tampered: a line was changed; the message names it.
    """

    def __init__(self, file: Path | str, classes: int | None = None) -> None:
        path = Path(file)
        lines = _lines(path)
        head, chain = next(lines)
        self._known, count = {}, 1
        for body, now in lines:
            self._known[body["image"]] = Answer.from_json(body["answer"])
            count, chain = count + 1, now
        self.classes = whole(f"{path}: classes", head["classes"], 2, 1 << 17)
        if classes is not None and classes != self.classes:
            raise BadInput(f"{path} was recorded for a task of {self.classes} classes, and this one has {classes}")
        self._path = path
        self._facts = {**head["suspect"], "transcript": {"lines": count, "sha256": chain}}

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        names = [image_digest(each) for each in as_pixels(images)]
        missing = [name for name in names if name not in self._known]
        if missing:
            raise Unreachable(
                f"{self._path} has no answer to the image {missing[0][:16]}..., so it tells nothing of this mark, or "
                "of another test than the recorded one; ask the suspect itself"
            )
        answers = [self._known[name] for name in names]
        for at, answer in enumerate(answers if heard else ()):
            heard(at, answer)  # type: ignore[misc]
        return answers


def _chained(before: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(CHAINED + before.encode() + b"\n" + canonical_json(dict(body))).hexdigest()


def _cut_torn(file: BinaryIO) -> int:
    """Take off a last line that was not finished; how many bytes are left."""
    end = file.seek(0, os.SEEK_END)
    keep = end
    while keep:
        step = min(keep, 1 << 16)
        file.seek(keep - step)
        at = file.read(step).rfind(b"\n")
        if at >= 0:
            keep = keep - step + at + 1
            break
        keep -= step
    if keep != end:
        file.truncate(keep)
    file.seek(0, os.SEEK_END)
    return keep


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's body and its hash, checked; the first is the head.

    Raises:
        BadInput: no transcript, or one of another format.
        Tampered: a line that is not as it was written.
    """
    if not path.is_file() or not is_transcript(path):
        raise BadInput(f"{path} is no transcript; give the file that --transcript wrote")
    before = ""
    with path.open("rb") as file:
        for number in range(1 << 62):
            raw = file.readline(LINE_LIMIT)
            if not raw:
                return
            body = _line(raw, before, number)
            if body is None:
                raise Tampered(f"{path}: line {number + 1} is not as it was written; get the original file")
            if body.get("earmark_transcript", FORMAT) != FORMAT:
                raise BadInput(f"{path} has a format of transcripts that this release does not know; take a newer one")
            before = body.pop("sha256")
            yield body, before


def _line(raw: bytes, before: str, number: int) -> dict[str, Any] | None:
    """The body of a line with its hash, if it is what was written after `before`."""
    try:
        value = json.loads(raw)
        if not isinstance(value, dict) or canonical_json(value) + b"\n" != raw:
            return None
        body = {name: part for name, part in value.items() if name != "sha256"}
        members = (
            {"answer", "image", "n", "time"} if number else {"classes", "earmark_transcript", "suspect", "n", "time"}
        )
        if body.keys() != members or body["n"] != number or value["sha256"] != _chained(before, body):
            return None
        if not isinstance(body["image"], str) if number else not isinstance(body["suspect"], dict):
            return None
    except (ValueError, KeyError, RecursionError):
        return None
    return {**body, "sha256": value["sha256"]}
