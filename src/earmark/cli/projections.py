"""Projections on the command line: minted for one layer of a network, embedded as Uchida et al. do, and forged."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from earmark.attacks import PROJECTION_FORGERIES, ForgedProjection, projection_forger
from earmark.cli.settings import Form
from earmark.embed import FromHost, FromScratch, Uchida
from earmark.marks import ProjectionMint, TriggerSet
from earmark.training import Settings

__all__ = ["METHODS", "embedding", "forging", "minting"]

METHODS = ("uchida",)
FIXED = ("terms", "trainable", "triggers", "start", "settings", "augment", "measures", "checkpoint", "on_history")


def minting(sets: list[str] | None) -> ProjectionMint:
    """The mint with its settings.

    Raises:
        BadInput: settings that it does not have.
    """
    return Form.of("settings of a projection", ProjectionMint).fill(sets, ProjectionMint)


def embedding(triggers: TriggerSet | None, **given: Any) -> tuple[Form, Callable[..., Uchida]]:
    """The form of the settings of the embedding, and the function that they go to."""

    def build(fresh: bool = False, **values: Any) -> Uchida:
        embed = Uchida(triggers=triggers, start=FromScratch() if fresh else FromHost())
        return embed.but(**values, **given)

    form = Form.of("settings of uchida", Uchida, Settings, without=FIXED)
    return Form(form.what, {**form.types, "fresh": bool}), build


def forging(name: str, sets: list[str] | None) -> ForgedProjection:
    """The forger `name` with its settings, those of the mint that he poses with among them.

    Raises:
        BadInput: settings that neither has.
    """
    own = inspect.signature(ProjectionMint).parameters

    def build(**values: Any) -> ForgedProjection:
        posed = {setting: values.pop(setting) for setting in list(values) if setting in own}
        return projection_forger(name, mint=ProjectionMint(**posed), **values)

    form = Form.of(f"settings of {name}", ProjectionMint, PROJECTION_FORGERIES[name], without=("mint",))
    return form.fill(sets, build)
