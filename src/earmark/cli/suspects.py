"""Suspects on the command line: what one short text names, how it is asked, and what is kept of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, final

import typer
from torch import Tensor

from earmark.cli.settings import Form
from earmark.core import Mark
from earmark.data import open_data
from earmark.errors import BadInput
from earmark.evidence import Claim
from earmark.files import digest
from earmark.keys import MarkKey
from earmark.models import Task
from earmark.suspects import (
    GIVEN,
    Answer,
    ClassNames,
    Mixed,
    Reached,
    Recorded,
    Transcript,
    kind_of_suspect,
    makers,
    open_suspect,
)
from earmark.training.progress import Meter, meter

__all__ = ["Approach", "ClassNamesFile", "Decoys", "DecoysEach", "Service", "Suspect", "SuspectSet", "TranscriptFile"]

Suspect = Annotated[
    str,
    typer.Argument(
        metavar="SUSPECT",
        help="What stands accused: a file of weights, onnx:FILE, transformers:DIR, http(s)://..., or a transcript.",
    ),
]
Service = Annotated[
    str | None,
    typer.Option("--form", metavar="NAME", help="What a service speaks: v2 (Triton, KServe, MLServer), hf or json."),
]
SuspectSet = Annotated[
    list[str] | None,
    typer.Option(
        "--suspect-set",
        metavar="NAME=VALUE",
        help="A setting of how the suspect is asked, such as rate=2, budget=200 or token=VARIABLE; may be repeated.",
    ),
]
ClassNamesFile = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        help="JSON: the task's classes by what the suspect calls them, a list in order or an object.",
    ),
]
TranscriptFile = Annotated[
    Path | None,
    typer.Option(
        "--transcript", metavar="FILE", help="Keep every answer here, and go on from those that are there already."
    ),
]
Decoys = Annotated[
    str | None,
    typer.Option("--decoys", metavar="SOURCE", help="Hide the triggers among the test images of this data."),
]
DecoysEach = Annotated[
    int, typer.Option("--decoys-each", metavar="N", min=1, max=1000, help="Ordinary images for one trigger.")
]

ORDER: Final = b"earmark/decoys/1\n"


@final
@dataclass(frozen=True)
class Approach:
    """How a suspect that is no file of weights is asked."""

    form: str | None = None
    settings: Sequence[str] | None = None
    class_names: Path | None = None
    transcript: Path | None = None
    decoys: str | None = None
    decoys_each: int = 3
    committed: Sequence[str] | None = None
    """The class names of a claim, by which a service is read where no file gives others."""

    def committed_to(self, claims: Sequence[Claim]) -> Approach:
        """The same, with the class names in the claims, all of them known to be no later than the suspect.

        Raises:
            BadInput: claims that call the classes differently, and no file that decides.
        """
        named = {claim.class_names for claim in claims if claim.class_names is not None}
        if len(named) > 1 and self.class_names is None:
            raise BadInput("the claims name the classes differently; give the names of the service as --class-names")
        return replace(self, committed=next(iter(named), None))

    def applies(self, suspect: str) -> bool:
        """Whether the suspect is asked so, and is no file of weights.

        Raises:
            BadInput: options of an approach for a file of weights.
        """
        if kind_of_suspect(suspect) is not None:
            return True
        if self != Approach(decoys_each=self.decoys_each):
            raise BadInput(
                f"{suspect} is a file of weights, and --form, --suspect-set, --class-names, --transcript and --decoys "
                "are for suspects that are asked otherwise; leave them out"
            )
        return False

    @contextmanager
    def reached(self, suspect: str, tasks: Sequence[Task], marks: Sequence[Mark]) -> Iterator[Reached]:
        """As `connected`, with a progress line."""
        with (
            self.connected(suspect, tasks, marks) as found,
            meter("asking", sum(map(_questions, marks))) as progress,
        ):
            yield Watched(found, progress)

    @contextmanager
    def connected(self, suspect: str, tasks: Sequence[Task], marks: Sequence[Mark]) -> Iterator[Reached]:
        """The suspect, connected for as long as the block lasts.

        Args:
            suspect: its text.
            tasks: what it may have been made for.
            marks: what it is asked about; their hash draws the order among decoys. Without them no answer is kept in
                memory.
        """
        found = self._opened(suspect, tasks)
        kept = bool(marks or self.transcript) and not isinstance(found, Transcript)
        recorded = _kept(found, self.transcript) if kept else found
        try:
            yield recorded if self.decoys is None else self._mixed(recorded, marks)
        finally:
            recorded.close()

    def _opened(self, suspect: str, tasks: Sequence[Task]) -> Reached:
        """A service is asked about the task of most classes; a file is of the first task that it fits."""
        if not tasks:
            raise BadInput("the claims' marks tell no task that a suspect could be asked about; judge its weights")
        by_classes = sorted(tasks, key=lambda task: task.classes, reverse=kind_of_suspect(suspect) == "http")
        faults = []
        for task in by_classes:
            try:
                return self._open(suspect, task, [each.classes for each in tasks])
            except BadInput as error:
                faults.append(error)
                if kind_of_suspect(suspect) == "http":
                    break
        raise faults[0]

    def _open(self, suspect: str, task: Task, counts: Sequence[int]) -> Reached:
        names = None
        if self.committed is not None and kind_of_suspect(suspect) == "http":
            names = ClassNames.listed(self.committed, "the claim")
        if self.class_names is not None:
            names = ClassNames.read(str(self.class_names), *counts)
        form = Form.of("settings of the suspect", *makers(suspect, self.form), without=GIVEN)
        return form.fill(
            self.settings, lambda **values: open_suspect(suspect, task, form=self.form, names=names, **values)
        )

    def _mixed(self, suspect: Reached, marks: Sequence[Mark]) -> Mixed:
        assert self.decoys is not None, "asked for by the caller"
        secret = ORDER + "".join(sorted(digest(mark.tensors(), mark.spec()) for mark in marks)).encode()
        return Mixed(suspect, open_data(self.decoys).test, MarkKey(sha256(secret).digest()), self.decoys_each)


def _kept(suspect: Reached, file: Path | None) -> Recorded:
    try:
        return Recorded(suspect, file)
    except BaseException:
        suspect.close()
        raise


def _questions(mark: Mark) -> int:
    return len(mark) if isinstance(mark, Sized) else 0


@final
class Watched(Reached):
    """A suspect whose answers advance a progress line."""

    def __init__(self, suspect: Reached, progress: Meter) -> None:
        self._suspect, self._progress, self.classes = suspect, progress, suspect.classes

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._suspect.facts

    def ask(self, images: Tensor, heard: Any = None) -> list[Answer]:
        def count(at: int, answer: Answer) -> None:
            self._progress.advance()
            if heard is not None:
                heard(at, answer)

        return self._suspect.ask(images, count)
