"""Fan et al. 2021 (DeepIPR): networks protected by passports V1, V2 and V3, attacked, and set beside what is printed.

Three scales. `full` is the paper's networks and all images, for a GPU. `cpu` is AlexNet_p at a quarter of its width on
a part of CIFAR-10, for two CPU cores. `quick` runs in seconds on scikit-learn's digits and shows that the machinery
works. Detection is one thing everywhere: the signs of <W, S> of the network's convolutions against the committed bits.
"""

from __future__ import annotations

from typing import Any

from earmark.recipes.deepipr.bench import Bench, Protection
from earmark.recipes.deepipr.scales import SCALES, Effort
from earmark.recipes.deepipr.settings import SETTINGS, Setting
from earmark.recipes.deepipr.tables import TABLES
from earmark.recipes.recipe import Recipe

__all__ = [
    "SCALES",
    "SETTINGS",
    "TABLES",
    "Bench",
    "Effort",
    "Protection",
    "Setting",
    "reproduce",
]

EVIDENCE = (
    "Detected is the mean over layers of the share of bits that the convolutions' weights show, after transfer as "
    "well: the public code reads V1's from the plain scale of the tuned norm, which is no passport. log10 p is that of "
    "all bits, for an owner who tests a mark of his own.",
    "Triggers after transfer are answered under the head that the network had before; the thief's own head has other "
    "classes.",
)


CONVENTIONAL = (
    "The paper names neither the layer nor the number of bits of Uchida's watermark, nor its lambda: here they are the "
    "convolution with the largest filters, 256 (or two thirds of a filter's numbers, where that is less) and 0.01, in "
    "a network with batch norm. Seconds are those of forging. Forged triggers move a pixel by at most 0.04 (on digits, "
    "by 0.25) in 100 steps.",
)
SECTION_3 = ("table2", "figure3", "figure5")


def _images(table: str, setting: str, scale: str) -> list[str]:
    """The data sets that a table of a setting reads."""
    instead = SCALES[scale][setting].data
    return [instead or name for name in (SETTINGS[setting].data, *_targets(table, setting))]


def _targets(table: str, setting: str) -> tuple[str, ...]:
    return SETTINGS[setting].targets if table in ("table2", "figure3", "table6", "table7") else ()


def _describe(bench: Bench) -> dict[str, Any]:
    own = {name: value for name, value in vars(bench.effort).items() if name not in ("notes", "run")}
    runs = {f"{name} run": own.pop(name).to_dict() for name in ("tune", "forger", "insider")}
    return {**own, "data": bench.images, "run": bench.run.to_dict(), **runs}


def _notes(table: str, bench: Bench) -> list[str]:
    targets = _targets(table, bench.name)
    first = CONVENTIONAL if table in SECTION_3 else ()
    return [*first, *EVIDENCE, *bench.notes, *(note for target in targets for note in bench.target(target)[2])]


reproduce = Recipe(
    "deepipr",
    SETTINGS,
    SCALES,
    TABLES,
    Bench,
    images=_images,
    describe=_describe,
    notes=_notes,
    printed_as=lambda setting: setting.removesuffix("-2020"),
).reproduce
