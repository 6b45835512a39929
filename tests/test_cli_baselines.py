"""Baselines by command line: minted, embedded, committed and judged; a mark without a null beside innocent models."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny import blobs, seeded
from typer.testing import CliRunner

from earmark.cli import app
from earmark.files import save_tensors
from earmark.keys import OwnerKey
from earmark.models import PlainCNN

CLASSES, SHAPE = 6, (1, 12, 12)
SEEN, LATER = ((datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (1, 2))
TIMES = ("--committed-before", SEEN, "--known-since", LATER)
MODEL = ("--model-set", "width=8", "--model-set", "features=24")


def run(folder: Path, *words: str) -> Any:
    given = [word.replace("@", f"{folder}/") for word in words]
    return CliRunner().invoke(app, given, env={"EARMARK_PASSWORD": "x", "EARMARK_MODEL": None, "COLUMNS": "200"})


def good(folder: Path, *words: str, status: int = 0) -> Any:
    found = run(folder, *words, "--json")
    assert found.exit_code == status, found.stderr
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    parts: dict[str, Any] = {}
    for part, images in (("train", blobs(420, CLASSES, SHAPE, 1)), ("test", blobs(120, CLASSES, SHAPE, 2))):
        parts |= {f"x_{part}": images.pixels[:, 0].numpy(), f"y_{part}": images.labels.numpy()}
    np.savez(folder / "data.npz", **parts)
    OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32)))).save(folder / "owner.pem", b"x")
    quick = ("--set", "epochs=4", "--set", "lr=0.005", "--set", "milestones=[]")
    good(folder, "train", "--data", "npz:@data.npz", "--out", "@host.safetensors", *MODEL, *quick)
    return folder


HOW = {"epochs": 40, "batch_size": 32, "lr": 0.005, "optimizer": "adam", "milestones": [], "enough": 1.0, "patience": 4}
SETTINGS = [word for name, value in HOW.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def marked(desk: Path, name: str, mint: tuple[str, ...], method: str, per_batch: int = 24) -> Any:
    """Mint and embed; what `embed` told."""
    key = ("--key", "@owner.pem", "--name", name, "--data", "npz:@data.npz", "--out", f"@{name}.mark.safetensors")
    good(desk, "mint", *key, *mint)
    files = ("--host", "@host.safetensors", "--mark", f"@{name}.mark.safetensors", "--out", f"@{name}.safetensors")
    more = ("--set", f"triggers_per_batch={per_batch}", "--set", "batchnorm=train", "--set", "select=best")
    return good(desk, "embed", *files, "--data", "npz:@data.npz", "--method", method, *MODEL, *SETTINGS, *more)


def committed(desk: Path, name: str, *more: str) -> tuple[str, ...]:
    files = ("--mark", f"@{name}.mark.safetensors", "--marked", f"@{name}.safetensors", "--out", f"@{name}")
    good(desk, "commit", "--key", "@owner.pem", *files, *MODEL, *more)
    return ("--claim", f"@{name}/claim.json", "--evidence", f"@{name}/evidence", *MODEL)


@pytest.mark.parametrize(
    ("name", "mint", "method", "scheme"),
    [
        ("noised", ("--kind", "noised", "--count", "48", "--set", "std=0.3"), "ftal", "zhang-noise"),
        ("relabelled", ("--kind", "relabelled", "--count", "48"), "exponential-weighting", "exponential-weighting"),
        ("chain", ("--kind", "hash-chain", "--count", "48"), "adi", "one-way-chain"),
        (
            "patched",
            ("--kind", "patched", "--count", "80", "--set", "group=2", "--set", "teaching=0"),
            "entangled",
            "entangled",
        ),
        (
            "penetrative",
            (
                *("--kind", "penetrative", "--count", "60", "--set", "group=1", "--set", "teaching=0"),
                *("--set", "looks=2", "--set", "shadows=2", "--set", "bottleneck=4", "--set", "epochs=20"),
                *("--set", "iterations=10", "--set", "similarity=0.5"),
            ),
            "ftal",
            "penetrative",
        ),
    ],
)
def test_a_baseline_goes_all_the_way(desk: Path, name: str, mint: tuple[str, ...], method: str, scheme: str) -> None:
    told = marked(desk, name, mint, method)
    assert told["val_acc"] > 0.9
    claim = committed(desk, name)
    assert json.loads((desk / name / "claim.json").read_text())["claim"]["scheme"] == scheme
    assert good(desk, "judge", f"@{name}.safetensors", *claim)["accepted"] is True
    assert good(desk, "judge", "@host.safetensors", *claim, status=1)["accepted"] is False


@pytest.fixture(scope="module")
def frontier(desk: Path) -> tuple[str, ...]:
    """A committed frontier and what names it to the judge; it has no null of its own."""
    mint = ("--kind", "frontier", "--count", "120", "--set", "epsilon=0.2", "--host", "@host.safetensors", *MODEL)
    marked(desk, "frontier", mint, "ftal", 40)
    return committed(desk, "frontier", "--unchecked", "--alpha", "0.05")


@pytest.fixture(scope="module")
def innocents(desk: Path) -> tuple[str, ...]:
    words: list[str] = []
    for seed in range(24):
        model = seeded(PlainCNN, SHAPE, CLASSES, width=8, features=24, seed=seed)
        save_tensors(desk / f"innocent{seed}.safetensors", model.state_dict())
        words += ["--innocent", f"@innocent{seed}.safetensors"]
    return tuple(words)


def test_a_frontier_is_minted_on_its_host_and_judged_beside_innocent_models(
    desk: Path, frontier: tuple[str, ...], innocents: tuple[str, ...]
) -> None:
    judged = ("judge", "@frontier.safetensors", *frontier, "--alpha", "0.05")
    assert good(desk, *judged, *TIMES, status=3)["null"]["basis"] == "none"
    verdict = good(desk, *judged, *TIMES, *innocents)
    assert (verdict["accepted"], verdict["null"]["basis"], verdict["details"]["innocents"]) == (True, "calibrated", 24)
    assert verdict["p_value"] > 1 / 25
    assert verdict["details"]["commitments"] == 1
    several = good(desk, *judged, *TIMES, *innocents, "--commitments", "2", status=3)
    assert (several["alpha"], several["details"]["commitments"]) == (0.025, 2)
    assert "44 innocent models are needed and 24 came" in several["reason"]
    none = run(desk, *judged, *TIMES, *innocents, "--commitments", "0")
    assert (none.exit_code, "--commitments: expected a whole number from 1" in none.stderr) == (2, True)
    assert good(desk, *judged, *innocents, status=3)["details"]["calibration"] == "none, for want of an earlier date"
    own = ("verify", "@frontier.safetensors", "--mark", "@frontier.mark.safetensors", *MODEL)
    assert good(desk, *own, "--alpha", "0.05", *innocents)["accepted"] is True
    assert good(desk, *own, "--alpha", "0.01", *innocents, status=3)["accepted"] is None
    assert good(desk, *own, status=3)["accepted"] is None
    assert "leave out --sequential" in run(desk, *own, "--sequential", *innocents).stderr


@pytest.mark.usefixtures("frontier")
def test_between_claims_a_frontier_is_found_beside_innocent_models_alone(
    desk: Path, innocents: tuple[str, ...]
) -> None:
    """A thief puts noise on top of the owner's frontier; without innocent models nothing can be said of the latter."""
    OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32))).save(desk / "thief.pem", b"x")
    mint = ("mint", "--key", "@thief.pem", "--name", "t", "--data", "npz:@data.npz", "--kind", "noise", "--count", "40")
    good(desk, *mint, "--out", "@thief.mark.safetensors")
    files = ("--host", "@frontier.safetensors", "--mark", "@thief.mark.safetensors", "--out", "@thief.safetensors")
    gently = ("--set", "triggers_per_batch=24", "--set", "lr=0.001", "--set", "enough=1.0", "--set", "epochs=60")
    good(desk, "embed", *files, "--data", "npz:@data.npz", "--method", "ftal", *MODEL, *gently)
    commit = ("commit", "--key", "@thief.pem", "--mark", "@thief.mark.safetensors", "--marked", "@thief.safetensors")
    good(desk, *commit, "--out", "@thief", *MODEL)
    judged = ["judge", "@thief.safetensors", "--alpha", "0.05", "--known-since", LATER, *MODEL]
    for name, time in (("frontier", SEEN), ("thief", LATER)):
        judged += ["--claim", f"@{name}/claim.json", "--evidence", f"@{name}/evidence"]
        judged += ["--released", f"@{name}.safetensors", "--committed-before", time]
    owner, thief = good(desk, *judged, *innocents)
    assert (owner["accepted"], thief["accepted"]) == (True, False)
    assert next(iter(owner["details"]["weighed"].values()))["own_mark_in_the_others_model"] == "found"
    owner, thief = good(desk, *judged, status=3)
    assert owner["accepted"] is None
    assert "this mark's null has no basis, so that proves nothing" in owner["reason"]
    both = good(desk, *judged, *innocents, "--commitments", "3", "--commitments", "1", status=3)
    assert [one["details"]["commitments"] for one in both] == [3, 1]
    once = run(desk, *judged, *innocents, "--commitments", "3")
    assert (once.exit_code, "--commitments once" in once.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kind", "frontier"), "give its weights as --host"),
        (("--kind", "relabelled", "--host", "@host.safetensors"), "are for passports, projection, frontier"),
        (("--kind", "patched", "--set", "patern=bits"), "did you mean 'pattern'?"),
        (("--kind", "noise", "--set", "labels=as-show"), "did you mean 'as-shown'?"),
    ],
)
def test_what_does_not_go_together_is_one_line(desk: Path, words: tuple[str, ...], says: str) -> None:
    key = ("--key", "@owner.pem", "--name", "n", "--data", "npz:@data.npz", "--out", "@n.safetensors")
    found = run(desk, "mint", *key, *words)
    assert found.exit_code == 2
    (line,) = found.stderr.splitlines()
    assert says in line


def test_an_innocent_model_that_is_not_there_is_the_caller_s_mistake(desk: Path) -> None:
    files = ("--claim", "@none/claim.json", "--evidence", "@none/evidence", "--innocent", "@none.safetensors")
    found = run(desk, "judge", "@host.safetensors", *files)
    assert found.exit_code == 2
    assert "none.safetensors is not there" in found.stderr
