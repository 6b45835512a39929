"""The rows of Tables 4 to 8 and of Figures 6 and 7: what each of them embeds, and how it is attacked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["FINE_TUNED", "LABELS", "LOOSER", "PLANS", "TIGHTER", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What one row of a table takes: an embedding method with its weight and m, a kind of trigger, an attack.

    `method` None is the host itself. `attack` is a share to prune, "fine-tuned" or "half". `curves` asks for the
    fidelity metrics after each epoch, and for no early stop.
    """

    label: str
    method: str | None
    weights: Mapping[str, float] = field(default_factory=dict)
    m: int | None = None
    mint: str = "noise"
    attack: str | float | None = None
    curves: bool = False

    @property
    def embedding(self) -> Plan:
        """The row without its attack: what has to be embedded first."""
        return replace(self, attack=None)

    @property
    def slug(self) -> str:
        """A file name that carries every parameter, so tables share the rows that they have in common."""
        parts = [self.method or "host", *(f"{name}{value:g}" for name, value in self.weights.items())]
        parts += [f"m{self.m}"] if self.m is not None else []
        parts += [self.mint.replace("+", "-")] if self.mint != "noise" else []
        parts += [str(self.attack)] if self.attack is not None else []
        parts += ["curves"] if self.curves else []
        return "_".join(parts).replace("+", "-")


LABELS = {
    "ftll": "FTLL",
    "ftal": "FTAL",
    "ftal+twl": "FTAL+TWL",
    "fixll": "FixLL",
    "fixll+twl": "FixLL+TWL",
    "fixll+pfl": "FixLL+PFL",
    "fixll+spl": "FixLL+SPL",
    "scratch": "Scratch",
    "fixll+scratch": "FixLL+Scratch",
    "polytope": "Fixed polytope",
}
FINE_TUNED = ("ftal", "ftal+twl", "fixll", "fixll+twl", "fixll+pfl", "fixll+spl")
ATTACKED = {"fine-tuned": "fine-tuned", "half": "half precision", 0.2: "pruned 20 %", 0.5: "pruned 50 %"}
HOST_ROW = Plan("Host", None)
LOOSER = Plan("FixLL+SPL, gamma = 10", "fixll+spl", {"gamma": 10.0})
TIGHTER = Plan("FixLL+PFL, beta = 0.1", "fixll+pfl", {"beta": 0.1})


def _table4() -> list[Plan]:
    """Every method at the paper's weights."""
    return [HOST_ROW, *(Plan(label, name) for name, label in LABELS.items())]


def _table5() -> list[Plan]:
    """Every method at the paper's weights, FixLL+PFL held ten times tighter, and FixLL+SPL a hundred times looser."""
    return [*_table4(), TIGHTER, LOOSER]


def _table6() -> list[Plan]:
    held = ("fixll+twl", "fixll+pfl", "fixll+spl")
    return [HOST_ROW, *(Plan(f"{LABELS[name]}, m = {m}", name, m=m) for m in (4, 16, 32) for name in held)]


def _table7() -> list[Plan]:
    kinds = ("abstract", "abstract+string")
    return [HOST_ROW, *(Plan(f"{LABELS[name]}, {kind}", name, mint=kind) for kind in kinds for name in FINE_TUNED)]


def _table8() -> list[Plan]:
    compressed = ("scratch", "fixll", "fixll+pfl", "fixll+spl")
    methods: dict[str | float, tuple[str, ...]] = {
        "fine-tuned": ("scratch", "fixll", "fixll+scratch"),
        "half": compressed,
        0.2: compressed,
        0.5: compressed,
    }
    return [
        Plan(f"{LABELS[name]}, {ATTACKED[attack]}", name, attack=attack)
        for attack, names in methods.items()
        for name in names
    ]


def _figure6() -> list[Plan]:
    return [Plan(LABELS[name], name, curves=True) for name in ("fixll+twl", "fixll+pfl", "fixll+spl")]


def _figure7() -> list[Plan]:
    swept = {
        ("fixll+twl", "alpha"): (0.0001, 0.001, 0.01, 0.1, 1.0),
        ("fixll+pfl", "beta"): (0.0001, 0.001, 0.01, 0.1, 1.0),
        ("fixll+spl", "gamma"): (10.0, 100.0, 1000.0, 10_000.0, 100_000.0),
    }
    return [
        Plan(f"{LABELS[name]}, {weight} = {value:g}", name, weights={weight: value})
        for (name, weight), values in swept.items()
        for value in values
    ]


PLANS: Mapping[str, list[Plan]] = {
    "table4": _table4(),
    "table5": _table5(),
    "table6": _table6(),
    "table7": _table7(),
    "table8": _table8(),
    "figure6": _figure6(),
    "figure7": _figure7(),
}
"""By table or figure, its rows from top to bottom."""
