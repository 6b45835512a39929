"""How the parameters of a layer settle while it learns, and how their values lie beside those of another network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from earmark.errors import BadInput
from earmark.reports.figures.style import MUTED, canvas, drawn, legend_below, printable, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["convergence", "distributions"]

BINS = 60
PANELS = {
    "val_acc": "Test accuracy (%)",
    "moved": "Weights moved since the epoch before",
    "gamma": "Scale of each channel",
    "beta": "Shift of each channel",
}


@drawn
def convergence(points: Sequence[Mapping[str, float | None]]) -> Figure:
    """Accuracy, movement of the weights, and scales and shifts of some channels, over the epochs (DeepIPR, Figure 18).

    Args:
        points: one an epoch, with "epoch", and any of "val_acc" in percent, "moved", "gamma 0", "gamma 1", ...,
            "beta 0", ...: one line a channel.

    Raises:
        BadInput: no point, or none of these names in them.
    """
    panels = {title: _lines(points, name) for name, title in PANELS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        raise BadInput(f"nothing to draw: the points need an epoch and any of {', '.join(PANELS)}")
    figure = canvas(2.9 * len(panels), 2.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for line in lines:
            ax.plot([point["epoch"] for point in points], line, color=series(0)["color"], linewidth=1.1)
        ax.set_title(title, fontsize=8.5)
        ax.set_xlabel("Epoch")
        if len(lines) > 1:
            ax.axhline(0, color=MUTED, linewidth=0.8)
    return figure


def _lines(points: Sequence[Mapping[str, float | None]], name: str) -> list[list[float]]:
    """The values of `name` or of `name 0`, `name 1`, ..., one list each; a missing value is a gap."""
    keys = dict.fromkeys(key for point in points for key in point if key.partition(" ")[0] == name)
    return [[_or_gap(point.get(key)) for point in points] for key in keys]


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value


@drawn
def distributions(rows: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Histograms of the same quantities in several objects, one panel a quantity (DeepIPR, Figures 3, 5 and 19).

    Args:
        rows: by label, flat tensors by the quantity's name; all rows have the same quantities.

    Raises:
        BadInput: no row, rows with other quantities, or values that are not finite.
    """
    names = [sorted(parts) for parts in rows.values()]
    if not names or not names[0] or any(one != names[0] for one in names):
        raise BadInput("nothing to draw: every row needs the same quantities, and at least one")
    if any(not len(values) or not values.isfinite().all() for parts in rows.values() for values in parts.values()):
        raise BadInput("some values are missing or not finite; their distribution cannot be drawn")
    figure = canvas(2.9 * len(names[0]), 2.7)
    axes = figure.subplots(1, len(names[0]), squeeze=False)[0]
    for ax, name in zip(axes, names[0], strict=True):
        values = {label: parts[name].flatten().double() for label, parts in rows.items()}
        every = torch.cat(list(values.values()))
        edges = torch.linspace(float(every.min()), float(every.max()) + 1e-12, BINS + 1)
        for at, (label, one) in enumerate(values.items()):
            style = {key: value for key, value in series(at).items() if key != "marker"}
            ax.hist(one.numpy(), bins=edges.tolist(), density=True, histtype="step", label=printable(label), **style)
        ax.set_title(printable(name), fontsize=8.5)
        ax.set_yticks([])
    legend_below(figure, axes[0], columns=min(3, len(rows)))
    return figure
