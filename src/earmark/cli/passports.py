"""Passports on the command line: minted for a network's layers, embedded with or without a public path, and forged."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from earmark.attacks import PASSPORT_FORGERIES, PassportForger, passport_forger
from earmark.cli.settings import Form
from earmark.embed import FromHost, FromScratch, PassportLayers
from earmark.errors import BadInput
from earmark.marks import PassportMint, TriggerSet
from earmark.training import Settings

__all__ = ["METHODS", "embedding", "forging", "minting"]

METHODS = ("passports-v1", "passports-v2", "passports-v3")
FIXED = ("public", "triggers", "start", "settings", "augment", "checkpoint", "on_history")


def minting(sets: list[str] | None) -> PassportMint:
    """The mint with its settings; witnesses are needed, as they tell later commands the images of a network's task.

    Raises:
        BadInput: settings that it does not have, or no witness.
    """
    mint = Form.of("settings of passports", PassportMint).fill(sets, PassportMint)
    if not mint.witnesses:
        raise BadInput("settings of passports: witnesses tell later commands the network's images; take at least 1")
    return mint


def embedding(
    name: str, triggers: TriggerSet | None, path: Path | None, **given: Any
) -> tuple[Form, Callable[..., PassportLayers]]:
    """The form of the settings of V1, V2 or V3, and the function that they go to.

    Raises:
        BadInput: triggers for V1 or V2, or none for V3.
    """
    if (name == "passports-v3") != (path is not None):
        raise BadInput(
            "--triggers FILE, a mark of triggers, belongs to --method passports-v3 or uchida and to no other method"
        )

    def build(fresh: bool = True, **values: Any) -> PassportLayers:
        start = FromScratch() if fresh else FromHost()
        layers = PassportLayers(public=name != "passports-v1", triggers=triggers, start=start)
        return layers.but(**values, **given)

    form = Form.of(f"settings of {name}", PassportLayers, Settings, without=FIXED)
    return Form(form.what, {**form.types, "fresh": bool}), build


def forging(name: str, sets: list[str] | None) -> PassportForger:
    """The forger `name` with its settings, those of its training run among them where it has one.

    Raises:
        BadInput: settings that it does not have, or one that it needs and did not get.
    """
    own = inspect.signature(PASSPORT_FORGERIES[name]).parameters
    trains = (Settings,) if "settings" in own else ()

    def build(**values: Any) -> PassportForger:
        given = {setting: values.pop(setting) for setting in list(values) if setting in own}
        if trains:
            given["settings"] = own["settings"].default.but(**values)
        return passport_forger(name, **given)

    return Form.of(f"settings of {name}", PASSPORT_FORGERIES[name], *trains, without=("settings",)).fill(sets, build)
