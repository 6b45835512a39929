"""Uchida's watermark by command line, from minting to a ruling, and what is refused on the way."""

from __future__ import annotations

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_cli_workflow import PASSWORD, Desk, small_digits
from typer.testing import CliRunner

from earmark.attacks import PROJECTION_FORGERIES
from earmark.cli import app
from earmark.cli.secrets import Minted
from earmark.keys import OwnerKey
from earmark.marks import Projection

DATA = ("--data", "npz:@digits.npz")
MINT = ("mint", "--key", "@owner.pem", "--name", "weights", *DATA, "--kind", "projection")
EMBED = ("embed", "--host", "@host.safetensors", "--mark", "@mark.safetensors", *DATA, "--method", "uchida")
CLAIM = ("--claim", "@claim/claim.json", "--evidence", "@claim/evidence")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """An owner's folder with a host, a projection of 96 bits, a marked model and a commitment."""
    desk = Desk(tmp_path_factory.mktemp("uchida"))
    small_digits(desk.folder / "digits.npz")
    OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32))).save(desk.folder / "owner.pem", PASSWORD.encode())
    desk.good("train", *DATA, "--set", "epochs=3", "--set", "lr=0.01", "--out", "@host.safetensors")
    desk.good(*MINT, "--set", "signature=© Z", "--out", "@mark.safetensors")
    desk.good(*EMBED, "--set", "strength=0.1", "--set", "epochs=30", "--out", "@marked.safetensors")
    marks = ("--mark", "@mark.safetensors", "--marked", "@marked.safetensors", "--host", "@host.safetensors")
    desk.good("commit", "--key", "@owner.pem", *marks, "--owner", "Zoë", "--out", "@claim")
    return desk


def test_a_mark_is_told_in_bits_with_the_capacity_of_its_layer_and_kept_secret(desk: Desk) -> None:
    value = desk.good(*MINT, "--set", "signature=© Z", "--out", "@again.safetensors")
    assert (value["bits"], value["layer"], value["capacity"], value["matches_needed"]) == (96, "trunk.4", 144, 95)
    file = desk.folder / "again.safetensors"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes() == (desk.folder / "mark.safetensors").read_bytes()
    assert isinstance(Minted.open(file).mark, Projection)
    more = ("--set", "layer=trunk.9", "--set", "bits=90", "--model-set", "width=32", "--out", "@other.safetensors")
    assert desk.good(*MINT, *more)["layer"] == "trunk.9"


@pytest.mark.parametrize(("suspect", "status"), [("marked", 0), ("host", 1)])
def test_verify_and_judge_end_with_their_verdict(desk: Desk, suspect: str, status: int) -> None:
    file = f"@{suspect}.safetensors"
    found = desk.run("verify", file, "--mark", "@mark.safetensors", "--json")
    assert (found.status, found.value["accepted"], found.value["n"]) == (status, status == 0, 96)
    found = desk.run("judge", file, *CLAIM, "--json")
    assert (found.status, found.value["accepted"], found.value["details"]["step"]) == (status, status == 0, "suspect")


def test_a_claim_names_the_scheme_and_shows_no_secret(desk: Desk) -> None:
    claim = json.loads((desk.folder / "claim" / "claim.json").read_text())["claim"]
    assert (claim["scheme"], claim["kind"]) == ("uchida", "projection")
    told = claim["parameters"]
    assert (told["n"], told["classes"], told["image_shape"]) == (96, 10, [1, 8, 8])
    assert "© Z" not in json.dumps(claim, ensure_ascii=False)


def test_triggers_can_be_taught_beside_and_embedding_can_start_afresh(desk: Desk) -> None:
    key = ("--key", "@owner.pem")
    desk.good("mint", *key, "--name", "t", *DATA, "--count", "20", "--out", "@triggers.safetensors")
    more = ("--triggers", "@triggers.safetensors", "--set", "triggers_per_batch=20", "--set", "fresh=true")
    value = desk.good(*EMBED, *more, "--set", "epochs=25", "--set", "strength=0.1", "--out", "@both.safetensors")
    assert (value["method"], value["trig_acc"]) == ("uchida", 1)
    assert value["bits"] > 0.9


