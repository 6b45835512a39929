"""What washers leave: the thief's accuracy against the owner's evidence, and what triggers look like on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from earmark.errors import BadInput
from earmark.reports.figures.style import ACCENT, MUTED, canvas, drawn, legend_below, printable, series
from earmark.stats import GRINDING_BITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["picture_rows", "washer_plot"]

DECISIVE = 6 + GRINDING_BITS * math.log10(2)
"""Where a judge's p, 2^64 times that of the test, is 1e-6."""
CHEAP = 3
ROOM = 1.1


@drawn
def washer_plot(rows: Mapping[str, Sequence[Sequence[Mapping[str, float | None]]]]) -> Figure:
    """One panel a mark, one point a washer and seed: what the thief's model still gets right against -log10 p.

    Filled points are washers, the hollow one is the model without any. A washer in the shaded corner is cheap, at most
    3 points of accuracy, and takes the evidence below what a judge accepts at alpha = 1e-6.

    Args:
        rows: by label, one list of points a seed, the first without a washer; a point has "val_acc" in percent and
            "log10_p".

    Raises:
        BadInput: no row, or a point without one of the two.
    """
    given = [point for seeds in rows.values() for seed in seeds for point in seed]
    if not given or any(point.get(name) is None for point in given for name in ("val_acc", "log10_p")):
        raise BadInput("nothing to draw: every point of a washer needs an accuracy and log10 p")
    most = ROOM * max(DECISIVE + 1, *(-(point["log10_p"] or 0.0) for point in given))
    figure = canvas(3.4 * len(rows), 3.2)
    axes = figure.subplots(1, len(rows), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (label, seeds) in zip(axes, rows.items(), strict=True):
        _panel(ax, seeds)
        ax.set_title(printable(label), fontsize=8.5)
        ax.set_xlabel("Accuracy of the thief's model (%)")
    axes[0].set_ylim(-0.03 * most, most)
    axes[0].set_ylabel("−log10 p")
    legend_below(figure, axes[0], columns=3)
    return figure


def _panel(ax: Axes, seeds: Sequence[Sequence[Mapping[str, float | None]]]) -> None:
    alone = [point["val_acc"] or 0.0 for point in (seed[0] for seed in seeds)]
    cheap = sum(alone) / len(alone) - CHEAP
    ax.axhline(DECISIVE, color=ACCENT, linewidth=1, label="a judge's line")
    ax.fill_between([cheap, 100], 0, DECISIVE, color=ACCENT, alpha=0.08, linewidth=0)
    washed = [point for seed in seeds for point in seed[1:]]
    where = {"linestyle": "", "color": series(0)["color"], "marker": "o"}
    ax.plot(*_places(washed), label="washed", **where)
    ax.plot(*_places([seed[0] for seed in seeds]), label="without", **{**where, "markerfacecolor": "white"})


def _places(points: Sequence[Mapping[str, float | None]]) -> tuple[list[float], list[float]]:
    return [point["val_acc"] or 0.0 for point in points], [-(point["log10_p"] or 0.0) for point in points]


@drawn
def picture_rows(rows: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """One line of images for each part of each row: prestamps, stamps, triggers, and what an autoencoder makes of them.

    Args:
        rows: by label, the parts by name, uint8 (n, C, H, W) each.

    Raises:
        BadInput: no row, or a part without images.
    """
    lines = [(f"{label}: {name}", part) for label, parts in rows.items() for name, part in parts.items()]
    if not lines or any(part.ndim != 4 or not len(part) for _, part in lines):
        raise BadInput("nothing to draw: every row needs parts of at least one image (n, C, H, W)")
    columns = max(len(part) for _, part in lines)
    figure = canvas(0.72 * columns + 2.6, 0.72 * len(lines) + 0.2)
    axes = figure.subplots(len(lines), columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.set_frame_on(False)
    for line, (label, part) in zip(axes, lines, strict=True):
        line[0].set_ylabel(printable(label), rotation=0, ha="right", va="center", fontsize=7.5, color=MUTED)
        for ax, image in zip(line, part.cpu(), strict=False):
            plane = image.permute(1, 2, 0).numpy()
            ax.imshow(plane if plane.shape[2] == 3 else plane[:, :, 0], cmap="gray", vmin=0, vmax=255)
    return figure
