"""Tables 4 to 8 and Figures 6 and 7 of Hua & Teoh 2023: which settings they cover, and what stands in their rows."""

from __future__ import annotations

from collections.abc import Mapping

from earmark.recipes.deep_fidelity.bench import Bench
from earmark.recipes.deep_fidelity.plans import PLANS, Plan
from earmark.recipes.rows import Row, Table

__all__ = ["TABLES"]

METRICS = ("val_acc", "trig_acc", "twl", "ave_pfl", "ave_spl", "prototype_change", "relative_pfl")
EXTRA = ("agreement_test", "agreement_corrupted", "agreement_ood", "seconds")


def _row(bench: Bench, plan: Plan) -> Row:
    measured = bench.measure(plan)
    metrics = {name: _shown(name, measured.get(name)) for name in (*METRICS, *EXTRA)}
    cloud = str(bench.cloud(plan).relative_to(bench.out))
    more = {"history": measured["history"], "weights": dict(plan.weights), "cloud": cloud}
    return Row(plan.label, metrics, paper=plan.label, more=more)


def _shown(name: str, value: float | None) -> float | None:
    share = name.endswith("_acc") or name.startswith("agreement_")
    return value * 100 if share and value is not None else value


def _table(plans: list[Plan], *settings: str) -> Table[Bench]:
    return Table(settings, lambda bench: [_row(bench, plan) for plan in plans])


CIFAR10, CIFAR100 = "cifar10_resnet18_d64", "cifar100_wrn28_10_d640"
TABLES: Mapping[str, Table[Bench]] = {
    "table4": _table(PLANS["table4"], "mnist_d2", "mnist_d3"),
    "table5": _table(PLANS["table5"], CIFAR10, CIFAR100),
    "table6": _table(PLANS["table6"], "mnist_d2"),
    "table7": _table(PLANS["table7"], CIFAR10),
    "table8": _table(PLANS["table8"], CIFAR100, CIFAR10),
    "figure6": _table(PLANS["figure6"], "mnist_d2"),
    "figure7": _table(PLANS["figure7"], "mnist_d2"),
}
