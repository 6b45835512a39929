from __future__ import annotations

import base64
import hashlib
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509 import Certificate, load_pem_x509_certificate

from earmark.errors import BadInput, Tampered
from earmark.evidence import Claim, stamp_request, stamped_time

STAMPED = Path(__file__).parent / "golden" / "v1" / "stamped"
CLAIM = Claim.read(STAMPED / "claim.json")


@pytest.fixture
def roots() -> list[Certificate]:
    pytest.importorskip("rfc3161_client")
    return [load_pem_x509_certificate((STAMPED / "root.pem").read_bytes())]


def test_a_token_dates_its_claim_with_the_authoritys_inaccuracy(roots: list[Certificate]) -> None:
    moment = stamped_time(CLAIM, roots)
    assert moment.tzinfo is not None
    assert moment.microsecond == 500_000, "the authority states seconds, and an accuracy of 1.5 seconds"
    assert timedelta(0) <= moment - CLAIM.claimed_time < timedelta(minutes=1)


def test_a_token_dates_no_other_claim(roots: list[Certificate]) -> None:
    for change in (
        {"mark_digest": "0" * 64},
        {"public_key": "0" * 64},
        {"owner": "Eve"},
        {"time": "2020-01-01T00:00:00Z"},
    ):
        with pytest.raises(Tampered, match="does not hold"):
            stamped_time(CLAIM.model_copy(update=change), roots)


def test_a_broken_token_is_an_error_or_the_same_date(roots: list[Certificate]) -> None:
    token, moment = base64.b64decode(CLAIM.timestamp or ""), stamped_time(CLAIM, roots)
    refused = 0
    for at in range(0, len(token), 3):
        broken = token[:at] + bytes([token[at] ^ 1 << at % 8]) + token[at + 1 :]
        try:
            changed = CLAIM.model_copy(update={"timestamp": base64.b64encode(broken).decode()})
            assert stamped_time(changed, roots) == moment
        except Tampered:
            refused += 1
    assert refused > len(token) / 6, "most of a token is signed"


def test_a_claim_without_a_token_has_no_date(roots: list[Certificate]) -> None:
    with pytest.raises(BadInput, match="carries no time-stamp token"):
        stamped_time(CLAIM.model_copy(update={"timestamp": None}), roots)


def test_the_judge_must_name_whom_he_trusts() -> None:
    with pytest.raises(BadInput, match="at least one root certificate"):
        stamped_time(CLAIM, [])


def test_a_request_holds_the_hash_of_what_is_stamped(roots: list[Certificate]) -> None:
    assert hashlib.sha512(CLAIM.stamped_bytes()).digest() in stamp_request(CLAIM.stamped_bytes())


def test_a_missing_library_is_named(roots: list[Certificate], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    for call in (lambda: stamped_time(CLAIM, roots), lambda: stamp_request(b"x")):
        with pytest.raises(BadInput, match=r"pip install 'earmark\[timestamp\]'"):
            call()
