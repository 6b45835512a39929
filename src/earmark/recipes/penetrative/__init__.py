"""Li & Wang 2021, Tables 1 and 2 and Figures 1, 3 and 4: stamps found, classifiers marked, and set beside the print.

Three scales. `full` is the paper's networks and all images, for a GPU. `cpu` has the paper's autoencoders and stamps
and a thin classifier. `quick` runs in seconds on scikit-learn's digits and shows that the machinery works.

Rows of the paper have two stamps with one label each. Their many triggers are two observations: the probability that
the paper prints takes them for independent, and no verdict rests on it. Keyed groups have an exact null.
"""

from __future__ import annotations

from typing import Any

from earmark.recipes.penetrative.bench import Bench
from earmark.recipes.penetrative.marking import Marking
from earmark.recipes.penetrative.scales import SCALES, Effort
from earmark.recipes.penetrative.settings import SETTINGS, Setting
from earmark.recipes.penetrative.tables import TABLES
from earmark.recipes.recipe import Recipe

__all__ = [
    "SCALES",
    "SETTINGS",
    "TABLES",
    "Bench",
    "Effort",
    "Marking",
    "Setting",
    "reproduce",
]

EVIDENCE = (
    "The printed probability is the paper's formula with lambda up to 0.998, which gives the paper's own values; the "
    "true minimum is smaller. Both take the triggers for independent, and two stamps with a label each are two "
    "observations. "
    "log10 p is that of the trigger test on an exact null, for an owner who tests a mark of his own."
)


def _images(table: str, setting: str, scale: str) -> list[str]:
    """The data sets that a table of a setting reads."""
    instead, own = SCALES[scale][setting].data, SETTINGS[setting]
    return [instead] if instead else [own.data, *([own.outside] if table == "table1" else [])]


def _describe(bench: Bench) -> dict[str, Any]:
    own = {name: value for name, value in vars(bench.effort).items() if name != "notes"}
    own["data"] = bench.images
    runs = {f"{name} run": own.pop(name).to_dict() for name in ("autoencoder", "host", "embed")}
    return {**own, **runs}


reproduce = Recipe(
    "penetrative",
    SETTINGS,
    SCALES,
    TABLES,
    Bench,
    images=_images,
    describe=_describe,
    notes=lambda _, bench: [EVIDENCE, *bench.notes],
).reproduce
