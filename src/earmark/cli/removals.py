"""Removals as the command line takes them: one name, or several in a row, with their settings and checkpoints."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from earmark.attacks import ATTACKS, PASSPORT_REMOVALS, Overwrite, Stack
from earmark.attacks import attack as remover
from earmark.attacks.removal.tuning import saved_trials
from earmark.cli.methods import beside, embedding
from earmark.cli.networks import check_name, network
from earmark.cli.settings import Form, pairs
from earmark.core import Remove
from earmark.errors import BadInput, unknown_name
from earmark.keys import MarkKey
from earmark.marks import Noise, TriggerMint
from earmark.models import Task

__all__ = ["JOINT", "NAMES", "REMOVALS", "checkpoint_of", "checkpoints", "own_network", "removal_of"]

JOINT = "+"
REMOVALS: Mapping[str, Callable[..., Remove]] = {**ATTACKS, **PASSPORT_REMOVALS}
NAMES = tuple(name for name in REMOVALS if name != "stack")
"""What can be named: a stack is named by its parts."""


def removal_of(name: str, sets: list[str] | None, checkpoint: Path | None, seed: int, task: Task) -> Remove:
    """The removal of this name, or of several with + between them, which are done one after the other.

    Args:
        name: as the user gave it.
        sets: settings as NAME=VALUE; of several attacks as ATTACK.NAME=VALUE.
        checkpoint: where those that train save their runs.
        seed: of a thief's key.
        task: what a network of the thief's own has to fit.

    Raises:
        BadInput: an unknown name, or settings that will not do.
    """
    names = name.split(JOINT)
    for each in names:
        if each == "stack":
            raise BadInput("a stack is named by its parts, with + between them: prune-global+fine-tune-ftal")
        if each not in NAMES:
            raise unknown_name("removal", each, NAMES)
    if len(names) == 1:
        return _one(name, sets, checkpoint, seed, task)
    shared = _shares(names, sets)
    parts = enumerate(names, start=1)
    return Stack([_one(each, shared[each], _stage(checkpoint, each, at, names), seed, task) for at, each in parts])


def checkpoint_of(name: str, out: Path) -> Path | None:
    """Where an attack that trains saves its run; what lies there beside the output of another attack is not its own."""
    return beside(out) if any(_trains(each) for each in name.split(JOINT)) else None


def checkpoints(checkpoint: Path | None) -> list[Path]:
    """The files that a run has left."""
    return [] if checkpoint is None else saved_trials(checkpoint)


def own_network(form: Form, made: Callable[..., object], task: Task) -> tuple[Form, Callable[..., dict[str, Any]]]:
    """The form with `build`, the name of a network, where the attack takes one, and what makes it a function."""
    if "build" not in inspect.signature(made).parameters:
        return form, dict

    def given(build: str | None = None, **values: Any) -> dict[str, Any]:
        return values if build is None else {**values, "build": _builder(build, task)}

    return Form(form.what, {**form.types, "build": str}), given


def _builder(name: str, task: Task) -> Callable[[], nn.Module]:
    try:
        check_name(name)
    except BadInput as error:
        raise BadInput(f"build: {error}") from error
    return partial(network, name, None, None, task)


def _one(name: str, sets: list[str] | None, checkpoint: Path | None, seed: int, task: Task) -> Remove:
    if REMOVALS[name] is Overwrite:
        return _overwriting(sets, checkpoint, seed)
    own = {"checkpoint": checkpoint} if checkpoint is not None and _trains(name) else {}
    plain = Form.of(f"settings of {name}", REMOVALS[name], without=("checkpoint",))
    form, given = own_network(plain, REMOVALS[name], task)
    built: Remove = form.fill(sets, lambda **values: remover(name, **given(**values), **own))
    return built


def _trains(name: str) -> bool:
    made = REMOVALS.get(name)
    return made is not None and (made is Overwrite or "checkpoint" in inspect.signature(made).parameters)


def _stage(checkpoint: Path | None, name: str, at: int, names: list[str]) -> Path | None:
    """A checkpoint for each stage, in names that `saved_trials` finds and no further trial has."""
    if checkpoint is None or not _trains(name):
        return None
    return checkpoint.with_name(f"{checkpoint.name}.{at}-of-{len(names)}")


def _shares(names: list[str], sets: list[str] | None) -> dict[str, list[str]]:
    """The settings of each attack of several."""
    shared: dict[str, list[str]] = {name: [] for name in names}
    for setting, text in pairs(sets).items():
        name, dot, own = setting.rpartition(".")
        if not dot:
            raise BadInput(f"--set {setting}: of several attacks, settings are named with theirs: {names[0]}.{setting}")
        if name not in shared:
            raise unknown_name("attack in --set", name, names)
        shared[name].append(f"{own}={text}")
    return shared


def _overwriting(sets: list[str] | None, checkpoint: Path | None, seed: int) -> Remove:
    """A thief who marks the stolen model with a key of his own; `mint` and `method` are settings like the others."""
    chosen = [text.removeprefix("method=") for text in sets or () if text.startswith("method=")]
    form, build = embedding(chosen[0] if chosen else "fixll+pfl", checkpoint=checkpoint)
    types = {**form.types, "mint": TriggerMint, "method": str}
    key = MarkKey(hashlib.sha256(b"earmark/thief/%d" % seed).digest())

    def overwrite(mint: TriggerMint | None = None, method: str = "", **values: Any) -> Remove:
        return Overwrite(mint or Noise(), build(**values), key)

    return Form("settings of overwrite", types).fill(sets, overwrite)
