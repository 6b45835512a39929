"""The file of results: one line a cell, appended whole or not at all, by one run at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from pydantic import ValidationError

from earmark.bench.record import Cell
from earmark.errors import BadInput

__all__ = ["RESULTS", "Ledger", "read_cells"]

RESULTS = "results.jsonl"
LINE_LIMIT = 1 << 20


def read_cells(path: Path) -> list[Cell]:
    """The cells in a file of results, each of them once: of an identity that occurs again, the last line counts.

    A last line without its end is what a killed run leaves, and is left out.

    Raises:
        BadInput: no such file, or a line that is no cell; the message names it.
    """
    if not path.is_file():
        raise BadInput(f"{path} is not there; give a file of results that `earmark bench` wrote")
    found: dict[str, Cell] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                cell = _parsed(line, f"{path}, line {number}")
                found[cell.id] = cell
    return list(found.values())


def _parsed(line: bytes, where: str) -> Cell:
    if len(line) > LINE_LIMIT:
        raise BadInput(f"{where} is longer than {LINE_LIMIT} bytes, which no cell is")
    try:
        return Cell.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        raise BadInput(f"{where} is no cell of this version ({place}: {first['msg']})") from error


@final
class Ledger:
    """The results of one grid, to go on with: what is there is read first, what comes is appended.

    Args:
        folder: holds `results.jsonl`.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._descriptor = folder / RESULTS, -1
        self.cells = {cell.id: cell for cell in read_cells(self.path)} if self.path.exists() else {}

    @contextmanager
    def writing(self) -> Iterator[Ledger]:
        """Within, cells can be appended, and no other run can append to the same file.

        Raises:
            BadInput: another run is writing there, or the folder is not writable.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise BadInput(f"cannot write {self.path}: {error.strerror}; give another folder") from error
        try:
            _lock(descriptor, self.path)
            _drop_torn_end(descriptor)
            self._descriptor = descriptor
            yield self
        finally:
            self._descriptor = -1
            os.close(descriptor)

    def append(self, cell: Cell) -> None:
        """Write the cell, safe on the disk before anything else goes on; within `writing` alone."""
        line = cell.line()
        written = 0
        while written < len(line):
            written += os.write(self._descriptor, line[written:])
        os.fsync(self._descriptor)
        self.cells[cell.id] = cell


def _lock(descriptor: int, path: Path) -> None:
    """Held until the file is closed, a killed process's too."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise BadInput(f"another run is writing {path}; wait for it, or give another folder") from error


def _drop_torn_end(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, LINE_LIMIT, max(0, size - LINE_LIMIT))
    torn = len(tail) - 1 - tail.rfind(b"\n")
    if torn:
        os.ftruncate(descriptor, size - torn)
