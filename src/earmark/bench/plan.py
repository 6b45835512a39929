"""What is left to do, in which order, and how long it will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

from earmark.bench.grid import Task

__all__ = ["Plan", "Progress"]


@final
@dataclass(frozen=True)
class Progress:
    """How far a grid is.

    Attributes:
        done: cells that are finished, those of earlier runs included.
        total: all cells.
        failed: how many of the finished ones failed.
        left: an estimate of the seconds that the rest takes; None before anything was measured.
        last: what was finished last.
    """

    done: int
    total: int
    failed: int
    left: float | None
    last: str

    def __str__(self) -> str:
        """One line.

        >>> print(Progress(3, 10, 1, 95.0, "uchida under half, seed 0"))
        3 of 10 cells, 1 failed, about 2 min left; uchida under half, seed 0
        """
        failed = f", {self.failed} failed" if self.failed else ""
        left = "" if self.left is None or self.done == self.total else f", about {_span(self.left)} left"
        return f"{self.done} of {self.total} cells{failed}{left}; {self.last}"


def _span(seconds: float) -> str:
    """A time as people say it.

    >>> _span(4.2), _span(95), _span(7500)
    ('4 s', '2 min', '2.1 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@final
class Plan:
    """The cells that are not done yet, and the stages that they need.

    Whoever is free takes a cell of the marked model that it worked on last; else one that nobody else works on; else
    any that can be begun. So models are read and made as seldom as possible, and nobody waits while there is work.
    """

    def __init__(self, cells: Iterable[Task]) -> None:
        self._cells: dict[Task, None] = dict.fromkeys(cells)
        self._made: set[Task] = set()
        self._running: set[Task] = set()
        self._took: dict[str | None, list[float]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._cells or self._running)

    def take(self, last: Task | None = None) -> Task | None:
        """What to do next for one whose last task was `last`; None where everything that is left waits for others."""
        busy = {(task.seed, task.scheme) for task in self._running}
        choices = list(self._ready())
        own = [task for task in choices if last is not None and _group(task) == _group(last)]
        free = [task for task in choices if _group(task) not in busy]
        chosen = next(iter(own or free or choices), None)
        if chosen is not None:
            self._running.add(chosen)
            self._cells.pop(chosen, None)
        return chosen

    def _ready(self) -> Iterator[Task]:
        """What can be begun, each once, in the order of the cells."""
        seen: set[Task] = set()
        for cell in self._cells:
            task = self._first(cell)
            if task not in seen and task not in self._running:
                seen.add(task)
                yield task

    def _first(self, task: Task) -> Task:
        """What has to be done first of all that a task needs: itself, where nothing is lacking."""
        need = task.needs
        return task if need is None or need in self._made else self._first(need)

    def finish(self, task: Task, seconds: float) -> None:
        """`task` is done."""
        self._running.discard(task)
        self._took[task.attack if task.scheme else ""].append(seconds)
        if task.attack is None:
            self._made.add(task)

    def again(self, task: Task) -> None:
        """`task` has to be done once more."""
        self._running.discard(task)
        if task.attack is not None:
            self._cells = {task: None, **self._cells}

    def drop(self, stage: Task) -> list[Task]:
        """`stage` cannot be made: the cells that needed it, which are left out from now on."""
        self._running.discard(stage)
        lost = [cell for cell in self._cells if _under(cell, stage)]
        for cell in lost:
            del self._cells[cell]
        return lost

    def left(self, workers: int) -> float | None:
        """An estimate of the seconds until everything is done: what the same work took so far, shared out."""
        every = [seconds for attack, took in self._took.items() if attack for seconds in took]
        if not every:
            return None
        stages = {need for cell in self._cells for need in _needs(cell)} - self._made
        usual = sum(every) / len(every)
        work = [*self._cells, *stages, *self._running]
        return sum(self._expected(task, usual) for task in work) / max(1, workers)

    def _expected(self, task: Task, usual: float) -> float:
        took = self._took.get(task.attack if task.scheme else "")
        return sum(took) / len(took) if took else usual


def _group(task: Task) -> tuple[int, str | None]:
    return task.seed, task.scheme


def _under(cell: Task, stage: Task) -> bool:
    return cell.seed == stage.seed and stage.scheme in (None, cell.scheme)


def _needs(task: Task) -> Iterator[Task]:
    need = task.needs
    while need is not None:
        yield need
        need = need.needs
