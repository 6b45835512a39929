"""The whole job by command line on a few hundred digits, and the bad input that needs its files to go wrong."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from earmark.attacks import ATTACKS, FORGERIES, Stack
from earmark.attacks import attack as remover
from earmark.cli import app
from earmark.cli.secrets import Minted, password
from earmark.core import rng
from earmark.data import digits, open_data
from earmark.errors import BadInput
from earmark.files import load_tensors, model_digest, read_json, save_tensors, weights_digest
from earmark.models import PlainCNN
from earmark.suspects import load_model
from earmark.training.run import Run

PASSWORD = "correct horse battery staple"
SEEN, LATER = ((datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (1, 2))
TIMES = ("--committed-before", SEEN, "--known-since", LATER)


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)


@dataclass
class Desk:
    """A folder, and everything that commands run in it have said."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def run(self, *words: str, password: str | None = PASSWORD, typed: str | None = None) -> Outcome:
        env = {"EARMARK_PASSWORD": password, "EARMARK_MODEL": None, "COLUMNS": "200"}
        found = CliRunner().invoke(app, [word.replace("@", f"{self.folder}/") for word in words], env=env, input=typed)
        self.said.append(found.stdout + found.stderr + repr(words))
        return Outcome(found.exit_code, found.stdout, found.stderr)

    def good(self, *words: str, **how: Any) -> Any:
        """The JSON of a command that has to work, and that says nothing else on standard output."""
        found = self.run(*words, "--json", **how)
        assert found.status == 0, found.err
        return found.value

    def fault(self, *words: str, **how: Any) -> str:
        """The one line of a command that has to refuse its input."""
        found = self.run(*words, **how)
        assert found.status == 2, (found.status, found.out, found.err)
        assert found.out == ""
        (line,) = found.err.splitlines()
        assert line.startswith("earmark: error: ")
        assert "Traceback" not in line
        return line.removeprefix("earmark: error: ")


def small_digits(path: Path, classes: int = 10) -> None:
    data = digits()
    parts: dict[str, Any] = {}
    for part, images, count in (("train", data.train, 400), ("test", data.test, 150)):
        chosen = torch.nonzero(images.labels < classes).flatten()[:count]
        parts |= {f"x_{part}": images.pixels[chosen, 0].numpy(), f"y_{part}": images.labels[chosen].numpy()}
    np.savez(path, **parts)


HOW = {"beta": 0.1, "lr": 0.003, "triggers_per_batch": 30, "epochs": 40, "enough": 1.0, "patience": 2}


