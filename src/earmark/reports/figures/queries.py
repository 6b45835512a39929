"""How few queries it takes: the evidence after each answer, until it is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import TYPE_CHECKING, Any

from earmark.errors import BadInput
from earmark.reports.figures.style import ACCENT, INK, canvas, drawn, legend_below, printable, series
from earmark.stats import GRINDING_BITS, SequentialBinomial, grind_log10_p

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evidence_path", "query_curves"]


def evidence_path(matches: Sequence[bool], rate: float, bits: float = 0) -> list[float]:
    """-log10 p of the sequential test after each answer, p = min(1, 2^bits / max e so far).

    >>> [round(value, 1) for value in evidence_path([True] * 7, 0.1)]
    [0.7, 1.6, 2.4, 3.3, 4.3, 5.2, 6.1]
    """
    evidence, path = SequentialBinomial(rate), []
    for match in matches:
        evidence.update(match)
        path.append(0.0 - grind_log10_p(evidence.log10_p, bits))
    return path


@drawn
def query_curves(runs: Mapping[str, Sequence[bool]], rate: float, alpha: float = 1e-6) -> Figure:
    """-log10 p over the number of queries, one curve a suspect, for an owner; a judge's line stands 2^64 higher.

    Args:
        runs: by suspect, whether each answer in turn was a match.
        rate: the null's match rate, 1/K for labels drawn from K classes.
        alpha: the error probability to pass.

    Raises:
        BadInput: no run, or an empty one.
    """
    if not runs or not all(runs.values()):
        raise BadInput("nothing to draw: every suspect needs at least one answer")
    figure = canvas(7.2, 3.9)
    axes = figure.subplots()
    longest = max(map(len, runs.values()))
    for at, (name, matches) in enumerate(runs.items()):
        path = [0.0, *evidence_path(matches, rate)]
        axes.plot(range(len(path)), path, label=printable(name), markevery=max(1, longest // 12), **series(at))
    owner = -log10(alpha)
    for line, words in ((owner, "enough for the owner"), (owner + GRINDING_BITS * log10(2), "enough for a judge")):
        axes.axhline(line, color=ACCENT, linestyle="--", linewidth=1.1)
        plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
        place: dict[str, Any] = {"xytext": (-2, 5), "textcoords": "offset points", "ha": "right"}
        axes.annotate(f"{words}: {line:.1f}", (longest, line), color=INK, fontsize=8, bbox=plate, zorder=6, **place)
    axes.set_xlim(0, longest)
    axes.set_ylim(0, 1.25 * (owner + GRINDING_BITS * log10(2)))
    axes.set_xlabel("Queries")
    axes.set_ylabel("−log₁₀ p of the sequential test")
    legend_below(figure, axes, columns=3)
    return figure
