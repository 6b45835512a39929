"""The recipe at its quick scale: every table runs, resumes, and says what the paper printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from earmark.bench.hardware import hardware
from earmark.data import CropFlip
from earmark.errors import BadInput
from earmark.recipes import deep_fidelity as recipe
from earmark.recipes.recipe import printed_tables

QUICK = recipe.SCALES["quick"]["mnist_d2"]
FEW = replace(
    QUICK,
    images=64,
    test=50,
    host=QUICK.host.but(epochs=2, milestones=(1,)),
    embed=QUICK.embed.but(epochs=1),
    scratch=QUICK.scratch.but(epochs=1),
    watch=50,
)
"""The quick scale with a few steps a row, so that every table can run."""


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for setting in recipe.SETTINGS:
            patch.setitem(recipe.SCALES["quick"], setting, FEW)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: tables share the hosts and rows that they have in common."""
    return tmp_path_factory.mktemp("recipe")


def measured(table: str, setting: str, out: Path) -> dict[str, Any]:
    """The table's one result, after what holds of every table."""
    (result,) = recipe.reproduce(table, "quick", None, out, settings=[setting])
    assert (result["table"], result["setting"], result["scale"]) == (table, setting, "quick")
    assert [row["method"] for row in result["rows"]] == [row.label for row in recipe.PLANS[table]]
    paper = printed_tables("deep-fidelity").get(table, {}).get(setting, {})
    for row in result["rows"]:
        told = {name: pair["paper"] for name, pair in row["metrics"].items() if pair["paper"] is not None}
        assert told == {name: value for name, value in paper.get(row["method"], {}).items() if value is not None}
        for name in ("val_acc", "trig_acc", "agreement_test", "agreement_corrupted", "agreement_ood"):
            assert 0 <= row["metrics"][name]["ours"][0] <= 100
        assert (out / row["cloud"]).is_file()
    return result


def metric(result: dict[str, Any], label: str, name: str) -> Any:
    row = next(row for row in result["rows"] if row["method"] == label)
    return row["metrics"][name]


def ours(result: dict[str, Any], name: str) -> dict[str, float]:
    return {row["method"]: row["metrics"][name]["ours"][0] for row in result["rows"]}


def only_fixed_prototypes_stay(result: dict[str, Any]) -> bool:
    """Of rows without an attack: the host's, those of FixLL, and none besides."""
    moved = ours(result, "prototype_change")
    return {label for label, by in moved.items() if by == 0} == {at for at in moved if at == "Host" or "FixLL" in at}


def test_the_quick_scale_learns_the_task_and_the_triggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe.SCALES["quick"], "cifar10_resnet18_d64", QUICK)
    bench = recipe.Bench("cifar10_resnet18_d64", "quick", 0, None, tmp_path)
    host, marked = (bench.measure(row) for row in recipe.PLANS["table4"] if row.label in ("Host", "FTAL"))
    assert host["val_acc"] > 0.5
    assert marked["trig_acc"] > 0.5 > host["trig_acc"]


def test_table_4_sets_every_method_beside_the_paper(out: Path) -> None:
    table = measured("table4", "mnist_d2", out)
    assert [row["method"] for row in table["rows"]] == ["Host", *recipe.LABELS.values()]
    assert metric(table, "FTAL", "val_acc")["paper"] == 99.24
    assert metric(table, "FixLL+PFL", "ave_pfl")["paper"] == 0.4031
    assert metric(table, "Scratch", "ave_pfl")["paper"] is None
    assert only_fixed_prototypes_stay(table)
    assert metric(table, "FTLL", "ave_pfl")["ours"] == [0.0]
    assert metric(table, "Host", "twl")["ours"] == [0.0]


def test_table_5_holds_pfl_tighter_and_spl_looser(out: Path) -> None:
    table = measured("table5", "cifar10_resnet18_d64", out)
    assert only_fixed_prototypes_stay(table)
    pfl, spl = ours(table, "ave_pfl"), ours(table, "ave_spl")
    assert pfl["FixLL+PFL, beta = 0.1"] < pfl["FixLL+PFL"]
    assert spl["FixLL+SPL"] < spl["FixLL+SPL, gamma = 10"]


def test_table_6_takes_m_triggers_a_step(out: Path) -> None:
    table = measured("table6", "mnist_d2", out)
    assert only_fixed_prototypes_stay(table)
    for name in ("FixLL+TWL", "FixLL+PFL", "FixLL+SPL"):
        assert len({ours(table, "twl")[f"{name}, m = {m}"] for m in (4, 16, 32)}) == 3
    usual = recipe.Bench("mnist_d2", "quick", 0, None, out).measure(recipe.Plan("FixLL+TWL", "fixll+twl"))
    assert ours(table, "twl")["FixLL+TWL, m = 16"] == pytest.approx(usual["twl"])


