"""Options that several commands take, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earmark.cli.networks import NETWORKS

__all__ = [
    "Alpha",
    "DataSource",
    "Force",
    "Json",
    "KeyFile",
    "MarkFile",
    "ModelArguments",
    "ModelName",
    "Out",
    "PasswordFile",
    "Seed",
    "Settings",
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output, and nothing else there.")]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="Fixes every random choice of the run.")
]
DataSource = Annotated[str, typer.Option("--data", metavar="SOURCE", help="digits, idx:DIR, folder:DIR or npz:FILE.")]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        envvar="EARMARK_MODEL",
        help=f"Builds the network: package.module:function, file.py:function, or {', '.join(NETWORKS)}.",
    ),
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Option("--model-set", metavar="NAME=VALUE", help="An argument of that function; may be repeated."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting, its value as JSON or plain text; may be repeated."),
]
Out = Annotated[Path, typer.Option("--out", metavar="PATH", help="Where to write.")]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]
KeyFile = Annotated[Path, typer.Option("--key", metavar="FILE", help="The owner's key file.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Holds the key's password in its first line. Without it: EARMARK_PASSWORD, or a prompt.",
    ),
]
MarkFile = Annotated[Path, typer.Option("--mark", metavar="FILE", help="The mark that `earmark mint` wrote.")]
Alpha = Annotated[float, typer.Option("--alpha", metavar="P", help="The error probability to keep to.")]
