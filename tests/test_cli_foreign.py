"""Code that is not ours, run by a command: what it prints, warns, raises or ends must not pass for a result."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from earmark.cli import app
from earmark.cli.group import BAD_INPUT
from earmark.cli.secrets import Minted
from earmark.files import save_tensors, state_tensors
from earmark.keys import MarkKey
from earmark.marks import Noise

SHAPE, CLASSES = (1, 8, 8), 3

PROGRAM = "from earmark.cli import app; app()"

NETS = """
import atexit, os, sys, warnings
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))

class Loud(Net):
    def __init__(self):
        print("built")
        super().__init__()
    def forward(self, images):
        print("asked")
        return super().forward(images)

class VeryLoud(Loud):
    def forward(self, images):
        os.system("echo child")
        sys.__stdout__.write("direct\\n")
        sys.__stdout__.flush()
        return super().forward(images)

class Parting(Net):
    def __init__(self):
        super().__init__()
        atexit.register(lambda: print("bye"))
        atexit.register(lambda: os.system("echo child"))

class Warning_(Net):
    def __init__(self, broken=False):
        warnings.warn("this will be\\ndeprecated", stacklevel=1)
        super().__init__()
        assert not broken, "broken"

class Leaving(Net):
    def __init__(self, after=0, status=0):
        super().__init__()
        self.after, self.status = after, status
    def forward(self, images):
        self.after -= 1
        if self.after < 0:
            sys.exit(self.status)
        return super().forward(images)

class Raising(Net):
    def __init__(self, error="KeyError"):
        super().__init__()
        self.error = error
    def forward(self, images):
        raise getattr(__import__("builtins"), self.error)("no")

def gone():
    sys.exit(0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its weights, data and a mark, none of it trained."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "nets.py").write_text(NETS)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    save_tensors(folder / "net.safetensors", state_tensors(net))
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 24), ("test", 12)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 8, 8), np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % CLASSES
    np.savez(folder / "data.npz", **arrays)
    for name, shape, classes in (("mark", SHAPE, CLASSES), ("wide", (1, 8, 9), CLASSES), ("many", SHAPE, 4)):
        mark = Noise(count=20).make(MarkKey(bytes(32)), shape, classes)
        Minted("m", mark).save(folder / f"{name}.safetensors")
    return folder


def words(folder: Path, text: str, net: str = "") -> Sequence[str]:
    named = ("--model", f"@nets.py:{net}") if net else ()
    return [word.replace("@", f"{folder}/") for word in (*text.split(), *named)]


def run(folder: Path, text: str, net: str = "") -> Any:
    return CliRunner().invoke(app, words(folder, text, net), env={"EARMARK_PASSWORD": "x", "EARMARK_MODEL": None})


def fault(folder: Path, text: str, net: str = "") -> str:
    found = run(folder, text, net)
    assert (found.exit_code, found.stdout) == (BAD_INPUT, ""), (found.exit_code, found.stdout, found.stderr)
    (line,) = found.stderr.splitlines()
    assert line.startswith("earmark: error: ")
    return str(line)


VERIFY = "verify @net.safetensors --mark @mark.safetensors"
FIDELITY = "fidelity @net.safetensors --host @net.safetensors --data npz:@data.npz"


# ----------------------------------------------------------------------------------------------------- prints, warnings


@pytest.mark.parametrize("command", [VERIFY, FIDELITY])
def test_standard_output_is_one_json_value_whatever_the_model_prints(folder: Path, command: str) -> None:
    found = run(folder, f"{command} --json", "Loud")
    assert isinstance(json.loads(found.stdout), dict)
    assert found.stdout.count("built") == found.stdout.count("asked") == 0
    assert "built\n" in found.stderr
    assert "asked\n" in found.stderr