def test_table_7_marks_with_abstract_art(out: Path) -> None:
    table = measured("table7", "cifar10_resnet18_d64", out)
    assert only_fixed_prototypes_stay(table)
    bench = recipe.Bench("cifar10_resnet18_d64", "quick", 0, None, out)
    assert len({bench.mark(kind).digest() for kind in ("noise", "abstract", "abstract+string")}) == 3
    losses = ours(table, "twl")
    for label in ("FTAL", "FTAL+TWL", "FixLL", "FixLL+TWL", "FixLL+PFL", "FixLL+SPL"):
        assert 0 < losses[f"{label}, abstract"] != losses[f"{label}, abstract+string"] > 0


@pytest.mark.parametrize("setting", ["cifar10_resnet18_d64", "cifar100_wrn28_10_d640"])
def test_table_8_attacks_what_was_embedded(out: Path, setting: str) -> None:
    table = measured("table8", setting, out)
    assert len(table["rows"]) == 15
    for label in ("FixLL", "FixLL+PFL"):
        fine, coarse = (metric(table, f"{label}, {how}", "twl")["ours"][0] for how in ("half precision", "pruned 50 %"))
        assert 0 < fine < coarse


def test_what_is_there_is_not_measured_again(out: Path) -> None:
    list(recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"]))
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert files
    list(recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"]))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == files
    assert not list(out.rglob("*.checkpoint.safetensors"))


def test_a_table_names_the_machines_that_measured_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie there keep theirs; what another table measured has no part in it."""
    monkeypatch.setattr("earmark.bench.store.hardware", lambda: "one abacus")
    bench = recipe.Bench("mnist_d2", "quick", 0, None, out)
    bench.measure(replace(recipe.LOOSER, weights={"gamma": 10.0}))
    (again,) = recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"])
    assert again["hardware"] == hardware()
    bench.store.path("ftll.json").unlink()
    (both,) = recipe.reproduce("table4", "quick", None, out, settings=["mnist_d2"])
    assert both["hardware"] == f"{hardware()}; one abacus"


def test_a_row_can_begin_with_the_model_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FixLL+SPL at the paper's gamma, from the model of a hundredth of it, which is measured first."""
    looser, spl = recipe.LOOSER, next(row for row in recipe.PLANS["table5"] if row.slug == "fixll-spl")
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
    for row in (row for rows in recipe.PLANS.values() for row in rows if row.method):
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
    for name, settings in printed_tables("deep-fidelity").items():
        ours = {row.label for row in recipe.PLANS[name]}
        for setting, rows in settings.items():
            assert setting in recipe.TABLES[name].settings
            assert set(rows) <= ours


def test_mistakes_are_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    with pytest.raises(BadInput, match="did you mean 'table4'"):
        recipe.reproduce("tabel4", "quick", None, out)
    with pytest.raises(BadInput, match="scale"):
        recipe.reproduce("table4", "huge", None, out)
    with pytest.raises(BadInput, match="EARMARK_DATA"):
        recipe.reproduce("table4", "cpu", None, out)
    with pytest.raises(BadInput, match=r"all tables together cover .*mnist_d2.* at this scale, not cifar100"):
        recipe.reproduce(None, "cpu", None, out, settings=["cifar100_wrn28_10_d640"])


@pytest.mark.parametrize(("shrink", "pad"), [(1, 4), (2, 2)])
def test_crops_shrink_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shrink: int, pad: int) -> None:
    """The same share of an image is cropped away, whatever its size."""
    effort = replace(FEW, augment=True, shrink=shrink)
    monkeypatch.setitem(recipe.SCALES["quick"], "cifar10_resnet18_d64", effort)
    bench = recipe.Bench("cifar10_resnet18_d64", "quick", 0, None, tmp_path)
    assert bench.augment == CropFlip(pad=pad)
    monkeypatch.setitem(recipe.SCALES["quick"], "mnist_d2", effort)
    assert recipe.Bench("mnist_d2", "quick", 0, None, tmp_path).augment is None


def test_rows_of_another_effort_are_not_mixed_in(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe.Bench("mnist_d2", "quick", 0, None, out)
    quick = dict.fromkeys(recipe.SETTINGS, replace(recipe.SCALES["quick"]["mnist_d2"], triggers=21))
    monkeypatch.setattr("earmark.recipes.deep_fidelity.bench.SCALES", {"quick": quick})
    with pytest.raises(BadInput, match="another effort"):
        recipe.Bench("mnist_d2", "quick", 0, None, out)
