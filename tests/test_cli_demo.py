"""The demonstration: what it must prove, and that its status comes from its verdicts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from earmark.cli import app
from earmark.core import Verdict
from earmark.evidence import Claim, judge
from earmark.files import load_tensors
from earmark.models import PlainCNN
from earmark.recipes import demo as recipe
from earmark.recipes.demo import KEPT, WIDTH, Story, Trial

ROWS = {
    ("released model", "owner", True),
    ("fine-tuned copy", "owner", True),
    ("pruned copy (20 %)", "owner", True),
    ("fp16 copy", "owner", True),
    ("int8 copy", "owner", True),
    ("overwritten copy", "owner", True),
    ("overwritten copy", "thief", False),
    ("released model", "thief", False),
    ("released model", "forger", False),
    ("innocent model", "owner", False),
}


@dataclass
class Told:
    folder: Path
    story: Story
    found: Any


def run(folder: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["demo", "--out", str(folder), *more])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("demo")
    stories: list[Story] = []

    def tell(*given: Any) -> Story:
        stories.append(recipe.tell(*given))
        return stories[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("earmark.cli.demo.tell", tell)
        found = run(folder, "--json")
    return Told(folder, stories[0], found)


def test_the_true_owner_wins_and_everybody_else_loses(told: Told) -> None:
    assert told.found.exit_code == 0, told.found.stderr
    rows = json.loads((told.folder / "verdicts.json").read_text())
    assert {(row["suspect"], row["claimant"], row["accepted"]) for row in rows} == ROWS
    for row in rows:
        assert row["reason"]
        assert (row["p_value"] is not None and row["p_value"] <= 1e-6) or not row["accepted"]
    host = told.story.fidelity.host_val_acc
    assert all(row["accuracy"] >= host - KEPT for row in rows if row["accepted"])


def test_json_is_all_that_standard_output_holds(told: Told) -> None:
    value = json.loads(told.found.stdout)
    assert value["success"] is True
    assert value["verdicts"] == json.loads((told.folder / "verdicts.json").read_text())
    assert "The judge rules" in told.found.stderr


def test_the_forger_passes_a_plain_test_and_fails_because_his_key_does_not_mint_his_mark(told: Told) -> None:
    assert told.story.forgery.accepted is True
    (row,) = [t for t in told.story.trials if t.claimant == "forger"]
    assert row.verdict.details["step"] == "re-minting"


def test_marking_moves_no_prototype_and_little_else(told: Told) -> None:
    assert told.story.fidelity.prototype_change == 0.0
    assert told.story.fidelity.trig_acc == 1.0
    assert told.story.fidelity.agreement["test"] > 0.95


def test_the_page_shows_each_verdict_and_needs_nothing_else(told: Told) -> None:
    page = (told.folder / "report.html").read_text()
    for suspect, _, _ in ROWS:
        assert suspect in page
    assert page.count("data:image/png;base64,") == 4
    assert re.search(r"(src|href)=\"http", page) is None


def test_what_is_left_in_the_folder_can_be_judged_again(told: Told) -> None:
    copy = PlainCNN((1, 8, 8), 10, width=WIDTH)
    copy.load_state_dict(load_tensors(told.folder / "pruned-copy-20.safetensors"))
    verdict = judge(told.folder / "owner/claim.json", told.folder / "owner/evidence", copy)
    assert verdict.accepted is True
    assert Claim.read(told.folder / "thief/claim.json").owner == "thief"


def test_the_status_comes_from_the_verdicts(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, trial in enumerate(told.story.trials):
        turned = replace(trial, verdict=opposite(trial.verdict))
        trials = [*told.story.trials[:at], turned, *told.story.trials[at + 1 :]]
        assert replace(told.story, trials=trials).faults == [
            f"{trial.claimant} on the {trial.suspect}: {turned.verdict.word}"
        ]
    undecided = replace(told.story, trials=[*told.story.trials[:-1], turned_open(told.story.trials[-1])])
    monkeypatch.setattr("earmark.cli.demo.tell", lambda *given: undecided)
    found = run(told.folder)
    assert found.exit_code == 1
    assert "Not as it should be: owner on the innocent model: inconclusive." in found.stdout.replace("\n", " ")


def test_a_copy_that_lost_its_accuracy_need_not_be_won_but_one_must_be(told: Told) -> None:
    lost = [replace(trial, wanted=None, verdict=opposite(trial.verdict)) for trial in told.story.trials if trial.wanted]
    rest = [trial for trial in told.story.trials if not trial.wanted]
    assert replace(told.story, trials=[*lost[1:], told.story.trials[0], *rest]).faults == []
    assert replace(told.story, trials=[*lost, *rest]).faults == ["no stolen copy kept its accuracy"]


def test_a_second_run_replaces_the_first_and_touches_no_other_file(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    (told.folder / "mine.txt").write_text("mine")

    def tell(out: Path, *rest: Any) -> Story:
        assert not (out / "verdicts.json").exists()
        assert not (out / "owner").exists()
        return told.story

    monkeypatch.setattr("earmark.cli.demo.tell", tell)
    assert run(told.folder).exit_code == 0
    assert (told.folder / "mine.txt").read_text() == "mine"


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("my thesis")
    found = run(tmp_path)
    assert found.exit_code == 2
    assert "holds files that no demonstration made" in found.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["README.txt"]


def opposite(verdict: Verdict) -> Verdict:
    return replace(verdict, accepted=not verdict.accepted, log10_p=-99.0)


def turned_open(trial: Trial) -> Trial:
    return replace(trial, verdict=replace(trial.verdict, accepted=None))
