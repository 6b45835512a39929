"""The recipe of Fan et al. 2021 at its quick scale: every table runs, resumes, and says what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from earmark.errors import BadInput
from earmark.recipes import deepipr as recipe
from earmark.recipes.recipe import printed_tables
from earmark.reports import Reproduction
from earmark.reports.figures import of_reproduction, to_png

SETTING = "cifar10_alexnet"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deepipr")


def run(table: str, out: Path) -> dict[str, Any]:
    (found,) = recipe.reproduce(table, "quick", None, out, settings=[SETTING])
    return found


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["method"]: row["metrics"] for row in found["rows"]}


def test_table_7_has_each_scheme_on_its_own_task_and_on_the_targets_and_is_measured_once(out: Path) -> None:
    found = run("table7", out)
    row = rows(found)["V2, group norm"]
    assert (row["acc"]["paper"], row["kappa"]["paper"], row["detected"]["paper"]) == (89.44, -1.44, 100)
    base = rows(found)["baseline, group norm"]["acc"]["ours"][0]
    assert row["kappa"]["ours"][0] == pytest.approx(row["acc"]["ours"][0] - base)
    assert row["detected"]["ours"][0] > 90
    assert row["log10_p"]["ours"][0] < -6
    assert len(found["rows"]) == 7 * 3
    models = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert run("table7", out) == found
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == models
    assert not list(out.rglob("*.checkpoint*"))


@pytest.mark.parametrize("table", sorted(set(recipe.TABLES) - {"table7", "figure15"}))
def test_every_table_runs_and_can_be_read_and_drawn(table: str, out: Path) -> None:
    found = run(table, out)
    text = Reproduction.from_dict(found).to_markdown()
    assert all(row["method"] in text for row in found["rows"])
    figures = of_reproduction(found, out)
    drawn = {"figure18": {"convergence"}, **{name: {"distributions"} for name in ("figure3", "figure5", "figure19")}}
    assert set(figures) == drawn.get(table, {"curves"} if found["over"] else set())
    assert all(to_png(figure).startswith(b"\x89PNG") for figure in figures.values())


def test_figures_14_and_15_are_one_measurement_on_the_two_networks() -> None:
    alexnet, resnet = recipe.TABLES["figure14"], recipe.TABLES["figure15"]
    assert alexnet.rows is resnet.rows
    assert set(alexnet.settings) | set(resnet.settings) == set(recipe.SETTINGS)
    assert not set(alexnet.settings) & set(resnet.settings)


def test_forgeries_pass_as_published_or_cost_accuracy_and_no_judge_accepts_one(out: Path) -> None:
    """Those that are solved for are exact, with bits of the forger's choice; none is minted by the forger's key."""
    row = rows(run("table8", out))
    assert all(metrics["judged"]["ours"] == [0.0] for metrics in row.values())
    solved = row["solved on V1, batch norm"]
    assert solved["published"]["ours"] == [100.0]
    assert abs(solved["forged_drop"]["ours"][0]) < 1e-6


def test_conventional_watermarks_are_forged_on_the_very_network_and_no_judge_accepts_one(out: Path) -> None:
    row = rows(run("table2", out))
    for label, least in (("Uchida", 100), ("Triggers", 80)):
        found = {name: value["ours"][0] for name, value in row[label].items()}
        assert (found["forged"] >= least, found["published"], found["judged"]) == (True, 100, 0)
    uchida = row["Uchida"]
    assert (uchida["acc"]["paper"], uchida["real"]["paper"], uchida["forged"]["paper"]) == (90.97, 100, 100)
    assert uchida["real"]["ours"][0] > 70


def test_what_is_forged_looks_like_what_it_started_from(out: Path) -> None:
    """Figures 3 and 5: means and spreads are hardly apart."""
    for table, far in (("figure3", 0.05), ("figure5", 0.1)):
        honest, forged = rows(run(table, out)).values()
        for what in ("mean", "std"):
            assert forged[what]["ours"][0] == pytest.approx(honest[what]["ours"][0], abs=far)


def test_flipping_no_scale_changes_nothing(out: Path) -> None:
    bench = recipe.Bench(SETTING, "quick", 0, None, out)
    one = recipe.Protection("V1", "bn")
    points = bench.flipped(one)
    assert points[0]["val_acc"] == bench.measured(one)["acc"]


def test_both_eras_differ_in_what_the_paper_leaves_open(out: Path) -> None:
    old, new = recipe.SETTINGS[SETTING], recipe.SETTINGS[f"{SETTING}-2020"]
    assert (old.weight_decay, new.weight_decay) == (5e-4, 1e-4)
    assert old.mean_std != new.mean_std
    assert recipe.Bench(f"{SETTING}-2020", "quick", 0, None, out).run.weight_decay == 1e-4


def test_the_printed_differences_are_those_of_the_printed_accuracies() -> None:
    """The baseline of V1 has batch norm, that of V2 and V3 group norm; the paper rounds to a hundredth."""
    norms = {"V1": "batch norm", "V2": "group norm", "V3": "group norm"}
    for setting in printed_tables("deepipr")["table7"].values():
        for label, row in setting.items():
            if "kappa" in row:
                base = setting[label.replace(label[:2], "baseline", 1)]
                assert norms[label[:2]] in label
                assert row["acc"] - base["acc"] == pytest.approx(row["kappa"], abs=0.02)


def test_a_table_that_does_not_exist_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'table7'"):
        recipe.reproduce("tabel7", "quick", None, tmp_path)


def test_a_table_without_a_setting_at_a_scale_says_to_take_another_scale(tmp_path: Path) -> None:
    """Figure 15 is of residual networks, which no two CPU cores train."""
    with pytest.raises(BadInput, match=r"figure15 covers .*resnet.*, of which scale cpu has none; take another scale"):
        recipe.reproduce("figure15", "cpu", None, tmp_path)
