"""Tables and figures of Fan et al. 2021: which measurements make which row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from earmark.recipes.deepipr.bench import Bench, Protection
from earmark.recipes.deepipr.settings import SETTINGS
from earmark.recipes.rows import Point, Row, Table

__all__ = ["TABLES"]

EVERY = tuple(SETTINGS)
V1, V2, V3 = Protection("V1", "bn"), Protection("V2", "gn"), Protection("V3", "gn")
PAPERS = (V1, V2, V3)
OURS = (Protection("V2", "bn"), Protection("V3", "bn"))
"""Beyond the paper: batch norm kept, with statistics of each path."""
NAMES = {"bn": "batch norm", "gn": "group norm"}


def _label(one: Protection) -> str:
    return f"{one.scheme}, {NAMES[one.norm]}"


def _table7(bench: Bench) -> list[Row]:
    """Each network on its own task, then on every target."""
    found = []
    for one in (V1.baseline, V2.baseline, *PAPERS, *OURS):
        found.append(Row(_label(one), bench.measured(one), paper=_label(one)))
        for target in bench.setting.targets:
            label = f"{_label(one)}, to {target}"
            found.append(
                Row(f"{_label(one)}, to {bench.target(target)[1]}", bench.transferred(one, target), paper=label)
            )
    return found


def _table6(bench: Bench) -> list[Row]:
    found = []
    for one in (V3, OURS[1]):
        metrics = {"triggers": bench.measured(one)["triggers"]}
        found.append(Row(_label(one), metrics, paper=_label(one)))
        for target in bench.setting.targets:
            moved: Point = {"triggers": bench.transferred(one, target)["triggers"]}
            label = f"{_label(one)}, to {bench.target(target)[1]}"
            found.append(Row(label, moved, paper=f"{_label(one)}, to {target}"))
    return found


def _table10(bench: Bench) -> list[Row]:
    """How much of V1's accuracy hangs on the signs: all right, some wrong, all wrong."""
    points = bench.flipped(V1)
    wanted = {"Baseline": None, "Correct": 0.0, "Partially correct": points[1]["share"], "Wrong": points[-1]["share"]}
    rows = [Row("Baseline", {"acc": bench.measured(V1.baseline)["acc"]}, paper="Baseline")]
    for label, share in list(wanted.items())[1:]:
        point = next(point for point in points if point["share"] == share)
        rows.append(Row(f"{label}, {100 * (share or 0):.0f} % flipped", {"acc": point["val_acc"]}, paper=label))
    return rows


def _curves(measure: Callable[[Bench, Protection], list[Point]]) -> Callable[[Bench], list[Row]]:
    def rows(bench: Bench) -> list[Row]:
        found = []
        for one in (*PAPERS, *OURS):
            curve = measure(bench, one)
            at = min(curve, key=lambda point: abs((point["share"] or 0.0) - 0.6))
            found.append(Row(_label(one), {name: value for name, value in at.items() if name != "share"}, curve))
        return found

    return rows


def _figure13(bench: Bench) -> list[Row]:
    return [Row(_label(one), bench.guessed(one)) for one in (*PAPERS, *OURS)]


TABLES: Mapping[str, Table[Bench]] = {
    "table6": Table(EVERY, _table6),
    "table7": Table(EVERY, _table7),
    "table10": Table(EVERY, _table10),
    "figure12": Table(EVERY, _curves(Bench.pruned), "share"),
    "figure13": Table(EVERY, _figure13),
    "figure14": Table(EVERY, _curves(Bench.flipped), "share"),
}
"""Numbered as in the paper; the points given for a curve are those at 60 %."""
