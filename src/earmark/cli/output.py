"""What a command says: one JSON value, or words and tables for people. Files are never overwritten by accident."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType

from earmark.errors import BadInput
from earmark.reports import Table

__all__ = ["new_file", "new_folder", "note", "show", "upright"]

WIDE = 160
"""Columns of a table that goes to a file or a pipe."""


def show(as_json: bool, value: Any, *words: RenderableType) -> None:
    """Print `value` as JSON, or else `words`."""
    if as_json:
        typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))
        return
    console = Console(soft_wrap=True, highlight=False, markup=False)
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


def new_file(path: Path, force: bool, suffix: str = "") -> Path:
    """`path`, with its folder made, if a file may be written there.

    Raises:
        BadInput: something is there already, the ending is another than `suffix`, or the folder cannot be made.
    """
    if not path.name.endswith(suffix):
        raise BadInput(f"{path} is written as safetensors; give a name that ends in {suffix}")
    if path.is_dir():
        raise BadInput(f"{path} is a folder; give the name of a file")
    if path.exists() and not force:
        raise BadInput(f"{path} is there already; give another name, or --force to write over it")
    new_folder(path.parent)
    return path


def new_folder(path: Path) -> Path:
    """`path` as a folder, made if it is not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {path}: {error.strerror}; give another") from error
    return path


def upright(table: Table) -> Table:
    """The table with rows and columns exchanged: many numbers of few models fit a terminal better so."""
    names, *columns = zip(table.columns, *table.rows, strict=True)
    return Table(names, tuple(columns), table.title, table.caption)
