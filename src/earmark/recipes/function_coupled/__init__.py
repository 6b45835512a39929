"""Wen et al. 2023, Tables 1 to 4 and Figures 5 to 12: every mark embedded, attacked, and set beside what is printed.

Three scales. `full` is the paper's networks and all images, for a GPU. `cpu` is for two CPU cores: MNIST with LeNet-5
at the paper's own scale, the other sets with fewer images and thin networks. `quick` runs in seconds on scikit-learn's
digits and shows that the machinery works, nothing else.

Every mark comes in two kinds: the paper's, all triggers with one target class, which has no null and can prove nothing;
and keyed groups, whose null is exact. Verification triggers are never those that the model learnt, and no model has a
say in either. Models and measurements are kept under `out`; a run that is killed goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from earmark.recipes.function_coupled.bench import Bench
from earmark.recipes.function_coupled.marking import Marking
from earmark.recipes.function_coupled.scales import SCALES, Effort, Thief
from earmark.recipes.function_coupled.settings import SETTINGS, Setting
from earmark.recipes.function_coupled.tables import TABLES, printed_tables
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
    "Thief",
    "printed_tables",
    "reproduce",
]


EVIDENCE = (
    "log10 p is that of the trigger test on an exact null, for an owner who tests a mark of his own; a judge adds 19.3 "
    "for the 2^64 keys that a claimant may have tried. One target class has no null."
)


def reproduce(
    table: str | None, scale: str, data: Path | None, out: Path, seeds: int | None = None, settings: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Measure `table` (all of them for None) at `scale` and keep everything under `out`; one table after the other.

    Args:
        table: table1 to table4, figure5 to figure12, extraction, variants or beyond.
        scale: quick, cpu or full.
        data: the folder with mnist/, cifar10/ and so on; None takes the environment's EARMARK_DATA. `quick` needs none.
        out: models, measurements and checkpoints go here; what is already there is not measured again.
        seeds: how many seeds; None for the scale's own number.
        settings: only these of the table's settings; empty for all that the scale covers.

    Yields:
        One JSON value per table and setting: the paper's value and ours, in percent (evidence as log10 of p), and all
        settings; with each row the points of its attack, one list a seed.

    Raises:
        BadInput: an unknown table, scale or setting, a table that covers none of the settings at this scale, no seed,
            or data that is not there.
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
    """The data sets that a table of a setting reads: the owner's, and those of a thief's own task."""
    instead = SCALES[scale][setting].data
    return [instead or name for name in (SETTINGS[setting].data, *_targets(table, setting))]


def _targets(table: str, setting: str) -> tuple[str, ...]:
    transfers = SETTINGS[setting].transfers
    return {"figure7": transfers, "table4": transfers[:1], "beyond": transfers[:1]}.get(table, ())


def _measured(table: str, setting: str, scale: str, data: Path | None, out: Path, seeds: int | None) -> dict[str, Any]:
    effort = SCALES[scale][setting]
    benches = [Bench(setting, scale, seed, data, out) for seed in range(seeds or effort.seeds)]
    by_seed = [TABLES[table].rows(bench) for bench in benches]
    paper = printed_tables().get(table, {}).get(setting, {})
    return {
        "paper": "function-coupled",
        "table": table,
        "setting": setting,
        "scale": scale,
        "over": TABLES[table].over,
        "rows": [compared(rows, paper, out) for rows in zip(*by_seed, strict=True)],
        "settings": _describe(effort, benches[0].images),
        "hardware": measured_on(bench.store for bench in benches),
        "notes": [*effort.notes, EVIDENCE, *_image_notes(benches[0], table)],
    }


def _image_notes(bench: Bench, table: str) -> list[str]:
    """What a reader has to know of the images, those of a thief's own task included."""
    return [*bench.notes, *(note for target in _targets(table, bench.name) for note in bench.target(target).notes)]


def _describe(effort: Effort, images: str) -> dict[str, Any]:
    own = {name: value for name, value in vars(effort).items() if name != "notes"}
    own["data"] = images
    runs = {f"{name} run": own.pop(name).to_dict() for name in ("host", "embed", "fresh")}
    thief = {f"thief's {name}": value for name, value in vars(own.pop("thief")).items()}
    runs |= {f"thief's {name} run": thief.pop(f"thief's {name}").to_dict() for name in ("overwrite", "extract")}
    return {**own, **thief, **runs}
