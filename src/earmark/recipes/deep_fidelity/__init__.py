"""Hua & Teoh 2023, Tables 4 to 8: every row trained, measured, and set beside the printed number.

Three scales. `full` is the paper's setting as far as the paper and its released code state it. `cpu` is for two CPU
cores: fewer and smaller images, saturated noise, more triggers per batch, no augmentation. `quick` runs in seconds on
scikit-learn's digits with a narrow network and shows that the machinery works, nothing else.

A row is measured once and kept as one JSON file under `out`, with its models beside it; a run that is killed goes on
from the last checkpoint of the row that it was in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from earmark.recipes.deep_fidelity.bench import Bench, images_of
from earmark.recipes.deep_fidelity.scales import SCALES, Scale
from earmark.recipes.deep_fidelity.settings import SETTINGS, Setting
from earmark.recipes.deep_fidelity.tables import LABELS, LOOSER, TABLES, Row
from earmark.recipes.recipe import printed_tables
from earmark.recipes.rows import require_known
from earmark.recipes.running import each
from earmark.recipes.store import measured_on

__all__ = [
    "LABELS",
    "LOOSER",
    "SCALES",
    "SETTINGS",
    "TABLES",
    "Bench",
    "Row",
    "Scale",
    "Setting",
    "reproduce",
]

METRICS = ("val_acc", "trig_acc", "twl", "ave_pfl", "ave_spl", "prototype_change", "relative_pfl")
EXTRA = ("agreement_test", "agreement_corrupted", "agreement_ood", "seconds")


def reproduce(
    table: str | None, scale: str, data: Path | None, out: Path, seeds: int | None = None, settings: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Measure `table` (all of them for None) at `scale` and keep every row under `out`; one table after the other.

    Args:
        table: table4, table5, table6, table7, table8, figure6 or figure7.
        scale: quick, cpu or full.
        data: the folder with mnist/, cifar10/ and so on; None takes the environment's EARMARK_DATA. `quick` needs none.
        out: rows, hosts, models and checkpoints go here; what is already there is not measured again.
        seeds: how many seeds; None for the scale's own number.
        settings: only these of the table's settings; empty for all that the scale covers.

    Yields:
        One JSON value per table and setting: paper's value and ours, percent for accuracies, and all settings; with
        each row its epochs' history and the file of its features (`features`, `labels`, `prototypes`) for the figures.

    Raises:
        BadInput: an unknown table, scale or setting, a table that covers none of the settings at this scale, no seed,
            or data that is not there.
    """
    require_known(
        {"scale": scale, "table": table, "setting": settings}, {"scale": SCALES, "table": TABLES, "setting": SETTINGS}
    )
    covered = {name: [at for at in of if at in SCALES[scale]] for name, (of, _) in TABLES.items()}
    return each(
        covered,
        table,
        settings,
        seeds,
        lambda name, at: _measured(name, at, scale, data, out, seeds),
        lambda name, at: [images_of(at, scale)],
        data,
    )


def _measured(table: str, setting: str, scale: str, data: Path | None, out: Path, seeds: int | None) -> dict[str, Any]:
    benches = [Bench(setting, scale, seed, data, out) for seed in range(seeds or SCALES[scale][setting].seeds)]
    rows = [(row, [bench.measure(row) for bench in benches]) for row in TABLES[table][1]()]
    return _summary(table, benches, rows, printed_tables("deep-fidelity").get(table, {}).get(setting, {}))


def _summary(
    table: str, benches: Sequence[Bench], measured: list[tuple[Row, list[dict[str, Any]]]], paper: Mapping[str, Any]
) -> dict[str, Any]:
    bench = benches[0]
    rows = [
        {
            "method": row.label,
            "metrics": {name: _pair(name, paper.get(row.label, {}), results) for name in (*METRICS, *EXTRA)},
            "history": results[0]["history"],
            "weights": dict(row.weights),
            "cloud": str(bench.cloud(row).relative_to(bench.out)),
        }
        for row, results in measured
    ]
    return {
        "paper": "deep-fidelity",
        "table": table,
        "setting": bench.name,
        "scale": bench.scale,
        "rows": rows,
        "settings": _describe(bench.effort, bench.name),
        "hardware": measured_on(bench.store for bench in benches),
        "notes": [*bench.effort.notes, *bench.notes],
    }


def _pair(name: str, paper: Mapping[str, float | None], results: list[dict[str, Any]]) -> dict[str, Any]:
    scale = 100.0 if name.endswith("_acc") or name.startswith("agreement_") else 1.0
    ours = [None if (value := result.get(name)) is None else value * scale for result in results]
    return {"paper": paper.get(name), "ours": ours}


def _describe(effort: Scale, setting: str) -> dict[str, Any]:
    own = {name: value for name, value in vars(effort).items() if name != "notes"}
    runs = {name: own.pop(name).to_dict() for name in ("host", "embed", "scratch")}
    exceptions = own.pop("own")
    own["begins"] = {method: f"from {row.label}" for method, row in effort.begins.items()}
    runs |= {label: exceptions[label].to_dict() for label in exceptions}
    return {"data": SETTINGS[setting].data, **own, **{f"{name} run": run for name, run in runs.items()}}
