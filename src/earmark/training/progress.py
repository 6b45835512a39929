"""A progress line for runs that take more than a moment; nothing where nobody watches a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Meter", "meter"]


class Meter:
    """Advances one line of a progress display."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """One step done."""
        self._progress.advance(self._task)

    def note(self, numbers: Mapping[str, float]) -> None:
        """Show these numbers beside the bar."""
        self._progress.update(self._task, note="  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))


@contextmanager
def meter(title: str, total: int) -> Iterator[Meter]:
    """A bar over `total` steps on standard error, shown on a terminal only."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Meter(progress, progress.add_task(title, total=total, note=""))
