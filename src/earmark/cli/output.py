"""What a command says: one JSON value, or words and tables for people. Files are never overwritten by accident."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TextIO

import typer
from rich.console import Console, RenderableType

from earmark.errors import BadInput
from earmark.files import write_atomic
from earmark.reports import Table

__all__ = ["PROGRAM", "new_file", "new_folder", "note", "own_output", "show", "tidy", "upright", "write_new"]

WIDE = 160
"""Columns of a table that goes to a file or a pipe."""

PROGRAM: Final[ContextVar[bool]] = ContextVar("PROGRAM", default=False)
"""Whether the process is the program and ends with the command that it runs."""

OUTPUT: Final[ContextVar[TextIO | None]] = ContextVar("OUTPUT", default=None)
"""Where the running command's result goes; standard output where no command runs."""

MADE: Final[ContextVar[list[Path] | None]] = ContextVar("MADE", default=None)
"""The folders that the running command has made, the outer before the inner."""


@contextmanager
def own_output() -> Iterator[None]:
    """Keep standard output for `show`: what anything else prints, the user's own code say, goes to standard error."""
    with ExitStack() as after:
        ours = (sys.stdout, sys.stderr) == (sys.__stdout__, sys.__stderr__) and None not in (sys.stdout, sys.stderr)
        result = after.enter_context(_diverted()) if ours else sys.stdout  # replaced, or closed by the caller
        after.callback(OUTPUT.reset, OUTPUT.set(result))
        after.enter_context(redirect_stdout(sys.stderr))
        yield


@contextmanager
def _diverted() -> Iterator[TextIO]:
    """Standard output under another file descriptor; its own one leads to standard error, for C code and children.

    In the program it stays so until the process ends: what imported code says when it is taken down is no result.
    """
    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    try:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        with open(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False) as result:
            yield result
    finally:
        if not PROGRAM.get():
            os.dup2(kept, sys.stdout.fileno())
        os.close(kept)


@contextmanager
def tidy() -> Iterator[None]:
    """Afterwards, take away the folders that were made within it and got nothing."""
    made: list[Path] = []
    token = MADE.set(made)
    try:
        yield
    finally:
        MADE.reset(token)
        for folder in reversed(made):
            with suppress(OSError):  # there is something in it
                folder.rmdir()


def show(as_json: bool, value: Any, *words: RenderableType) -> None:
    """Print `value` as JSON, or else `words`."""
    if as_json:
        typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False), file=OUTPUT.get())
        return
    console = Console(file=OUTPUT.get(), soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    for word in words:
        console.print(word)


def _finite(value: Any) -> Any:
    """`value` with null for the numbers that JSON does not have, as a diverged model's losses may be."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def note(words: str) -> None:
    """Something to know beside the result, on standard error."""
    typer.echo(f"earmark: {words}", err=True)


def new_file(path: Path, force: bool, suffix: str = "", again: bool = False) -> Path:
    """`path`, with its folder made, if a file may be written there.

    With `again`, a file may be there: a command that was killed after it had written it is being given again, and
    `write_new` sees whether that is so.

    Raises:
        BadInput: something is there already, the ending is another than `suffix`, or the folder cannot be made.
    """
    if not path.name.endswith(suffix):
        raise BadInput(f"{path} is written as safetensors; give a name that ends in {suffix}")
    if path.is_dir():
        raise BadInput(f"{path} is a folder; give the name of a file")
    if path.exists() and not (force or again):
        raise _taken(path)
    new_folder(path.parent)
    return path


def write_new(path: Path, content: bytes, force: bool, mode: int = 0o644) -> None:
    """Write a file; one that is there must be wanted away (`force`), or have this very content, and stays then.

    No more may be done with a file that stays than `mode` allows: what is secret is so again.

    Raises:
        BadInput: other content is there, or as `files.write_atomic`.
    """
    if force or not path.exists():
        write_atomic(path, content, mode)
    elif path.read_bytes() != content:
        raise _taken(path)
    else:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & mode)


def _taken(path: Path) -> BadInput:
    return BadInput(f"{path} is there already; give another name, or --force to write over it")


def new_folder(path: Path) -> Path:
    """`path` as a folder, made if it is not there; if nothing comes into it, it goes when the command ends (`tidy`)."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if (made := MADE.get()) is not None:
        made += reversed(missing)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {path}: {error.strerror}; give another") from error
    return path


def upright(table: Table) -> Table:
    """The table with rows and columns exchanged: many numbers of few models fit a terminal better so."""
    names, *columns = zip(table.columns, *table.rows, strict=True)
    return Table(names, tuple(columns), table.title, table.caption)
