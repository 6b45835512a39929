"""What the tables of a recipe are made of: rows of numbers, each beside what its paper prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from earmark.errors import unknown_name

__all__ = ["Point", "Row", "Table", "compared", "require_known"]

Point: TypeAlias = dict[str, float | None]
"""Numbers by name: percent for shares, log10 for probabilities."""

B = TypeVar("B")


@dataclass(frozen=True)
class Row:
    """One row: numbers, and where an attack has several strengths, all of its points.

    Attributes:
        label: what the table calls it.
        metrics: its numbers.
        curve: the points behind them.
        paper: the label of the paper's own row, where it has one.
        pictures: a file of images to look at, where there is one.
        more: whatever else a reader of the JSON may want of this row; of the first seed, where there are several.
    """

    label: str
    metrics: Point
    curve: Sequence[Point] = ()
    paper: str | None = None
    pictures: Path | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table(Generic[B]):
    """A table or figure: the settings that it covers, how one seed fills it, and what its curves run over.

    Attributes:
        settings: by name.
        rows: from a bench to its rows.
        over: the number in each point that a curve is drawn over, where there is one.
        notes: what its columns are, and whatever else a reader has to know of this table.
    """

    settings: tuple[str, ...]
    rows: Callable[[B], list[Row]]
    over: str | None = None
    notes: tuple[str, ...] = ()


def compared(rows: Sequence[Row], printed: Mapping[str, Mapping[str, float]], out: Path) -> dict[str, Any]:
    """One row of a table as JSON, from one row a seed: the paper's numbers and ours.

    Args:
        rows: the same row of every seed.
        printed: the paper's numbers by row and metric.
        out: what the paths of pictures start from.
    """
    first = rows[0]
    own = printed.get(first.paper or "", {})
    metrics = {name: {"paper": own.get(name), "ours": [row.metrics[name] for row in rows]} for name in first.metrics}
    pictures = {} if first.pictures is None else {"pictures": str(first.pictures.relative_to(out))}
    curves = [list(row.curve) for row in rows]
    return {"method": first.label, "metrics": metrics, "curves": curves, **pictures, **first.more}


def require_known(asked: Mapping[str, str | Sequence[str] | None], known: Mapping[str, Mapping[str, object]]) -> None:
    """Raise `BadInput`, with the nearest known name, for a scale, table or setting that a recipe does not have."""
    for what, names in asked.items():
        for name in [names] if isinstance(names, str) else names or ():
            if name not in known[what]:
                raise unknown_name(what, name, list(known[what]))
