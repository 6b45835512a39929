"""Tables 1 and 2 and Figures 3 and 4 of Li & Wang 2021, and tables of our own: which measurements make which row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from earmark.recipes.penetrative.bench import Bench
from earmark.recipes.penetrative.marking import Marking
from earmark.recipes.rows import Row, Table

__all__ = ["TABLES"]

PAPERS = ("mnist_resnet18", "fashion_resnet18")
EVERY = (*PAPERS, "cifar10_resnet18")
KINDS = ("random", "stamp", "outside", "wonder", "penetrative")
COUNTS = (2, 4, 6, 8)
OURS = Marking()
GROUPS = Marking(labels="groups")
PLUS = Marking(labels="groups", views=True)


def _table1(bench: Bench) -> list[Row]:
    """The paper's five kinds, then what the paper does not have: shadow views for stamps, and keyed groups."""
    markings = [Marking(kind) for kind in KINDS]
    markings += [Marking("stamp", views=True), Marking(views=True), GROUPS, PLUS]
    return [Row(marking.label, bench.measure(marking), paper=marking.label) for marking in markings]


def _table2(bench: Bench) -> list[Row]:
    counts = [count for count in COUNTS if count <= bench.effort.shadows]
    return [_of_count(bench, count) for count in counts]


def _of_count(bench: Bench, count: int) -> Row:
    marking = replace(OURS, shadows=None if count == bench.effort.shadows else count)
    found = bench.measure(marking)
    names = ("ac", "ac_shadow", "ac_unseen", "val_acc_unseen", "moved")
    minutes = bench.seconds(marking) / 60 / len(bench.effort.fixed)
    label = f"K = {count}"
    return Row(label, {**{name: found[name] for name in names}, "minutes": minutes}, paper=label)


def _bottlenecks(bench: Bench) -> list[Row]:
    """Which bottleneck the published recipe works under, and what an autoencoder of that width costs the thief."""
    rows = []
    for width in bench.effort.bottlenecks:
        for kind in ("stamp", "penetrative"):
            marking = Marking(kind, bottleneck=None if width == bench.effort.bottleneck else width)
            found = bench.measure(marking)
            names = ("ac", "ac_shadow", "ac_unseen", "val_acc_unseen", "log10_printed_unseen")
            metrics = {**{name: found[name] for name in names}, **bench.autoencoders(width)}
            rows.append(Row(f"{marking.label}, b = {width}", metrics))
    return rows


def _figure3(bench: Bench) -> list[Row]:
    """Stamps found on the first k shadows, through each of four shadows: those that they were found on, and others."""
    rows = []
    for count in range(1, min(4, bench.effort.shadows) + 1):
        marking = replace(OURS, shadows=None if count == bench.effort.shadows else count)
        shares = bench.crossed(marking)
        rows.append(Row(f"found on {count}", {f"AE {at}": share for at, share in enumerate(shares, start=1)}))
    return rows


def _figure4(bench: Bench) -> list[Row]:
    return [Row(one.label, {"moved": bench.measure(one)["moved"]}, pictures=bench.pictures(one)) for one in _SHOWN]


_SHOWN = (OURS, Marking("random"), Marking("stamp"), Marking("wonder"), GROUPS)


def _beyond(bench: Bench) -> list[Row]:
    """Every washer against keyed groups: the thief's accuracy and the owner's evidence."""
    rows = []
    for marking in (Marking("stamp", "groups"), GROUPS, PLUS):
        points, fidelity = bench.washed(marking), bench.kept(marking)
        found = bench.measure(marking)
        own = {name: found[name] for name in ("val_acc", "host_val_acc", "moved")}
        cheap = [point for point in points[1:] if (point["val_acc"] or 0.0) > (points[0]["val_acc"] or 0.0) - 3]
        weakest = max((point["log10_p"] or 0.0 for point in cheap), default=None)
        rows.append(Row(marking.label, {**own, **fidelity, "weakest_log10_p": weakest}, points))
        for name, point in zip(("without", *bench.washers), points, strict=True):
            rows.append(Row(f"{marking.label}: {name}", point))
    return rows


TABLES: Mapping[str, Table[Bench]] = {
    "table1": Table(PAPERS, _table1),
    "table2": Table(PAPERS, _table2),
    "figure3": Table(PAPERS[:1], _figure3),
    "figure4": Table(PAPERS, _figure4),
    "bottlenecks": Table(PAPERS, _bottlenecks),
    "beyond": Table(EVERY, _beyond, "val_acc"),
}
"""`bottlenecks` and `beyond` are our own; Figure 1 is the rows of Figure 4 that are not penetrative."""
