"""A grid from the texts of a command line: names, settings, strengths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from torch import nn

from earmark.bench import (
    PRESETS,
    Attack,
    Grid,
    Preset,
    attack_names,
    bare_attacks,
    bare_schemes,
    named_attack,
    named_scheme,
    read_preset,
)
from earmark.bench.attack import maker_of
from earmark.bench.scheme import CHOICES, UNRELATED, scheme_parts
from earmark.bench.sources import LETTERS, letters, other_images
from earmark.cli.networks import NETWORKS, check_name, fitting
from earmark.cli.settings import Form, pairs, value_of
from earmark.core import Data, Images, rng
from earmark.data import CropFlip, open_data
from earmark.embed import METHODS
from earmark.errors import BadInput, unknown_name
from earmark.models import built
from earmark.schemes import SCHEMES, Scheme
from earmark.suspects import load_model
from earmark.training import HOST, Settings

__all__ = ["ALL", "Asked", "grid_of"]

ALL = "all"
HOST_NAME = "host"
STRUCTURE = (
    "augment", "checkpoint", "masking", "measures", "name", "on_history", "public", "refinement", "settings", "source",
    "start", "terms", "trainable", "triggers", "views",
)  # fmt: skip
"""Fields of an embedding that are no settings."""


@final
@dataclass(frozen=True)
class Asked:
    """What the options of `earmark bench` say."""

    schemes: str
    attacks: str
    preset: str | None
    data: str | None
    model: str | None
    model_set: Sequence[str]
    sets: Sequence[str]
    sweeps: Sequence[str]
    seeds: int
    aside: int
    augment: bool
    alpha: float
    others: str | None = None


def grid_of(asked: Asked) -> Grid:
    """The grid that the options ask for.

    Raises:
        BadInput: an unknown name, with the nearest known one; a setting that is wrong, or of something that is not run.
    """
    name = "digits" if asked.preset is None and asked.data is None else asked.preset
    if name is not None and name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    preset = None if name is None else PRESETS[name]
    schemes = _names("scheme", asked.schemes, list(SCHEMES), bare_schemes())
    attacks = _names("attack", asked.attacks, list(attack_names()), bare_attacks())
    settings, sweeps = _by_owner(asked.sets, "--set"), _by_owner(asked.sweeps, "--sweep")
    _check_owners(settings, [HOST_NAME, *schemes, *attacks], "--set")
    _check_owners(sweeps, attacks, "--sweep")
    others = _others(asked, preset) if UNRELATED in schemes else None
    source = partial(open_data, asked.data) if asked.data is not None else partial(read_preset, name or "")
    build = _building(asked, preset, source())
    usual = preset.host if preset else HOST
    host = Form.of("settings of the host", Settings).fill(settings.get(HOST_NAME), usual.but)
    return Grid(
        data=source,
        build=build,
        schemes={one: _scheme(one, settings.get(one, []), preset, others) for one in schemes},
        attacks={label: made for one in attacks for label, made in _columns(one, settings, sweeps, preset).items()},
        seeds=range(asked.seeds),
        host=host,
        augment=CropFlip() if asked.augment else preset.augment if preset else None,
        aside=asked.aside,
        alpha=asked.alpha,
        task=asked.data or (name or ""),
        network=asked.model or (preset.network if preset else "plain"),
    )


def _names(what: str, text: str, known: Sequence[str], usual: Sequence[str]) -> list[str]:
    if text == ALL:
        return list(usual)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise unknown_name(what, name, [*known, ALL])
    if len(set(names)) < len(names) or (not names and what == "scheme"):
        raise BadInput(f"--{what}s: expected one name or more, each once, got {text!r:.80}")
    return names


def _by_owner(texts: Sequence[str], option: str) -> dict[str, list[str]]:
    """`SETTING=VALUE` by the name before the first dot."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in pairs(texts, option).items():
        owner, dot, setting = key.partition(".")
        if not dot or not setting:
            raise BadInput(f"{option}: expected NAME.SETTING=VALUE, got {key!r}; name a scheme, an attack or host")
        found[owner].append(f"{setting}={value}")
    return found


def _check_owners(settings: Mapping[str, Any], run: Sequence[str], option: str) -> None:
    every = [HOST_NAME, *SCHEMES, *attack_names()]
    for owner in settings:
        if owner not in every:
            raise unknown_name(f"scheme or attack in {option}", owner, every)
        if owner not in run:
            raise BadInput(f"{option}: {owner} is set and not run; name it among the schemes or attacks, or leave it")


def _building(asked: Asked, preset: Preset | None, data: Data) -> Callable[[], nn.Module]:
    """What makes the network, tried once."""
    if asked.model is None and preset is not None:
        if asked.model_set:
            raise BadInput("--model-set: the preset has its own network; name one with --model")
        return preset.build(data)
    name = asked.model or "plain"
    check_name(name)
    function, known = NETWORKS.get(name, (name, lambda _: {}))
    given = {argument: value_of(text) for argument, text in pairs(asked.model_set, "--model-set").items()}
    build = partial(load_model, function, None, **{**known(data), **given})
    fitting(built(build, rng(0)), data, f"the network {name}")
    return build


def _others(asked: Asked, preset: Preset | None) -> Images | None:
    """The images of another data set that are asked for, or else the preset's."""
    if asked.others is not None:
        return letters() if asked.others == LETTERS else open_data(asked.others).train
    return None if preset is None or preset.others is None else other_images(preset.others)


def _scheme(name: str, texts: Sequence[str], preset: Preset | None, others: Images | None) -> Scheme[Any]:
    chosen = {key: value for key, value in pairs(texts).items() if key in CHOICES}
    usual = {} if preset is None or chosen else preset.schemes.get(name, {})
    mint, embed, _ = scheme_parts(name, chosen or usual, others)
    how = str((chosen or usual).get("method", ""))
    makers: tuple[Callable[..., Any], ...] = (type(mint), type(embed), Settings, *([METHODS[how]] if how else []))
    form = Form.of(f"settings of {name}", *makers, without=STRUCTURE)
    types = {**form.types, **dict.fromkeys(CHOICES, str)}

    def build(**values: Any) -> Scheme[Any]:
        return named_scheme(name, others=others, **{**usual, **values})

    made: Scheme[Any] = Form(form.what, types).fill(texts, build)
    return made


def _columns(
    name: str, settings: Mapping[str, Sequence[str]], sweeps: Mapping[str, Sequence[str]], preset: Preset | None
) -> dict[str, Attack]:
    """The attack with its settings; at each strength of a sweep, where there is one, which stand in its label."""
    usual = {} if preset is None else preset.attacks.get(name, {})
    form = Form.of(f"settings of {name}", maker_of(name), without=("checkpoint",))
    own = settings.get(name, [])

    def made(*more: str) -> Attack:
        given = [text for text in own if text.partition("=")[0] not in [one.partition("=")[0] for one in more]]
        built: Attack = form.fill([*given, *more], lambda **values: named_attack(name, **{**usual, **values}))
        return built

    told = list(sweeps.get(name, []))
    if not told and preset is not None:
        told = [
            f"{key.partition('.')[2]}={','.join(map(str, values))}"
            for key, values in preset.sweeps.items()
            if key.partition(".")[0] == name and key.partition(".")[2] not in pairs(own)
        ]
    if not told:
        return {name: made()}
    found = {}
    for text in told:
        setting, _, values = text.partition("=")
        for value in values.split(","):
            found[f"{name} {setting}={value.strip()}"] = made(f"{setting}={value.strip()}")
    return found
