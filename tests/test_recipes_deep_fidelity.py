"""The recipe at its quick scale: every table runs, resumes, and says what the paper printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from earmark.errors import BadInput
from earmark.recipes import deep_fidelity as recipe
from earmark.recipes.hardware import hardware


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipe")


def metric(result: dict[str, Any], label: str, name: str) -> Any:
    row = next(row for row in result["rows"] if row["method"] == label)
    return row["metrics"][name]


def test_table_4_runs_at_the_quick_scale(out: Path) -> None:
    results = list(recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"]))
    assert [(result["table"], result["setting"]) for result in results] == [("table4", "mnist_d2")]
    table = results[0]
    labels = [row["method"] for row in table["rows"]]
    assert labels[:11] == ["Host", *recipe.LABELS.values()]
    assert metric(table, "FTAL", "val_acc")["paper"] == 99.24
    assert metric(table, "FixLL+PFL", "ave_pfl")["paper"] == 0.4031
    assert metric(table, "Scratch", "ave_pfl")["paper"] is None
    for label in labels:
        assert 0 <= metric(table, label, "val_acc")["ours"][0] <= 100
        if "FixLL" in label:
            assert metric(table, label, "prototype_change")["ours"] == [0.0]
    assert metric(table, "FTLL", "ave_pfl")["ours"] == [0.0]
    assert metric(table, "Host", "twl")["ours"] == [0.0]


def test_what_is_there_is_not_measured_again(out: Path) -> None:
    list(recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"]))
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert files
    list(recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"]))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == files
    assert not list(out.rglob("*.checkpoint.safetensors"))


def test_a_table_names_the_machines_that_measured_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie there keep theirs; what another table measured has no part in it."""
    monkeypatch.setattr("earmark.recipes.store.hardware", lambda: "one abacus")
    bench = recipe.Bench("mnist_d2", "quick", 0, None, out)
    bench.measure(replace(recipe.LOOSER, weights={"gamma": 10.0}))
    (again,) = recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"])
    assert again["hardware"] == hardware()
    bench.store.path("ftll.json").unlink()
    (both,) = recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"])
    assert both["hardware"] == f"{hardware()}; one abacus"


def test_table_8_attacks_what_was_embedded(out: Path) -> None:
    (table,) = recipe.reproduce("table8", "quick", None, out, settings=["cifar10_resnet18_d64"])
    assert len(table["rows"]) == 15
    for label in ("FixLL", "FixLL+PFL"):
        fine, coarse = (metric(table, f"{label}, {how}", "twl")["ours"][0] for how in ("half precision", "pruned 50 %"))
        assert 0 < fine < coarse


def test_a_row_can_begin_with_the_model_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FixLL+SPL at the paper's gamma, from the model of a tenth of it, which is measured first."""
    looser, spl = recipe.LOOSER, next(row for row in recipe.TABLES["table5"][1]() if row.slug == "fixll-spl")
    quick = replace(recipe.SCALES["quick"]["mnist_d2"], begins={"fixll+spl": looser})
    monkeypatch.setattr("earmark.recipes.deep_fidelity.bench.SCALES", {"quick": {"mnist_d2": quick}})
    bench = recipe.Bench("mnist_d2", "quick", 0, None, tmp_path)
    begun = bench.measure(spl)["history"][0]["spl"]
    assert bench.store.path(f"{looser.slug}.json").exists()
    monkeypatch.undo()
    usual = recipe.Bench("mnist_d2", "quick", 0, None, tmp_path / "usual")
    assert begun != usual.measure(spl)["history"][0]["spl"]


@pytest.mark.parametrize(
    ("setting", "host", "tuned"),
    [
        ("mnist_d2", (20, (10,)), 20),
        ("mnist_d3", (20, (10,)), 20),
        ("cifar10_resnet18_d64", (50, (25,)), 50),
        ("cifar100_wrn28_10_d640", (100, (50,)), 50),
    ],
)
def test_the_full_scale_keeps_the_schedules_of_the_released_code(
    setting: str, host: tuple[int, tuple[int, ...]], tuned: int
) -> None:
    """Epochs, when the rate falls, and the rate at the beginning and at the end, of every row of every table."""
    effort = recipe.SCALES["full"][setting]
    fresh = {"scratch", "fixll+scratch", "polytope"}
    assert (effort.host.epochs, effort.host.milestones, effort.host.lr) == (*host, 1e-3)
    for row in (row for _, rows in recipe.TABLES.values() for row in rows() if row.method):
        run = effort.run(row, row.method in fresh)
        epochs, milestones = (
            host if row.method in fresh else (tuned, ()) if row.method in ("ftll", "ftal") else (50, (25,))
        )
        lr = 1e-3 if row.method in fresh else 1e-4
        assert (run.epochs, run.milestones, run.lr) == (epochs, milestones, lr)
        assert run.rate(run.epochs - 1) == pytest.approx(lr if not milestones else lr / 10)
        assert (run.batch_size, run.triggers_per_batch, run.optimizer) == (32, 4, "adam")
        assert run.batchnorm == ("train" if row.method in fresh else "frozen")
    told = " ".join(effort.notes)
    assert f"{host[0]} for the host and for models from scratch, the rate divided by 10 after {host[1][0]}" in told
    assert f"{tuned} at a constant rate for FTLL and FTAL" in told


def test_every_printed_row_has_a_row_here() -> None:
    """No number of Tables 4 to 8 is left out: labels match the printed ones exactly."""
    for name, settings in recipe.printed_tables().items():
        ours = {row.label for row in recipe.TABLES[name][1]()}
        for setting, rows in settings.items():
            assert setting in recipe.TABLES[name][0]
            assert set(rows) <= ours


def test_mistakes_are_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    with pytest.raises(BadInput, match="did you mean 'table4'"):
        recipe.reproduce("tabel4", "quick", None, out)
    with pytest.raises(BadInput, match="scale"):
        recipe.reproduce("table4", "huge", None, out)
    with pytest.raises(BadInput, match="EARMARK_DATA"):
        recipe.reproduce("table4", "cpu", None, out)


def test_rows_of_another_effort_are_not_mixed_in(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe.Bench("mnist_d2", "quick", 0, None, out)
    quick = dict.fromkeys(recipe.SETTINGS, replace(recipe.SCALES["quick"]["mnist_d2"], triggers=21))
    monkeypatch.setattr("earmark.recipes.deep_fidelity.bench.SCALES", {"quick": quick})
    with pytest.raises(BadInput, match="another effort"):
        recipe.Bench("mnist_d2", "quick", 0, None, out)
