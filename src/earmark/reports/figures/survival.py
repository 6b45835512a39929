"""What attacks leave of evidence: against the accuracy that they cost, and scheme by scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from earmark.errors import BadInput
from earmark.reports.figures.style import ACCENT, INK, MUTED, canvas, drawn, legend_below, printable
from earmark.reports.figures.washers import DECISIVE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Met", "Survivor", "evidence_survival", "heat_map", "survival_curve"]

COLUMNS = 4
FARTHEST = 20.0
"""Points of accuracy given up where the curves end: a model that lost more is no loot."""
STEP = 0.25
SHOWN: Mapping[str, tuple[str, str, str]] = {
    "removal": ("o", "#3f90da", "removal"),
    "evasion": ("^", "#e76300", "evasion"),
}
ENVELOPE = "#832db6"


@final
@dataclass(frozen=True)
class Survivor:
    """One attacked model: "removal" or "evasion", the points of accuracy given up, -log10 p of the owner's test."""

    attack: str
    family: str
    seed: int
    given_up: float
    evidence: float


def survival_curve(survivors: Sequence[Survivor], released: float, places: Sequence[float]) -> list[float]:
    """What a thief cannot get below: the least evidence of any attack that gives up at most so many points.

    S(t) = min over attacks with given_up <= t of -log10 p, and no more than the released model shows; it never rises.

    >>> one = [Survivor("a", "removal", 0, 1.0, 30.0), Survivor("b", "removal", 0, 4.0, 5.0)]
    >>> survival_curve(one, 90.0, (0.0, 2.0, 5.0))
    [90.0, 30.0, 5.0]
    """
    return [min([released, *(one.evidence for one in survivors if one.given_up <= place)]) for place in places]


@drawn
def evidence_survival(rows: Mapping[str, Sequence[Survivor]], released: Mapping[str, Mapping[int, float]]) -> Figure:
    """One panel a scheme: -log10 p of the owner's test against the accuracy that the thief gave up.

    Points are attacked models, one an attack and seed; the line is `survival_curve`, the mean over seeds, in the band
    of their range. Above the judge's line, where p times 2^64 is 1e-6, his verdict is for the owner.

    Args:
        rows: by scheme, the models after attacks.
        released: by scheme and seed, -log10 p of the model before them.

    Raises:
        BadInput: no scheme, or one without a released model.
    """
    if not rows or any(not released.get(name) for name in rows):
        raise BadInput("nothing to draw: every scheme needs the evidence of its released models")
    columns = min(COLUMNS, len(rows))
    down = math.ceil(len(rows) / columns)
    figure = canvas(2.75 * columns, 2.35 * down + 0.6)
    axes = figure.subplots(down, columns, squeeze=False, sharex=True)
    for ax, (name, survivors) in zip(axes.ravel(), rows.items(), strict=False):
        _panel(ax, survivors, released[name])
        ax.set_title(printable(name, 34), fontsize=9)
    for ax in axes.ravel()[len(rows) :]:
        ax.set_axis_off()
    for at in range(columns):
        lowest = max(row for row in range(down) if row * columns + at < len(rows))
        axes[lowest, at].set_xlabel("Accuracy given up (points)")
        axes[lowest, at].tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("−log₁₀ p of the owner's test")
    legend_below(figure, axes[0, 0], columns=5)
    return figure


def _panel(ax: Axes, survivors: Sequence[Survivor], released: Mapping[int, float]) -> None:
    places = [at * STEP for at in range(int(FARTHEST / STEP) + 1)]
    by_seed = [
        survival_curve([one for one in survivors if one.seed == seed], before, places)
        for seed, before in released.items()
    ]
    columns = list(zip(*by_seed, strict=True))
    low, high = [min(column) for column in columns], [max(column) for column in columns]
    ax.fill_between(places, low, high, color=ENVELOPE, alpha=0.15, linewidth=0, step="post", zorder=2)
    means = [sum(column) / len(column) for column in columns]
    ax.plot(places, means, color=ENVELOPE, linewidth=1.8, drawstyle="steps-post", label="what survives", zorder=4)
    for family, (marker, colour, label) in SHOWN.items():
        own = [one for one in survivors if one.family == family and one.given_up <= FARTHEST]
        x, y = [max(one.given_up, -1.5) for one in own], [one.evidence for one in own]
        style: dict[str, Any] = {"linestyle": "", "markersize": 3.6, "alpha": 0.55, "markeredgewidth": 0}
        ax.plot(x, y, marker=marker, color=colour, label=label, zorder=3, **style)
    ax.axhline(DECISIVE, color=ACCENT, linewidth=1, linestyle="--", label="the judge's line", zorder=1)
    top = max([DECISIVE, *released.values(), *(one.evidence for one in survivors)])
    ax.set_ylim(-0.04 * top, 1.08 * top)
    ax.set_xlim(-2, FARTHEST + 0.5)


