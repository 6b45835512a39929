"""Table 4 of Wen et al. 2023 at the quick scale: every scheme is marked from one host and attacked alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark import schemes
from earmark.core import Data, Images, rng
from earmark.embed import Backdoor
from earmark.keys import MarkKey
from earmark.marks import OneClass, TriggerSet
from earmark.models import built
from earmark.recipes import function_coupled as recipe
from earmark.recipes.recipe import printed_tables
from earmark.recipes.rows import compared
from earmark.reports import Reproduction

SETTING = "mnist_lenet5"
"""The smallest of the networks; the rows are made of any setting's bench."""
EFFORT = recipe.SCALES["quick"][SETTING]
LABELS = [row.label for row in recipe.BASELINES]
PRINTED = {
    "Protecting IP": (100.0, 99.95, 89.00, 70.0, 89.32, 85.10),
    "Turning weakness into strength": (100.0, 99.85, 84.21, 41.0, 74.56, 82.00),
    "Exponential weighting": (100.0, 99.92, 82.00, 38.0, 83.75, 83.30),
    "Frontier stitching": (100.0, 99.90, 43.10, 30.0, 83.62, 68.40),
    "Entangled-victim": (87.41, 98.76, 95.98, 63.73, 41.71, None),
    "Entangled-extract": (75.43, 85.23, 16.14, 8.89, 58.22, None),
    "Direct": (100.0, 99.86, 100.0, 78.20, 100.0, 100.0),
    "Invisible, r = 0.5": (100.0, 99.93, 100.0, 78.90, 100.0, 100.0),
}
"""As the paper has them: success, accuracy preserved, fine-tuning, transfer, pruning, overwriting."""
COLUMNS = ("asr", "preserved", "fine_tuned", "transferred", "pruned", "overwritten")
SCHEMES: Mapping[str, Callable[[], schemes.Scheme[TriggerSet]]] = {
    "Protecting IP": schemes.zhang_content,
    "Turning weakness into strength": schemes.adi,
    "Exponential weighting": schemes.exponential_weighting,
    "Frontier stitching": schemes.frontier_stitching,
    "Entangled-victim": schemes.entangled,
}
KEYED = {"Turning weakness into strength", "Exponential weighting"}
"""The baselines whose labels the key draws, as their papers draw them at random."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> recipe.Bench:
    return recipe.Bench(SETTING, "quick", 0, None, tmp_path_factory.mktemp("table4"))


@pytest.fixture(scope="module")
def table(bench: recipe.Bench) -> dict[str, dict[str, Any]]:
    printed = printed_tables("function-coupled")["table4"]["cifar10_resnet18"]
    rows = recipe.TABLES["table4"].rows(bench)
    return {row.label: compared([row], printed, bench.store.folder) for row in rows}


def metrics(row: dict[str, Any]) -> dict[str, float | None]:
    return {name: pair["ours"][0] for name, pair in row["metrics"].items()}


def test_the_papers_eight_rows_stand_in_its_order_with_all_that_it_prints(table: dict[str, dict[str, Any]]) -> None:
    assert [label for label in table if "keyed groups" not in label] == list(PRINTED)
    for label, numbers in PRINTED.items():
        assert tuple(table[label]["metrics"][name]["paper"] for name in COLUMNS) == numbers


def test_every_row_has_a_number_of_ours_in_every_column(table: dict[str, dict[str, Any]]) -> None:
    evidence = {"log10_p", "attacked_log10_p"}
    for label, row in table.items():
        ours = metrics(row)
        shares = [value for name, value in ours.items() if name not in evidence]
        assert all(value is not None and 0 <= value < 200 for value in shares), label
        assert {*COLUMNS, *evidence, "host_asr", "pruned_val_acc"} <= set(ours)


@pytest.mark.parametrize("label", list(SCHEMES))
def test_a_baseline_is_really_marked(table: dict[str, dict[str, Any]], label: str) -> None:
    """Its model answers the triggers as the mark says, and the host that it was made from does not.

    The copy is left out: after its one epoch at this scale it gives everything one class, and that is the mark's.
    """
    ours = metrics(table[label])
    assert (ours["asr"] or 0) >= (ours["host_asr"] or 0) + 40


def test_evidence_is_claimed_where_the_key_draws_the_labels_and_nowhere_else(
    table: dict[str, dict[str, Any]],
) -> None:
    for label in LABELS:
        ours = metrics(table[label])
        before, after = ours["log10_p"], ours["attacked_log10_p"]
        if label in KEYED:
            assert before is not None
            assert after is not None
            assert before < -6
            assert before <= after <= 0
        else:
            assert (before, after) == (None, None)


def test_a_host_answers_half_of_the_frontier_as_the_mark_has_it(table: dict[str, dict[str, Any]]) -> None:
    """By construction, so that the paper's 43.1 % after fine-tuning is what an unmarked model has."""
    assert metrics(table["Frontier stitching"])["host_asr"] == 50


