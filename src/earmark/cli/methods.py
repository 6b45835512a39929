"""Mints and embedding methods as the command line takes them: a name, settings, and a checkpoint beside the output."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from earmark.cli import passports, projections
from earmark.cli.secrets import Minted
from earmark.cli.settings import Form
from earmark.core import Mint
from earmark.data import open_data
from earmark.embed import METHODS, Backdoor, PassportLayers, Uchida, method
from earmark.errors import BadInput, unknown_name
from earmark.marks import (
    MINTS,
    Passports,
    Penetration,
    Penetrative,
    Projection,
    Sliced,
    TriggerMint,
    TriggerSet,
)
from earmark.training import Settings, ShadowTraining

__all__ = ["IN_WEIGHTS", "NAMES", "ON_HOST", "beside", "embedder_of", "embedding", "minting"]

OWN = ("enough", "head", "patience", "replace", "select", "watch")
"""What a method takes beside its weights and the settings of its training run."""

IN_WEIGHTS: Mapping[str, str] = {
    "passports": "passports carry a bit for each channel of the layers, --set layers=N",
    "projection": "a projection reads bits, --set bits=N",
}
"""Kinds of marks that are read from weights, and how many bits they have instead of triggers."""

ON_HOST = (*IN_WEIGHTS, "frontier")
"""Kinds of marks that are minted for a network, and need it."""

NAMES = (*METHODS, *passports.METHODS, *projections.METHODS)
"""Every method of embedding."""


def embedding(name: str, **given: Any) -> tuple[Form, Callable[..., Backdoor]]:
    """The form of a backdoor's settings, and the function that they go to."""
    if name not in METHODS:
        raise unknown_name("embedding method", name, METHODS)
    own = inspect.signature(METHODS[name]).parameters
    backdoor = [field for field in inspect.signature(Backdoor).parameters if field not in OWN]

    def build(**values: Any) -> Backdoor:
        weights = {setting: values.pop(setting) for setting in list(values) if setting in own}
        return method(name, **weights).but(**values, **given)

    return Form.of(f"settings of {name}", METHODS[name], Backdoor, Settings, without=backdoor), build


def beside(out: Path) -> Path:
    """The checkpoint of the run that is going to write `out`."""
    return out.with_name(f"{out.name}.checkpoint")


def minting(
    kind: str, count: int | None, source: str | None, sets: list[str] | None, sliced: bool = False
) -> Mint[TriggerSet] | Mint[Passports] | Mint[Projection]:
    """The mint that the options ask for."""
    if kind not in (*MINTS, *IN_WEIGHTS):
        raise unknown_name("kind of mark", kind, (*MINTS, *IN_WEIGHTS))
    if kind == Sliced.name:
        raise BadInput("slices are of triggers of another kind; give that kind, and --sliced beside it")
    if source is not None and kind != "unrelated":
        raise BadInput(f"--source is for unrelated triggers alone, got --kind {kind}; leave one of the two out")
    if kind in IN_WEIGHTS:
        if count is not None:
            raise BadInput(f"--count is for triggers; {IN_WEIGHTS[kind]}")
        if sliced:
            raise BadInput(f"--sliced is for triggers, and {kind} open as a whole; leave it out")
        return passports.minting(sets) if kind == "passports" else projections.minting(sets)
    given: dict[str, Any] = {} if count is None else {"count": count}
    if source is not None:
        given["source"] = open_data(source).train
    made = _penetrative(sets, given) if kind == Penetrative.name else _triggers(kind, sets, given)
    return Sliced(of=made) if sliced else made


def _triggers(kind: str, sets: list[str] | None, given: Mapping[str, Any]) -> TriggerMint:
    form = Form.of(f"settings of {kind} triggers", MINTS[kind], without=("count", "source"))
    return form.fill(sets, lambda **values: MINTS[kind](**given, **values))


def _penetrative(sets: list[str] | None, given: Mapping[str, Any]) -> Penetrative:
    """Stamps with what trains their shadow autoencoders, and how they are found, among the settings."""
    parts = (Penetrative, ShadowTraining, Penetration)
    form = Form.of(
        "settings of penetrative triggers", *parts, without=("count", "search", "shadow_training", "lr", "batch_size")
    )

    def build(**values: Any) -> Penetrative:
        own: list[dict[str, Any]] = []
        for part in (ShadowTraining, Penetration):
            own.append({name: values.pop(name) for name in list(values) if name in inspect.signature(part).parameters})
        return Penetrative(**given, **values, shadow_training=ShadowTraining(**own[0]), search=Penetration(**own[1]))

    return form.fill(sets, build)


def embedder_of(
    method: str, triggers: Path | None, sets: list[str] | None, given: Mapping[str, Any]
) -> Backdoor | PassportLayers | Uchida:
    """The embedding that the options ask for."""
    if method not in NAMES:
        raise unknown_name("embedding method", method, NAMES)
    if method in METHODS and triggers is None:
        form, build = embedding(method, **given)
        return form.fill(sets, build)
    taught = None if triggers is None else Minted.open(triggers).triggers(triggers)
    if method in projections.METHODS:
        form, bits = projections.embedding(taught, **given)
        return form.fill(sets, bits)
    form, layers = passports.embedding(method, taught, triggers, **given)
    return form.fill(sets, layers)
