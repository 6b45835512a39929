"""The figures that belong to a reproduced table, from the JSON that its recipe wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from earmark.files import load_tensors
from earmark.reports.figures.clouds import Panel, feature_clouds
from earmark.reports.figures.curves import SweepPoint, training_curves, weight_sweep
from earmark.reports.figures.learning import convergence, distributions
from earmark.reports.figures.robustness import robustness_curves
from earmark.reports.figures.washers import picture_rows, washer_plot
from earmark.reports.tables import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["of_reproduction"]

PARTS = ("prestamps", "stamps", "triggers", "through an autoencoder")
SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ"}


def of_reproduction(found: Mapping[str, Any], folder: Path = Path()) -> dict[str, Figure]:
    """The figures of one table, by name; empty where what they need was not measured or is no longer there.

    Args:
        found: a table as the recipe returns it. Of deep fidelity, `figure6` gives "curves" from its rows' histories,
            `figure7` a "sweep" from their weights, and every table that starts with the host gives "clouds", from the
            rows' cloud files (`features`, `labels`, `prototypes`) of the host's feature dimension. Of any other paper,
            rows with the points of an attack give "curves", those of washers "washers",
            those of epochs "convergence", files of images "pictures", files of samples "distributions".
        folder: what the paths of files start from.

    Raises:
        BadInput: a file that cannot be read, or that does not hold what belongs there.
    """
    if found.get("paper", "deep-fidelity") != "deep-fidelity":
        return {**_attacks(found), **_pictures(found, folder), **_samples(found, folder)}
    rows: list[Mapping[str, Any]] = [{**row, "cloud": folder / row.get("cloud", "")} for row in found["rows"]]
    return _DRAWN.get(str(found["table"]), _clouds)(rows)


def _attacks(found: Mapping[str, Any]) -> dict[str, Figure]:
    curves = {row["method"]: row["curves"] for row in found["rows"] if any(row.get("curves", ()))}
    if not curves:
        return {}
    over = str(found["over"])
    if over == "epoch":
        return {"convergence": convergence(next(iter(curves.values()))[0])}
    return {"washers": washer_plot(curves)} if over == "val_acc" else {"curves": robustness_curves(curves, over)}


def _pictures(found: Mapping[str, Any], folder: Path) -> dict[str, Figure]:
    files = {row["method"]: folder / row["pictures"] for row in found["rows"] if "pictures" in row}
    rows = {label: load_tensors(path) for label, path in files.items() if path.is_file()}
    return {"pictures": picture_rows({label: _in_order(parts) for label, parts in rows.items()})} if rows else {}


def _samples(found: Mapping[str, Any], folder: Path) -> dict[str, Figure]:
    files = {row["method"]: folder / row["samples"] for row in found["rows"] if "samples" in row}
    rows = {label: load_tensors(path) for label, path in files.items() if path.is_file()}
    return {"distributions": distributions(rows)} if rows else {}


def _in_order(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file holds its tensors by name; a picture shows them as they are made."""
    return {name: parts[name] for name in PARTS if name in parts}


def _curves(rows: list[Mapping[str, Any]]) -> dict[str, Figure]:
    histories = {
        row["method"]: [{"epoch": at, **record} for at, record in enumerate(row["history"], start=1)]
        for row in rows
        if row.get("history")
    }
    return {"curves": training_curves(histories)} if histories else {}


def _sweep(rows: list[Mapping[str, Any]]) -> dict[str, Figure]:
    points = [_point(row, name, value) for row in rows for name, value in row.get("weights", {}).items()]
    return {"sweep": weight_sweep(points)} if points else {}


def _point(row: Mapping[str, Any], name: str, value: float) -> SweepPoint:
    val_acc, trig_acc, ave_pfl = (_mean(row, metric) for metric in ("val_acc", "trig_acc", "ave_pfl"))
    method = row["method"].partition(",")[0]
    return SweepPoint(method, SYMBOLS.get(name, name), value, val_acc / 100, trig_acc / 100, ave_pfl)


def _mean(row: Mapping[str, Any], metric: str) -> float:
    values = [value for value in row["metrics"][metric]["ours"] if value is not None]
    return sum(values) / len(values) if values else float("nan")


def _clouds(rows: list[Mapping[str, Any]]) -> dict[str, Figure]:
    if not rows or rows[0]["method"] != "Host":
        return {}
    panels = [_panel(row) for row in rows if row["cloud"].is_file()]
    fitting = [panel for panel in panels if panel.features.shape[1] == panels[0].features.shape[1]]
    return {"clouds": feature_clouds(fitting)} if fitting else {}


def _panel(row: Mapping[str, Any]) -> Panel:
    cloud = load_tensors(row["cloud"])
    shown = [
        f"{word} {number(ours)} %"
        for word, metric in (("val", "val_acc"), ("triggers", "trig_acc"))
        if (ours := row["metrics"][metric]["ours"][0]) is not None
    ]
    return Panel.of(row["method"], cloud, ", ".join(shown))


_DRAWN: Mapping[str, Callable[[list[Mapping[str, Any]]], dict[str, Figure]]] = {"figure6": _curves, "figure7": _sweep}
