"""What stands in front of a stolen model: how much of a mark passes it, and what it costs the thief."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from earmark.attacks import (
    EVASIONS,
    WASHERS,
    Chain,
    Needs,
    Washer,
    evader,
    measured,
    needs_of,
    query_accuracy,
    washer,
)
from earmark.attacks.needs import together
from earmark.cli import options
from earmark.cli.court import STATUS
from earmark.cli.measure import of_task
from earmark.cli.networks import fitting, network
from earmark.cli.output import show
from earmark.cli.secrets import Minted
from earmark.cli.settings import Form
from earmark.cli.thief import expense
from earmark.core import Data, Evade, Query, rng
from earmark.data import open_data
from earmark.errors import BadInput, unknown_name
from earmark.suspects import as_query
from earmark.verify import TriggerTest

__all__ = ["evade"]

JOINT = "+"
ALONE = [name for name in EVASIONS if name != "chain"]


def evade(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"{', '.join(ALONE)}; several in a row with + between them.")
    ],
    stolen: Annotated[Path, typer.Argument(help="The weights of the stolen model.", metavar="MODEL")],
    mark: options.MarkFile,
    data: options.DataSource,
    alpha: options.Alpha = 1e-6,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    sets: options.Settings = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Where an evasion that trains saves its run, to go on."),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Stand in front of a stolen model, and test what is left of a mark.

    Images are washed before the model sees them; refuse, which comes last where several are in a row, answers odd ones
    at random instead. Tells how many test images of --data the model gets right without and with the evasion, what the
    thief needs and what making it took, and the verdict on the mark through it. What learns (autoencoder, refuse) does
    so from the training images of --data, which are the thief's. --set takes the evasion's settings. Ends as verify
    does: status 0 if the mark is found, 1 if it is not, 3 without an answer.
    """
    images, minted = open_data(data), Minted.open(mark)
    triggers = of_task(minted.triggers(mark), mark, images)
    accused = fitting(network(model, stolen, model_set, triggers), images, str(stolen))
    before, by = query_accuracy(as_query(accused), images.test), _evasion(name, sets, checkpoint)
    evaded, spent = measured(by, accused, images, rng(seed))
    after, verdict = query_accuracy(evaded, images.test), TriggerTest(alpha=alpha)(evaded, triggers)
    asked = {"suspect": f"{stolen.name} behind {name}", "claimant": minted.name, "evasion": name}
    value = {**asked, "val_acc_before": before, "val_acc": after, **expense(by, spent), **verdict.to_dict()}
    kept = f"{100 * after:.2f} % of the test images right, {100 * before:.2f} % without {name}"
    show(as_json, value, kept, str(verdict))
    raise typer.Exit(STATUS[verdict.accepted])


@dataclass(frozen=True)
class _Guarded:
    """Washers in front of a guard, which stands next to the model."""

    front: Washer
    guard: Evade

    @property
    def needs(self) -> Needs:
        return together(needs_of(self.front), needs_of(self.guard))

    def __call__(self, model: Any, data: Data, rng: torch.Generator) -> Query:
        return self.front(self.guard(model, data, rng), data, rng)


def _evasion(name: str, sets: list[str] | None, checkpoint: Path | None) -> Evade:
    names = name.split(JOINT)
    for each in names:
        if each not in ALONE:
            if each == "chain":
                raise BadInput("a chain is named by its parts, with + between them: blur+jpeg")
            raise unknown_name("evasion", each, ALONE)
    if any(each not in WASHERS for each in names[:-1]):
        raise BadInput("refuse stands next to the model: name it once, and last")
    trained = [each for each in names if "checkpoint" in inspect.signature(EVASIONS[each]).parameters]
    if checkpoint is not None and len(trained) != 1:
        raise BadInput(f"--checkpoint is for one evasion that trains, and {name} has {len(trained)}; leave it out")
    own: dict[str, Any] = {} if checkpoint is None else {"checkpoint": checkpoint}
    if len(names) == 1:
        form = Form.of(f"settings of {name}", EVASIONS[name], without=("checkpoint",))
        return form.fill(sets, lambda **values: evader(name, **values, **own))
    if sets:
        raise BadInput(f"--set is for a single evasion, and {name} is {len(names)}; chain them in Python to set them")
    washers = [each for each in names if each in WASHERS]
    chain = Chain(tuple(washer(each, **(own if each in trained else {})) for each in washers))
    return chain if len(washers) == len(names) else _Guarded(chain, evader(names[-1]))
