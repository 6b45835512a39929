"""Hua & Teoh 2023, Tables 4 to 8: every row trained, measured, and set beside the printed number.

Three scales. `full` is the paper's setting as far as the paper and its released code state it. `cpu` is for two CPU
cores: fewer and smaller images, saturated noise and fewer steps. `quick` runs in seconds on
scikit-learn's digits with a narrow network and shows that the machinery works, nothing else.

A row is measured once and kept as one JSON file under `out`, with its models beside it; a run that is killed goes on
from the last checkpoint of the row that it was in.
"""

from __future__ import annotations

from typing import Any

from earmark.recipes.deep_fidelity.bench import Bench, images_of
from earmark.recipes.deep_fidelity.plans import LABELS, LOOSER, PLANS, Plan
from earmark.recipes.deep_fidelity.scales import SCALES, Scale
from earmark.recipes.deep_fidelity.settings import SETTINGS, Setting
from earmark.recipes.deep_fidelity.tables import TABLES
from earmark.recipes.recipe import Recipe

__all__ = [
    "LABELS",
    "LOOSER",
    "PLANS",
    "SCALES",
    "SETTINGS",
    "TABLES",
    "Bench",
    "Plan",
    "Scale",
    "Setting",
    "reproduce",
]


def _describe(bench: Bench) -> dict[str, Any]:
    effort = bench.effort
    own = {name: value for name, value in vars(effort).items() if name != "notes"}
    runs = {name: own.pop(name).to_dict() for name in ("host", "embed", "scratch")}
    exceptions = own.pop("own")
    own["begins"] = {method: f"from {plan.label}" for method, plan in effort.begins.items()}
    runs |= {label: exceptions[label].to_dict() for label in exceptions}
    return {"data": bench.setting.data, **own, **{f"{name} run": run for name, run in runs.items()}}


reproduce = Recipe(
    "deep-fidelity",
    SETTINGS,
    SCALES,
    TABLES,
    Bench,
    images=lambda _, setting, scale: [images_of(setting, scale)],
    describe=_describe,
    notes=lambda _, bench: bench.notes,
).reproduce