@final
@dataclass(frozen=True)
class Met:
    """One cell of the heat map.

    Attributes:
        accepted: in how many seeds the judge accepted; None where the attack has nothing to act on.
        seeds: of how many that were measured; 0 where all failed.
        change: of accuracy, in points, the mean; None for a forgery, which changes nothing.
        verified: of a forgery, in how many V accepted.
    """

    accepted: int | None
    seeds: int
    change: float | None = None
    verified: int | None = None


@drawn
def heat_map(cells: Mapping[str, Mapping[str, Met]], forgeries: Mapping[str, Mapping[str, Met]]) -> Figure:
    """Attacks down, schemes across: in how many seeds the judge upholds the owner's claim, and what it cost the thief.

    Light is survival and dark is loss. Below, forgeries: V's and the judge's answers to the forger, light where the
    judge refuses him. Hatched: the attack has nothing to act on.

    Args:
        cells: by attack and scheme; every attack has the same schemes.
        forgeries: likewise.

    Raises:
        BadInput: no attack, or other schemes from attack to attack.
    """
    tables = [table for table in (cells, forgeries) if table]
    named = [list(row) for table in tables for row in table.values()]
    if not named or not named[0] or any(row != named[0] for row in named):
        raise BadInput("nothing to draw: every attack needs the same schemes, and at least one")
    schemes, lines = named[0], [len(table) for table in tables]
    figure = canvas(2.4 + 0.86 * len(schemes), 1.5 + 0.3 * sum(lines) + 0.35 * len(lines))
    axes = figure.subplots(len(tables), 1, squeeze=False, height_ratios=lines)[:, 0]
    for ax, table in zip(axes, tables, strict=True):
        _squares(ax, table, schemes, names=ax is axes[0])
    if len(tables) > 1:
        axes[1].set_title("forgers' claims: V, and the judge", fontsize=8.5, loc="left", color=MUTED)
    return figure


def _squares(ax: Axes, table: Mapping[str, Mapping[str, Met]], schemes: Sequence[str], names: bool) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    shades = colormaps["cividis"]
    for row, met in enumerate(table.values()):
        for column, name in enumerate(schemes):
            one = met[name]
            share = _survived(one)
            face = "white" if share is None else shades(0.12 + 0.83 * share)
            hatch = "////" if one.accepted is None else None
            edge = "#d1d5db" if share is None else "white"
            ax.add_patch(Rectangle((column, row), 1, 1, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.8))
            ink = INK if share is None or share > 0.45 else "white"
            ax.text(column + 0.5, row + 0.5, _words(one), ha="center", va="center", fontsize=6.6, color=ink)
    ax.set_xlim(0, len(schemes))
    ax.set_ylim(len(table), 0)
    ax.set_yticks([at + 0.5 for at in range(len(table))], [printable(name, 36) for name in table], fontsize=7.5)
    ax.xaxis.tick_top()
    labels = [printable(name, 24) for name in schemes] if names else [""] * len(schemes)
    ax.set_xticks([at + 0.5 for at in range(len(schemes))], labels, rotation=35, ha="left", fontsize=8)
    ax.tick_params(length=0)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _survived(one: Met) -> float | None:
    """How well the owner fares, 0 to 1."""
    if one.accepted is None or not one.seeds:
        return None
    share = one.accepted / one.seeds
    return share if one.verified is None else 1 - share


def _words(one: Met) -> str:
    if one.accepted is None:
        return ""
    if not one.seeds:
        return "failed"
    if one.verified is not None:
        return f"V {one.verified}/{one.seeds}, J {one.accepted}/{one.seeds}"
    change = round(one.change or 0.0, 1)
    sign = "" if not change else "+" if change > 0 else "−"
    return f"{one.accepted}/{one.seeds}  {sign}{abs(change):g}"
