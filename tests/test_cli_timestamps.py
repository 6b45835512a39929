"""Trusted dates by command line: a token is asked for when committing, and checked when judging."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from earmark.cli import app
from earmark.cli.timestamps import times_of, token_from
from earmark.errors import BadInput, Tampered
from earmark.evidence import Bundle, Claim
from earmark.files import save_tensors, state_tensors
from earmark.marks import TriggerSet
from earmark.models import PlainCNN

STAMPED = Path(__file__).parent / "golden" / "v1" / "stamped"
CLAIM = Claim.read(STAMPED / "claim.json")
TOKEN = base64.b64decode(CLAIM.timestamp or "")

pytestmark = pytest.mark.usefixtures("client")


@pytest.fixture
def client() -> None:
    pytest.importorskip("rfc3161_client")


class Authority(BaseHTTPRequestHandler):
    """Answers each request with the same token, or under /broken with something else."""

    asked: list[bytes]

    def do_POST(self) -> None:
        self.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"no token" if self.path == "/broken" else TOKEN)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def authority() -> Iterator[tuple[str, list[bytes]]]:
    asked: list[bytes] = []
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Authority,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_authority_is_asked_for_the_hash_of_the_message_only(authority: tuple[str, list[bytes]]) -> None:
    address, asked = authority
    assert token_from(address, b"the claim that is stamped") == TOKEN
    assert b"the claim" not in asked[0]


@pytest.mark.parametrize("where", ["/broken", ":1/", None])
def test_an_authority_that_gives_no_token_is_named(authority: tuple[str, list[bytes]], where: str | None) -> None:
    address = "ftp://somewhere" if where is None else "http://127.0.0.1:1/" if where == ":1/" else authority[0] + where
    with pytest.raises(BadInput, match=address.rstrip("/")):
        token_from(address, b"message")


def test_dates_come_from_the_token_or_from_the_judge() -> None:
    (stamped,) = times_of([CLAIM], None, [STAMPED / "root.pem"])
    assert stamped is not None
    assert abs((stamped - CLAIM.claimed_time).total_seconds()) < 60
    (told,) = times_of([CLAIM], ["2030-01-01T00:00:00Z"], None)
    assert told is not None
    assert told.year == 2030
    assert times_of([CLAIM], None, None) == [None]


def test_a_rival_without_a_token_that_holds_has_no_date_and_keeps_nobody_from_his(
    capsys: pytest.CaptureFixture[str],
) -> None:
    forged, bare = CLAIM.model_copy(update={"owner": "Eve"}), CLAIM.model_copy(update={"timestamp": None})
    first, *others = times_of([CLAIM, forged, bare, None], None, [STAMPED / "root.pem"])
    assert first is not None
    assert others == [None, None, None]
    assert "no trusted time for the claim of Eve: the claim's time-stamp token does not hold" in capsys.readouterr().err
    with pytest.raises(BadInput, match="carries no time-stamp token"):
        times_of([bare], None, [STAMPED / "root.pem"])


def test_two_sources_of_dates_are_one_too_many() -> None:
    with pytest.raises(BadInput, match="got both"):
        times_of([CLAIM], ["2030-01-01T00:00:00Z"], [STAMPED / "root.pem"])


def test_a_file_without_certificates_and_a_token_for_another_claim_are_refused() -> None:
    with pytest.raises(BadInput, match="no PEM certificate"):
        times_of([CLAIM], None, [STAMPED / "claim.json"])
    with pytest.raises(Tampered, match="does not hold"):
        times_of([CLAIM.model_copy(update={"owner": "Eve"})], None, [STAMPED / "root.pem"])


def test_a_judge_with_the_authoritys_root_knows_that_the_claim_is_older(tmp_path: Path) -> None:
    mark = Bundle.read(STAMPED / "evidence").mark
    assert isinstance(mark, TriggerSet)
    save_tensors(tmp_path / "suspect.safetensors", state_tensors(PlainCNN(mark.shape, mark.classes)))
    files = ("--claim", str(STAMPED / "claim.json"), "--evidence", str(STAMPED / "evidence"))
    dates = ("--tsa-root", str(STAMPED / "root.pem"), "--known-since", "2100-01-01T00:00:00Z")
    found = CliRunner().invoke(app, ["judge", str(tmp_path / "suspect.safetensors"), *files, *dates, "--json"])
    assert found.exit_code == 1, found.stderr
    assert json.loads(found.stdout)["details"]["commitment"] == "no later than the suspect"