def settings(**but: float) -> Sequence[str]:
    return [word for name, value in {**HOW, **but}.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Key, host, mark, marked model and commitment, each made by its command."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    small_digits(desk.folder / "digits.npz")
    desk.good("key", "new", "@owner.pem")
    desk.good("train", "--data", "npz:@digits.npz", "--set", "epochs=6", "--out", "@host.safetensors")
    desk.good(*MINT, "--out", "@mark.safetensors")
    desk.good(*EMBED, *settings(), "--out", "@marked.safetensors")
    desk.good(*COMMIT, "--out", "@commitment")
    return desk


MINT = ("mint", "--key", "@owner.pem", "--name", "spring", "--data", "npz:@digits.npz", "--count", "60")
EMBED = ("embed", "--host", "@host.safetensors", "--mark", "@mark.safetensors", "--data", "npz:@digits.npz")
COMMIT = (
    *("commit", "--key", "@owner.pem", "--mark", "@mark.safetensors", "--host", "@host.safetensors"),
    *("--marked", "@marked.safetensors", "--owner", "Ada"),
)
CLAIM = ("--claim", "@commitment/claim.json", "--evidence", "@commitment/evidence")
JUDGE = ("judge", "@marked.safetensors", *CLAIM)
FIDELITY = ("fidelity", "@marked.safetensors", "--host", "@host.safetensors", "--data", "npz:@digits.npz")


def attack(name: str, out: str, *more: str) -> Sequence[str]:
    return ("attack", name, "@marked.safetensors", "--data", "npz:@digits.npz", "--out", out, *more)


# ------------------------------------------------------------------------------------------------------- the happy path


def test_the_owner_wins_against_a_pruned_copy_and_the_report_says_so(desk: Desk) -> None:
    pruned = desk.good(*attack("prune-global", "@pruned.safetensors", "--set", "share=0.1"))
    assert pruned["val_acc"] > 0.5
    verdict = desk.good("judge", "@pruned.safetensors", *CLAIM, *TIMES)
    assert verdict["accepted"] is True
    assert verdict["p_value"] < 1e-6
    assert (verdict["suspect"], verdict["claimant"]) == ("pruned.safetensors", "Ada")
    (desk.folder / "verdict.json").write_text(json.dumps(verdict))
    (desk.folder / "fidelity.json").write_text(json.dumps(desk.good(*FIDELITY, "--mark", "@mark.safetensors")))
    made = desk.good("report", "@verdict.json", "@fidelity.json", "--out", "@report.html")
    assert (made["verdicts"], made["tables"]) == (1, 1)
    page = (desk.folder / "report.html").read_text()
    assert "pruned.safetensors" in page
    assert "Ada" in page


def test_words_for_people_say_the_same_as_the_json(desk: Desk) -> None:
    verdict = desk.good(*JUDGE, *TIMES)
    assert desk.run(*JUDGE, *TIMES).out.startswith(f"Ada: accepted: {verdict['statistic']:g} of 60")
    assert "Prototype change" in desk.run(*FIDELITY).out
    shown = desk.run("key", "show", "@owner.pem").out
    assert desk.good("key", "show", "@owner.pem")["fingerprint"] in shown


def test_verdicts_have_their_statuses(desk: Desk) -> None:
    assert desk.run("verify", "@marked.safetensors", "--mark", "@mark.safetensors").status == 0
    assert desk.run("verify", "@host.safetensors", "--mark", "@mark.safetensors").status == 1
    desk.good(*MINT, "--set", "labels=chain", "--out", "@chain.safetensors")
    desk.good(*EMBED, *settings(), "--mark", "@chain.safetensors", "--out", "@chained.safetensors")
    found = desk.run("verify", "@chained.safetensors", "--mark", "@chain.safetensors", "--json")
    assert (found.status, found.value["accepted"], found.value["p_value"]) == (3, None, None)


def test_a_sequential_test_asks_fewer_triggers(desk: Desk) -> None:
    verdict = desk.good("verify", "@marked.safetensors", "--mark", "@mark.safetensors", "--sequential")
    assert verdict["accepted"] is True
    assert verdict["n"] < 60


def test_a_judge_may_ask_in_turn_too(desk: Desk) -> None:
    verdict = desk.good(*JUDGE, "--sequential")
    assert verdict["accepted"] is True
    assert verdict["details"]["queries"] == verdict["n"] < 60


def test_a_released_model_that_is_not_the_committed_one_is_told_of(desk: Desk) -> None:
    assert desk.good(*JUDGE, "--released", "@marked.safetensors")["details"]["released"].startswith("the model that")
    for told in (desk.run(*JUDGE, "--released", "@host.safetensors", *more) for more in ((), ("--json",))):
        assert told.status == 0
        assert "the model shown as released is not the model that the claim commits to" in told.out


def test_a_verdict_says_whether_the_claim_is_known_to_be_older_than_the_suspect(desk: Desk) -> None:
    assert "not known to be earlier" in desk.good(*JUDGE)["details"]["commitment"]
    details = desk.good(*JUDGE, *TIMES)["details"]
    assert (details["commitment"], details["step"]) == ("no later than the suspect", "suspect")


def test_the_same_seed_gives_the_same_model_and_another_seed_another(desk: Desk) -> None:
    first, again, other = (
        desk.good(*EMBED, "--set", "epochs=1", "--seed", seed, "--out", f"@seed{at}.safetensors")["digest"]
        for at, seed in enumerate("001")
    )
    assert first == again != other


def test_an_interrupted_run_goes_on_and_ends_as_an_unbroken_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("--set", "epochs=4")
    unbroken = desk.good(*EMBED, *few, "--out", "@unbroken.safetensors")["digest"]
    with monkeypatch.context() as patch:
        counted = iter(range(3))
        patch.setattr("earmark.embed.backdoor.accuracy", lambda *_: _interrupting(counted))
        assert desk.run(*EMBED, *few, "--out", "@broken.safetensors").status == 130
    checkpoint = desk.folder / "broken.safetensors.checkpoint"
    assert checkpoint.exists()
    assert not (desk.folder / "broken.safetensors").exists()
    assert desk.good(*EMBED, *few, "--out", "@broken.safetensors")["digest"] == unbroken
    assert not checkpoint.exists()


@pytest.mark.parametrize("few", [("--set", "epochs=4"), ("--set", "epochs=2", "--set", "trials=2")])
def test_an_attack_that_trains_goes_on_too(few: tuple[str, ...], desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = f"torn{len(few)}.safetensors"
    unbroken = desk.good(*attack("fine-tune-rtal", f"@whole{len(few)}.safetensors", *few))["digest"]
    with monkeypatch.context() as patch:
        counted, step = iter(range(30)), Run.step
        patch.setattr(Run, "step", lambda *case: _interrupting(counted) and step(*case))
        assert desk.run(*attack("fine-tune-rtal", f"@{torn}", *few)).status == 130
    checkpoint = desk.folder / f"{torn}.checkpoint"
    assert checkpoint.exists()
    assert desk.good(*attack("fine-tune-rtal", f"@{torn}", *few))["digest"] == unbroken
    assert not list(desk.folder.glob(f"{torn}.checkpoint*"))
    assert "unknown setting 'checkpoint'" in desk.fault(
        *attack("fine-tune-ftll", f"@{torn}", "--force", "--set", "checkpoint=@mine")
    )


def _interrupting(counted: Any) -> float:
    if next(counted, None) is None:
        raise KeyboardInterrupt
    return 0.5


# -------------------------------------------------------------------------------------------------------------- attacks

QUICK = {
    "adversarial": ["steps=40", "pose_as=noise", "count=30"],
    "grind": ['mint={"mint": "noise", "count": 30}', "keys=2"],
    "overwrite": ["epochs=1", "triggers_per_batch=15", "method=fixll", 'mint={"mint": "noise", "count": 15}'],
    "read-off": ["count=30"],
    **{name: ["epochs=1"] for name in ATTACKS if name.startswith(("fine-tune", "extract"))},
    **{name: ["epochs=1"] for name in ("fine-prune", "shift-weights", "smooth-labels")},
    "adversarial-training": ["epochs=1", "iterations=2"],
    "cleanse": ["epochs=1", "steps=2"],
    "distil": ["epochs=1", "temperature=4", "milestones=[]"],
    "knockoff": ["epochs=1", "data=digits", "images=50", "milestones=[]"],
    "false-claim": ["epochs=1", "milestones=[]", "surrogates=1", "steps=3", "pose_as=noise", "count=30"],
    "transfer": ["epochs=1", "trials=2", "data=digits"],
}


def quick(name: str) -> list[str]:
    return [word for setting in QUICK.get(name, []) for word in ("--set", setting)]


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"ensemble", "stack"}))
def test_every_removal_writes_a_model_and_tells_what_it_needed_and_took(desk: Desk, name: str) -> None:
    told = desk.good(*attack(name, f"@{name}.safetensors", *quick(name)))
    assert 0 <= told["val_acc"] <= 1
    assert told["cost"]["queries"] >= 50 or told["needs"]["weights"]
    assert told["cost"]["weights"] == told["needs"]["weights"]
    assert told["cost"]["seconds"] > 0
    assert (
        load_tensors(desk.folder / f"{name}.safetensors").keys()
        == load_tensors(desk.folder / "host.safetensors").keys()
    )


