"""The whole job by command line with a network that computes in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from earmark.cli import app
from earmark.data import digits
from earmark.files import load_tensors

NETS = """
from torch import nn

def wide(dtype="double"):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return getattr(net, dtype)()
"""


class Desk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "nets.py").write_text(NETS)
        data = digits()
        some: dict[str, Any] = {"x_train": data.train.pixels[:400, 0], "y_train": data.train.labels[:400]}
        some |= {"x_test": data.test.pixels[:100, 0], "y_test": data.test.labels[:100]}
        np.savez(folder / "digits.npz", **some)

    def run(self, *words: str, status: int = 0) -> Result:
        env = {"EARMARK_PASSWORD": "x", "EARMARK_MODEL": f"{self.folder}/nets.py:wide", "COLUMNS": "200"}
        filled = [word.replace("@", f"{self.folder}/") for word in words]
        found = CliRunner().invoke(app, [*filled, "--json"], env=env)
        assert found.exit_code == status, found.stderr
        return found

    def good(self, *words: str, status: int = 0) -> Any:
        """What a command says that ends with this status."""
        return json.loads(self.run(*words, status=status).stdout)

    def dtypes(self, file: str) -> set[torch.dtype]:
        return {tensor.dtype for tensor in load_tensors(self.folder / file).values()}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.good("key", "new", "@owner.pem")
    desk.good("train", *DATA, "--set", "epochs=15", "--out", "@host.safetensors")
    desk.good("mint", "--key", "@owner.pem", "--name", "m", *DATA, "--count", "60", "--out", "@mark.safetensors")
    how = ("lr=0.003", "triggers_per_batch=30", "epochs=40", "enough=1.0")
    sets = [word for setting in how for word in ("--set", setting)]
    marked = ("--host", "@host.safetensors", *MARK, *DATA, "--method", "ftal", *sets)
    desk.good("embed", *marked, "--out", "@marked.safetensors")
    given = ("--key", "@owner.pem", *MARK, "--host", "@host.safetensors", "--marked", "@marked.safetensors")
    desk.good("commit", *given, "--out", "@commitment")
    return desk


DATA = ("--data", "npz:@digits.npz")
MARK = ("--mark", "@mark.safetensors")
CLAIM = ("--claim", "@commitment/claim.json", "--evidence", "@commitment/evidence")


def test_a_float64_network_is_trained_marked_and_committed_to_in_float64(desk: Desk) -> None:
    for file in ("host", "marked"):
        assert desk.dtypes(f"{file}.safetensors") == {torch.float64}
    assert desk.good("judge", "@marked.safetensors", *CLAIM)["accepted"] is True
    assert desk.good("judge", "@host.safetensors", *CLAIM, status=1)["accepted"] is False


def test_its_fidelity_is_measured(desk: Desk) -> None:
    report = desk.good("fidelity", "@marked.safetensors", "--host", "@host.safetensors", *DATA, *MARK)
    assert report["trig_acc"] == 1.0
    assert report["val_acc"] > 0.8


@pytest.mark.parametrize("name", ["fine-tune-ftll", "fine-tune-ftal", "prune-global", "int8", "bfloat16"])
def test_it_is_attacked_and_the_copy_judged(desk: Desk, name: str) -> None:
    epochs = ("--set", "epochs=1") if name.startswith("fine") else ()
    out = f"{name}.safetensors"
    desk.good("attack", name, "@marked.safetensors", *DATA, *epochs, "--out", f"@{out}")
    assert desk.dtypes(out) == {torch.float64}
    assert desk.good("judge", f"@{out}", *CLAIM)["accepted"] is True


def test_a_bfloat16_network_is_trained_and_float16_overflow_is_said_in_one_line(desk: Desk) -> None:
    def train(dtype: str) -> tuple[str, ...]:
        return (
            "train",
            *DATA,
            "--model-set",
            f"dtype={dtype}",
            "--set",
            "epochs=1",
            "--out",
            f"@{dtype}-host.safetensors",
        )

    desk.good(*train("bfloat16"))
    assert desk.dtypes("bfloat16-host.safetensors") == {torch.bfloat16}
    said = desk.run(*train("half"), status=2).stderr
    assert "no finite numbers" in said
    assert "float16 holds nothing beyond 65504: train as float32 or bfloat16" in said
    assert len(said.splitlines()) == 1
