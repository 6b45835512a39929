"""The laws of the grid: each cell once, whatever stops it in between, in any order, and no cell can stop another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benched import SCHEMES, Fails, Halves, Kills, KillsOnce, KillsParent, data, grid, measurements, tuned
from tiny import TinyNet
from torch import nn

from earmark.bench import Cell, Grid, Ledger, Plan, Progress, Task, named_attack, own_attack, read_cells, run, schema
from earmark.bench.cells import blank
from earmark.bench.running import Course
from earmark.bench.subject import Subject
from earmark.bench.work import Outcome
from earmark.core import Data
from earmark.errors import BadInput, CannotCarry
from earmark.evidence import judge
from earmark.schemes import deep_fidelity
from earmark.suspects import as_query
from earmark.training import accuracy

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that was measured in one go."""
    out = tmp_path_factory.mktemp("unbroken")
    run(grid(), out, workers=0)
    return out


def by_name(cells: list[Cell]) -> dict[tuple[str, str], Cell]:
    return {(cell.scheme, cell.attack): cell for cell in cells}


def test_every_cell_is_measured_once_and_never_again(unbroken: Path) -> None:
    lines = (unbroken / "results.jsonl").read_bytes()
    cells = read_cells(unbroken / "results.jsonl")
    assert [(c.scheme, c.attack, c.seed) for c in cells] == [(t.scheme, t.attack, t.seed) for t in grid().cells()]
    assert len({cell.id for cell in cells}) == len(cells) == 8
    seen: list[Progress] = []
    assert run(grid(), unbroken, workers=0, watch=seen.append) == cells
    assert (unbroken / "results.jsonl").read_bytes() == lines
    assert seen == []


def test_a_cell_says_what_the_judge_and_the_owner_say(unbroken: Path) -> None:
    """The numbers are those of the parts, put together by hand."""
    cells, subject = by_name(read_cells(unbroken / "results.jsonl")), Subject(grid(), 0, unbroken)
    marked = subject.marked("triggers")
    stolen = named_attack("half").make()(marked.model, subject.data, torch.Generator())
    cell = cells["triggers", "half"]
    assert cell.accuracy is not None and cell.verify is not None and cell.judge is not None  # noqa: PT018
    assert cell.accuracy.suspect == accuracy(stolen, data().test)
    assert cell.accuracy.marked == accuracy(marked.model, data().test)
    assert cell.verify.log10_p == marked.scheme.verify(as_query(stolen), marked.mark).log10_p
    assert cell.judge.log10_p == judge(marked.claim, marked.evidence, stolen).log10_p
    assert cells["triggers", "none"].fidelity is not None
    assert cell.fidelity is None


def test_a_forger_passes_the_trigger_test_and_no_judge(unbroken: Path) -> None:
    cell = by_name(read_cells(unbroken / "results.jsonl"))["triggers", "read-off"]
    assert cell.verify is not None
    assert cell.judge is not None
    assert (cell.verify.word, cell.judge.word, cell.judge.step) == ("accepted", "rejected", "re-minting")


def test_an_attack_with_nothing_to_act_on_is_written_down_as_unfit(unbroken: Path) -> None:
    cell = by_name(read_cells(unbroken / "results.jsonl"))["bits", "blur"]
    assert cell.status == "unfit"
    assert "read from weights" in str(cell.reason)


