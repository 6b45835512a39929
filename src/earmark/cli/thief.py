"""What others do to a model: remove its mark, or read a mark into it."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from earmark.attacks import (
    ATTACKS,
    EVASIONS,
    FORGERIES,
    PASSPORT_FORGERIES,
    PASSPORT_REMOVALS,
    PROJECTION_FORGERIES,
    ForgedProjection,
    Forger,
    Overwrite,
    PassportForger,
    PassportForgery,
    Transfer,
    forger,
)
from earmark.attacks import attack as remover
from earmark.attacks.removal.tuning import saved_trials
from earmark.cli import options, passports, projections
from earmark.cli.methods import beside, embedding
from earmark.cli.networks import fitting, network, save_network
from earmark.cli.output import new_file, new_folder, show
from earmark.cli.settings import Form
from earmark.core import Data, Remove, rng
from earmark.data import open_data
from earmark.errors import BadInput, unknown_name
from earmark.evidence import commit
from earmark.files import model_digest, weights_digest
from earmark.keys import MarkKey
from earmark.marks import Noise, TriggerMint
from earmark.schemes import scheme_of
from earmark.training import accuracy

__all__ = ["attack"]

REMOVALS = {**ATTACKS, **PASSPORT_REMOVALS}
NAMES = (*REMOVALS, *FORGERIES, *PASSPORT_FORGERIES, *PROJECTION_FORGERIES)


def attack(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(NAMES)}.")],
    stolen: Annotated[Path, typer.Argument(help="The weights of the attacked model.", metavar="MODEL")],
    data: options.DataSource,
    out: options.Out,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    sets: options.Settings = None,
    seed: options.Seed = 0,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Attack a model.

    A removal writes the attacked model to OUT. A forgery (adversarial, read-off, grind, projection) leaves the model
    as it is and writes the claim and the evidence that its forger would bring to a judge into the folder OUT; one of
    passports (random, solved, reverse-scales, cerb, retrained) also writes the network that they are presented with,
    which answers as the model does, to OUT.safetensors. The keys of thieves and forgers are throw-away and follow from
    --seed. --set takes the attack's settings; overwrite takes mint, method and what `embed` takes; transfer takes data,
    the other task, in the form of --data, and is measured on that task; retrained takes mark, the file of the owner's
    passports; projection takes layer, bits and signature of the claim that it poses as. Attacks that train go on from
    OUT.checkpoint after they were killed, but for forgeries.
    """
    if name in EVASIONS:
        raise BadInput(f"{name} stands in front of a model and leaves no file; give it to `earmark evade`")
    if name not in NAMES:
        raise unknown_name("attack", name, NAMES)
    images, checkpoint = open_data(data), _checkpoint(name, out)
    if name in REMOVALS:
        removal = _removal(name, sets, checkpoint, seed)
        out = new_file(out, force, ".safetensors", again=checkpoint is not None and checkpoint.exists())
        value = _removed(removal, _victim(model, stolen, model_set, images), images, out, seed, force)
        found = f"{100 * value['val_acc']:.2f} % of the test images right"
    else:
        made = _forger(name, sets)
        value = _forged(made, _victim(model, stolen, model_set, images), stolen, images, out, seed, force)
        found = "a forged claim and its evidence"
    show(as_json, {"attack": name, **value}, f"{out}: {found}")
    for file in saved_trials(checkpoint) if checkpoint is not None else ():
        file.unlink()


def _victim(name: str, weights: Path, arguments: list[str] | None, data: Data) -> nn.Module:
    return fitting(network(name, weights, arguments, data), data, str(weights))


def _checkpoint(name: str, out: Path) -> Path | None:
    """Where an attack that trains saves its run; what lies there beside the output of another attack is not its own."""
    made = REMOVALS.get(name)
    trains = made is not None and (made is Overwrite or "checkpoint" in inspect.signature(made).parameters)
    return beside(out) if trains else None


def _removal(name: str, sets: list[str] | None, checkpoint: Path | None, seed: int) -> Remove:
    if REMOVALS[name] is Overwrite:
        return _overwriting(sets, checkpoint, seed)
    own = {} if checkpoint is None else {"checkpoint": checkpoint}
    form = Form.of(f"settings of {name}", REMOVALS[name], without=own)
    built: Remove = form.fill(sets, lambda **values: remover(name, **values, **own))
    return built


def _overwriting(sets: list[str] | None, checkpoint: Path | None, seed: int) -> Remove:
    """A thief who marks the stolen model with a key of his own; `mint` and `method` are settings like the others."""
    chosen = [text.removeprefix("method=") for text in sets or () if text.startswith("method=")]
    form, build = embedding(chosen[0] if chosen else "fixll+pfl", checkpoint=checkpoint)
    types = {**form.types, "mint": TriggerMint, "method": str}
    key = MarkKey(hashlib.sha256(b"earmark/thief/%d" % seed).digest())

    def overwrite(mint: TriggerMint | None = None, method: str = "", **values: Any) -> Remove:
        return Overwrite(mint or Noise(), build(**values), key)

    return Form("settings of overwrite", types).fill(sets, overwrite)


def _removed(removal: Remove, stolen: nn.Module, data: Data, out: Path, seed: int, force: bool) -> dict[str, Any]:
    attacked = removal(stolen, data, rng(seed))
    task = removal.target(data, rng(seed)) if isinstance(removal, Transfer) else data
    facts = {
        "out": str(out),
        "digest": model_digest(attacked),
        "val_acc_before": accuracy(stolen, task.test),
        "val_acc": accuracy(attacked, task.test),
    }
    save_network(out, attacked, force)
    return facts


def _forger(name: str, sets: list[str] | None) -> Forger | PassportForger | ForgedProjection:
    if name in PROJECTION_FORGERIES:
        return projections.forging(name, sets)
    if name in PASSPORT_FORGERIES:
        return passports.forging(name, sets)
    made: Forger = Form.of(f"settings of {name}", FORGERIES[name]).fill(sets, lambda **values: forger(name, **values))
    return made


def _forged(
    forge: Forger | PassportForger | ForgedProjection,
    stolen: nn.Module,
    weights: Path,
    data: Data,
    out: Path,
    seed: int,
    force: bool,
) -> dict[str, Any]:
    """The forger's claim: to the stolen model, or to the network that he presents passports with, which he writes."""
    new_folder(out.parent)
    ours = isinstance(forge, PassportForger)
    file = new_file(out.with_name(f"{out.name}.safetensors"), force) if ours else weights
    forgery = forge.forge(stolen, data, rng(seed))
    presented = forgery.model if isinstance(forgery, PassportForgery) else stolen
    if ours:
        save_network(file, presented, force)
    claim, evidence = commit(
        forgery.owner,
        forgery.mark,
        name=forgery.name,
        host=None,
        marked=presented,
        scheme=scheme_of(forgery.mark),
        out=out,
        owner_name="forger",
        check=False,
        marked_digest=weights_digest(file),
    )
    return {"claim": str(claim), "evidence": str(evidence), "model": str(file)}