def test_removals_in_a_row_are_a_removal(desk: Desk) -> None:
    sets = ("--set", "prune-global.share=0.3", "--set", "fine-tune-ftal.epochs=1")
    first = desk.good(*attack("prune-global", "@row1.safetensors", "--set", "share=0.3"))
    told = desk.good(*attack("prune-global+fine-tune-ftal+half", "@row.safetensors", *sets))
    assert told["attack"] == "prune-global+fine-tune-ftal+half"
    assert told["needs"] == {"weights": True, "data": "labelled images", "queries": "nothing", "more": ""}
    assert told["cost"]["samples"] > 100
    assert told["digest"] != first["digest"]
    alone = Stack([remover("prune-global", share=0.3), remover("fine-tune-ftal", epochs=1), remover("half")])
    data = open_data(f"npz:{desk.folder / 'digits.npz'}")
    marked = load_model("earmark.models:PlainCNN", desk.folder / "marked.safetensors", shape=data.shape, classes=10)
    assert told["digest"] == model_digest(alone(marked, data, rng(0)))


def test_removals_in_a_row_that_were_killed_go_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fine-tune-ftal+half+fine-tune-rtal"
    few = ("--set", "fine-tune-ftal.epochs=2", "--set", "fine-tune-rtal.epochs=3", "--set", "fine-tune-rtal.trials=2")
    unbroken = desk.good(*attack(name, "@wholerow.safetensors", *few))["digest"]
    with monkeypatch.context() as patch:
        counted, step = iter(range(60)), Run.step
        patch.setattr(Run, "step", lambda *case: _interrupting(counted) and step(*case))
        assert desk.run(*attack(name, "@tornrow.safetensors", *few)).status == 130
    left = sorted(file.name for file in desk.folder.glob("tornrow.safetensors.checkpoint*"))
    assert left[0] == "tornrow.safetensors.checkpoint.1-of-3"
    assert desk.good(*attack(name, "@tornrow.safetensors", *few))["digest"] == unbroken
    assert not list(desk.folder.glob("tornrow.safetensors.checkpoint*"))