def test_c_code_and_child_processes_do_not_reach_standard_output_either(folder: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, *words(folder, f"{VERIFY} --json", "VeryLoud")]
    found = subprocess.run(program, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert json.loads(found.stdout)["accepted"] is False
    assert {"built", "asked", "child", "direct"} <= set(found.stderr.split())


def test_what_code_says_when_it_is_taken_down_does_not_reach_standard_output(folder: Path) -> None:
    command = words(folder, f"{VERIFY} --json", "Parting")
    found = subprocess.run([sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert json.loads(found.stdout)["accepted"] is False
    assert {"bye", "child"} <= set(found.stderr.split())


def test_a_program_that_calls_a_command_keeps_its_standard_output(folder: Path) -> None:
    calling = (
        "import sys\nfrom earmark.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    print(end.code)"
    )
    command = [sys.executable, "-c", calling, *words(folder, VERIFY, "Net")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[-1] == "1"


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_changes_no_status(folder: Path, closed: str) -> None:
    program = [sys.executable, "-c", PROGRAM, *words(folder, f"{VERIFY} --json", "Loud")]
    found = subprocess.run(["sh", "-c", f'exec "$@" {closed}>&-', "sh", *program], capture_output=True, check=False)
    assert found.returncode == 1
    assert b"Traceback" not in found.stderr


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_after_a_result_and_none_beside_an_error(folder: Path) -> None:
    found = run(folder, VERIFY, "Warning_")
    assert found.exit_code == 1
    assert found.stderr == "earmark: warning: this will be deprecated\n"
    assert "AssertionError: broken" in fault(folder, f"{VERIFY} --model-set broken=true", "Warning_")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["script", "quantised"])
def test_a_file_that_its_reader_warns_of_is_one_line(folder: Path, kind: str) -> None:
    path = folder / f"{kind}.pt"
    with warnings.catch_warnings(action="ignore"):
        if kind == "script":
            torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
        else:
            torch.save({"weight": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)}, path)
    assert f"{kind}.pt" in fault(folder, f"verify @{kind}.pt --mark @mark.safetensors", "Net")


@pytest.mark.filterwarnings("default")
def test_a_network_without_channels_is_one_line(folder: Path) -> None:
    said = fault(folder, "train --data npz:@data.npz --model-set width=0 --out @none/host.safetensors")
    assert "plain" in said
    assert not (folder / "none").exists()


# ------------------------------------------------------------------------------------------------------ ends and raises


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_model_that_ends_the_program_is_an_error_and_no_success(folder: Path, status: int) -> None:
    more = f"--model-set status={status}"
    assert "SystemExit" in fault(folder, f"{FIDELITY} {more}", "Leaving")
    assert "nets.py:gone failed: SystemExit" in fault(folder, FIDELITY, "gone")
    late = fault(folder, f"{FIDELITY} {more} --model-set after=2", "Leaving")
    assert f"ended the program (sys.exit({status}))" in late


def test_a_suspect_that_ends_the_program_is_a_rejecting_verdict(folder: Path) -> None:
    found = run(folder, f"{VERIFY} --json", "Leaving")
    assert (found.exit_code, json.loads(found.stdout)["details"]["error"]) == (1, "SystemExit")


@pytest.mark.parametrize("error", ["AssertionError", "KeyError", "NotImplementedError", "StopIteration", "OSError"])
def test_whatever_a_model_raises_on_an_image_is_one_line(folder: Path, error: str) -> None:
    said = fault(folder, f"{FIDELITY} --model-set error={error}", "Raising")
    assert f"net.safetensors cannot take images (1, 8, 8): {error}" in said


@pytest.mark.parametrize("error", ["GeneratorExit", "BaseException"])
def test_a_model_that_raises_what_is_no_exception_is_one_line_and_no_verdict(folder: Path, error: str) -> None:
    said = fault(folder, f"{FIDELITY} --model-set error={error}", "Raising")
    assert said == f"earmark: error: the code of the model raised {error} before there was a result"


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_an_attack_that_does_not_train_leaves_a_checkpoint_beside_its_output_alone(folder: Path) -> None:
    other = folder / "keep.safetensors.checkpoint"
    other.write_bytes(b"of another run")
    command = "attack half @net.safetensors --data npz:@data.npz --out @keep.safetensors"
    assert run(folder, command, "Net").exit_code == 0
    assert "is there already" in fault(folder, command, "Net")
    trains = (
        "attack fine-tune-ftal @net.safetensors --data npz:@data.npz --set epochs=1 --force --out @keep.safetensors"
    )
    assert "no readable checkpoint" in fault(folder, trains, "Net")
    assert other.read_bytes() == b"of another run"


# ---------------------------------------------------------------------------------------------------------------- marks


def test_a_mark_minted_again_onto_its_own_file_is_secret_again(folder: Path) -> None:
    mark, path = Noise(count=20).make(MarkKey(bytes(32)), SHAPE, CLASSES), folder / "open.safetensors"
    for mode, after in ((0o644, 0o600), (0o400, 0o400)):
        Minted("m", mark).save(path)
        path.chmod(mode)
        Minted("m", mark).save(path)
        assert stat.S_IMODE(path.stat().st_mode) == after


@pytest.mark.parametrize(("mark", "says"), [("wide", "shape (1, 8, 9) for 3 classes"), ("many", "for 4 classes")])
def test_a_mark_of_another_task_is_refused_before_anything_is_measured(folder: Path, mark: str, says: str) -> None:
    assert says in fault(folder, f"{FIDELITY} --mark @{mark}.safetensors", "Raising")


# -------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    "command",
    [
        "train --data npz:@none.npz --out @a/b/host.safetensors",
        "train --data npz:@data.npz --out @a/b/host.safetensors --model @nets.py:Raising",
        "embed --host @none --mark @mark.safetensors --data npz:@data.npz --out @a/b/marked.safetensors",
        "mint --key @none --name m --data npz:@data.npz --out @a/b/mark.safetensors",
        "report @none.json --out @a/b/report.html",
        "key new @a/b/owner.pem --password-file @none",
        "attack read-off @net.safetensors --data npz:@data.npz --model @nets.py:Net --set count=99 --out @a/b/forged",
        "attack half @none.safetensors --data npz:@data.npz --model @nets.py:Net --out @a/b/half.safetensors",
    ],
)
def test_a_command_that_fails_leaves_no_folder_behind(folder: Path, command: str) -> None:
    before = sorted(folder.rglob("*"))
    fault(folder, command)
    assert [path for path in sorted(folder.rglob("*")) if path not in before and path.name != "__pycache__"] == []


def test_a_folder_that_was_there_or_has_something_in_it_stays(folder: Path) -> None:
    (folder / "kept").mkdir()
    fault(folder, "report @none.json --out @kept/inner/report.html")
    assert list((folder / "kept").iterdir()) == []
    run(folder, "attack half @net.safetensors --data npz:@data.npz --out @new/inner/half.safetensors", "Net")
    assert (folder / "new/inner/half.safetensors").is_file()
