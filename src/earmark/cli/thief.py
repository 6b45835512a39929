"""What others do to a model: remove its mark, or read a mark into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from earmark.attacks import (
    EVASIONS,
    FORGERIES,
    PASSPORT_FORGERIES,
    PROJECTION_FORGERIES,
    ForgedProjection,
    Forger,
    Forgery,
    PassportForger,
    PassportForgery,
    ProjectionForgery,
    Spent,
    Stack,
    Transfer,
    forger,
    measured,
    needs_of,
)
from earmark.attacks.removal.tuning import ahead
from earmark.cli import options, passports, projections, removals
from earmark.cli.networks import fitting, network, save_network
from earmark.cli.output import new_file, new_folder, show
from earmark.cli.settings import Form
from earmark.core import Data, Remove, rng
from earmark.data import open_data
from earmark.errors import BadInput, unknown_name
from earmark.evidence import commit
from earmark.files import model_digest, weights_digest
from earmark.schemes import scheme_of
from earmark.training import accuracy

__all__ = ["attack", "expense"]

NAMES = (*removals.NAMES, *FORGERIES, *PASSPORT_FORGERIES, *PROJECTION_FORGERIES)


def attack(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(NAMES)}; removals in a row with + between.")],
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

    A removal writes the attacked model to OUT; several in a row (prune-global+fine-tune-ftal) are done one after the
    other, with settings as --set prune-global.share=0.5. A forgery (adversarial, read-off, grind, false-claim,
    projection) leaves the model
    as it is and writes the claim and the evidence that its forger would bring to a judge into the folder OUT; one of
    passports (random, solved, reverse-scales, cerb, retrained) also writes the network that they are presented with,
    which answers as the model does, to OUT.safetensors. The keys of thieves and forgers are throw-away and follow from
    --seed. --set takes the attack's settings; overwrite takes mint, method and what `embed` takes; transfer and
    knockoff take data, the other task, in the form of --data, and transfer is measured on that task; extract-*,
    knockoff, distil and false-claim take build, a network in the form of --model; ensemble takes attack, what each copy
    goes through; retrained takes mark, the file of the owner's
    passports; projection takes layer, bits and signature of the claim that it poses as. Attacks that train go on from
    OUT.checkpoint after they were killed, but for forgeries and ensembles. What the thief needs, and what the attack
    took (seconds, samples of the data, queries to the model), is told with the result.
    """
    if name in EVASIONS:
        raise BadInput(f"{name} stands in front of a model and leaves no file; give it to `earmark evade`")
    removal = removals.JOINT in name or name in removals.REMOVALS
    if not removal and name not in NAMES:
        raise unknown_name("attack", name, NAMES)
    images, checkpoint = open_data(data), removals.checkpoint_of(name, out)
    if removal:
        thief = removals.removal_of(name, sets, checkpoint, seed, images)
        out = new_file(out, force, ".safetensors", again=bool(removals.checkpoints(checkpoint)))
        value = _removed(thief, _victim(model, stolen, model_set, images), images, out, seed, force)
        found = f"{100 * value['val_acc']:.2f} % of the test images right"
    else:
        made = _forger(name, sets, images)
        value = _forged(made, _victim(model, stolen, model_set, images), stolen, images, out, seed, force)
        found = "a forged claim and its evidence"
    show(as_json, {"attack": name, **value}, f"{out}: {found}", _told(value))
    for file in removals.checkpoints(checkpoint):
        file.unlink()


def expense(thief: object, spent: Spent) -> dict[str, Any]:
    """What a thief needs and what the attack took, for the result."""
    needs = needs_of(thief)
    return {"needs": needs.to_dict(), "cost": {**spent.to_dict(), "weights": needs.weights}}


def _told(value: dict[str, Any]) -> str:
    seconds, samples, queries = (value["cost"][name] for name in ("seconds", "samples", "queries"))
    return f"took {seconds:.1f} s, {samples} samples of the data and {queries} queries to the model"


def _victim(name: str, weights: Path, arguments: list[str] | None, data: Data) -> nn.Module:
    return fitting(network(name, weights, arguments, data), data, str(weights))


def _removed(removal: Remove, stolen: nn.Module, data: Data, out: Path, seed: int, force: bool) -> dict[str, Any]:
    (attacked, task), spent = measured(lambda *case: _run(removal, *case), stolen, data, rng(seed))
    facts = {
        "out": str(out),
        "digest": model_digest(attacked),
        "val_acc_before": accuracy(stolen, task.test),
        "val_acc": accuracy(attacked, task.test),
        **expense(removal, spent),
    }
    save_network(out, attacked, force)
    return facts


def _run(removal: Remove, model: nn.Module, data: Data, generator: torch.Generator) -> tuple[nn.Module, Data]:
    """The attacked model, and the task that it is for now: that of the last transfer, if there was one."""
    task = data
    for part in removal.attacks if isinstance(removal, Stack) else (removal,):
        if isinstance(part, Transfer):
            task = part.target(data, ahead(generator))
        model = part(model, data, generator)
    return model, task


def _forger(name: str, sets: list[str] | None, data: Data) -> Forger | PassportForger | ForgedProjection:
    if name in PROJECTION_FORGERIES:
        return projections.forging(name, sets)
    if name in PASSPORT_FORGERIES:
        return passports.forging(name, sets)
    form, given = removals.own_network(Form.of(f"settings of {name}", FORGERIES[name]), FORGERIES[name], data)
    made: Forger = form.fill(sets, lambda **values: forger(name, **given(**values)))
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
    make: Callable[..., Forgery | PassportForgery | ProjectionForgery] = forge.forge
    forgery, spent = measured(make, stolen, data, rng(seed))
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
    return {"claim": str(claim), "evidence": str(evidence), "model": str(file), **expense(forge, spent)}