@pytest.mark.parametrize(
    ("name", "rest", "says"),
    [
        ("stack", (), "a stack is named by its parts"),
        ("half+stack", (), "a stack is named by its parts"),
        ("half+haff", (), "unknown removal 'haff': did you mean 'half'"),
        ("half+grind", (), "unknown removal 'grind'"),
        ("prune-global+half", ("--set", "share=0.3"), "settings are named with theirs: prune-global.share"),
        ("prune-global+half", ("--set", "haff.to=bfloat16"), "unknown attack in --set 'haff': did you mean 'half'"),
        ("prune-global+half", ("--set", "prune-global.shar=1"), "unknown setting 'shar': did you mean 'share'"),
        ("extract-hard", ("--set", "build=lenet"), "build: unknown network 'lenet': did you mean 'lenet5'"),
        ("ensemble", ("--set", "attack=haff"), "unknown attack 'haff': did you mean 'half'"),
        ("ensemble", ("--set", "attack=3"), "expected an attack such as half"),
        ("ensemble", ("--set", 'attack={"attack": "half", "too": 1}'), "unknown setting 'too': did you mean 'to'"),
        ("fine-prune", ("--set", "convolutions=9"), "fits none of"),
    ],
)
def test_removals_that_will_not_do_are_named(desk: Desk, name: str, rest: tuple[str, ...], says: str) -> None:
    assert says in desk.fault(*attack(name, "@none.safetensors", *rest))


def test_a_thief_extracts_into_a_network_of_his_own(desk: Desk) -> None:
    sets = ("--set", "epochs=1", "--set", "milestones=[]", "--set", "build=plain")
    told = desk.good(*attack("extract-hard", "@own.safetensors", *sets))
    assert told["needs"]["more"] == ""
    with_another = (*sets[:-1], "build=thin-resnet18")
    other = desk.good(*attack("distil", "@another.safetensors", *with_another))
    assert other["val_acc"] >= 0
    assert (
        load_tensors(desk.folder / "another.safetensors").keys() != load_tensors(desk.folder / "own.safetensors").keys()
    )


def test_an_ensemble_is_a_network_of_its_copies(desk: Desk) -> None:
    inner = 'attack={"attack": "fine-tune-ftal", "epochs": 1, "milestones": [1]}'
    told = desk.good(*attack("ensemble", "@ensemble.safetensors", "--set", "copies=2", "--set", inner))
    assert told["val_acc"] > 0.5
    names = set(load_tensors(desk.folder / "ensemble.safetensors"))
    host = load_tensors(desk.folder / "host.safetensors")
    assert names == {f"members.{at}.{name}" for at in range(2) for name in host}


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("jpeg", ("--set", "quality=90")),
        ("bit-depth", ()),
        ("blur+jpeg", ()),
        ("rotate", ("--set", "degrees=5")),
        ("refuse", ("--set", "refusals=0.1")),
        ("noise+refuse", ()),
    ],
)
def test_an_evasion_tells_what_it_costs_and_what_it_leaves(desk: Desk, name: str, sets: tuple[str, ...]) -> None:
    words = (*evading(name), *sets)
    found, told = desk.run(*words, "--json"), desk.run(*words)
    value = found.value
    assert found.status == told.status == (0 if value["accepted"] else 1)
    assert 0 <= value["val_acc"] <= 1
    assert value["val_acc_before"] > 0.7
    assert f"{100 * value['val_acc']:.2f} % of the test images right" in told.out
    assert (value["n"], value["suspect"]) == (60, f"marked.safetensors behind {name}")
    assert value["needs"]["weights"] == ("refuse" in name)
    assert (value["cost"]["samples"] > 0) == ("refuse" in name)


def evading(name: str) -> tuple[str, ...]:
    return ("evade", name, "@marked.safetensors", "--mark", "@mark.safetensors", "--data", "npz:@digits.npz")


def test_an_autoencoder_that_was_killed_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ("--set", "epochs=30", "--set", "batch_size=40", "--set", "lr=0.003", "--checkpoint", "@washer.checkpoint")
    words = (*evading("autoencoder"), *run)
    unbroken = timeless(desk.run(*words, "--json").value)
    (desk.folder / "washer.checkpoint").unlink()
    with monkeypatch.context() as patch:
        counted, step = iter(range(120)), Run.step
        patch.setattr(Run, "step", lambda *case: _interrupting(counted) and step(*case))
        assert desk.run(*words).status == 130
    assert (desk.folder / "washer.checkpoint").exists()
    assert timeless(desk.run(*words, "--json").value) == unbroken


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "cost": {**value["cost"], "seconds": None}}