def test_what_no_judge_would_accept_is_told(desk: Desk) -> None:
    found = desk.run(*EMBED, "--set", "epochs=1", "--set", "strength=0", "--out", "@bare.safetensors")
    assert found.status == 0
    assert "no judge would accept this" in found.err
    assert "larger strength" in found.err


@pytest.mark.parametrize("name", sorted(PROJECTION_FORGERIES))
def test_a_forged_projection_is_committed_to_and_rejected(desk: Desk, name: str) -> None:
    told = desk.good("attack", name, "@marked.safetensors", *DATA, "--out", f"@{name}", "--set", "bits=96")
    assert told["model"] == str(desk.folder / "marked.safetensors")
    claim = ("--claim", told["claim"], "--evidence", told["evidence"])
    found = desk.run("judge", told["model"], *claim, "--json")
    assert (found.status, found.value["accepted"], found.value["details"]["step"]) == (1, False, "re-minting")


def test_a_report_is_written_without_any_trigger(desk: Desk) -> None:
    found = desk.run("judge", "@marked.safetensors", *CLAIM, "--json")
    (desk.folder / "verdict.json").write_text(found.out)
    desk.good("report", "@verdict.json", "--out", "@report.html")
    assert "accepted" in (desk.folder / "report.html").read_text()


OUT = ("--out", "@x.safetensors")
FAULTS: list[tuple[tuple[str, ...], str]] = [
    ((*MINT, "--set", "bits=145", *OUT), "carries 144, the numbers of one filter"),
    (
        (*MINT, "--set", "layer=trunk.*", *OUT),
        "layers are called 'trunk.*', expected one; there are 'trunk.0' (9 bits)",
    ),
    ((*MINT, "--set", f"signature={'a' * 13}", *OUT), "104 bits and there is room for 96"),
    ((*MINT, "--set", "layers=2", *OUT), "unknown setting 'layers': did you mean 'layer'?"),
    ((*MINT, "--count", "3", *OUT), "--count is for triggers"),
    ((*MINT[:-1], "projecton", *OUT), "did you mean 'projection'?"),
    ((*EMBED, "--set", "strenght=1", *OUT), "unknown setting 'strenght': did you mean 'strength'?"),
    ((*EMBED, "--set", "strength=-1", *OUT), "strength"),
    ((*EMBED[:-1], "passports-v2", *OUT), "passports-v2 does not embed projection"),
    ((*EMBED[:-1], "uchda", *OUT), "did you mean 'uchida'?"),
    ((*EMBED, "--triggers", "@mark.safetensors", *OUT), "expected triggers"),
    (("attack", "projection", "@marked.safetensors", *DATA, "--out", "@x", "--set", "bits=999"), "carries 144"),
    (("attack", "projecton", "@marked.safetensors", *DATA, "--out", "@x"), "did you mean 'projection'?"),
    (("verify", "@marked.safetensors", "--mark", "@mark.safetensors", "--sequential"), "are read at once"),
]


@pytest.mark.parametrize(("words", "says"), FAULTS)
def test_a_mistake_is_one_line_that_says_what_to_do(desk: Desk, words: tuple[str, ...], says: str) -> None:
    assert says in desk.fault(*words)
    assert not (desk.folder / "x.safetensors").exists()


def test_the_help_shows_how() -> None:
    for command, says in (("mint", "projection"), ("embed", "uchida")):
        told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
        assert says in told[told.index("Example:") :]


def test_nothing_secret_is_ever_said(desk: Desk) -> None:
    for said in desk.said:
        assert PASSWORD not in said
        assert bytes(32).hex() not in said
