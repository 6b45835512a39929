"""RFC 3161 time stamps: a date for a claim that does not rest on its owner's word. Needs `earmark[timestamp]`.

The owner gives `commit` a function that sends `stamp_request(message)` to an authority and returns its response; the
judge gives `judge` the `stamped_time` of the claim as `committed_before`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import Certificate, DuplicateExtension, InvalidVersion

from earmark.errors import BadInput, Tampered
from earmark.evidence.claim import Claim

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

__all__ = ["stamp_request", "stamped_time"]

MALFORMED = (ValueError, TypeError, OverflowError, DuplicateExtension, InvalidVersion, UnsupportedAlgorithm)
"""What a broken token makes its parsers raise."""


def stamp_request(message: bytes) -> bytes:
    """The request, DER, that gets `message` (`Claim.stamped_bytes`) stamped: POST it as application/timestamp-query.

    Raises:
        BadInput: `rfc3161-client` is not installed.
    """
    try:
        from rfc3161_client import TimestampRequestBuilder
    except ImportError as error:
        raise _missing() from error
    return TimestampRequestBuilder().data(message).cert_request(cert_request=True).build().as_bytes()


def stamped_time(claim: Claim, roots: Sequence[Certificate]) -> datetime:
    """The time by which the claim existed, as its token says, the authority's stated inaccuracy added.

    The token must be signed by a certificate for time stamping that leads to one of `roots` and was valid then.

    Args:
        claim: a claim with a token.
        roots: the certificates that the judge trusts. They are the judge's choice and never come from the claim.

    Raises:
        BadInput: no token, no root, or `rfc3161-client` is not installed.
        Tampered: the token is broken, stamps another claim, or no trusted authority signed it.
    """
    if claim.timestamp is None:
        raise BadInput("the claim carries no time-stamp token; give the time of its publication from another source")
    if not roots:
        raise BadInput("expected at least one root certificate of a time-stamp authority that the judge trusts")
    try:
        from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response
    except ImportError as error:
        raise _missing() from error
    try:
        response = decode_timestamp_response(base64.b64decode(claim.timestamp))
        VerifierBuilder(roots=list(roots)).build().verify_message(response, claim.stamped_bytes())
        return _latest(response)
    except (VerificationError, *MALFORMED) as error:
        raise Tampered(f"the claim's time-stamp token does not hold: {str(error)[:200]}") from error


def _latest(response: TimeStampResponse) -> datetime:
    accuracy = response.tst_info.accuracy
    moment = response.tst_info.gen_time.astimezone(UTC)
    if accuracy is None:
        return moment
    return moment + timedelta(
        seconds=accuracy.seconds or 0, milliseconds=accuracy.millis or 0, microseconds=accuracy.micros or 0
    )


def _missing() -> BadInput:
    return BadInput("time-stamp tokens need rfc3161-client: pip install 'earmark[timestamp]'")
