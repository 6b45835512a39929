"""One self-contained page: the verdicts, what they rest on, and what they mean."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.files import write_atomic
from earmark.reports.rulings import Ruling, bound
from earmark.reports.summary import GLOSSARY, summarise
from earmark.reports.tables import Table, number, percent

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Picture", "Report", "render", "write_report"]


@dataclass(frozen=True)
class Picture:
    """A figure of the report: PNG bytes, what it shows, and the same for a reader who cannot see it."""

    png: bytes = field(repr=False)
    caption: str
    alt: str = ""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Report:
    """What a report holds. All text is shown as text: no markup in it takes effect.

    Attributes:
        title: of the page.
        rulings: the verdicts; the summary in plain words is drawn from them.
        subtitle: who, what and when, in one line.
        tables: fidelity, reproductions and whatever else is tabulated.
        pictures: the figures, in order.
        settings: what was set, by name.
        notes: sentences that a reader of the numbers has to know.
    """

    title: str
    rulings: Sequence[Ruling] = ()
    subtitle: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(report: Report) -> str:
    """The report as one HTML page that asks for nothing outside itself. The same report gives the same page."""
    return _template().render(report=report, summary=summarise(report.rulings), glossary=GLOSSARY)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("earmark.reports")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"bound": bound, "number": number, "percent": percent}
    return environment.get_template("report.html")


def write_report(path: Path, report: Report) -> None:
    """`render` to a file, atomically; what is no character (half of a surrogate pair) is shown as "?".

    Raises:
        BadInput: the folder is missing or not writable.
    """
    write_atomic(path, render(report).encode(errors="replace"))
