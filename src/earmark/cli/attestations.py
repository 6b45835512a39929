"""What an owner puts beside a released model, and how anybody checks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from earmark.cli import options
from earmark.cli.output import new_file, note, show, write_new
from earmark.cli.secrets import open_key
from earmark.errors import BadInput
from earmark.evidence import Claim
from earmark.evidence.attestation import ENVELOPE, ENVELOPE_LIMIT, attest, attested
from earmark.evidence.wire import read_regular
from earmark.reports import bill_of_materials, card_section

__all__ = ["attest_to", "check_attested"]

CARD: Final = "ownership.md"
BILL: Final = "model.cdx.json"

Release = Annotated[
    Path, typer.Option("--released", metavar="PATH", help="The released weights, or the folder that is released.")
]


def attest_to(
    key: options.KeyFile,
    claim: Annotated[Path, typer.Option("--claim", metavar="FILE", help="The claim that was committed.")],
    released: Release,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write; that folder itself will do.")],
    password_file: options.PasswordFile = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Put a claim where supply-chain tools look for it.

    Writes three files into OUT: claim.intoto.json, an in-toto statement in a DSSE envelope that names every released
    file by its SHA-256 and carries the claim; ownership.md, a section for the model card; and model.cdx.json, a
    CycloneDX 1.6 bill of materials with the model as its component. Sign the folder with the OpenSSF's model signing
    afterwards, if you do: then these files are signed, too.
    """
    stated = Claim.read(claim)
    targets = [new_file(out / name, force, again=True) for name in (ENVELOPE, CARD, BILL)]
    owner = open_key(key, password_file)
    envelope = attest(owner, stated, released, without=targets)
    held = attested(envelope, released, owner.public)
    sha256 = held.files[held.weights]
    bill = bill_of_materials(stated, held.weights, sha256, envelope)
    contents = [
        envelope,
        card_section(stated, held.weights, sha256).encode(errors="replace"),
        json.dumps(bill, indent=2, sort_keys=True).encode() + b"\n",
    ]
    for path, content in zip(targets, contents, strict=True):
        write_new(path, content, force)
    value = {"out": str(out), "files": dict(held.files), "weights": held.weights, "owner": owner.fingerprint}
    show(as_json, value, f"{targets[0]}: the claim on {len(held.files)} released files", *map(str, targets[1:]))


def check_attested(
    released: Annotated[Path, typer.Argument(metavar="RELEASED", help="The released weights or folder.")],
    envelope: Annotated[Path, typer.Option("--envelope", metavar="FILE", help="The claim.intoto.json beside it.")],
    owner_public: Annotated[
        str, typer.Option("--owner-public", metavar="HEX", help="The public key of the owner whom you expect.")
    ],
    as_json: options.Json = False,
) -> None:
    """Check that a release is the one that an owner's claim speaks of.

    The envelope's signature, the claim in it, every file that it names, and the weights that the claim commits to. Ends
    with status 0 if all of it holds and 2 if anything does not.
    """
    try:
        public = bytes.fromhex(owner_public)
    except ValueError as error:
        raise BadInput(f"expected a public key as 64 hexadecimal digits, got {owner_public[:80]!r}") from error
    held = attested(read_regular(envelope, ENVELOPE_LIMIT), released, public, str(envelope))
    others = [name for name in held.others if (released / name).resolve() != envelope.resolve()]
    if others:
        note(f"the envelope does not speak of {len(others)} files of this release: {', '.join(others[:5])}")
    value = {"claim": held.claim.body(), "files": dict(held.files), "weights": held.weights, "others": others}
    words = f"{released}: {len(held.files)} files as {held.claim.owner} attested them; {held.weights} holds the weights"
    show(as_json, value, words)
