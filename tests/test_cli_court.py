"""Several claimants before the judge: whatever one of them brings, the others get their ruling."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn
from typer.testing import CliRunner

from earmark.cli import app
from earmark.cli.claimants import Brought, names_of
from earmark.evidence import Claim, commit
from earmark.files import digest, load_tensors, save_tensors, state_tensors, weights_digest
from earmark.keys import OwnerKey
from earmark.marks import Noise, TriggerSet
from earmark.models import PlainCNN

SHAPE = (1, 6, 6)

NETS = """
import torch
from torch import nn

class Memory(nn.Module):
    def __init__(self, size=80, scale=1.0):
        super().__init__()
        self.register_buffer("images", torch.zeros(size, 36))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
    def forward(self, images):
        near, which = torch.cdist(images.flatten(1), self.images).min(1)
        return nn.functional.one_hot(torch.where(near < 0.1, self.labels[which], 0), 10).float()

def small():
    return Memory(size=40)
"""


def memory(*marks: TriggerSet, size: int = 80) -> dict[str, Tensor]:
    """The weights of `Memory`, which knows the labels of these triggers by heart."""
    images, labels = torch.full((size, 36), 9.0), torch.zeros(size, dtype=torch.int64)
    known = sum(len(mark) for mark in marks)
    images[:known] = torch.cat([mark.images.flatten(1) / 255 for mark in marks])
    labels[:known] = torch.cat([mark.labels for mark in marks])
    return {"images": images, "labels": labels}


class Holder(nn.Module):
    """A module with just these tensors."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def owner(seed: int) -> OwnerKey:
    return OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def minted(seed: int, classes: int = 10) -> TriggerSet:
    return Noise(count=40).make(owner(seed).mark_key("m"), SHAPE, classes)


@dataclass(frozen=True)
class Court:
    """A folder with claims, models and the code that builds them."""

    folder: Path

    def files(self, name: str) -> Sequence[str]:
        return ("--claim", f"{self.folder}/{name}/claim.json", "--evidence", f"{self.folder}/{name}/evidence")

    def claim(self, name: str, seed: int, mark: TriggerSet, weights: dict[str, Tensor], shown: str = "") -> None:
        how: dict[str, Any] = {"host": None, "scheme": "x", "owner_name": shown or name, "check": False}
        commit(owner(seed), mark, name="m", marked=Holder(weights), out=self.folder / name, **how)

    def judge(self, suspect: str, *words: str, model: str = "Memory") -> Any:
        named = model if model == "plain" else f"{self.folder}/nets.py:{model}"
        command = ["judge", f"{self.folder}/{suspect}", *words, "--model", named, "--json"]
        return CliRunner().invoke(app, [word.replace("@", f"{self.folder}/") for word in command])

    def ruling(self, suspect: str, *words: str, model: str = "Memory") -> dict[str, Any]:
        """Verdicts by claimant, of a command that comes to some."""
        found = self.judge(suspect, *words, model=model)
        assert found.stdout, found.stderr
        return {verdict["claimant"]: verdict for verdict in json.loads(found.stdout)}

    def fault(self, suspect: str, *words: str) -> str:
        found = self.judge(suspect, *words)
        assert (found.exit_code, found.stdout) == (2, ""), (found.exit_code, found.stdout)
        return str(found.stderr)


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Court:
    """Ada's model, and Eve's, which is Ada's with a mark of Eve's."""
    court = Court(tmp_path_factory.mktemp("court"))
    (court.folder / "nets.py").write_text(NETS)
    hers, both = memory(minted(1)), memory(minted(1), minted(2))
    save_tensors(court.folder / "hers.safetensors", hers)
    save_tensors(court.folder / "both.safetensors", both)
    save_tensors(court.folder / "small.safetensors", memory(minted(1), size=40))
    court.claim("Ada", 1, minted(1), hers)
    court.claim("Eve", 2, minted(2), both)
    court.claim("Ada-small", 1, minted(1), memory(minted(1), size=40), shown="Ada")
    return court


