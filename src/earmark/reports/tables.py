"""Rows of values as one table, and that table as Markdown or for a terminal."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earmark.core import FidelityReport
from earmark.errors import BadInput

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["ABSENT", "Table", "fidelity_table", "number", "percent", "spread", "table"]

ABSENT = "—"
"""What a cell shows where there is no value."""

LONGEST_NUMBER = 24
"""A column with a longer cell is prose, and set flush left."""


@dataclass(frozen=True)
class Table:
    """A table of text: headings, rows, and a caption that says how to read it. The first column names the row.

    Raises:
        BadInput: a row that has not one cell per column.

    >>> print(Table(("Method", "Val acc (%)"), (("FTAL", "99.24"),)).to_markdown())
    | Method | Val acc (%) |
    |:--|--:|
    | FTAL | 99.24 |
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise BadInput(f"a row has {len(row)} cells for {len(self.columns)} columns: {row[:1]}")

    def to_markdown(self) -> str:
        """A GitHub-flavoured table, without its title; the caption follows as a paragraph."""
        lines = [self.columns, (":--", *["--:"] * (len(self.columns) - 1)), *self.rows]
        body = [_markdown_row(line) if at != 1 else f"|{'|'.join(line)}|" for at, line in enumerate(lines)]
        return "\n".join([*body, *(["", _inline(self.caption)] if self.caption else [])])

    def to_rich(self) -> RichTable:
        """The same table for a terminal. Cells are shown as they are: no markup in them takes effect."""
        from rich.table import Table as RichTable
        from rich.text import Text

        rich = RichTable(title=Text(self.title) if self.title else None, caption=Text(self.caption) or None)
        for at, heading in enumerate(self.columns):
            prose = at == 0 or any(len(row[at]) > LONGEST_NUMBER for row in self.rows)
            rich.add_column(Text(heading), justify="left" if prose else "right")
        for row in self.rows:
            rich.add_row(*map(Text, row))
        return rich


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_inline, cells))} |"


def _inline(text: str) -> str:
    """Text that cannot end a cell, a line or a paragraph, nor open a tag."""
    flat = " ".join(text.split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("&", "&amp;").replace("<", "&lt;")


def number(value: object) -> str:
    """A value as a reader wants it: four significant digits, no exponent where a plain number is shorter.

    >>> [number(v) for v in (99.244, 27130.9863, 0.00051, 3.14159e-17, 0.0, 100, True, None)]
    ['99.24', '27131', '0.00051', '3.142e-17', '0', '100', 'yes', '—']
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with two decimals, without its sign.

    >>> percent(0.99414), percent(None)
    ('99.41', '—')
    """
    return ABSENT if share is None else f"{100 * share:.2f}"


def spread(values: Sequence[float | None]) -> str:
    """Mean ± sample standard deviation; the mean alone for a single value. Absent values do not count.

    >>> spread([99.1, 99.2, 99.3]), spread([0.5]), spread([None, 2.0]), spread([])
    ('99.2 ± 0.1', '0.5', '2 (1 of 2)', '—')
    """
    there = [value for value in values if value is not None]
    if not there:
        return ABSENT
    mean = number(math.fsum(there) / len(there))
    deviation = f" ± {_short(statistics.stdev(there))}" if len(there) > 1 else ""
    return mean + deviation + (f" ({len(there)} of {len(values)})" if len(there) < len(values) else "")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def table(
    rows: Sequence[Any], columns: Mapping[str, str] | None = None, *, title: str = "", caption: str = ""
) -> Table:
    """Mappings or dataclasses as a table.

    Args:
        rows: one mapping or dataclass instance a row; a name that a row lacks is shown as absent.
        columns: which names to show and under which heading; by default every name, in the order of first appearance.
        title: shown above the table, where the form has a place for it.
        caption: how to read the table.

    >>> table([{"attack": "prune", "p": 1e-12}, {"attack": "fp16"}]).rows
    (('prune', '1e-12'), ('fp16', '—'))
    """
    plain = [_mapping(row) for row in rows]
    headings = columns or {name: _heading(name) for row in plain for name in row}
    cells = tuple(tuple(number(row.get(name)) for name in headings) for row in plain)
    return Table(tuple(headings.values()), cells, title, caption)


def _mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    raise BadInput(f"a table's row is a mapping or a dataclass instance, got {type(row).__name__}")


def _heading(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")


def fidelity_table(reports: Mapping[str, FidelityReport], title: str = "Deep fidelity") -> Table:
    """One row a model: accuracies and agreement in %, the losses as Hua & Teoh 2023 define them (Section 5).

    The host's own row comes from the first report, which holds its accuracy.
    """
    kinds = list(dict.fromkeys(kind for report in reports.values() for kind in report.agreement))
    columns = (
        "Model",
        "Val acc (%)",
        "Trigger acc (%)",
        "TWL",
        "Ave PFL",
        "Relative PFL",
        "Ave SPL",
        "Prototype change",
    )
    rows = [(name, *_fidelity_cells(report, kinds)) for name, report in reports.items()]
    hosts = [("Host", percent(report.host_val_acc), *[ABSENT] * (6 + len(kinds))) for report in reports.values()][:1]
    headings = (*columns, *(f"Agreement, {kind} (%)" for kind in kinds))
    caption = "PFL and SPL are means over the training images; relative PFL is PFL over the host's mean ‖z‖²."
    return Table(headings, (*hosts, *rows), title, caption)


def _fidelity_cells(report: FidelityReport, kinds: Sequence[str]) -> tuple[str, ...]:
    losses = (report.twl, report.ave_pfl, report.relative_pfl, report.ave_spl, report.prototype_change)
    agreement = (percent(report.agreement.get(kind)) for kind in kinds)
    return (percent(report.val_acc), percent(report.trig_acc), *map(number, losses), *agreement)
