"""Dates that do not rest on the owner's word: RFC 3161 tokens, asked for when committing and checked when judging."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.x509 import Certificate, load_pem_x509_certificates

from earmark.cli.output import note
from earmark.errors import BadInput, Tampered
from earmark.evidence import Claim, stamp_request, stamped_time
from earmark.files import read_bytes

__all__ = ["dated_by", "moment", "times_of", "token_from"]

CERTIFICATES_LIMIT: Final = 1 << 20
TOKEN_LIMIT: Final = 1 << 17
PATIENCE: Final = 30.0
"""Seconds to wait for an authority's answer."""


def token_from(url: str, message: bytes) -> bytes:
    """The authority's response, DER, to a request for a stamp on `message`.

    Raises:
        BadInput: no such authority, no answer, or one that is no response to such a request.
    """
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"expected the http or https address of a time-stamp authority, got {url!r}")
    request = urllib.request.Request(url, stamp_request(message), {"Content-Type": "application/timestamp-query"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            response: bytes = answer.read(TOKEN_LIMIT)
        return _checked(response)
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise BadInput(f"{url} gave no time stamp ({error}); try again or name another authority") from error


def _checked(response: bytes) -> bytes:
    from rfc3161_client import decode_timestamp_response

    decode_timestamp_response(response)
    return response


def times_of(
    claims: Sequence[Claim | None], told: Sequence[str] | None, roots: Sequence[Path] | None
) -> Sequence[datetime | None]:
    """By when each claim existed: as the judge was `told`, or as its token says that an authority of `roots` signed.

    Of several claims, one that could not be read (None), that has no token, or whose token does not hold has no trusted
    time, and the others are ruled on.

    Raises:
        BadInput: both, a file without certificates, or a single claim without a token.
        Tampered: a single claim's token that does not hold.
    """
    if told and roots:
        raise BadInput("expected --committed-before or --tsa-root, got both; the judge trusts one source for the dates")
    if roots:
        trusted = [certificate for path in roots for certificate in _certificates(path)]
        return [_stamped(claim, trusted, alone=len(claims) == 1) for claim in claims]
    return [moment(text) for text in told] if told else [None for _ in claims]


def dated_by(roots: Sequence[Path] | None) -> str | None:
    """What the times of `times_of` rest on, in words; None for the judge's own source.

    Raises:
        BadInput: a file without certificates.
    """
    if not roots:
        return None
    names = sorted({certificate.subject.rfc4514_string() for path in roots for certificate in _certificates(path)})
    return f"a time-stamp token (RFC 3161) that leads to the root certificate {' or '.join(names)}"


def _stamped(claim: Claim | None, trusted: Sequence[Certificate], alone: bool) -> datetime | None:
    if claim is None or (claim.timestamp is None and not alone):
        return None
    try:
        return stamped_time(claim, trusted)
    except Tampered as error:
        if alone:
            raise
        note(f"no trusted time for the claim of {claim.owner}: {error}")
        return None


def _certificates(path: Path) -> Sequence[Certificate]:
    pem = read_bytes(path, CERTIFICATES_LIMIT)
    try:
        return load_pem_x509_certificates(pem)
    except ValueError as error:
        raise BadInput(f"{path} holds no PEM certificate; give the authority's root certificate") from error


def moment(text: str) -> datetime:
    """A time with its zone, in UTC.

    >>> moment("2024-05-01T12:00:00Z").isoformat()
    '2024-05-01T12:00:00+00:00'

    Raises:
        BadInput: no ISO 8601 time, one without a zone, or one that is in no year from 1 to 9999 in UTC.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"expected a time such as 2024-05-01T12:00:00Z, got {text[:80]!r}") from error
    if found.tzinfo is None:
        raise BadInput(f"the time {text} has no zone; write {found.isoformat()}Z for UTC")
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        raise BadInput(f"the time {text} is outside the years 1 to 9999 in UTC; give another") from error
