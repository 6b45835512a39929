"""The owner's key: make one, show its public half."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli import options
from earmark.cli.output import new_folder, show
from earmark.cli.secrets import open_key, password
from earmark.errors import BadInput
from earmark.keys import OwnerKey

__all__ = ["new", "reveal"]


def new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; never over another file.")],
    password_file: options.PasswordFile = None,
    as_json: options.Json = False,
) -> None:
    """Make an owner's key.

    Ed25519, encrypted with a password, mode 0600. It comes from the operating system's random source, so there is
    nothing to seed. Keep a copy of the file and the password: marks and claims cannot be made or proved without them.
    """
    if path.exists():
        raise BadInput(
            f"{path} is there already, and a key is never overwritten; see what it is with `earmark key show {path}`, "
            "or give another name"
        )
    new_folder(path.parent)
    key = OwnerKey.generate()
    key.save(path, password(password_file, new=True))
    _show(key, path, as_json)


def reveal(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The key file.")],
    password_file: options.PasswordFile = None,
    as_json: options.Json = False,
) -> None:
    """Show the public half of a key.

    It is what a claim carries, and what a judge may be told to expect.
    """
    _show(open_key(path, password_file), path, as_json)


def _show(key: OwnerKey, path: Path, as_json: bool) -> None:
    value: dict[str, Any] = {"key": str(path), "public": key.public.hex(), "fingerprint": key.fingerprint}
    show(as_json, value, f"{path}", f"public key   {value['public']}", f"fingerprint  {value['fingerprint']}")
