"""Attacks as the grid takes them: by name, with what only the attacked scheme can give filled in for each scheme."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from earmark.attacks import (
    ATTACKS,
    EVASIONS,
    FORGERIES,
    PASSPORT_FORGERIES,
    PASSPORT_REMOVALS,
    PROJECTION_FORGERIES,
)
from earmark.bench.record import Family
from earmark.core import Mark
from earmark.errors import BadInput, unknown_name
from earmark.keys import MarkKey
from earmark.schemes import Scheme

__all__ = ["NONE", "Attack", "attack_names", "bare_attacks", "maker_of", "named_attack", "own_attack", "swept"]

NONE: Final = "none"
"""The cell of the marked model as it was released."""

TABLES: Mapping[Family, tuple[tuple[Mapping[str, Callable[..., Any]], str | None], ...]] = {
    "removal": ((ATTACKS, None), (PASSPORT_REMOVALS, None)),
    "evasion": ((EVASIONS, "triggers"),),
    "forgery": ((FORGERIES, "triggers"), (PASSPORT_FORGERIES, "passports"), (PROJECTION_FORGERIES, "projection")),
}
"""The tables of attacks by what they do, each with the kind of marks that it has something to act on; None for all."""

FROM_SCHEME: Final = ("mint", "embed", "pose_as", "key", "mark", "layers")
"""Parameters of attacks that the grid fills in where they are not set: parts of the attacked scheme, a rival's key."""

WHY: Mapping[str, str] = {
    "triggers": "it hides, or forges, answers to triggers, and this mark is read from weights",
    "passports": "it forges passports, and this scheme has none",
    "projection": "it forges projections, and this scheme has none",
}


@final
@dataclass(frozen=True)
class Attack:
    """One attack, as a column of the grid.

    Attributes:
        family: what it does: "removal", "evasion" or "forgery".
        make: a class or function that builds it.
        settings: what it is built with.
        kind: the kind of marks that it has something to act on; None for all.
    """

    family: Family
    make: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None

    def against(self, scheme: Scheme[Any], mark: Mark, rival: MarkKey) -> Any:
        """The attack on one marked model; raises `BadInput` where its settings cannot be used."""
        layers = getattr(scheme.mint, "layers", None)
        theirs = {"mint": scheme.mint, "pose_as": scheme.mint, "embed": scheme.embed, "key": rival, "mark": mark}
        theirs |= {"layers": layers} if self.kind == "passports" and layers is not None else {}
        known = inspect.signature(self.make).parameters
        filled = {name: value for name, value in theirs.items() if name in known and name not in self.settings}
        return self.make(**filled, **self.settings)

    def unfit(self, mark: Mark) -> str | None:
        """Why it has nothing to act on in this mark, or None."""
        return None if self.kind in (None, mark.kind) else WHY[self.kind or ""]

    def check(self, label: str) -> None:
        """Raise `BadInput` for settings that it does not have, that it lacks, or that it refuses by themselves."""
        known = inspect.signature(self.make).parameters
        for name in self.settings:
            if name not in known:
                raise unknown_name(f"setting of {label}", name, known)
        lacking = [name for name, one in known.items() if one.default is one.empty and name not in self.settings]
        lacking = [name for name in lacking if known[name].kind is not inspect.Parameter.VAR_KEYWORD]
        needed = [name for name in lacking if name not in FROM_SCHEME]
        if needed:
            raise BadInput(f"{label} needs {', '.join(needed)}; set {' and '.join(f'{label}.{one}' for one in needed)}")
        if not lacking:
            self.make(**self.settings)


def _tables() -> Iterator[tuple[Family, str | None, Mapping[str, Callable[..., Any]]]]:
    for family, tables in TABLES.items():
        for table, kind in tables:
            yield family, kind, table


def _found(name: str) -> tuple[Family, str | None, Callable[..., Any]]:
    for family, kind, table in _tables():
        if name in table:
            return family, kind, table[name]
    raise unknown_name("attack", name, attack_names())


def maker_of(name: str) -> Callable[..., Any]:
    """What builds the attack called `name`; raises as `named_attack`."""
    return _found(name)[2]


def attack_names() -> dict[str, Family]:
    """Every attack that has a name, with what it does."""
    return {name: family for family, _, table in _tables() for name in table}


def named_attack(name: str, **settings: Any) -> Attack:
    """The attack that `earmark attack` or `earmark evade` knows as `name`, with its defaults but for `settings`.

    Raises:
        BadInput: an unknown attack or setting, with the nearest known one; a setting that is missing or out of range.

    >>> named_attack("prune-global", share=0.5).family
    'removal'
    """
    family, kind, make = _found(name)
    found = Attack(family, make, settings, kind)
    found.check(name)
    return found


def bare_attacks() -> list[str]:
    """The attacks that can be had by name alone; others need something of the thief's own, such as other data."""
    found = []
    for _, _, table in _tables():
        for name, make in table.items():
            known = inspect.signature(make).parameters
            if all(one.default is not one.empty or key in FROM_SCHEME for key, one in known.items()):
                found.append(name)
    return found


def swept(name: str, setting: str, values: Sequence[Any], **settings: Any) -> dict[str, Attack]:
    """One attack at several strengths, by labels that say them.

    >>> list(swept("prune-global", "share", (0.2, 0.5)))
    ['prune-global share=0.2', 'prune-global share=0.5']
    """
    return {f"{name} {setting}={value}": named_attack(name, **{**settings, setting: value}) for value in values}


def own_attack(attack: Any, family: Family = "removal", kind: str | None = None) -> Attack:
    """An attack of the caller's own, as it is: any of the verbs remove, evade, or a forger with `forge`.

    It goes to the workers as it is, so it must be a value that `pickle` takes, as frozen dataclasses are.
    """
    return Attack(family, _Itself(attack), kind="triggers" if family == "evasion" else kind)


@final
@dataclass(frozen=True)
class _Itself:
    value: Any

    def __call__(self) -> Any:
        return self.value
