"""A recipe: a paper's tables, run setting by setting and seed by seed, each number beside the one that is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from earmark.bench.sources import located
from earmark.bench.store import Store, measured_on
from earmark.errors import BadInput
from earmark.recipes.rows import Table, compared, require_known

__all__ = ["Recipe", "printed_tables"]


class Benched(Protocol):
    """One setting at one scale with one seed, as far as a recipe looks at it."""

    store: Store


class Scaled(Protocol):
    """How much one setting gets, as far as a recipe looks at it."""

    @property
    def seeds(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


B = TypeVar("B", bound=Benched)


@dataclass(frozen=True)
class Recipe(Generic[B]):
    """The tables of one paper, and all that is particular to them.

    Attributes:
        paper: its name, which is that of its package with a hyphen for each underscore.
        settings: by name.
        scales: by name, the effort of each setting that the scale covers.
        tables: by name.
        bench: from (setting, scale, seed, folder of data sets, folder of results) to what fills the tables.
        images: from (table, setting, scale) to the data sets that are read.
        describe: from a bench to all of its settings, as JSON.
        notes: from a table and a bench to what a reader has to know beside the effort's notes.
        printed_as: from a setting to the one under which the paper's numbers stand.
    """

    paper: str
    settings: Mapping[str, Any]
    scales: Mapping[str, Mapping[str, Scaled]]
    tables: Mapping[str, Table[B]]
    bench: Callable[[str, str, int, Path | None, Path], B]
    images: Callable[[str, str, str], Sequence[str]]
    describe: Callable[[B], dict[str, Any]]
    notes: Callable[[str, B], Sequence[str]]
    printed_as: Callable[[str], str] = str

    def reproduce(
        self,
        table: str | None,
        scale: str,
        data: Path | None,
        out: Path,
        seeds: int | None = None,
        settings: Sequence[str] = (),
    ) -> Iterator[dict[str, Any]]:
        """Measure `table` (all of them for None) at `scale` and keep everything under `out`; one after the other.

        Args:
            table: one of `TABLES`.
            scale: quick, cpu or full.
            data: the folder with a sub-folder for each data set; None takes the environment's EARMARK_DATA. `quick`
                needs none.
            out: models, marks, measurements and checkpoints go here; what is already there is not measured again.
            seeds: how many seeds; None for the scale's own number.
            settings: only these of the table's settings; empty for all that the scale covers.

        Yields:
            One JSON value per table and setting: the paper's value and ours, in percent (evidence as log10 of p), and
            all settings; with each row the points of its attack, one list a seed.

        Raises:
            BadInput: an unknown table, scale or setting, a table that covers none of the settings at this scale, no
                seed, or data that is not there.
        """
        require_known(
            {"scale": scale, "table": table, "setting": settings},
            {"scale": self.scales, "table": self.tables, "setting": self.settings},
        )
        if seeds is not None and seeds < 1:
            raise BadInput(f"seeds: expected at least one run, got {seeds}")
        wanted = self._wanted([table] if table else list(self.tables), scale, settings)
        for name in sorted({name for at in wanted for name in self.images(*at, scale)} - {"digits"}):
            located(name, data)
        return (self._measured(*at, scale, data, out, seeds) for at in wanted)

    def _wanted(self, tables: Sequence[str], scale: str, settings: Sequence[str]) -> list[tuple[str, str]]:
        """Each table with each of its settings that the scale covers, as far as it is among `settings`."""
        covered = [(name, at) for name in tables for at in self.tables[name].settings if at in self.scales[scale]]
        wanted = [(name, at) for name, at in covered if not settings or at in settings]
        if not wanted:
            one, verb = (tables[0], "covers") if len(tables) == 1 else ("all tables together", "cover")
            if not covered:
                held = ", ".join(sorted({at for name in tables for at in self.tables[name].settings}))
                raise BadInput(f"{one} {verb} {held}, of which scale {scale} has none; take another scale")
            known = ", ".join(sorted({at for _, at in covered}))
            raise BadInput(f"{one} {verb} {known} at this scale, not {', '.join(settings)}")
        return wanted

    def _measured(
        self, table: str, setting: str, scale: str, data: Path | None, out: Path, seeds: int | None
    ) -> dict[str, Any]:
        effort = self.scales[scale][setting]
        benches = [self.bench(setting, scale, seed, data, out) for seed in range(seeds or effort.seeds)]
        by_seed = [self.tables[table].rows(bench) for bench in benches]
        paper = printed_tables(self.paper).get(table, {}).get(self.printed_as(setting), {})
        return {
            "paper": self.paper,
            "table": table,
            "setting": setting,
            "scale": scale,
            "over": self.tables[table].over,
            "rows": [compared(rows, paper, out) for rows in zip(*by_seed, strict=True)],
            "settings": self.describe(benches[0]),
            "hardware": measured_on(bench.store for bench in benches),
            "notes": [*effort.notes, *self.notes(table, benches[0])],
        }


def printed_tables(paper: str) -> Mapping[str, Any]:
    """A paper's numbers: table, setting, row, metric."""
    package = resources.files("earmark.recipes").joinpath(paper.replace("-", "_"))
    tables: Mapping[str, Any] = json.loads(package.joinpath("printed.json").read_text())["tables"]
    return tables
