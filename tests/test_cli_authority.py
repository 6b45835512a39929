"""A time-stamp authority of our own on the loopback: it signs what it is asked, and the judge trusts its root alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.x509 import load_pem_x509_certificate
from typer.testing import CliRunner

from earmark.cli import app
from earmark.cli.timestamps import token_from
from earmark.errors import Tampered
from earmark.evidence import Claim, stamped_time
from earmark.files import save_tensors, state_tensors
from earmark.models import PlainCNN

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the authority signs with openssl")

CONFIGURATION = """
[req]
distinguished_name = name
prompt = no
[name]
CN = Clock
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[signer]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = clock
[clock]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)


def authority_in(folder: Path) -> Path:
    """Keys and certificates of an authority: a root, and a signer for time stamping that leads to it."""
    folder.mkdir()
    (folder / "clock.cnf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "serial").write_text("01\n")
    new = ("req", "-config", "clock.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    days = ("-days", "3650")
    openssl(folder, *new, "-x509", "-extensions", "root", "-keyout", "root.key", "-out", "root.pem", *days)
    openssl(folder, *new, "-keyout", "signer.key", "-out", "signer.csr", "-subj", "/CN=Clock signer")
    signing = ("x509", "-req", "-in", "signer.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial")
    openssl(folder, *signing, "-extfile", "clock.cnf", "-extensions", "signer", "-out", "signer.pem", *days)
    return folder


class Handler(BaseHTTPRequestHandler):
    """Stamps each request with `openssl ts`."""

    folder: Path

    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/timestamp-query"
        (self.folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        openssl(self.folder, "ts", "-reply", "-config", "clock.cnf", "-queryfile", "query", "-out", "reply")
        self.send_response(200)
        self.send_header("Content-Type", "application/timestamp-reply")
        self.end_headers()
        self.wfile.write((self.folder / "reply").read_bytes())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of an authority, and its folder."""
    pytest.importorskip("rfc3161_client")
    folder = authority_in(tmp_path_factory.mktemp("authority") / "clock")
    server = HTTPServer(("127.0.0.1", 0), type("Clock", (Handler,), {"folder": folder}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env={"EARMARK_PASSWORD": "x"})


@pytest.fixture(scope="module")
def committed(clock: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stamped commitment, and a model that does not carry its mark."""
    folder = tmp_path_factory.mktemp("committed")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_tensors(folder / "model.safetensors", state_tensors(PlainCNN((1, 8, 8), 10)))
    key = ("--key", folder / "owner.pem")
    mint = ("mint", *key, "--name", "m", "--data", "digits", "--count", 40, "--out", folder / "mark.safetensors")
    marked = ("--mark", folder / "mark.safetensors", "--marked", folder / "model.safetensors", "--unchecked")
    for words in (("key", "new", folder / "owner.pem"), mint, ("commit", *key, *marked, "--out", folder / "bare")):
        assert run(*words).exit_code == 0
    stamped = run("commit", *key, *marked, "--tsa", clock[0], "--out", folder / "stamped")
    assert stamped.exit_code == 0, stamped.stderr
    return folder


def judged(folder: Path, commitment: str, *words: object) -> Any:
    files = ("--claim", folder / commitment / "claim.json", "--evidence", folder / commitment / "evidence")
    return run("judge", folder / "model.safetensors", *files, *words)


def test_a_claim_is_stamped_by_the_authority_that_was_asked(clock: tuple[str, Path], committed: Path) -> None:
    claim = Claim.read(committed / "stamped" / "claim.json")
    moment = stamped_time(claim, [load_pem_x509_certificate((clock[1] / "root.pem").read_bytes())])
    assert timedelta(0) <= moment - claim.claimed_time < timedelta(minutes=2)
    assert moment <= datetime.now(UTC) + timedelta(seconds=2), "an accuracy of one second"


def test_the_judge_dates_the_claim_offline_by_the_root_that_he_pinned(clock: tuple[str, Path], committed: Path) -> None:
    found = judged(committed, "stamped", "--tsa-root", clock[1] / "root.pem", "--json")
    assert found.exit_code == 1, found.stderr
    time = json.loads(found.stdout)["details"]["time"]
    assert time.startswith("a time-stamp token (RFC 3161) that leads to the root certificate CN=Clock, by 20")


def test_another_authoritys_root_dates_nothing(committed: Path, tmp_path: Path) -> None:
    stranger = authority_in(tmp_path / "stranger")
    claim = Claim.read(committed / "stamped" / "claim.json")
    with pytest.raises(Tampered, match="does not hold"):
        stamped_time(claim, [load_pem_x509_certificate((stranger / "root.pem").read_bytes())])
    found = judged(committed, "stamped", "--tsa-root", stranger / "root.pem")
    assert (found.exit_code, found.stdout) == (2, "")


@pytest.mark.parametrize("commitment", ["bare", "stamped"])
def test_without_a_token_that_was_checked_the_time_is_the_owners_word(commitment: str, committed: Path) -> None:
    found = judged(committed, commitment, "--ruling", committed / f"{commitment}.html")
    assert "its time rests on the owner's word alone" in found.stdout
    assert "Nobody but the owner vouches for the time" in (committed / f"{commitment}.html").read_text()


def test_each_request_has_a_token_of_its_own(clock: tuple[str, Path]) -> None:
    assert token_from(clock[0], b"one") != token_from(clock[0], b"two")
