"""What stands beside a released model: a section of its model card, and its entry in a bill of materials."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any, Final

from earmark.evidence import Claim
from earmark.evidence.attestation import ENVELOPE
from earmark.reports.court import plain

__all__ = ["bill_of_materials", "card_section"]

ACTING: Final = frozenset('\\`*_{}[]()<>#+!|~&$@"')
LINKING: Final = {"://": "&#58;//", "www.": "www&#46;"}
"""What some readers of Markdown make links of without being asked."""
NAMESPACE: Final = uuid.UUID("d3ce9cb2-1a0f-5b5e-8d0c-6b9d1f3a7e21")
"""Of the serial numbers of bills of materials: one claim on one file has one."""


def card_section(claim: Claim, weights: str, sha256: str) -> str:
    r"""The section "Ownership" of a model card, Markdown; whatever a claim says, it stays text.

    Args:
        claim: the public claim.
        weights: the name of the released file.
        sha256: of that file, hex.
    """
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(claim, weights, sha256))
    return (
        "## Ownership\n\n"
        "This model carries an ownership mark. Its owner has committed to the mark in a signed statement "
        f"(`{ENVELOPE}`: an in-toto statement in a DSSE envelope), which binds secret evidence by hashes and shows "
        "nothing of it. In a dispute the owner opens the evidence, or a part of it, to a judge, who tests with a "
        "stated error probability whether a suspect model derives from this one.\n\n"
        f"| | |\n|---|---|\n{rows}\n\n"
        f"What chance would do: {_text(claim.parameters.null.words)}\n\n"
        "The mark says where a model comes from. It says nothing about what its licence allows.\n"
    )


def _facts(claim: Claim, weights: str, sha256: str) -> Iterator[tuple[str, str]]:
    known = claim.parameters
    yield "Owner", f"{_text(claim.owner)} (a name that anybody can write; the key counts)"
    yield "Public key (Ed25519)", f"`{claim.public_key}`"
    yield "Mark", f"{_text(claim.mark)}: {known.n} trials, {_text(claim.kind)}, scheme {_text(claim.scheme)}"
    yield (
        "Committed",
        f"{claim.time}, " + ("as the owner says" if claim.timestamp is None else "with a time-stamp token"),
    )
    yield "Weights", f"{_text(weights)}, SHA-256 `{sha256}`"
    yield "Digest of the tensors", f"`{claim.marked_digest}`"
    yield "Error probability", f"{known.alpha:g} at most"
    if claim.slice_root is not None:
        yield "Opens in slices", f"root `{claim.slice_root}`"


def _text(text: str) -> str:
    """Text in which no sign means anything to Markdown or to HTML."""
    quiet = "".join(f"&#{ord(sign)};" if sign in ACTING else sign for sign in plain(text))
    for linking, quietly in LINKING.items():
        quiet = quiet.replace(linking, quietly)
    return quiet


def bill_of_materials(claim: Claim, weights: str, sha256: str, envelope: bytes) -> dict[str, Any]:
    """A CycloneDX 1.6 bill of materials with one component, the released model, to be merged into that of a product.

    Args:
        claim: the public claim.
        weights: the name of the released file.
        sha256: of that file, hex.
        envelope: the attestation that lies beside it (`evidence.attestation.attest`).
    """
    attestation = {
        "type": "attestation",
        "url": ENVELOPE,
        "comment": "Ownership claim: an in-toto statement in a DSSE envelope, signed by the owner's Ed25519 key",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(envelope).hexdigest()}],
    }
    component = {
        "type": "machine-learning-model",
        "bom-ref": f"sha256:{sha256}",
        "name": plain(weights),
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "modelCard": {"modelParameters": {"task": "image-classification"}},
        "externalReferences": [attestation],
        "properties": [{"name": f"earmark:{name}", "value": value} for name, value in _properties(claim)],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, claim.signature + sha256)}",
        "version": 1,
        "metadata": {"timestamp": claim.time},
        "components": [component],
    }


def _properties(claim: Claim) -> Iterator[tuple[str, str]]:
    yield "owner", plain(claim.owner)
    yield "public_key", claim.public_key
    yield "mark", plain(claim.mark)
    yield "kind", plain(claim.kind)
    yield "scheme", plain(claim.scheme)
    yield "trials", str(claim.parameters.n)
    yield "alpha", f"{claim.parameters.alpha:g}"
    yield "marked_digest", claim.marked_digest
    yield "evidence_digest", claim.evidence_digest
    if claim.slice_root is not None:
        yield "slice_root", claim.slice_root
