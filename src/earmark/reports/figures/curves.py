"""How embedding goes: over epochs, and over the weight of the fidelity loss (Hua & Teoh 2023, Figs. 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark.errors import BadInput
from earmark.reports.figures.style import canvas, drawn, legend_below, log_axis, printable, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SweepPoint", "training_curves", "weight_sweep"]

CURVES = (
    ("val_acc", "Validation accuracy (%)"),
    ("trig_acc", "Trigger accuracy (%)"),
    ("twl", "TWL"),
    ("ave_pfl", "Average PFL"),
    ("ave_spl", "Average SPL (nats)"),
)


@drawn
def training_curves(histories: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """Accuracies and losses over epochs, one curve a method.

    Args:
        histories: by method, one mapping an epoch with "epoch" and any of "val_acc", "trig_acc" (shares in [0, 1]),
            "twl", "ave_pfl" and "ave_spl". What no method measured has no plot; losses are on a logarithmic axis.

    Raises:
        BadInput: nothing that could be drawn.
    """
    shown = [(name, title) for name, title in CURVES if any(_curve(h, name)[0] for h in histories.values())]
    if not shown:
        raise BadInput(f"no epochs to draw: expected 'epoch' and any of {', '.join(name for name, _ in CURVES)}")
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = canvas(3.3 * columns, 2.6 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, title) in zip(axes, shown, strict=False):
        _plot_metric(ax, histories, name)
        ax.set_title(title)
        ax.set_xlabel("Epoch")
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    legend_below(figure, axes[0], columns=4)
    return figure


def _plot_metric(ax: Axes, histories: Mapping[str, Sequence[Mapping[str, float | None]]], name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    share = name.endswith("_acc")
    for at, (method, history) in enumerate(histories.items()):
        epochs, values = _curve(history, name)
        scaled = [100 * value for value in values] if share else values
        ax.plot(epochs, scaled, label=printable(method), markevery=max(1, len(epochs) // 8), **series(at))
    if not share:
        log_axis(ax, "y", (value for history in histories.values() for value in _curve(history, name)[1]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curve(history: Sequence[Mapping[str, float | None]], name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one metric, where it was measured."""
    pairs = [(row["epoch"], row.get(name)) for row in history]
    there = [(epoch, value) for epoch, value in pairs if epoch is not None and value is not None]
    return [epoch for epoch, _ in there], [value for _, value in there]


@dataclass(frozen=True)
class SweepPoint:
    """One embedding run: its method, the loss weight that was varied (α, β or γ), and what came out.

    Accuracies are shares in [0, 1].
    """

    method: str
    symbol: str
    weight: float
    val_acc: float
    trig_acc: float
    ave_pfl: float


@drawn
def weight_sweep(points: Sequence[SweepPoint]) -> Figure:
    """Accuracies (above) and average PFL (below) over the weight of the fidelity loss, one column a method.

    Raises:
        BadInput: no point, or a weight that is not positive, which a logarithmic axis cannot show.
    """
    if not points or min(point.weight for point in points) <= 0:
        raise BadInput("a weight sweep needs at least one point, and weights above 0")
    methods = list(dict.fromkeys(point.method for point in points))
    figure = canvas(3.3 * len(methods), 5.2)
    axes = figure.subplots(2, len(methods), squeeze=False, sharey="row", sharex="col")
    for at, method in enumerate(methods):
        own = sorted((point for point in points if point.method == method), key=lambda point: point.weight)
        _plot_sweep(axes[0, at], axes[1, at], own)
        axes[0, at].set_title(printable(method))
        axes[1, at].set_xlabel(own[0].symbol)
    log_axis(axes[1, 0], "y", (point.ave_pfl for point in points))
    axes[0, 0].set_ylabel("Accuracy (%)")
    axes[1, 0].set_ylabel("Average PFL")
    legend_below(figure, axes[0, 0], columns=2)
    return figure


def _plot_sweep(above: Axes, below: Axes, points: Sequence[SweepPoint]) -> None:
    weights = [point.weight for point in points]
    above.plot(weights, [100 * point.val_acc for point in points], label="validation", **series(0))
    above.plot(weights, [100 * point.trig_acc for point in points], label="triggers", **series(1))
    below.plot(weights, [point.ave_pfl for point in points], **series(2))
    above.set_ylim(-4, 104)
    log_axis(below, "x", weights)
