"""Li & Wang 2021, Tables 1 and 2 and Figures 1, 3 and 4: stamps found, classifiers marked, and set beside the print.

Three scales. `full` is the paper's networks and all images, for a GPU. `cpu` has the paper's autoencoders and stamps
and a thin classifier. `quick` runs in seconds on scikit-learn's digits and shows that the machinery works.

Rows of the paper have two stamps with one label each. Their many triggers are two observations: the probability that
the paper prints takes them for independent, and no verdict rests on it. Keyed groups have an exact null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from earmark.recipes.penetrative.bench import Bench
from earmark.recipes.penetrative.marking import Marking
from earmark.recipes.penetrative.scales import SCALES, Effort
from earmark.recipes.penetrative.settings import SETTINGS, Setting
from earmark.recipes.penetrative.tables import TABLES, printed_tables
from earmark.recipes.rows import compared, require_known
from earmark.recipes.running import each
from earmark.recipes.store import measured_on

__all__ = [
    "SCALES",
    "SETTINGS",
    "TABLES",
    "Bench",
    "Effort",
    "Marking",
    "Setting",
    "printed_tables",
    "reproduce",
]

EVIDENCE = (
    "The printed probability is the paper's formula with lambda up to 0.998, which gives the paper's own values; the "
    "true minimum is smaller. Both take the triggers for independent, and two stamps with a label each are two "
    "observations. "
    "log10 p is that of the trigger test on an exact null, for an owner who tests a mark of his own."
)


def reproduce(
    table: str | None, scale: str, data: Path | None, out: Path, seeds: int | None = None, settings: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Measure `table` (all of them for None) at `scale` and keep everything under `out`; one table after the other.

    Args:
        table: table1, table2, figure3, figure4, bottlenecks or beyond.
        scale: quick, cpu or full.
        data: the folder with mnist/, fashion-mnist/ and cifar10/; None takes the environment's EARMARK_DATA. `quick`
            needs none.
        out: models, marks and measurements go here; what is already there is not measured again.
        seeds: how many seeds; None for the scale's own number.
        settings: only these of the table's settings; empty for all.

    Yields:
        One JSON value per table and setting: the paper's value and ours, and all settings.

    Raises:
        BadInput: an unknown table, scale or setting, a table that covers none of the settings, no seed, or data that is
            not there.
    """
    require_known(
        {"scale": scale, "table": table, "setting": settings}, {"scale": SCALES, "table": TABLES, "setting": SETTINGS}
    )
    covered = {name: [setting for setting in TABLES[name].settings if setting in SCALES[scale]] for name in TABLES}
    return each(
        covered,
        table,
        settings,
        seeds,
        lambda name, at: _measured(name, at, scale, data, out, seeds),
        lambda name, at: _images(name, at, scale),
        data,
    )


def _images(table: str, setting: str, scale: str) -> list[str]:
    """The data sets that a table of a setting reads."""
    instead, own = SCALES[scale][setting].data, SETTINGS[setting]
    return [instead] if instead else [own.data, *([own.outside] if table == "table1" else [])]


def _measured(table: str, setting: str, scale: str, data: Path | None, out: Path, seeds: int | None) -> dict[str, Any]:
    effort = SCALES[scale][setting]
    benches = [Bench(setting, scale, seed, data, out) for seed in range(seeds or effort.seeds)]
    by_seed = [TABLES[table].rows(bench) for bench in benches]
    paper = printed_tables().get(table, {}).get(setting, {})
    return {
        "paper": "penetrative",
        "table": table,
        "setting": setting,
        "scale": scale,
        "over": TABLES[table].over,
        "rows": [compared(rows, paper, out) for rows in zip(*by_seed, strict=True)],
        "settings": _describe(effort, benches[0].images),
        "hardware": measured_on(bench.store for bench in benches),
        "notes": [*effort.notes, EVIDENCE, *benches[0].notes],
    }


def _describe(effort: Effort, images: str) -> dict[str, Any]:
    own = {name: value for name, value in vars(effort).items() if name != "notes"}
    own["data"] = images
    runs = {f"{name} run": own.pop(name).to_dict() for name in ("autoencoder", "host", "embed")}
    return {**own, **runs}