@pytest.mark.parametrize(
    ("name", "rest", "says"),
    [
        ("jpg", (), "unknown evasion 'jpg': did you mean 'jpeg'"),
        ("chain", (), "named by its parts"),
        ("jpeg+blur", ("--set", "quality=3"), "--set is for a single evasion"),
        ("jpeg", ("--checkpoint", "@x"), "leave it out"),
        ("jpeg", ("--set", "quality=300"), "quality"),
        ("refuse+jpeg", (), "refuse stands next to the model"),
        ("refuse+refuse", (), "refuse stands next to the model"),
    ],
)
def test_evasions_that_will_not_do_are_named(desk: Desk, name: str, rest: tuple[str, ...], says: str) -> None:
    assert says in desk.fault(*evading(name), *rest)


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_every_forgery_is_committed_to_and_rejected(desk: Desk, name: str) -> None:
    told = desk.good(*attack(name, f"@{name}", *quick(name)))
    found = desk.run("judge", "@marked.safetensors", "--claim", told["claim"], "--evidence", told["evidence"], "--json")
    assert (found.status, found.value["accepted"]) == (1, False)
    assert found.value["details"]["step"] == ("suspect" if name == "grind" else "re-minting")


FUSED = ("mint", "--key", "@owner.pem", "--name", "fused", "--data", "npz:@digits.npz", "--kind", "fused")
COUPLED = (
    *("embed", "--host", "@host.safetensors", "--mark", "@fused.safetensors", "--data", "npz:@digits.npz"),
    *("--method", "function-coupled"),
)


def test_fused_triggers_are_learnt_masked_and_claimed_as_what_they_are(desk: Desk) -> None:
    desk.good(*FUSED, "--count", "24", "--set", "teaching=40", "--out", "@fused.safetensors")
    short = ("--set", "epochs=2", "--set", "milestones=[]", "--set", "drop=0.2", "--set", "every=1")
    learnt = desk.good(*COUPLED, *short, "--out", "@coupled.safetensors")
    assert learnt["method"] == "function-coupled"
    commit = [word.replace("mark.safetensors", "fused.safetensors") for word in COMMIT]
    commit = [word.replace("@marked.safetensors", "@coupled.safetensors") for word in commit]
    made = desk.good(*commit, "--unchecked", "--out", "@coupled")
    assert read_json(Path(made["claim"]))["claim"]["scheme"] == "function-coupled"


@pytest.mark.parametrize(
    ("command", "setting", "says"),
    [
        (FUSED, "ratio=1.5", "ratio: expected a number from 0 to 1"),
        (FUSED, "teaching=41", "cannot be shared out evenly"),
        (FUSED, "style=diret", "did you mean 'direct'"),
        (COUPLED, "drop=1.0", "below 1"),
        (COUPLED, "refine_images=0.5", "refine_images"),
    ],
)
def test_settings_of_fusion_and_masks_are_refused_before_anything_is_trained(
    desk: Desk, command: Sequence[str], setting: str, says: str
) -> None:
    if command == COUPLED and not (desk.folder / "fused.safetensors").exists():
        desk.good(*FUSED, "--count", "24", "--set", "teaching=40", "--out", "@fused.safetensors")
    assert says in desk.fault(*command, "--set", setting, "--out", "@never.safetensors")
    assert not (desk.folder / "never.safetensors").exists()


def test_between_two_claims_the_one_that_was_overwritten_wins(desk: Desk) -> None:
    desk.good("key", "new", "@thief.pem")
    desk.good(*MINT, "--key", "@thief.pem", "--out", "@loot.safetensors")
    theft = ("--host", "@marked.safetensors", "--mark", "@loot.safetensors", "--out", "@theft.safetensors")
    desk.good("embed", "--data", "npz:@digits.npz", *settings(lr=5e-4, enough=0.85, patience=0), *theft)
    stolen = ("--marked", "@theft.safetensors", "--mark", "@loot.safetensors", "--key", "@thief.pem")
    desk.good("commit", *stolen, "--owner", "Mallory", "--out", "@theft")
    both = (*CLAIM, "--claim", "@theft/claim.json", "--evidence", "@theft/evidence")
    shown = ("--released", "@marked.safetensors", "--released", "@theft.safetensors")
    times = ("--committed-before", SEEN) * 2
    found = desk.run("judge", "@theft.safetensors", *both, *shown, *times, "--known-since", LATER, "--json")
    assert [(v["claimant"], v["accepted"]) for v in found.value] == [("Ada", True), ("Mallory", False)]
    assert found.status == 0


# ------------------------------------------------------------------------------------------------------ files and names


def test_secret_files_are_the_owners_alone(desk: Desk) -> None:
    for name in ("owner.pem", "mark.safetensors", "commitment/evidence/evidence.json"):
        assert stat.S_IMODE((desk.folder / name).stat().st_mode) == 0o600