def test_the_second_time_everything_is_read(
    bench: recipe.Bench, table: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    again = recipe.Bench(SETTING, "quick", 0, None, bench.store.folder.parents[2])
    monkeypatch.setattr("earmark.embed.backdoor.fit", refused)
    monkeypatch.setattr(again, "_train_host", refused)
    assert [row.metrics for row in recipe.TABLES["table4"].rows(again)] == [metrics(row) for row in table.values()]
    for row in recipe.BASELINES:
        model = again.marked(row)
        assert again.look(model, again.mark(row))["asr"] == metrics(table[row.label])["asr"]


@pytest.mark.parametrize("label", list(SCHEMES))
def test_a_row_is_the_named_scheme_in_our_run(label: str) -> None:
    (row,) = (row for row in recipe.BASELINES if row.label == label)
    scheme, embed = SCHEMES[label](), row.embed(EFFORT)
    assert isinstance(row.mint(EFFORT, 10), type(scheme.mint))
    assert isinstance(scheme.embed, Backdoor)
    assert embed == replace(scheme.embed, settings=EFFORT.embed, watch=0)


@pytest.mark.parametrize("row", recipe.BASELINES, ids=LABELS)
def test_the_run_is_ours_and_so_is_the_number_of_triggers(row: recipe.Baseline | recipe.Copied) -> None:
    ours = recipe.Marking()
    assert row.embed(EFFORT).settings == ours.embed(EFFORT).settings
    owned, stolen = row.mint(EFFORT, 10), row.mint(EFFORT, 10, other=True)
    assert owned.count == stolen.count == ours.mint(EFFORT, 10).count
    assert owned.lesson_count in (0, EFFORT.teaching)


@pytest.mark.parametrize("row", recipe.BASELINES, ids=LABELS)
def test_a_thief_s_mark_is_another(bench: recipe.Bench, row: recipe.Baseline | recipe.Copied) -> None:
    owned, stolen = bench.mark(row), bench.mark(row, other=True)
    assert not torch.equal(owned.images, stolen.images)
    if isinstance(row.mint(EFFORT, 10).labels, OneClass):
        assert set(owned.labels.tolist()).isdisjoint(stolen.labels.tolist())


def test_the_copy_learns_no_trigger_and_shares_the_victims_mark(bench: recipe.Bench) -> None:
    copy = recipe.BASELINES[-1]
    assert isinstance(copy, recipe.Copied)
    assert bench.mark(copy).digest() == bench.mark(copy.victim).digest()
    copied, victim = bench.marked(copy).state_dict(), bench.marked(copy.victim).state_dict()
    assert any(not torch.equal(copied[name], victim[name]) for name in victim)
    student = bench._student(bench.marked(copy.victim), copy.answers)(bench.store.checkpoint("test"))
    assert all(torch.equal(value, copied[name]) for name, value in student.state_dict().items())


def test_a_found_mark_is_kept_though_its_host_is_not_what_it_was(bench: recipe.Bench) -> None:
    """The last bits of a gradient are another machine's, the adversaries are not."""
    frontier = next(row for row in recipe.BASELINES if row.label == "Frontier stitching")
    kept, again = bench.mark(frontier), recipe.Bench(SETTING, "quick", 0, None, bench.store.folder.parents[2])
    again._host = built(again._fresh, rng(7))
    assert again.mark(frontier).digest() == kept.digest()


def test_slugs_are_files_of_their_own_and_ours_are_as_measured() -> None:
    slugs = [row.slug for row in recipe.BASELINES]
    assert len({*slugs}) == len(slugs)
    assert all(slug == Path(slug).name for slug in slugs)
    assert recipe.Marking().slug == "direct-target-enhanced"
    assert recipe.Marking("invisible", 0.5, "groups").slug == "invisible0.5-groups-enhanced"


@pytest.mark.parametrize(("scale", "each"), [("cpu", 4_700), ("full", 4_700)])
def test_cifar10_has_enough_images_of_a_class_for_every_baseline(scale: str, each: int) -> None:
    images = Images(torch.zeros(10 * each, 3, 1, 1, dtype=torch.uint8), torch.arange(10).repeat(each), 10)
    effort = recipe.SCALES[scale]["cifar10_resnet18"]
    for row in recipe.BASELINES:
        for other in (False, True):
            mint = row.mint(effort, 10, other)
            if mint.has_carriers and row.label != "Frontier stitching":
                drawn = mint.draw(MarkKey(bytes(32)), Data(images, images))
                assert len(drawn or ()) == mint.carriers_needed


def test_the_report_says_what_each_column_and_each_row_is(table: dict[str, dict[str, Any]]) -> None:
    notes = recipe.TABLES["table4"].notes
    found = {"table": "table4", "setting": "cifar10_resnet18", "scale": "quick", "rows": list(table.values())}
    report = Reproduction.from_dict({**found, "notes": notes})
    headings = report.to_table().columns
    assert not {*COLUMNS, "host_asr", "log10_p", "attacked_log10_p"} & set(headings), "every metric has a heading"
    text = " ".join(notes)
    assert all(f"{label}: " in text for label in LABELS)
    assert "| Protecting IP | 100 / " in report.to_markdown()
