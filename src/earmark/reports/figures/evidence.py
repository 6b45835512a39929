"""How strong the evidence is: each verdict's p-value against the line that it had to cross."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from earmark.errors import BadInput
from earmark.reports.figures.style import ACCENT, INK, canvas, drawn, printable
from earmark.reports.rulings import Ruling, Word, bound

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["evidence_plot"]

MARKS: dict[Word, tuple[str, str, str]] = {
    "accepted": ("o", "#3f90da", "accepted: the claim is upheld"),
    "rejected": ("X", "#e76300", "rejected"),
    "inconclusive": ("D", "#717581", "inconclusive"),
}
"""Marker, colour and legend of each word; the marker alone tells them apart."""


@drawn
def evidence_plot(rulings: Sequence[Ruling]) -> Figure:
    """log10 p of each ruling, stronger evidence further right, against the line of its alpha.

    A ruling without a p-value stands on the left edge, hollow.

    Raises:
        BadInput: no ruling.
    """
    if not rulings:
        raise BadInput("there is no verdict to draw; judge at least one suspect first")
    figure = canvas(8.2, 1.25 + 0.34 * len(rulings))
    ax = figure.subplots()
    for at, ruling in enumerate(rulings):
        _draw(ax, at, ruling)
    lowest = min(math.log10(ruling.alpha) for ruling in rulings)
    lowest = min([lowest, *(ruling.log10_p for ruling in rulings if ruling.log10_p is not None)])
    ax.set_xlim(-0.03 * lowest, 1.15 * lowest)
    ax.set_ylim(len(rulings) - 0.4, -0.6)
    ax.set_yticks(range(len(rulings)), [_name(ruling) for ruling in rulings])
    ax.grid(False, axis="y")
    ax.set_xlabel("log₁₀ p of the test, corrections included (further right: stronger evidence)")
    _legend(figure, rulings)
    return figure


def _name(ruling: Ruling) -> str:
    return f"{printable(ruling.suspect, 34)}\nclaimed by {printable(ruling.claimant, 30)}"


def _draw(ax: Axes, at: int, ruling: Ruling) -> None:
    marker, colour, _ = MARKS[ruling.word]
    p = ruling.log10_p
    ax.plot([0, p or 0], [at, at], color=colour, linewidth=1.2, alpha=0.5, zorder=2)
    ax.plot(p or 0, at, marker, color=colour, markersize=7.5, mfc="white" if p is None else colour, zorder=4)
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    place: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
    ax.annotate(_value(p), (p or 0, at), fontsize=8, bbox=plate, zorder=6, **place)
    alpha = math.log10(ruling.alpha)
    ax.plot([alpha, alpha], [at - 0.5, at + 0.5], color=ACCENT, linestyle="--", linewidth=1.1, zorder=3)


def _value(log10_p: float | None) -> str:
    if log10_p is None:
        return "no p-value"
    return f"p {'≤' if log10_p <= -3 else '='} {bound(log10_p)}"


def _legend(figure: Figure, rulings: Sequence[Ruling]) -> None:
    from matplotlib.lines import Line2D

    words = [word for word in MARKS if any(ruling.word == word for ruling in rulings)]
    handles = [Line2D([], [], marker=m, color=c, linestyle="", label=text) for m, c, text in (MARKS[w] for w in words)]
    alphas = ", ".join(f"{alpha:g}" for alpha in sorted({ruling.alpha for ruling in rulings}))
    handles.append(Line2D([], [], color=ACCENT, linestyle="--", label=f"alpha = {alphas}, the line to pass"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, labelcolor=INK)