def broken(court: Court, tmp_path: Path, what: str) -> Sequence[str]:
    """Eve's files with a fault."""
    shutil.copytree(court.folder / "Eve", tmp_path / "Eve")
    claim, evidence = tmp_path / "Eve" / "claim.json", tmp_path / "Eve" / "evidence"
    if what == "no evidence.json":
        (evidence / "evidence.json").unlink()
    else:
        path = {"claim": claim, "evidence": evidence / "evidence.json", "mark": evidence / "mark.safetensors"}[what]
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.write_bytes(content)
    return ("--claim", str(claim), "--evidence", str(evidence))


# ------------------------------------------------------------------------------------------------------------ the files


@pytest.mark.parametrize("what", ["claim", "evidence", "mark", "no evidence.json"])
def test_a_rivals_broken_file_costs_only_the_rival(court: Court, tmp_path: Path, what: str) -> None:
    rival = broken(court, tmp_path, what)
    for words in ((*court.files("Ada"), *rival), (*rival, *court.files("Ada"))):
        verdicts = court.ruling("both.safetensors", *words)
        (eve,) = verdicts.keys() - {"Ada"}
        assert verdicts["Ada"]["accepted"] is True
        assert (verdicts[eve]["accepted"], verdicts[eve]["details"]["step"]) == (False, "files")
        assert str(tmp_path) in verdicts[eve]["reason"]
        assert court.judge("both.safetensors", *words).exit_code == (0 if words[-1] == rival[-1] else 2)


def test_broken_files_of_the_only_claimants_are_no_verdict(court: Court, tmp_path: Path) -> None:
    rival = broken(court, tmp_path, "evidence")
    for words in (rival, (*rival, *rival)):
        assert "evidence.json" in court.fault("both.safetensors", *words)


def test_a_path_that_is_not_there_is_the_callers_mistake(court: Court) -> None:
    missing = (*court.files("Eve")[:2], "--evidence", "@gone")
    assert "gone is not there" in court.fault("both.safetensors", *court.files("Ada"), *missing)
    assert "gone is not there" in court.fault("both.safetensors", *court.files("Ada"), "--released", "@gone")
    known = ("--released", "@hers.safetensors", "--released-model", "plian")
    assert "did you mean 'plain'?" in court.fault("both.safetensors", *court.files("Ada"), *known)
    assert "gone.safetensors is not there" in court.fault("gone.safetensors", *court.files("Ada"))


# ------------------------------------------------------------------------------------------------- the released models

BOTH = ("--released", "@hers.safetensors", "--released", "@both.safetensors")


def test_released_models_tell_who_was_first(court: Court) -> None:
    verdicts = court.ruling("both.safetensors", *court.files("Ada"), *court.files("Eve"), *BOTH)
    assert {name: verdict["accepted"] for name, verdict in verdicts.items()} == {"Ada": True, "Eve": False}


@pytest.mark.parametrize("shown", ["small.safetensors", "nets.py", "-"])
def test_a_released_model_that_cannot_be_built_counts_as_not_shown_and_the_verdict_says_so(
    court: Court, shown: str
) -> None:
    words = (*court.files("Ada"), *court.files("Eve"), *BOTH[:3], shown if shown == "-" else f"@{shown}")
    verdicts = court.ruling("both.safetensors", *words)
    assert verdicts["Ada"]["details"]["released"] == "the model that the claim commits to"
    assert verdicts["Ada"]["accepted"] is None, "Eve's model is not shown, and there are no dates"
    said = verdicts["Eve"]["details"]["released"]
    if shown == "-":
        assert said == "not shown"
    else:
        assert "does not count" in said
        assert shown in said
        assert said in verdicts["Eve"]["reason"]


def test_a_released_model_of_another_architecture_is_named_with_its_claim(court: Court) -> None:
    words = (*court.files("Ada-small"), *court.files("Eve"))
    shown = ("--released", "@small.safetensors", "--released", "@both.safetensors")
    models = ("--released-model", "@nets.py:small", "--released-model", "@nets.py:Memory")
    verdicts = court.ruling("both.safetensors", *words, *shown, *models, "--model-set", "scale=2")
    assert verdicts["Ada"]["details"]["released"] == "the model that the claim commits to"
    assert {name: verdict["accepted"] for name, verdict in verdicts.items()} == {"Ada": True, "Eve": False}


