"""Names on the command line: help, suggestions, and one line for each mistake; nothing here needs a file."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from earmark.cli import app
from earmark.cli.group import BAD_INPUT, CRASHED, INTERRUPTED
from earmark.cli.output import show
from earmark.errors import BadInput

COMMANDS = (
    *("key new", "key show", "train", "mint", "embed", "commit", "fidelity", "attack", "verify", "judge", "report"),
    *("bench", "leaderboard", "demo"),
    *("reproduce deep-fidelity", "reproduce function-coupled", "reproduce penetrative", "reproduce deepipr"),
)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words), env={"EARMARK_PASSWORD": "x", "EARMARK_MODEL": None})


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_an_example_and_speaks_json(command: str) -> None:
    found = run(*command.split(), "--help")
    assert found.exit_code == 0
    assert "--json" in found.stdout
    assert f"Example:\n    earmark {command} " in found.stdout


@pytest.mark.parametrize("group", ["", "key", "reproduce"])
def test_each_group_of_commands_ends_its_help_in_an_example(group: str) -> None:
    lines = run(*group.split(), "--help").stdout.splitlines()
    assert lines[-2].strip() == "Example:"
    assert lines[-1].strip().startswith(f"earmark {group}")


def test_committing_unchecked_has_to_be_asked_for() -> None:
    assert "--unchecked" in run("commit", "--help").stdout


@pytest.mark.parametrize("command", ["train", "embed", "fidelity", "attack", "demo"])
def test_each_command_that_draws_at_random_takes_a_seed(command: str) -> None:
    assert "--seed N" in run(command, "--help").stdout


def test_without_a_command_there_is_help() -> None:
    found = run()
    assert found.exit_code == 0
    assert "Commands:" in found.stdout


PATHS = ("--data", "digits", "--out", "x.safetensors")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("embd",), "unknown command 'embd': did you mean 'embed'?"),
        (("key", "nwe"), "unknown command 'nwe': did you mean 'new'?"),
        (("reproduce", "deep-fidelty"), "did you mean 'deep-fidelity'?"),
        (("train", "--sede", "1", *PATHS), "unknown option '--sede': did you mean '--seed'?"),
        (("train", *PATHS, "--model", "plian"), "unknown network 'plian': did you mean 'plain'?"),
        (("train", *PATHS, "--set", "epoch=3"), "unknown setting 'epoch': did you mean 'epochs'?"),
        (("train", *PATHS, "--set", "epochs"), "expected NAME=VALUE, got 'epochs'"),
        (("train", *PATHS, "--set", "lr=1", "--set", "lr=2"), "lr is given twice"),
        (("train", "--out", "x.safetensors", "--data", "digit"), "unknown data 'digit': did you mean 'digits'?"),
        (("train", "--out", "x.safetensors"), "missing option '--data'; see"),
        (("train", *PATHS, "--seed", "x"), "invalid value for '--seed'"),
        (("train", *PATHS, "--seed", "9" * 20), "invalid value for '--seed'"),
        (("embed", "--host", "h", "--mark", "m", *PATHS, "--seed", "-1"), "invalid value for '--seed'"),
        (("demo", "--seed", str(2**63)), "invalid value for '--seed'"),
        (("attack", "prune-layr", "m", *PATHS), "unknown attack 'prune-layr': did you mean 'prune-layer'"),
        (
            ("attack", "half", "m", *PATHS, "--set", "to=float8"),
            "input should be 'float16' or 'bfloat16', got 'float8'",
        ),
        (("attack", "prune-global", "m", *PATHS, "--set", "share=2"), "0 to 1, got 2"),
        (("embed", "--host", "h", "--mark", "m", *PATHS, "--method", "fixl"), "did you mean 'fixll'?"),
        (("mint", "--key", "k", "--name", "n", *PATHS, "--kind", "nois"), "did you mean 'noise'?"),
        (("mint", "--key", "k", "--name", "n", *PATHS, "--set", "sdt=1"), "unknown setting 'sdt': did you mean 'std'?"),
        (("mint", "--key", "k", "--name", "n", *PATHS, "--set", "std=-1"), "noise std: expected a number from 0.01"),
        (("mint", "--key", "k", "--name", "n", *PATHS, "--set", "labels=unifrm"), "did you mean 'uniform'?"),
        (("reproduce", "deep-fidelity", "tabel4"), "unknown table 'tabel4': did you mean 'table4'?"),
        (("reproduce", "deep-fidelity", "--scale", "quik"), "unknown scale 'quik': did you mean 'quick'?"),
        (("reproduce", "deep-fidelity", "--seeds", "0"), "--seeds"),
    ],
)
def test_a_mistyped_name_is_one_line_with_the_nearest(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run(*words)
    assert found.exit_code == BAD_INPUT
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert line.startswith("earmark: error: ")
    assert says in line
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_no_verdict_and_shows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.cli.owner.open_data", _failing)
    found = run("train", *PATHS)
    assert found.exit_code == CRASHED
    assert found.stdout == ""


def _failing(source: str) -> None:
    raise ZeroDivisionError(source)


@pytest.mark.parametrize("signal", [KeyboardInterrupt, typer.Abort])
def test_an_interrupt_says_that_work_is_not_lost(signal: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(source: str) -> None:
        raise signal

    monkeypatch.setattr("earmark.cli.owner.open_data", stop)
    found = run("train", *PATHS)
    assert found.exit_code == INTERRUPTED
    assert found.stderr == "earmark: interrupted; a long command goes on where it was when it is started again\n"


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, type("Own", (BaseException,), {})])
def test_what_only_foreign_code_raises_is_one_line_and_no_verdict(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(source: str) -> None:
        raise kind

    monkeypatch.setattr("earmark.cli.owner.open_data", stop)
    found = run("train", *PATHS)
    assert (found.exit_code, found.stdout) == (BAD_INPUT, "")
    assert found.stderr == f"earmark: error: the code of the model raised {kind.__name__} before there was a result\n"


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_a_full_memory_is_one_line(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str) -> None:
        raise kind("tried to allocate 9 GiB")

    monkeypatch.setattr("earmark.cli.owner.open_data", full)
    found = run("train", *PATHS)
    assert found.exit_code == BAD_INPUT
    assert found.stderr.count("\n") == 1
    assert "tried to allocate 9 GiB" in found.stderr
    assert "lower the batch size" in found.stderr


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("earmark.cli.owner.open_data", full)
    found = run("train", *PATHS)
    assert (found.exit_code, found.stderr) == (BAD_INPUT, "earmark: error: [Errno 28] No space left on device\n")


def test_a_reproduced_table_is_written_as_json_and_markdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"val_acc": {"paper": 99.3, "ours": [98.0]}, "trig_acc": {"paper": 100.0, "ours": [100.0]}}
    rows = [{"method": "FTAL", "metrics": metrics, "history": [], "weights": {}, "cloud": ""}]
    value = {"table": "table4", "setting": "mnist_d2", "scale": "quick", "rows": rows, "settings": {}, "notes": []}
    asked: list[Any] = []

    def reproduce(*given: Any) -> list[Any]:
        asked.append(given)
        return [value]

    monkeypatch.setattr("earmark.recipes.deep_fidelity.reproduce", reproduce)
    found = run("reproduce", "deep-fidelity", "table4", "--out", str(tmp_path), "--seeds", "2", "--json")
    assert found.exit_code == 0, found.stderr
    assert asked == [("table4", "quick", None, tmp_path, 2, ())]
    assert json.loads(found.stdout) == [value] == [json.loads((tmp_path / "table4-mnist_d2-quick.json").read_text())]
    assert "| FTAL | 99.3 / 98 |" in (tmp_path / "table4-mnist_d2-quick.md").read_text()


def test_a_table_is_written_before_the_next_one_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reproduce(*_: Any) -> Iterator[dict[str, Any]]:
        point = {"trial": 0.0, "val_acc": 98.0, "asr": 100.0, "won": 100.0, "log10_p": -30.0}
        row = {"method": "Direct", "metrics": {"val_acc": {"paper": None, "ours": [98.0]}}, "curves": [[point]]}
        yield {
            "paper": "function-coupled",
            "table": "figure5",
            "setting": "x",
            "scale": "quick",
            "over": "trial",
            "rows": [row],
        }
        raise BadInput("the next table has no data")

    monkeypatch.setattr("earmark.recipes.function_coupled.reproduce", reproduce)
    found = run("reproduce", "function-coupled", "--out", str(tmp_path))
    assert found.exit_code == 2
    assert "the next table has no data" in found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        f"figure5-x-quick{end}" for end in (".json", ".md", "-curves.png", "-curves.svg")
    }


def test_a_number_that_json_does_not_have_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    show(True, {"losses": [1.0, math.inf, {"pfl": math.nan}]})
    assert json.loads(capsys.readouterr().out) == {"losses": [1.0, None, {"pfl": None}]}
