"""Passwords and marks: what must not be seen on the command line, in a log, or by another user of the machine."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import typer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from earmark.cli.output import write_new
from earmark.core import Mark
from earmark.errors import BadInput
from earmark.files import canonical_json, load_tensors, read_bytes
from earmark.keys import OwnerKey
from earmark.marks import AnyMark, Passports, Projection, TriggerSet, mark_from_parts
from earmark.models import Task

__all__ = ["VARIABLE", "Minted", "open_key", "password", "task_of"]

VARIABLE: Final = "EARMARK_PASSWORD"
FORMAT: Final = 1
PASSWORD_LIMIT: Final = 4096


def password(file: Path | None, new: bool = False) -> bytes:
    """The key's password: the first line of `file`, else the environment variable, else asked for (twice if `new`).

    Where standard input is no terminal, its first line is taken instead of asking.

    Raises:
        BadInput: an unreadable or empty file, or nobody there to ask.
    """
    if file is not None:
        secret = read_bytes(file, PASSWORD_LIMIT).split(b"\n", 1)[0].rstrip(b"\r")
        if not secret:
            raise BadInput(f"{file} has an empty first line; write the password there")
        return secret
    if os.environ.get(VARIABLE):
        return os.fsencode(os.environ[VARIABLE])
    return os.fsencode(_asked(new))


def _asked(new: bool) -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt("Password of the key", hide_input=True, confirmation_prompt=new, err=True)
        return answer
    if line := sys.stdin.readline().rstrip("\r\n"):
        return line
    raise BadInput(f"no password was given; use the prompt, --password-file or {VARIABLE}")


def open_key(path: Path, password_file: Path | None) -> OwnerKey:
    """The owner's key in a file; that it is there is checked before anybody is asked for its password."""
    if not path.is_file():
        raise BadInput(f"{path} is not there; make a key with `earmark key new {path}`")
    return OwnerKey.load(path, password(password_file))


@final
@dataclass(frozen=True)
class Minted:
    """A mark as `earmark mint` leaves it for `embed`, `verify` and `commit`: one safetensors file of mode 0600.

    The key is not in it. Its metadata is JSON: the format, the name under which the owner derived the mark's key, and
    the mark's kind and spec.
    """

    name: str
    mark: AnyMark = field(repr=False)

    def triggers(self, path: Path) -> TriggerSet:
        """The mark, where only triggers will do; `path` is named where it is none."""
        return triggers(self.mark, path)

    def task(self, path: Path) -> Task:
        """What the mark says of the networks that carry it; as `task_of`."""
        return task_of(self.mark, path)

    def save(self, path: Path, force: bool = False) -> None:
        """Write the file, readable by its owner alone; raises as `output.write_new` does."""
        about = {"format": FORMAT, "name": self.name, "kind": self.mark.kind, "spec": self.mark.spec()}
        tensors = {name: tensor.contiguous() for name, tensor in self.mark.tensors().items()}
        write_new(path, save(tensors, {"earmark-mark": canonical_json(about).decode()}), force, mode=0o600)

    @classmethod
    def open(cls, path: Path) -> Minted:
        """The mark in a file.

        Raises:
            BadInput: no such file, no mark in it, or a mark of another version.
        """
        tensors, about = load_tensors(path), _about(path)
        if about.get("format") != FORMAT:
            raise BadInput(f"{path}: mark format {about.get('format')!r:.20} is not known, this version reads {FORMAT}")
        try:
            mark, name = mark_from_parts(about["kind"], about["spec"], tensors), str(about["name"])
        except (KeyError, TypeError) as error:
            raise BadInput(f"{path} holds a damaged mark; mint it again from its key") from error
        return cls(name, mark)


def triggers(mark: Mark, path: Path) -> TriggerSet:
    """The mark in `path` as a trigger set.

    Raises:
        BadInput: another kind of mark.
    """
    if not isinstance(mark, TriggerSet):
        raise BadInput(f"{path} holds a mark of kind {mark.kind!r}, expected triggers")
    return mark


def task_of(mark: Mark, path: Path) -> Task:
    """The images and classes of a network that carries a mark: its own, or those of its witnesses.

    Raises:
        BadInput: passports without witnesses.
    """
    if isinstance(mark, Projection):
        return mark
    if not isinstance(mark, Passports):
        return triggers(mark, path)
    if mark.witnesses is None:
        raise BadInput(
            f"{path} holds passports without witnesses, so nothing tells the images and classes of the network; mint "
            "with witnesses, or use them in Python"
        )
    return mark.witnesses


def _about(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["earmark-mark"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} holds no mark; give the file that `earmark mint` wrote") from error
    return about if isinstance(about, dict) else {}
