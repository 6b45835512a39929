"""Tables and figures of Fan et al. 2021: which measurements make which row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from earmark.files import load_tensors
from earmark.recipes.deepipr.bench import Bench, Protection
from earmark.recipes.deepipr.conventional import TRIGGERS, UCHIDA, compared_with_forged, images, projections
from earmark.recipes.deepipr.forging import FORGERS, by_share, forged
from earmark.recipes.deepipr.settings import SETTINGS
from earmark.recipes.deepipr.timing import timed
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


def _table2(bench: Bench) -> list[Row]:
    """Uchida's watermark and a trigger set, each beside the forger's, on the network and on every target."""
    found = []
    for label, one in {"Uchida": UCHIDA, "Triggers": TRIGGERS}.items():
        points = compared_with_forged(bench, one)
        for name in ("", *bench.setting.targets):
            to = f", to {bench.target(name)[1]}" if name else ""
            found.append(Row(f"{label}{to}", points[name], paper=f"{label}, to {name}" if name else label))
    return found


def _sampled(files: Callable[[Bench], Mapping[str, Path]], what: str) -> Callable[[Bench], list[Row]]:
    """Files of samples as rows, with the mean and the spread of one of the quantities in them."""

    def rows(bench: Bench) -> list[Row]:
        found = []
        for label, path in files(bench).items():
            values = load_tensors(path)[what].double()
            metrics: Point = {"mean": float(values.mean()), "std": float(values.std())}
            found.append(Row(label, metrics, more={"samples": bench.relative(path)}))
        return found

    return rows


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
    rows = [Row("Baseline", {"acc": bench.measured(V1.baseline)["acc"]}, paper="Baseline")]
    for label, point in {"Correct": points[0], "Partially correct": points[1], "Wrong": points[-1]}.items():
        flipped = 100 * (point["flipped"] or 0.0)
        rows.append(Row(f"{label}, {flipped:.0f} % flipped", {"acc": point["val_acc"]}, paper=label))
    return rows


def _table8(bench: Bench) -> list[Row]:
    """Every forgery of passports, on every scheme of the paper."""
    return [Row(f"{name} on {_label(one)}", forged(bench, one, name)) for name in FORGERS for one in PAPERS]


def _table11(bench: Bench) -> list[Row]:
    """Time over the baseline's; and what each scheme needs, by looking at what is released (Table 12)."""
    times = timed(bench, PAPERS)
    return [Row(_label(one), {**times[one.slug], **bench.needs(one)}, paper=_label(one)) for one in PAPERS]


def _learnt_forgeries(name: str, *schemes: Protection) -> Callable[[Bench], list[Row]]:
    def rows(bench: Bench) -> list[Row]:
        found = []
        for one in schemes:
            curve = by_share(bench, one, name)
            best = max(point["val_acc"] or 0.0 for point in curve)
            label = f"{name} on {_label(one)}"
            found.append(Row(label, {"best_forged_acc": best}, curve, paper=label))
        return found

    return rows


def _figure18(bench: Bench) -> list[Row]:
    curve = bench.converging(V1)
    return [Row(_label(V1), {"val_acc": curve[-1]["val_acc"], "moved": curve[-1]["moved"]}, curve)]


def _figure19(bench: Bench) -> list[Row]:
    return [
        Row(_label(one), {"acc": bench.measured(one)["acc"]}, more={"samples": bench.relative(bench.samples(one))})
        for one in (V1.baseline, V1)
    ]


def _curves(measure: Callable[[Bench, Protection], list[Point]], over: str) -> Callable[[Bench], list[Row]]:
    def rows(bench: Bench) -> list[Row]:
        found = []
        for one in (*PAPERS, *OURS):
            curve = measure(bench, one)
            at = min(curve, key=lambda point: abs((point[over] or 0.0) - 0.6))
            found.append(Row(_label(one), {name: value for name, value in at.items() if name != over}, curve))
        return found

    return rows


def _figure13(bench: Bench) -> list[Row]:
    return [Row(_label(one), bench.guessed(one)) for one in (*PAPERS, *OURS)]


_flips = _curves(Bench.flipped, "flipped")
ALEXNET = tuple(name for name in SETTINGS if "alexnet" in name)
RESNET = tuple(name for name in SETTINGS if "resnet" in name)
SECTION_3 = tuple(name for name in ALEXNET if "cifar10_" in name)
"""What the conventional watermarks are tried on."""
TABLES: Mapping[str, Table[Bench]] = {
    "table2": Table(SECTION_3, _table2),
    "table6": Table(EVERY, _table6),
    "table7": Table(EVERY, _table7),
    "table8": Table(EVERY, _table8),
    "table10": Table(EVERY, _table10),
    "table11": Table(EVERY, _table11),
    "figure3": Table(SECTION_3, _sampled(projections, "projection")),
    "figure5": Table(SECTION_3, _sampled(images, "pixels")),
    "figure12": Table(EVERY, _curves(Bench.pruned, "share"), "share"),
    "figure13": Table(EVERY, _figure13),
    "figure14": Table(ALEXNET, _flips, "flipped"),
    "figure15": Table(RESNET, _flips, "flipped"),
    "figure16": Table(EVERY, _learnt_forgeries("fake2", V1), "changed"),
    "figure17": Table(EVERY, _learnt_forgeries("fake3", *PAPERS), "changed"),
    "figure18": Table(EVERY, _figure18, "epoch"),
    "figure19": Table(EVERY, _figure19),
}
"""Numbered as in the paper, Table 12 with Table 11; of pruning and of flips, the numbers are those at 60 %."""