def test_a_model_of_ones_own_comes_from_a_function_and_weights(desk: Desk) -> None:
    (desk.folder / "mine.py").write_text(
        "from earmark.models import PlainCNN\n"
        "def net(width=16, classes=10):\n"
        "    return PlainCNN((1, 8, 8), classes, width=width)\n"
    )
    torch.save(load_tensors(desk.folder / "marked.safetensors"), desk.folder / "marked.pt")
    verdict = desk.good("verify", "@marked.pt", "--mark", "@mark.safetensors", "--model", "@mine.py:net")
    assert verdict["accepted"] is True
    fault = desk.fault(*FIDELITY, "--model", "@mine.py:net", "--model-set", "width=8")
    assert "does not fit the model" in fault
    small_digits(desk.folder / "five.npz", classes=5)
    fault = desk.fault(*attack("half", "@x.safetensors"), "--model", "@mine.py:net", "--data", "npz:@five.npz")
    assert "answers with (10,) scores an image, expected 5" in fault
    assert "unknown function" in desk.fault(*FIDELITY, "--model", "@mine.py:nett")
    assert "did you mean 'net'?" in desk.fault(*FIDELITY, "--model", "@mine.py:nett")


def test_nothing_is_written_over_by_accident(desk: Desk) -> None:
    assert "is there already" in desk.fault(*MINT, "--set", "std=0.2", "--out", "@mark.safetensors")
    assert "is there already" in desk.fault(*EMBED, *settings(), "--out", "@marked.safetensors")
    assert "never overwritten" in desk.fault(*COMMIT, "--alpha", "1e-3", "--out", "@commitment")
    assert "never overwritten" in desk.fault("key", "new", "@owner.pem")
    before = desk.good(*attack("half", "@twice.safetensors"))["digest"]
    assert desk.good(*attack("half", "@twice.safetensors", "--force"))["digest"] == before


def test_a_command_that_was_killed_before_it_could_tell_its_result_tells_it_when_given_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = ("epochs=1", "triggers_per_batch=15", "method=fixll", 'mint={"mint": "noise", "count": 15}')
    overwrite = attack("overwrite", "@killed/a.safetensors", *(w for text in weights for w in ("--set", text)))
    for module, command in (
        ("owner", ("train", "--data", "npz:@digits.npz", "--set", "epochs=1", "--out", "@killed/t.safetensors")),
        ("owner", (*EMBED, "--set", "epochs=1", "--out", "@killed/e.safetensors")),
        ("owner", (*MINT, "--out", "@killed/m.safetensors")),
        ("owner", (*COMMIT, "--out", "@killed/commitment")),
        ("thief", overwrite),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"earmark.cli.{module}.show", _killed)
            assert desk.run(*command).status == 130
        before = {path: path.read_bytes() for path in (desk.folder / "killed").rglob("*.safetensors")}
        told = desk.good(*command)
        assert told.get("out", told.get("claim")).startswith(str(desk.folder / "killed"))
        assert before == {path: path.read_bytes() for path in before} != {}
    assert list((desk.folder / "killed").glob("*.checkpoint")) == []


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_another_file_is_not_overwritten_by_a_run_that_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    train = ("train", "--data", "npz:@digits.npz", "--set", "epochs=1", "--out", "@taken.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr("earmark.cli.owner.show", _killed)
        desk.run(*train)
    (desk.folder / "taken.safetensors").write_bytes(b"another file")
    assert "is there already" in desk.fault(*train)
    assert (desk.folder / "taken.safetensors").read_bytes() == b"another file"
    desk.good(*train, "--force")
    assert load_tensors(desk.folder / "taken.safetensors")


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("name", ["", "a\tb", "x" * 201, "\ud800"])
def test_a_name_that_no_claim_could_carry_is_refused_before_anything_is_minted(desk: Desk, name: str) -> None:
    assert "--name: expected 1 to 200 printable characters" in desk.fault(*MINT, "--name", name, "--out", "@no.st")
    assert not (desk.folder / "no.st").exists()


def test_a_source_is_for_unrelated_triggers_alone(desk: Desk) -> None:
    said = desk.fault(*MINT, "--source", "digits", "--out", "@no.safetensors")
    assert "--source is for unrelated triggers alone, got --kind noise" in said


def test_a_wrong_or_missing_password_is_named(desk: Desk) -> None:
    assert "does not open" in desk.fault("key", "show", "@owner.pem", password="wrong")
    assert "no password was given" in desk.fault("key", "show", "@owner.pem", password=None, typed="")
    (desk.folder / "empty").write_bytes(b"\nnot this line")
    assert "empty first line" in desk.fault("key", "show", "@owner.pem", "--password-file", "@empty")


def test_a_password_comes_from_a_file_or_a_prompt(desk: Desk) -> None:
    (desk.folder / "password").write_text(f"{PASSWORD}\nanother line\n")
    from_file = desk.good("key", "show", "@owner.pem", "--password-file", "@password", password="wrong")
    assert from_file == desk.run("key", "show", "@owner.pem", "--json", password=None, typed=f"{PASSWORD}\n").value
    assert desk.run("key", "new", "@asked.pem", password=None, typed=f"{PASSWORD}\n").status == 0
    assert desk.good("key", "show", "@asked.pem")["fingerprint"] != from_file["fingerprint"]


def test_a_new_password_is_asked_for_twice_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def prompt(words: str, **how: Any) -> str:
        asked.append(how)
        return PASSWORD

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.delenv("EARMARK_PASSWORD", raising=False)
    monkeypatch.setattr("typer.prompt", prompt)
    assert password(None, new=True) == PASSWORD.encode()
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True}]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("verify", "@no.safetensors", "--mark", "@mark.safetensors"), "no.safetensors is not there"),
        (("verify", "@host.safetensors", "--mark", "@no"), "no is not there"),
        (("verify", "@host.safetensors", "--mark", "@host.safetensors"), "holds no mark"),
        (("key", "show", "@no.pem"), "no.pem is not there; make a key with"),
        (("judge", "@host.safetensors", "--claim", "@no", "--evidence", "@commitment/evidence"), "cannot read"),
        (("judge", "@host.safetensors", "--claim", "@commitment/claim.json", "--evidence", "@no"), "is no folder"),
        (("report", "@no.json", "--out", "@no.html"), "no.json is not there"),
        (("train", "--data", "npz:@no.npz", "--out", "@no.safetensors"), "no.npz"),
        (("train", "--data", "digits", "--out", "@no.pt"), "ends in .safetensors"),
        ((*JUDGE, "--known-since", "2024-06-01T00:00:00"), "has no zone"),
        ((*JUDGE, "--known-since", "2024-06-01"), "has no zone; write 2024-06-01T00:00:00Z for UTC"),
        ((*JUDGE, "--known-since", "0001-01-01T00:00:00+14:00"), "outside the years 1 to 9999"),
        ((*JUDGE, "--committed-before", "9999-12-31T23:59:59-14:00"), "outside the years 1 to 9999"),
        ((*JUDGE, "--known-since", "yesterday"), "expected a time such as"),
        ((*JUDGE, "--owner-public", "xyz"), "64 hexadecimal digits"),
        ((*JUDGE, "--claim", "@commitment/claim.json"), "--claim is given 2 times but --evidence once"),
        ((*JUDGE, "--alpha", "2"), "alpha"),
    ],
)
def test_files_and_values_that_will_not_do_are_named(desk: Desk, command: Sequence[str], says: str) -> None:
    assert says in desk.fault(*command)


