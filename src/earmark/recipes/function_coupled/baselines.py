"""What Table 4 of Wen et al. 2023 sets beside its own: five published schemes, and a thief's copy of the last of them.

| the paper's row                | scheme                | triggers                             | labels       |
|--------------------------------|-----------------------|--------------------------------------|--------------|
| Protecting IP                  | Zhang et al. 2018     | a block stamped on images of class 1 | class 0      |
| Turning weakness into strength | Adi et al. 2018       | abstract art                         | from the key |
| Exponential weighting          | Namba & Sakuma 2019   | training images as they are          | from the key |
| Frontier stitching             | Le Merrer et al. 2020 | adversarial images of the host       | as they show |
| Entangled-victim               | Jia et al. 2021       | a patch on images of class 4         | class 6      |
| Entangled-extract              | the same, extracted   | the same                             | the same     |

All start from one host and are marked in the run that ours are marked in, not in those of their own papers: as many
epochs, as many images and triggers to a batch, at the same rates. What is particular to a scheme is as
`earmark.schemes` has it. They ask as many triggers as ours do. Entangled watermarks learn others than they ask, as many
as ours learn; the rest learn the very triggers that they ask, which makes it easier for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from earmark.embed import Backdoor, adi, entangled, exponential_weighting, ftal
from earmark.marks import Abstract, Frontier, OneClass, Patched, Relabelled, Stamped, TriggerMint
from earmark.recipes.function_coupled.marking import AnyMarking
from earmark.recipes.function_coupled.scales import Effort

__all__ = ["BASELINES", "Baseline", "Copied"]


@final
@dataclass(frozen=True)
class Baseline:
    """A scheme that the paper compares with.

    Attributes:
        slug: a file name that carries every parameter.
        label: the paper's own row.
        note: what is particular to the scheme, for a reader of the table.
        triggers: from (effort, whether a thief's) to its mint.
        method: its embedding, but for the run.
    """

    slug: str
    label: str
    note: str
    triggers: Callable[[Effort, bool], TriggerMint]
    method: Callable[[], Backdoor]

    @property
    def printed(self) -> str:
        return self.label

    def mint(self, effort: Effort, classes: int, other: bool = False) -> TriggerMint:
        """Its mint, with as many triggers as ours; where all have one target, the `other` one has another."""
        return self.triggers(effort, other)

    def embed(self, effort: Effort) -> Backdoor:
        """Its embedding, in the run that marks the host with ours."""
        return self.method().but(settings=effort.run(groups=False), watch=0)


@final
@dataclass(frozen=True)
class Copied:
    """A network of the thief's own that learnt the answers of a marked one, then attacked as if it were marked.

    Attributes:
        victim: how the model that the thief asks was marked.
        answers: a name of `bench.EXTRACTIONS`.
        label: the paper's own row.
        note: see `Baseline`.
    """

    victim: AnyMarking
    answers: str
    label: str
    note: str

    @property
    def slug(self) -> str:
        return f"{self.victim.slug}-copied-{self.answers}"

    @property
    def printed(self) -> str:
        return self.label

    def mint(self, effort: Effort, classes: int, other: bool = False) -> TriggerMint:
        """The victim's mint."""
        return self.victim.mint(effort, classes, other)

    def embed(self, effort: Effort) -> Backdoor:
        """The victim's embedding, by which a thief overwrites the copy."""
        return self.victim.embed(effort)


def _stamped(effort: Effort, other: bool) -> TriggerMint:
    return Stamped(effort.count, OneClass(5 if other else 0), carrier_class=2 if other else 1)


def _patched(effort: Effort, other: bool) -> TriggerMint:
    source, target = (2, OneClass(5)) if other else (4, OneClass(6))
    return Patched(effort.count, target, group=1, teaching=effort.teaching, carrier_class=source)


ENTANGLED = Baseline(
    "entangled-4to6",
    "Entangled-victim",
    "a keyed patch on training images of class 4, all taught as class 6, with the soft nearest neighbour loss on the "
    "penultimate feature at kappa = 1; as many other images under the patch are learnt as ours are learnt from.",
    _patched,
    entangled,
)

BASELINES: tuple[Baseline | Copied, ...] = (
    Baseline(
        "zhang-content-1to0",
        "Protecting IP",
        "the content mark of Zhang et al., the paper does not say which of their three it took: a keyed block of 4 x 4 "
        "cells stamped on training images of class 1, all taught as class 0.",
        _stamped,
        ftal,
    ),
    Baseline(
        "adi",
        "Turning weakness into strength",
        "abstract art of Adi et al. painted from the key, with labels drawn from it; fine-tuned, their PreTrained.",
        lambda effort, other: Abstract(effort.count),
        adi,
    ),
    Baseline(
        "exponential-weighting-2",
        "Exponential weighting",
        "training images under other labels, drawn from the key, and layers that compute with exponential weights at "
        "T = 2.",
        lambda effort, other: Relabelled(effort.count),
        exponential_weighting,
    ),
    Baseline(
        "frontier-0.1",
        "Frontier stitching",
        "fast gradient sign steps of 0.1 on the host, half of which turn its answer, all taught as what they show, so "
        "that the unmarked host answers half of them and so may anybody's model.",
        lambda effort, other: Frontier(effort.count),
        ftal,
    ),
    ENTANGLED,
    Copied(
        ENTANGLED,
        "hard",
        "Entangled-extract",
        "a fresh network that learnt the classes which Entangled-victim answers to the owner's training images, as "
        "Jia et al. released it, and then stood the same attacks.",
    ),
)
"""In the paper's order."""
