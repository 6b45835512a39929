"""Schemes as the grid takes them: by name, with settings of the mint, of the embedding and of its training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from earmark.core import Images
from earmark.embed import METHODS, method
from earmark.errors import BadInput, unknown_name
from earmark.marks import MINTS, Unrelated
from earmark.schemes import SCHEMES, Scheme
from earmark.training import Settings

__all__ = ["UNRELATED", "bare_schemes", "named_scheme", "scheme_parts", "scheme_settings"]

TRAINING = tuple(field.name for field in fields(Settings))
UNRELATED = "zhang-unrelated"
"""The scheme that takes images of another data set."""
CHOICES = ("mint", "method")
"""Settings that name another mint of `marks.MINTS` and another embedding of `embed.METHODS`."""


def bare_schemes() -> list[str]:
    """The schemes that can be had by name alone; others need a mint with something of the owner's in it."""
    return [name for name, make in SCHEMES.items() if not _required(make)]


def _required(make: Any) -> list[str]:
    return [name for name, one in inspect.signature(make).parameters.items() if one.default is one.empty]


def named_scheme(name: str, *, others: Images | None = None, **settings: Any) -> Scheme[Any]:
    """The scheme that a claim calls `name`, with its defaults but for `settings`.

    A setting is one of the mint's, of the embedding's, or of its training run's; `mint` names another mint, `method`
    another embedding, whose own weights (alpha, beta, ...) are settings then. `others` are images of another
    data set, which `zhang-unrelated` picks its triggers from, and no other scheme.

    Raises:
        BadInput: an unknown scheme or setting, with the nearest known one, or a value that is refused; or a scheme
            that cannot be had by name alone.

    >>> named_scheme("deep-fidelity", count=60, lr=1e-3).mint.count
    60
    """
    if name not in SCHEMES:
        raise unknown_name("scheme", name, SCHEMES)
    if name == UNRELATED and others is None:
        raise BadInput(f"{name} picks its triggers from another data set; name one with --others, or give others=")
    if name != UNRELATED and (lacking := _required(SCHEMES[name])):
        raise BadInput(
            f"{name} needs {', '.join(lacking)} with something of the owner's in it (other images, trained "
            "autoencoders); build it in Python and give it to a Grid"
        )
    known = scheme_settings(name, settings)
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    given = {setting: value for setting, value in settings.items() if setting not in CHOICES}
    mint, embed, weights = scheme_parts(name, settings, others)
    own = {setting: given.pop(setting) for setting in list(given) if setting in _names(mint)}
    given = {setting: value for setting, value in given.items() if setting not in weights}
    changed = {setting: tuple(value) if isinstance(value, list) else value for setting, value in given.items()}
    made: Scheme[Any] = SCHEMES[name](mint=replace(mint, **own), embed=embed.but(**changed) if changed else embed)
    return made


def scheme_settings(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a scheme with its present value, where `chosen` may name another mint and method."""
    mint, embed, weights = scheme_parts(name, {key: value for key, value in chosen.items() if key in CHOICES})
    own = {one: getattr(embed, one) for one in _names(embed) if one not in ("settings", "checkpoint", "on_history")}
    run = {one: getattr(embed.settings, one) for one in TRAINING}
    return {**dict.fromkeys(CHOICES), **run, **own, **weights, **{one: getattr(mint, one) for one in _names(mint)}}


def scheme_parts(
    name: str, settings: Mapping[str, Any], others: Images | None = None
) -> tuple[Any, Any, dict[str, Any]]:
    """Mint and embedding, and the weights of a method that was named."""
    plain = SCHEMES[name](Unrelated(source=others)) if name == UNRELATED else SCHEMES[name]()
    mint, embed, weights = plain.mint, plain.embed, dict[str, Any]()
    if (kind := settings.get("mint")) is not None:
        if kind not in MINTS:
            raise unknown_name("mint", str(kind), MINTS)
        mint = MINTS[kind]()
    if (how := settings.get("method")) is not None:
        if how not in METHODS:
            raise unknown_name("embedding method", str(how), METHODS)
        known = inspect.signature(METHODS[how]).parameters
        weights = {one: settings.get(one, parameter.default) for one, parameter in known.items()}
        embed = method(how, **{one: value for one, value in weights.items() if one in settings})
    return mint, embed, weights


def _names(part: Any) -> list[str]:
    return [field.name for field in fields(part) if field.init]
