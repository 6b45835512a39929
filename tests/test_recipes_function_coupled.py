"""The recipe of Wen et al. 2023 at its quick scale: every kind of table runs, resumes, and says what is printed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark.core import Data, Images
from earmark.errors import BadInput
from earmark.files import read_json
from earmark.keys import MarkKey
from earmark.recipes import function_coupled as recipe
from earmark.reports import Reproduction
from earmark.reports.figures import of_reproduction, to_png

SETTING = "mnist_lenet5"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("function-coupled")


def run(table: str, out: Path) -> dict[str, Any]:
    (found,) = recipe.reproduce(table, "quick", None, out, settings=[SETTING])
    return found


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in found["rows"]}


def test_table_1_has_the_papers_number_beside_ours(out: Path) -> None:
    pair = rows(run("table1", out))["Host"]["metrics"]["val_acc"]
    assert pair["paper"] == 99.14
    assert pair["ours"][0] > 50


def test_the_strategies_are_compared_over_every_share_pruned(out: Path) -> None:
    found = run("figure11", out)
    table = rows(found)
    assert {"Direct", "Direct, no strategies", "Direct, keyed groups"} <= set(table)
    shares = [0.0, *recipe.SCALES["quick"][SETTING].thief.shares]
    assert all([point["share"] for point in seed] == shares for row in table.values() for seed in row["curves"])
    assert table["Direct"]["metrics"]["log10_p"]["ours"] == [None], "one target class has no null"
    assert table["Direct, keyed groups"]["metrics"]["log10_p"]["ours"][0] < 0
    figure = of_reproduction(found)["curves"]
    assert to_png(figure) == to_png(of_reproduction(found)["curves"])


def test_a_measured_row_is_not_measured_again(out: Path) -> None:
    first = run("figure11", out)
    models = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert models
    assert run("figure11", out) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == models
    assert not list(out.rglob("*.checkpoint*"))


def test_thieves_overwrite_and_learn_from_answers(out: Path) -> None:
    overwritten = rows(run("table3", out))["Direct"]["metrics"]
    assert overwritten["asr"]["paper"] == overwritten["new_asr"]["paper"] == 100
    answered = {row.split(", ")[-1] for row in rows(run("extraction", out))}
    assert answered == {"soft labels", "hard labels", "noise labels"}


def test_going_beyond_is_compared_with_the_paper_s_way_under_every_attack(out: Path) -> None:
    table = rows(run("beyond", out))
    blends = "Invisible, r = 0.5, keyed groups"
    assert set(table) == {"Direct, keyed groups", blends, f"{blends}, plus"}
    for row in table.values():
        assert 0 <= row["metrics"]["transferred_won"]["ours"][0] <= 100
        assert row["metrics"]["soft_log10_p"]["ours"][0] <= 0


def test_what_was_tried_to_lift_it_differs_in_one_thing_each(out: Path) -> None:
    plus = recipe.Marking("invisible", labels="groups", how="plus")
    effort = recipe.SCALES["quick"][SETTING]
    usual, changed = plus.embed(effort), {}
    for how in ("plus-epoch", "plus-normal", "plus-margin", "plus-pairs"):
        other = replace(plus, how=how).embed(effort)
        changed[how] = {name for name in vars(usual) if getattr(usual, name) != getattr(other, name)}
    assert changed["plus-epoch"] == changed["plus-normal"] == {"masking"}
    assert changed["plus-margin"] == {"terms"}
    assert changed["plus-pairs"] == set()
    mint = replace(plus, how="plus-pairs").mint(effort, 10)
    assert mint.count == 45 * mint.group
    assert set(rows(run("lifts", out))) == {f"{plus.label}{more}" for more in LIFTS} | {"Direct, keyed groups, margin"}


LIFTS = ("", ", a mask an epoch", ", perturbed weights", ", margin", ", all pairs")


def test_a_thief_moves_to_a_task_that_the_row_names(out: Path) -> None:
    row = rows(run("figure7", out))["Direct, to digits"]
    assert {"val_acc", "new_acc", "asr"} <= row["metrics"].keys()


@pytest.mark.parametrize("setting", list(recipe.SETTINGS))
def test_every_network_answers_its_images(setting: str, tmp_path: Path) -> None:
    bench = recipe.Bench(setting, "quick", 0, None, tmp_path)
    bench._host = bench._fresh()
    point = bench.look(bench._host, bench.mark(recipe.Marking(labels="groups")))
    assert 0 <= (point["val_acc"] or 0) <= 100


@pytest.mark.parametrize(
    ("scale", "setting", "classes", "each"),
    [
        ("cpu", "mnist_lenet5", 10, 5_000),
        ("cpu", "cifar10_resnet18", 10, 4_700),
        ("cpu", "cifar100_vgg16", 100, 460),
        ("full", "cifar10_resnet18", 10, 4_700),
        ("full", "cifar100_vgg16", 100, 460),
        ("full", "tinyimagenet_resnet18", 200, 470),
    ],
)
def test_the_images_of_a_class_are_enough_for_every_marking(scale: str, setting: str, classes: int, each: int) -> None:
    """Of owners and thieves, with what a random draw and the images set aside leave of a class at the least."""
    pixels = torch.zeros(classes * each, 1, 1, 1, dtype=torch.uint8)
    images = Images(pixels, torch.arange(classes).repeat(each), classes)
    effort = recipe.SCALES[scale][setting]
    for labels, other, seed in itertools.product(("target", "groups"), (False, True), range(effort.seeds)):
        key = MarkKey((seed + 1_000 * other).to_bytes(32, "big"))
        mint = recipe.Marking(labels=labels).mint(effort, classes, other)
        assert len(mint.draw(key, Data(images, images)) or ()) == mint.carriers_needed


def test_what_would_measure_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="table4 covers cifar10_resnet18 at this scale, not mnist_lenet5"):
        recipe.reproduce("table4", "quick", None, tmp_path, settings=[SETTING])
    with pytest.raises(BadInput, match="at least one run"):
        recipe.reproduce("table1", "quick", None, tmp_path, seeds=0)


def test_trials_are_drawn_from_the_state_before_on(out: Path) -> None:
    found = run("figure5", out)
    trials = recipe.SCALES["quick"][SETTING].thief.trials
    assert [point["trial"] for point in found["rows"][0]["curves"][0]] == [float(at) for at in range(trials + 1)]
    assert found["rows"][0]["metrics"].keys() == {"val_acc", "asr", "won", "log10_p"}
    assert Reproduction.from_dict(found).to_markdown()


def test_the_owner_never_sees_what_is_set_aside(out: Path) -> None:
    bench = recipe.Bench(SETTING, "quick", 0, None, out)
    assert len(bench.aside) == recipe.SCALES["quick"][SETTING].aside
    assert len(bench.aside) + len(bench.data.train) == recipe.SCALES["quick"][SETTING].images
    owned = {bytes(image.numpy().tobytes()) for image in bench.data.train.pixels}
    assert not owned & {bytes(image.numpy().tobytes()) for image in bench.aside.pixels}


def test_a_thief_of_the_same_scheme_has_other_triggers_and_another_target(out: Path) -> None:
    bench = recipe.Bench(SETTING, "quick", 0, None, out)
    owner, thief = (bench.mark(recipe.Marking(), other) for other in (False, True))
    assert owner.labels[0] != thief.labels[0]
    assert not torch.equal(owner.images, thief.images)


def test_every_marking_has_a_file_and_a_label_of_its_own() -> None:
    every = [
        recipe.Marking(style, ratio, labels, how)
        for style, ratio in (("direct", 0.5), ("invisible", 0.5), ("invisible", 0.9))
        for labels in ("target", "groups")
        for how in ("enhanced", "plain", "fresh", "2023-02", "2023-06", "kept")
    ]
    assert len({marking.slug for marking in every}) == len({marking.label for marking in every}) == len(every)


def test_a_folder_of_another_effort_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe.Bench(SETTING, "quick", 0, None, tmp_path)
    assert read_json(tmp_path / "quick" / SETTING / "seed0" / "about.json")["seed"] == 0
    effort = recipe.SCALES["quick"][SETTING]
    monkeypatch.setitem(recipe.SCALES["quick"], SETTING, replace(effort, drop=0.3))
    with pytest.raises(BadInput, match="another effort"):
        recipe.Bench(SETTING, "quick", 0, None, tmp_path)


@pytest.mark.parametrize(("table", "scale", "setting"), [("tabel1", "quick", SETTING), ("table1", "cpus", SETTING)])
def test_unknown_names_are_answered_with_the_nearest(table: str, scale: str, setting: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean"):
        recipe.reproduce(table, scale, None, tmp_path, settings=[setting])


def test_real_images_are_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    with pytest.raises(BadInput, match="mnist/"):
        recipe.reproduce("table1", "cpu", None, tmp_path, settings=[SETTING])


def test_a_thief_s_images_are_missed_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    with pytest.raises(BadInput, match="no fashion-mnist/"):
        recipe.reproduce("figure7", "cpu", tmp_path, tmp_path, settings=[SETTING])
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(BadInput, match="no cifar100/ or tinyimagenet100-32/"):
        recipe.reproduce("table4", "cpu", tmp_path, tmp_path)
