"""What a command says: one JSON value, or words and tables for people. Files are never overwritten by accident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType

from earmark.errors import BadInput

__all__ = ["new_file", "new_folder", "note", "show"]


def show(as_json: bool, value: Any, *words: RenderableType) -> None:
    """Print `value` as JSON, or else `words`."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, allow_nan=False))
        return
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for word in words:
        console.print(word)


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
