"""What all figures share: the canvas, the palette, and files that hold no time stamp."""

from __future__ import annotations

import io
import math
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from earmark.files import write_atomic
from earmark.reports.rulings import power_of_ten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "INK",
    "MUTED",
    "canvas",
    "class_colours",
    "drawn",
    "legend_below",
    "log_axis",
    "printable",
    "save",
    "series",
    "to_png",
    "to_svg",
]

INK, MUTED, ACCENT = "#1f2430", "#6b7280", "#bd1f01"

TEN = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"]
"""Ten colours that stay apart for colour-blind readers (Petroff 2021, "Accessible Color Sequences for Data
Visualization", arXiv 2107.02270)."""

SERIES = [("#3f90da", "-", "o"), ("#e76300", "--", "s"), ("#832db6", "-.", "^"), ("#717581", ":", "D")]
"""Colour, line and marker of the curves of one plot: each alone tells them apart."""

RC = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.titlesize": 12,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "earmark",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}

P = ParamSpec("P")


@contextmanager
def _style() -> Iterator[None]:
    """The house style, for the length of the block. A glyph that the font lacks is a box, and no warning."""
    from matplotlib import rc_context

    with rc_context(RC), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def drawn(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws a figure, made to draw it in the house style whatever the caller's settings are.

    The layout is settled once, here, so that every later rendering puts everything in the same place.
    """

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            return figure

    return styled


def canvas(width: float, height: float) -> Figure:
    """An empty figure of that many inches, known to no global list of figures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.07, w_pad=0.06)  # type: ignore[union-attr,call-arg]
    return figure


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for the whole figure, below it, from the artists of one of its axes."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def series(at: int) -> dict[str, Any]:
    """Colour, line style and marker of the curve number `at`."""
    colour, line, marker = SERIES[at % len(SERIES)]
    return {"color": colour, "linestyle": line, "marker": marker}


def log_axis(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> None:
    """Make one axis logarithmic and label its powers of ten, or 1, 2 and 5 where it spans too few of them.

    It stays linear where no value is positive, which a logarithmic axis cannot show.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    positive = [value for value in values if value > 0]
    if not positive:
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", nonpositive="mask")
    axis = axes.xaxis if which == "x" else axes.yaxis
    few = max(positive) < 100 * min(positive)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    exponent = math.log10(value)
    plain = -3 <= exponent <= 3 or not exponent.is_integer()
    return f"{value:g}" if plain else power_of_ten(int(exponent))


def class_colours(classes: int) -> list[str]:
    """One colour a class: the ten-colour palette, or steps of a perceptually even colour map where there are more."""
    if classes <= len(TEN):
        return TEN[:classes]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["cividis"](at / (classes - 1))) for at in range(classes)]


def printable(text: str, limit: int = 60) -> str:
    r"""One line of at most `limit` characters, fit to be drawn.

    No control character, which no SVG may hold, and no dollar sign that would start a formula.

    >>> printable("a\x00b\nc")
    'a b c'
    """
    clean = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    short = " ".join(clean.split())
    return (short if len(short) <= limit else short[: limit - 1] + "…").replace("$", r"\$")


def to_png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as PNG, with that many pixels an inch. The same figure gives the same bytes."""
    return _rendered(figure, format="png", dpi=dpi, metadata={"Software": None})


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG. The same figure gives the same bytes."""
    return _rendered(figure, format="svg", metadata={"Date": None, "Creator": None})


def _rendered(figure: Figure, **how: Any) -> bytes:
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, bbox_inches="tight", pad_inches=0.08, **how)
    return buffer.getvalue()


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.png and `stem`.svg, and return both paths.

    Raises:
        BadInput: the folder is missing or not writable.
    """
    png, svg = (stem.with_name(stem.name + suffix) for suffix in (".png", ".svg"))
    write_atomic(png, to_png(figure))
    write_atomic(svg, to_svg(figure))
    return png, svg
