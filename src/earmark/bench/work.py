"""What one worker does: one task after the other, each to an outcome that can be sent anywhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

import torch

from earmark.bench.cells import measure
from earmark.bench.grid import Grid, Task
from earmark.bench.record import Cell
from earmark.bench.subject import Subject

__all__ = ["Engine", "Here", "Outcome", "Worker"]


@final
@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        task: which.
        seconds: how long it took.
        cell: what was measured; None of a stage, and of a task that failed.
        fault: why it failed; None where it did not.
        died: whether the worker died of it, so that another try may succeed.
    """

    task: Task
    seconds: float = 0.0
    cell: Cell | None = None
    fault: str | None = None
    died: bool = False


@final
class Worker:
    """Does the tasks of a grid; the seed and the marked model that it worked on last stay in memory."""

    def __init__(self, grid: Grid, out: Path) -> None:
        self._grid, self._out = grid, out
        self._subject: Subject | None = None

    def do(self, task: Task) -> Outcome:
        """The task's outcome. Whatever an attack, a scheme or a network raises is one: it must not end the grid."""
        begun = time.monotonic()
        try:
            cell = self._done(task)
        except Exception as error:  # noqa: BLE001  (attacks and networks are foreign code)
            self._subject = None
            words = " ".join(f"{type(error).__name__}: {error}".split())
            return Outcome(task, time.monotonic() - begun, fault=words[:500])
        return Outcome(task, time.monotonic() - begun, cell)

    def _done(self, task: Task) -> Cell | None:
        if self._subject is None or self._subject.seed != task.seed:
            self._subject = Subject(self._grid, task.seed, self._out)
        if task.scheme is None:
            self._subject.host()
            return None
        if task.attack is None:
            self._subject.marked(task.scheme)
            return None
        return measure(self._subject, task)


class Engine(Protocol):
    """Where the work is done: in numbered places, each with one task at a time."""

    @property
    def places(self) -> int:
        """How many there are."""

    def submit(self, place: int, task: Task) -> None:
        """Begin a task in a place that is free."""

    def wait(self) -> tuple[int, Outcome]:
        """The next outcome, and the place that it frees."""

    def close(self) -> None:
        """End all places."""


@final
class Here:
    """One place: this very process. What kills a worker ends the grid here."""

    places = 1

    def __init__(self, grid: Grid, out: Path, threads: int | None = None) -> None:
        self._worker = Worker(grid, out)
        self._done: list[Outcome] = []
        self._threads = torch.get_num_threads()
        if threads is not None:
            torch.set_num_threads(threads)

    def submit(self, place: int, task: Task) -> None:
        self._done.append(self._worker.do(task))

    def wait(self) -> tuple[int, Outcome]:
        return 0, self._done.pop()

    def close(self) -> None:
        torch.set_num_threads(self._threads)
