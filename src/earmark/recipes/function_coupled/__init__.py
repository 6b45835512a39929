"""Wen et al. 2023, Tables 1 to 4 and Figures 5 to 12: every mark embedded, attacked, and set beside what is printed.

Three scales. `full` is the paper's networks and all images, for a GPU. `cpu` is for two CPU cores: MNIST with LeNet-5
at the paper's own scale, the other sets with fewer images and thin networks. `quick` runs in seconds on scikit-learn's
digits and shows that the machinery works, nothing else.

Every mark of the paper's comes in two kinds: its own, all triggers with one target class, which has no null and can
prove nothing; and keyed groups, whose null is exact. Their verification triggers are never those that the model learnt,
and no model has a say in either. The schemes that Table 4 compares with are `BASELINES`, each as its own paper has it.
Models, marks and measurements are kept under `out`; a run that is killed goes on from its last checkpoint.
"""

from __future__ import annotations

from typing import Any

from earmark.recipes.function_coupled.baselines import BASELINES, Baseline, Copied
from earmark.recipes.function_coupled.bench import Bench
from earmark.recipes.function_coupled.marking import AnyMarking, Marking
from earmark.recipes.function_coupled.scales import SCALES, Effort, Thief
from earmark.recipes.function_coupled.settings import SETTINGS, Setting
from earmark.recipes.function_coupled.tables import TABLES
from earmark.recipes.recipe import Recipe

__all__ = [
    "BASELINES",
    "SCALES",
    "SETTINGS",
    "TABLES",
    "AnyMarking",
    "Baseline",
    "Bench",
    "Copied",
    "Effort",
    "Marking",
    "Setting",
    "Thief",
    "reproduce",
]


EVIDENCE = (
    "log10 p is that of the trigger test on an exact null, for an owner who tests a mark of his own; a judge adds 19.3 "
    "for the 2^64 keys that a claimant may have tried. One target class has no null."
)


def _images(table: str, setting: str, scale: str) -> list[str]:
    """The data sets that a table of a setting reads: the owner's, and those of a thief's own task."""
    instead = SCALES[scale][setting].data
    return [instead or name for name in (SETTINGS[setting].data, *_targets(table, setting))]


def _targets(table: str, setting: str) -> tuple[str, ...]:
    transfers = SETTINGS[setting].transfers
    return {"figure7": transfers, "table4": transfers[:1], "beyond": transfers[:1], "lifts": transfers[:1]}.get(
        table, ()
    )


def _notes(table: str, bench: Bench) -> list[str]:
    """What a reader has to know of the evidence and of the images, those of a thief's own task included."""
    return [
        EVIDENCE,
        *TABLES[table].notes,
        *bench.notes,
        *(note for target in _targets(table, bench.name) for note in bench.target(target).notes),
    ]


def _describe(bench: Bench) -> dict[str, Any]:
    own = {name: value for name, value in vars(bench.effort).items() if name != "notes"}
    own["data"] = bench.images
    runs = {f"{name} run": own.pop(name).to_dict() for name in ("host", "embed", "fresh")}
    thief = {f"thief's {name}": value for name, value in vars(own.pop("thief")).items()}
    runs |= {f"thief's {name} run": thief.pop(f"thief's {name}").to_dict() for name in ("overwrite", "extract")}
    return {**own, **thief, **runs}


reproduce = Recipe(
    "function-coupled", SETTINGS, SCALES, TABLES, Bench, images=_images, describe=_describe, notes=_notes
).reproduce