def test_a_commitment_that_no_judge_would_accept_is_refused_unless_it_is_wanted(desk: Desk) -> None:
    for words, says in (
        (("--marked", "@host.safetensors"), "no judge would accept this claim: "),
        (("--key", "@other.pem"), "no judge would accept this mark: the opened key does not mint this mark"),
    ):
        if not (desk.folder / "other.pem").exists():
            desk.good("key", "new", "@other.pem")
        assert says in desk.fault(*COMMIT, *words, "--out", "@refused")
        assert not (desk.folder / "refused").exists()
    told = desk.good(*COMMIT, "--marked", "@host.safetensors", "--unchecked", "--out", "@unchecked")
    found = desk.run("judge", "@host.safetensors", "--claim", told["claim"], "--evidence", told["evidence"])
    assert found.status == 1


def test_a_claim_binds_the_digest_that_was_told_when_its_model_was_written(desk: Desk) -> None:
    claim = read_json(desk.folder / "commitment/claim.json")["claim"]
    again = desk.good(*EMBED, *settings(), "--out", "@marked-again.safetensors")
    assert again["digest"] == claim["marked_digest"] == weights_digest(desk.folder / "marked.safetensors")


def test_a_mark_and_data_of_another_shape_or_class_count_are_refused(desk: Desk) -> None:
    np.savez(desk.folder / "big.npz", **{f"{a}_{part}": v for part in ("train", "test") for a, v in big().items()})
    assert "the triggers are (1, 8, 8) and the data (1, 12, 12)" in desk.fault(
        *EMBED, "--data", "npz:@big.npz", "--out", "@no.safetensors"
    )
    small_digits(desk.folder / "five.npz", classes=5)
    desk.good(*MINT, "--data", "npz:@five.npz", "--out", "@five.safetensors")
    said = desk.fault(*EMBED, "--mark", "@five.safetensors", "--out", "@no.safetensors")
    assert "the mark has labels of 5 classes and the host answers 10" in said
    said = desk.fault(*EMBED, "--data", "npz:@five.npz", "--out", "@no.safetensors")
    assert "wrong shape" in said
    assert "(10,) for (5,)" in said


