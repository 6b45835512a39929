"""Slices and printed rulings by command line: mint, commit, open, judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from earmark.cli import app
from earmark.evidence import Bundle, Claim, Slice
from earmark.files import save_tensors, state_tensors
from earmark.marks import Projection, TriggerSet
from earmark.models import PlainCNN

GOLDEN = Path(__file__).parent / "golden" / "v2" / "sliced"
NONCE = bytes(range(32)).hex()
NETS = """
import torch
from torch import nn

class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("images", torch.zeros(60, 64))
        self.register_buffer("labels", torch.zeros(60, dtype=torch.int64))
    def forward(self, images):
        near, which = torch.cdist(images.flatten(1), self.images).min(1)
        return nn.functional.one_hot(torch.where(near < 0.1, self.labels[which], 0), 10).float()
"""
OPENED = ("--claim", str(GOLDEN / "claim.json"), "--evidence", str(GOLDEN / "slice"))
DRAWN = ("--nonce", NONCE, "--count", "40")


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def fault(*words: object) -> str:
    found = run(*words)
    assert (found.exit_code, found.stdout) == (2, "")
    return str(found.stderr)


@pytest.fixture
def suspect(tmp_path: Path) -> tuple[str, ...]:
    """A model that knows the golden triggers by heart."""
    mark = Bundle.read(GOLDEN / "evidence").mark
    assert isinstance(mark, TriggerSet)
    (tmp_path / "nets.py").write_text(NETS)
    known = {"images": mark.images.flatten(1) / 255, "labels": mark.labels}
    save_tensors(tmp_path / "copy.safetensors", known)
    return (str(tmp_path / "copy.safetensors"), "--model", f"{tmp_path}/nets.py:Memory")


def test_an_owner_opens_the_slice_that_the_judge_asked_for(tmp_path: Path) -> None:
    files = ("--claim", GOLDEN / "claim.json", "--evidence", GOLDEN / "evidence")
    found = run("open", *files, *DRAWN, "--out", tmp_path / "new" / "slice", "--json")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["opened"], told["of"], told["nonce"]) == (40, 60, NONCE)
    again = Slice.read(tmp_path / "new" / "slice")
    assert again.files == Slice.read(GOLDEN / "slice").files
    assert told["digest"] == again.digest
    assert "give a new name" in fault("open", *files, *DRAWN, "--out", tmp_path / "new" / "slice")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--nonce": "xyz"}, "hexadecimal digits"),
        ({"--nonce": "00"}, "16 to 64 bytes"),
        ({"--count": "0"}, "trials to open"),
        ({"--count": "61"}, "trials to open"),
        ({"--claim": str(GOLDEN.parent.parent / "v1" / "noise" / "claim.json")}, "opens as a whole"),
    ],
)
def test_what_cannot_be_opened_is_said(change: dict[str, str], says: str, tmp_path: Path) -> None:
    options = {
        "--claim": str(GOLDEN / "claim.json"),
        "--evidence": str(GOLDEN / "evidence"),
        "--nonce": NONCE,
        "--count": "40",
        "--out": str(tmp_path / "slice"),
    }
    assert says in fault("open", *[word for pair in {**options, **change}.items() for word in pair])
    assert not (tmp_path / "slice").exists()


def test_a_judge_rules_on_a_slice_and_prints_the_ruling(suspect: tuple[str, ...], tmp_path: Path) -> None:
    page = tmp_path / "ruling.html"
    public = Claim.read(GOLDEN / "claim.json").public_key
    found = run("judge", *suspect, *OPENED, *DRAWN, "--owner-public", public, "--ruling", page, "--json")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["statistic"], told["n"]) == (40, 40)
    assert told["details"]["slice"]["drawn_by"] == "the judge"
    text = page.read_text(encoding="utf-8")
    assert text.count('class="matched"') == 40
    assert text.count("data:image/png;base64,") == 40
    assert "the owner&#39;s word alone" in text
    assert page.stat().st_mode & 0o777 == 0o600
    assert "is there already" in fault("judge", *suspect, *OPENED, *DRAWN, "--ruling", page)
    assert run("judge", *suspect, *OPENED, *DRAWN, "--ruling", page, "--force").exit_code == 0


def test_a_slice_without_the_judges_nonce_is_not_enough(suspect: tuple[str, ...]) -> None:
    found = run("judge", *suspect, *OPENED)
    assert found.exit_code == 3
    assert "its time rests on the owner's word alone" in found.stdout
    other = run("judge", *suspect, *OPENED, "--nonce", "ab" * 16, "--count", 40, "--json")
    assert other.exit_code == 1
    assert json.loads(other.stdout)["details"]["step"] == "slice"


def test_nonce_and_count_go_together_and_with_a_slice(suspect: tuple[str, ...]) -> None:
    assert "--nonce and --count go together" in fault("judge", *suspect, *OPENED, "--nonce", NONCE)
    whole = ("--claim", GOLDEN / "claim.json", "--evidence", GOLDEN / "evidence")
    assert "the whole mark was opened" in fault("judge", *suspect, *whole, *DRAWN)
    both = (*OPENED, *whole, *DRAWN, "--nonce", "-", "--count", "0")
    found = run("judge", *suspect, *both, "--json")
    assert found.exit_code == 0, found.stderr
    assert [told["n"] for told in json.loads(found.stdout)] == [40, 60]


def test_bits_in_weights_get_a_page_without_pictures(tmp_path: Path) -> None:
    golden = GOLDEN.parent.parent / "v1" / "projection"
    mark = Bundle.read(golden / "evidence").mark
    assert isinstance(mark, Projection)
    save_tensors(tmp_path / "net.safetensors", state_tensors(PlainCNN(mark.shape, mark.classes)))
    files = ("--claim", golden / "claim.json", "--evidence", golden / "evidence")
    found = run("judge", tmp_path / "net.safetensors", *files, "--ruling", tmp_path / "ruling.html")
    assert found.exit_code == 1, found.stderr
    text = (tmp_path / "ruling.html").read_text(encoding="utf-8")
    assert "bits were read from the suspect" in text
    assert "<img" not in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kind", "sliced"), "give that kind, and --sliced beside it"),
        (("--kind", "passports", "--sliced"), "open as a whole"),
        (("--kind", "noise-chain", "--sliced"), "separable"),
        (("--kind", "penetrative", "--sliced"), "separable"),
        (("--set", "labels=one-class", "--sliced"), "uniform or not-true"),
    ],
)
def test_a_mark_that_cannot_be_sliced_is_refused(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    given = ("mint", "--key", tmp_path / "none.pem", "--name", "m", "--data", "digits", "--out", tmp_path / "m")
    assert says in fault(*given, *words)


def test_sliced_triggers_are_minted_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARMARK_PASSWORD", "x")
    assert run("key", "new", tmp_path / "owner.pem").exit_code == 0
    mark, model = tmp_path / "mark.safetensors", tmp_path / "model.safetensors"
    given = ("--key", tmp_path / "owner.pem", "--name", "m", "--data", "digits", "--count", 50, "--sliced")
    assert run("mint", *given, "--out", mark).exit_code == 0
    with torch.random.fork_rng():
        save_tensors(model, state_tensors(PlainCNN((1, 8, 8), 10)))
    files = ("--key", tmp_path / "owner.pem", "--mark", mark, "--marked", model, "--out", tmp_path / "c")
    assert run("commit", *files, "--unchecked").exit_code == 0
    assert json.loads((tmp_path / "c" / "claim.json").read_text())["claim"]["format"] == 2