def test_half_precision_weights_are_known_by_the_digest_of_their_file(court: Court) -> None:
    """The network computes in single precision; the claim is to the file that was released."""
    path = court.folder / "half.safetensors"
    save_tensors(path, {name: v.bfloat16() if v.is_floating_point() else v for name, v in memory(minted(1)).items()})
    key, password = court.folder / "ada.pem", court.folder / "password"
    password.write_text("x")
    owner(1).save(key, b"x")
    mark = ("--key", str(key), "--password-file", str(password), "--name", "m", "--data", "npz:@six.npz")
    six(court.folder / "six.npz")
    assert run(court, "mint", *mark, "--count", "40", "--out", "@mark.safetensors")
    model = ("--model", "@nets.py:Memory", "--mark", "@mark.safetensors", "--marked", str(path), "--host", str(path))
    run(court, "commit", *mark[:4], *model, "--out", "@half")
    claim = Claim.read(court.folder / "half" / "claim.json")
    assert claim.marked_digest == claim.host_digest == weights_digest(path) == digest(load_tensors(path))
    words = (*court.files("half"), "--released", str(path))
    verdict = json.loads(court.judge("half.safetensors", *words).stdout)
    assert verdict["accepted"] is True
    assert verdict["details"]["released"] == "the model that the claim commits to"


def run(court: Court, *words: str) -> Any:
    found = CliRunner().invoke(app, [*(word.replace("@", f"{court.folder}/") for word in words), "--json"])
    assert found.exit_code == 0, found.stderr
    return json.loads(found.stdout)


def six(path: Path) -> None:
    images, labels = np.zeros((20, 6, 6), np.uint8), np.arange(20) % 10
    np.savez(path, x_train=images, x_test=images, y_train=labels, y_test=labels)


# ------------------------------------------------------------------------------------------------------------ the tasks


@pytest.mark.parametrize("turned", [False, True])
def test_a_claim_of_another_task_is_rejected_in_whatever_order_it_comes(court: Court, turned: bool) -> None:
    path = court.folder / "plain.safetensors"
    save_tensors(path, state_tensors(PlainCNN(SHAPE, 10)))
    if not (court.folder / "Seven").exists():
        court.claim("Seven", 3, minted(3, classes=7), memory(minted(3, classes=7)))
    words = [court.files("Ada"), court.files("Seven")][:: -1 if turned else 1]
    verdicts = court.ruling("plain.safetensors", *words[0], *words[1], model="plain")
    assert {name: (v["accepted"], v["details"]["step"]) for name, v in verdicts.items()} == {
        "Ada": (False, "suspect"),
        "Seven": (False, "suspect"),
    }


# ------------------------------------------------------------------------------------------------------------ the names


@pytest.mark.parametrize(
    "owners", [["alice", "alice", "alice (1)"], ["alice (2)", "alice", "alice"], ["a", "a (1) (3)", "a", "a (1)"]]
)
def test_no_choice_of_a_name_makes_two_claimants_one(court: Court, owners: list[str]) -> None:
    claim = Claim.read(court.folder / "Ada" / "claim.json")
    found = [Brought(Path(), Path(), claim.model_copy(update={"owner": name})) for name in owners]
    names = names_of(found)
    assert len(set(names)) == len(names)
    assert all(name.startswith(owner) for name, owner in zip(names, owners, strict=True))


def test_names_that_differ_stay_as_they_are(court: Court) -> None:
    claim = Claim.read(court.folder / "Ada" / "claim.json")
    assert names_of([Brought(Path("x"), Path()), Brought(Path(), Path(), claim)]) == ["x", "Ada"]


def test_a_rivals_choice_of_name_blocks_no_ruling(court: Court) -> None:
    court.claim("twin", 3, minted(3), memory(minted(3)), shown="Ada")
    court.claim("other", 4, minted(4), memory(minted(4)), shown="Ada (1)")
    words = [word for name in ("Ada", "twin", "other") for word in court.files(name)]
    verdicts = court.ruling("hers.safetensors", *words)
    assert [(name, v["accepted"]) for name, v in verdicts.items()] == [
        ("Ada (1)", True),
        ("Ada (2)", False),
        ("Ada (1) (3)", False),
    ]
