"""Whether p means what it says: how often innocent models got one so small, against how often they should."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from earmark.bench.soundness import Soundness
from earmark.errors import BadInput
from earmark.reports.figures.style import ACCENT, MUTED, canvas, drawn, legend_below, log_axis, printable, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["null_plot"]

COLUMNS = 4


@drawn
def null_plot(found: Mapping[str, Soundness]) -> Figure:
    """One panel a scheme: the share of tests of innocent models with a p so small or smaller, against p itself.

    On the diagonal p is exact; below it a test is too cautious, above it too bold. Bars are 95 % intervals over keys.

    Raises:
        BadInput: nothing was measured.
    """
    if not found:
        raise BadInput("nothing to draw: measure at least one scheme on innocent models first")
    columns = min(COLUMNS, len(found))
    down = math.ceil(len(found) / columns)
    figure = canvas(2.6 * columns, 2.55 * down + 0.4)
    axes = figure.subplots(down, columns, squeeze=False)
    least = min(0.5 / (one.models * one.keys) for one in found.values())
    for ax, (name, one) in zip(axes.ravel(), found.items(), strict=False):
        _panel(ax, one, least)
        ax.set_title(f"{printable(name, 34)}\n{one.models} models, {one.keys} keys", fontsize=8)
    for ax in axes.ravel()[len(found) :]:
        ax.set_axis_off()
    for at in range(columns):
        axes[max(row for row in range(down) if row * columns + at < len(found)), at].set_xlabel("p, by the exact null")
    for ax in axes[:, 0]:
        ax.set_ylabel("share of innocent tests")
    legend_below(figure, axes[0, 0], columns=3)
    return figure


def _panel(ax: Axes, one: Soundness, least: float) -> None:
    ends = (least, 1.0)
    ax.plot(ends, ends, color=MUTED, linewidth=1, label="exact", zorder=1)
    shown = [level for level in one.levels if level.share > 0]
    p = [10**level.log10_p for level in shown]
    down = [level.share - max(level.low, least / 10) for level in shown]
    up = [level.high - level.share for level in shown]
    style = {"color": series(0)["color"], "marker": "o", "markersize": 3.2, "linestyle": "", "elinewidth": 0.9}
    ax.errorbar(p, [level.share for level in shown], [down, up], label="innocent models", zorder=3, **style)
    ax.axvline(one.alpha, color=ACCENT, linewidth=1, linestyle="--", label="alpha", zorder=2)
    for which in ("x", "y"):
        log_axis(ax, which, (least, 1.0, one.alpha))
    ax.set_xlim(min(least, one.alpha) / 2, 1.6)
    ax.set_ylim(least, 1.6)