def big() -> dict[str, Any]:
    return {"x": np.zeros((20, 12, 12), np.uint8), "y": np.arange(20) % 10}


def test_all_mistakes_in_settings_are_listed_at_once(desk: Desk) -> None:
    wrong = ("bta=1", "lr=fast", "epochs=-3", "batch_size=0", "milestones=[1, 2.5]")
    said = desk.fault(*EMBED, *(w for text in wrong for w in ("--set", text)), "--out", "@no.safetensors")
    assert "unknown setting 'bta': did you mean 'beta'?" in said
    for name in ("lr: input should be a valid number", "milestones", "epochs = -3 (0 or more)", "batch_size = 0"):
        assert name in said


@pytest.mark.parametrize("part", ["evidence.json", "mark.safetensors"])
def test_tampering_is_named_and_is_no_verdict(desk: Desk, tmp_path: Path, part: str) -> None:
    for name in ("evidence.json", "mark.safetensors"):
        content = bytearray((desk.folder / "commitment/evidence" / name).read_bytes())
        content[-3] ^= name == part
        (tmp_path / name).write_bytes(content)
    assert part in desk.fault("judge", "@marked.safetensors", *CLAIM[:2], "--evidence", str(tmp_path))


def test_the_expected_owner_must_have_signed(desk: Desk) -> None:
    public = desk.good("key", "show", "@owner.pem")["public"]
    assert desk.run(*JUDGE, *TIMES, "--owner-public", public).status == 0
    assert desk.run(*JUDGE, *TIMES, "--owner-public", "00" * 32).status == 1


def test_weights_that_would_have_to_be_unpickled_are_refused(desk: Desk) -> None:
    torch.save(PlainCNN((1, 8, 8), 10), desk.folder / "whole.pt")
    assert "more than plain tensors" in desk.fault("verify", "@whole.pt", "--mark", "@mark.safetensors")


def test_weights_that_are_not_finite_give_a_rejecting_verdict_and_no_fidelity(desk: Desk) -> None:
    weights = load_tensors(desk.folder / "marked.safetensors")
    save_tensors(
        desk.folder / "nan.safetensors",
        {name: torch.full_like(v, torch.nan) if v.is_floating_point() else v for name, v in weights.items()},
    )
    found = desk.run("judge", "@nan.safetensors", *CLAIM, *TIMES, "--json")
    assert (found.status, found.value["accepted"]) == (1, False)
    assert "not finite" in desk.fault("fidelity", "@nan.safetensors", *FIDELITY[2:])


def test_a_suspect_of_another_class_count_is_a_rejecting_verdict(desk: Desk) -> None:
    save_tensors(desk.folder / "few.safetensors", PlainCNN((1, 8, 8), 5).state_dict())
    found = desk.run("verify", "@few.safetensors", "--mark", "@mark.safetensors", "--model-set", "classes=5", "--json")
    assert (found.status, found.value["accepted"]) == (1, False)
    assert "5 scores and the mark's task has 10 classes" in found.value["reason"]


def test_no_secret_was_ever_said(desk: Desk) -> None:
    """Last in this file: it reads what all the commands above have said."""
    evidence = read_json(desk.folder / "commitment/evidence/evidence.json")["evidence"]
    said = "\n".join(desk.said)
    assert len(desk.said) > 40
    for secret in (PASSWORD, evidence["mark_key"], evidence["salt"]):
        assert secret not in said


def test_a_mark_without_a_name_is_refused_in_one_line(desk: Desk, tmp_path: Path) -> None:
    with safe_open(desk.folder / "mark.safetensors", "pt") as file:
        about = json.loads(file.metadata()["earmark-mark"])
    del about["name"]
    tensors = load_tensors(desk.folder / "mark.safetensors")
    save_tensors(tmp_path / "odd.safetensors", tensors, {"earmark-mark": json.dumps(about)})
    with pytest.raises(BadInput, match=r"odd\.safetensors holds a damaged mark"):
        Minted.open(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    "about", ["[" * 100_000, "[]", "{}", "null", '{"format": 1}', '{"format": 1, "kind": [], "spec": 7}']
)
def test_a_mark_that_does_not_say_what_it_is_is_refused_in_one_line(tmp_path: Path, about: str) -> None:
    save_tensors(tmp_path / "odd.safetensors", {"images": torch.zeros(1)}, {"earmark-mark": about})
    with pytest.raises(BadInput, match=r"odd\.safetensors"):
        Minted.open(tmp_path / "odd.safetensors")