def test_a_run_that_was_cut_off_at_any_line_goes_on_to_the_same_end(unbroken: Path, tmp_path: Path) -> None:
    whole = read_cells(unbroken / "results.jsonl")
    lines = (unbroken / "results.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (0, 3, 7):
        out = tmp_path / str(kept)
        out.mkdir()
        (out / "results.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:50])
        assert measurements(run(grid(), out, workers=0)) == measurements(whole)
        assert len((out / "results.jsonl").read_bytes().splitlines()) == 8


def test_a_killed_grid_goes_on_to_the_same_end(unbroken: Path, tmp_path: Path) -> None:
    """From within a cell, the process that runs the grid gets a SIGKILL; its worker does not go on alone."""
    code = (
        "from pathlib import Path; from benched import *; from earmark.bench import *\n"
        "if __name__ == '__main__':\n"
        "    file, out = Path('killed'), 'out'\n"
        "    run(grid({'half': named_attack('half'), 'kill': KillsParent(file)}), out, workers=1)\n"
    )
    (tmp_path / "script.py").write_text(code)
    path = f"{TESTS}:{TESTS.parent / 'src'}"
    env = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    left = read_cells(tmp_path / "out" / "results.jsonl")
    assert [cell.attack for cell in left] == ["none", "half"]
    models = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.safetensors")}
    attacks = {"half": named_attack("half"), "kill": KillsParent(tmp_path / "killed")}
    cells = run(grid(attacks), tmp_path / "out", workers=0)
    assert {cell.status for cell in cells} == {"done"}
    same = {key: value for key, value in measurements(cells).items() if key[1] in ("none", "half")}
    assert same == {key: value for key, value in measurements(run(grid(), unbroken, workers=0)).items() if key in same}
    assert all(file.stat().st_mtime_ns == at for file, at in models.items()), "what was made is not made again"


def test_the_order_of_schemes_and_attacks_changes_no_cell(unbroken: Path, tmp_path: Path) -> None:
    turned = grid(dict(list(grid().attacks.items())[::-1]), schemes=dict(list(SCHEMES.items())[::-1]))
    found, expected = run(turned, tmp_path, workers=0), read_cells(unbroken / "results.jsonl")
    assert measurements(found) == measurements(expected)
    assert [cell.id for cell in found] != [cell.id for cell in expected]


def test_workers_measure_the_same_and_a_dead_one_costs_its_cell_alone(unbroken: Path, tmp_path: Path) -> None:
    attacks = {"half": grid().attacks["half"], "kills": Kills(), "once": KillsOnce(tmp_path / "once"), "fails": Fails()}
    wanted = grid(attacks, schemes={"triggers": SCHEMES["triggers"]})
    seen: list[Progress] = []
    cells = by_name(run(wanted, tmp_path / "out", workers=2, threads=1, watch=seen.append))
    assert {name: cell.status for (_, name), cell in cells.items()} == {
        "none": "done",
        "half": "done",
        "kills": "failed",
        "once": "done",
        "fails": "failed",
    }
    assert cells["triggers", "kills"].reason == "the worker process died (signal SIGKILL)"
    assert cells["triggers", "kills"].tries == cells["triggers", "once"].tries == 2
    assert cells["triggers", "fails"].reason == "ZeroDivisionError: not today"
    expected = measurements(read_cells(unbroken / "results.jsonl"))
    for name in ("none", "half"):
        assert measurements([cells["triggers", name]]).items() <= expected.items()
    assert (seen[-1].done, seen[-1].failed, seen[-1].total) == (5, 2, 5)
    assert seen[-1].left == 0


def test_failed_cells_are_measured_again_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "mended"

    def attack(model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        if not file.exists():
            raise RuntimeError("not yet")
        return model

    wanted = grid({"flaky": attack}, schemes={"bits": SCHEMES["bits"]})
    assert [cell.status for cell in run(wanted, tmp_path, workers=0)] == ["done", "failed"]
    file.touch()
    assert [cell.status for cell in run(wanted, tmp_path, workers=0)] == ["done", "failed"]
    assert [cell.status for cell in run(wanted, tmp_path, workers=0, again=True)] == ["done", "done"]
    assert len(read_cells(tmp_path / "results.jsonl")) == 2


def test_a_scheme_that_cannot_be_embedded_fails_in_all_its_cells_and_in_no_other(tmp_path: Path) -> None:
    def never(host: nn.Module, mark: Any, data: Data, rng: torch.Generator) -> nn.Module:
        raise CannotCarry("no room")

    broken = deep_fidelity()
    object.__setattr__(broken, "embed", never)
    cells = run(grid({}, schemes={"broken": broken, "bits": SCHEMES["bits"]}), tmp_path, workers=0)
    assert [cell.status for cell in cells] == ["failed", "done"]
    assert cells[0].reason == "broken, seed 0: CannotCarry: no room"


def test_an_attack_in_trials_leaves_a_point_for_each(tmp_path: Path) -> None:
    wanted = grid({"tune": tuned(), "mine": Halves()}, schemes={"triggers": SCHEMES["triggers"]})
    cells = by_name(run(wanted, tmp_path, workers=0))
    points = cells["triggers", "tune"].points
    assert [point.trial for point in points] == [0, 1, 2]
    assert points[-1].verify == cells["triggers", "tune"].verify
    assert points[0].verify == cells["triggers", "none"].verify
    assert cells["triggers", "mine"].status == "done"
    spent = cells["triggers", "tune"].cost
    assert spent is not None
    assert spent.samples == 96


def test_seeds_differ_in_everything_that_is_drawn(tmp_path: Path) -> None:
    wanted = grid({}, schemes={"bits": SCHEMES["bits"]}, seeds=(0, 1))
    run(wanted, tmp_path, workers=0)
    first, second = (Subject(wanted, seed, tmp_path).marked("bits") for seed in (0, 1))
    assert not torch.equal(first.mark.tensors()["projection"], second.mark.tensors()["projection"])
    assert first.claim.public_key != second.claim.public_key
    assert first.claim.host_digest != second.claim.host_digest


def test_what_a_thief_has_aside_the_owner_never_sees() -> None:
    subject = Subject(grid(aside=32), 0, Path("unused"))
    assert (len(subject.data.train), len(subject.thief.train)) == (64, 32)
    rows = [{row.tobytes() for row in one.train.pixels.numpy()} for one in (subject.data, subject.thief)]
    assert not rows[0] & rows[1]


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_no_secret_of_a_key_is_in_the_results(unbroken: Path) -> None:
    written = (unbroken / "results.jsonl").read_text()
    subject = Subject(grid(), 0, unbroken)
    for key in (subject.owner.mark_key("grid"), subject.rival):
        assert key.secret.hex() not in written
        assert str(list(key.secret))[1:30] not in written


def test_a_worker_with_other_code_or_settings_is_found_out(tmp_path: Path) -> None:
    wanted, other, task = grid(), grid(alpha=1e-3), Task(0, "triggers", "half")
    with Ledger(tmp_path).writing() as ledger:
        course = Course(wanted, ledger, {wanted.cell_id(cell) for cell in wanted.cells()}, None)
        with pytest.raises(BadInput, match="other code or settings"):
            course.take(Outcome(task, cell=blank(other, task, "done")), Plan([task]), 1)
    assert read_cells(tmp_path / "results.jsonl") == []


# ------------------------------------------------------------------------------------------------------------ the file


def test_a_line_follows_the_schema_and_reads_back_the_same(unbroken: Path) -> None:
    cells = read_cells(unbroken / "results.jsonl")
    told = schema()
    for cell in cells:
        assert set(cell.model_dump()) == set(told["properties"])
        assert Cell.model_validate_json(cell.line()) == cell
    assert set(told["required"]) >= {"id", "scheme", "attack", "seed", "versions", "hardware", "commit", "settings"}


def test_a_torn_last_line_is_dropped_and_a_broken_one_is_named(unbroken: Path, tmp_path: Path) -> None:
    lines = (unbroken / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(lines[0] + lines[1][:-1])
    with Ledger(tmp_path).writing() as ledger:
        ledger.append(Cell.model_validate_json(lines[2]))
    assert (tmp_path / "results.jsonl").read_bytes() == lines[0] + lines[2]
    (tmp_path / "results.jsonl").write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(BadInput, match=r"results\.jsonl, line 2 is no cell"):
        Ledger(tmp_path)


def test_two_runs_never_write_to_one_file(tmp_path: Path) -> None:
    with Ledger(tmp_path).writing(), pytest.raises(BadInput, match="another run is writing"):
        run(grid(), tmp_path, workers=0)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_no_grid_can_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one scheme"):
        grid(schemes={})
    with pytest.raises(BadInput, match="each is measured once"):
        grid(seeds=(1, 1))
    with pytest.raises(BadInput, match="always there"):
        grid({"none": Halves()})
    with pytest.raises(BadInput, match="unknown engine 'rey': did you mean 'ray'"):
        run(grid(), tmp_path, engine="rey")
    with pytest.raises(BadInput, match="workers"):
        run(grid(), tmp_path, workers=-1)


def test_a_grid_that_cannot_be_sent_to_a_worker_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no lambdas"):
        run(grid(build=lambda: TinyNet()), tmp_path, workers=1)


def test_a_cell_is_known_by_everything_that_it_depends_on() -> None:
    cell, plain = Task(0, "triggers", "half"), grid()
    other: list[Grid] = [
        grid(aside=1),
        grid(alpha=1e-3),
        grid(host=plain.host.but(lr=1e-4)),
        grid(schemes={"triggers": deep_fidelity()}),
        grid(data=Data(data().test, data().test)),
        grid({"half": named_attack("bfloat16")}),
        grid({"half": own_attack(Halves())}),
    ]
    known = [one.cell_id(cell) for one in [plain, *other]]
    assert len(set(known)) == len(known)
    assert plain.cell_id(cell) == grid().cell_id(cell)
