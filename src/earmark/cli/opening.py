"""What an owner opens in a dispute: the trials that a judge's nonce chooses, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from earmark.cli import options
from earmark.cli.output import new_folder, show
from earmark.errors import BadInput
from earmark.evidence import Bundle, Claim, Draw, Slice

__all__ = ["draws_of", "open_slice"]

WHOLE: Final = "-"
"""Stands for a nonce where the whole mark was opened."""


def open_slice(
    claim: Annotated[Path, typer.Option("--claim", metavar="FILE", help="The claim.")],
    evidence: Annotated[Path, typer.Option("--evidence", metavar="DIR", help="Its secret evidence.")],
    nonce: Annotated[
        str, typer.Option("--nonce", metavar="HEX", help="What the judge drew: 16 to 64 bytes, `openssl rand -hex 32`.")
    ],
    count: Annotated[int, typer.Option("--count", metavar="K", help="How many trials the judge asks for.")],
    out: options.Out,
    as_json: options.Json = False,
) -> None:
    """Open a slice of the evidence for one dispute.

    Of a mark that was minted with --sliced. The claim and the nonce choose which trials are opened; all others stay as
    secret as they were. Writes the folder OUT for the judge, who gives it to `earmark judge` as --evidence, with the
    nonce and the count that he asked for.
    """
    draw = Draw(octets(nonce), count)
    cut = Slice.cut(Claim.read(claim), Bundle.read(evidence), draw.nonce, draw.count)
    new_folder(out.parent)
    cut.write(out)
    value = {"out": str(out), "opened": count, "of": cut.trials_in_all, "nonce": nonce, "digest": cut.digest}
    show(as_json, value, f"{out}: {count} of {cut.trials_in_all} trials; give it to the judge and to nobody else")


def draws_of(claims: int, nonces: list[str] | None, counts: list[int] | None) -> list[Draw | None]:
    """What the judge asked each claimant to open; None for one who opens the whole mark, whose nonce is "-".

    Raises:
        BadInput: nonces without counts or the other way round, or a nonce that is none.
    """
    if (nonces is None) != (counts is None):
        raise BadInput("--nonce and --count go together: what was drawn, and how many trials were asked for")
    if nonces is None or counts is None:
        return [None] * claims
    pairs = zip(nonces, counts, strict=True)
    return [None if nonce == WHOLE else Draw(octets(nonce), count) for nonce, count in pairs]


def octets(text: str) -> bytes:
    """The bytes of a nonce.

    Raises:
        BadInput: no hexadecimal digits.
    """
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise BadInput(
            f"expected a nonce as hexadecimal digits, got {text[:80]!r}; draw one: openssl rand -hex 32"
        ) from error
