"""What attacks leave: accuracy and evidence over the strength of each attack (Wen et al. 2023, Figures 5 to 12)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from earmark.errors import BadInput
from earmark.reports.figures.style import INK, canvas, drawn, legend_below, printable, series
from earmark.reports.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["robustness_curves"]

SHOWN = (
    ("val_acc", "accuracy kept", 0),
    ("asr", "triggers answered as marked", 1),
    ("won", "groups won", 2),
    ("new_acc", "accuracy on the thief's own task", 3),
    ("detected", "bits detected", 1),
    ("matched", "of the mark found", 1),
)
"""What a point may hold, what it is called, and the style of its curve; no row has two of one style."""
AXES = {
    "trial": "Trials of fine-tuning",
    "share": "Share of weights pruned (%)",
    "flipped": "Share of scales negated (%)",
    "changed": "Share of signs changed (%)",
}
SHARES = ("share", "flipped", "changed")
COLUMNS = 4
TITLE = 34
"""Characters to a line above a panel."""


@drawn
def robustness_curves(rows: Mapping[str, Sequence[Sequence[Mapping[str, float | None]]]], over: str) -> Figure:
    """One panel a row: percentages over the strength of the attack, the mean of the seeds and their range around it.

    A line ends where an attack ruined the first of its models. Above each panel stands the evidence, log10 p before the
    attack and at its end, the mean over seeds, where the mark has a null.

    Args:
        rows: by label, one list of points a seed. A point has `over`, and any of "val_acc", "asr", "won", "new_acc",
            "detected", "matched" in percent, and "log10_p".
        over: what the attack's strength is called in a point, a key of `AXES`.

    Raises:
        BadInput: no row, or seeds with different strengths.
    """
    if not rows or not all(seeds and all(seeds) for seeds in rows.values()):
        raise BadInput("nothing to draw: every row needs at least one seed with at least one point")
    columns = min(COLUMNS, len(rows))
    down = math.ceil(len(rows) / columns)
    figure = canvas(2.5 * columns, 2.2 * down + 0.5)
    axes = figure.subplots(down, columns, squeeze=False, sharex=True, sharey=True)
    for ax, (label, seeds) in zip(axes.ravel(), rows.items(), strict=False):
        _panel(ax, seeds, over)
        title = "\n".join([*textwrap.wrap(printable(label), TITLE, break_on_hyphens=False), *_evidence(seeds)])
        ax.set_title(title, fontsize=7.5, color=INK)
    for ax in axes.ravel()[len(rows) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel(AXES.get(over, over))
    for ax in axes[:, 0]:
        ax.set_ylabel("%")
    axes[0, 0].set_ylim(-4, 104)
    fullest = max(axes.ravel(), key=lambda ax: len(ax.lines))
    legend_below(figure, fullest, columns=2)
    return figure


def _panel(ax: Axes, seeds: Sequence[Sequence[Mapping[str, float | None]]], over: str) -> None:
    places = [[point[over] or 0.0 for point in seed] for seed in seeds]
    longest = max(places, key=len)
    if any(place != longest[: len(place)] for place in places):
        raise BadInput(f"the seeds of one row have different values of {over}; draw runs of one scale")
    x = [100 * place for place in longest] if over in SHARES else longest
    apart = any(point.get("won") != point.get("asr") for seed in seeds for point in seed)
    for name, label, at in SHOWN:
        values = [[*takewhile(lambda value: value is not None, (point.get(name) for point in seed))] for seed in seeds]
        by_place = list(zip(*values, strict=False))
        if (name == "won" and not apart) or not by_place:
            continue
        reached = x[: len(by_place)]
        ax.plot(reached, [sum(place) / len(place) for place in by_place], label=label, **series(at))
        if len(seeds) > 1:
            low, high = [min(place) for place in by_place], [max(place) for place in by_place]
            ax.fill_between(reached, low, high, color=series(at)["color"], alpha=0.18, linewidth=0)


def _evidence(seeds: Sequence[Sequence[Mapping[str, float | None]]]) -> list[str]:
    """log10 p before and at the end, where evidence was looked at."""
    if not any("log10_p" in point for seed in seeds for point in seed):
        return []

    def mean(points: Sequence[Mapping[str, Any]]) -> float | None:
        values = [point["log10_p"] for point in points if point.get("log10_p") is not None]
        return round(sum(values) / len(values), 1) if len(values) == len(points) else None

    before, after = mean([seed[0] for seed in seeds]), mean([seed[-1] for seed in seeds])
    return ["no null" if before is None or after is None else f"log10 p {number(before)} to {number(after)}"]
