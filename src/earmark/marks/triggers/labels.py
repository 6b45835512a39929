"""How triggers get their labels, and what an innocent suspect would then score.

A policy that draws labels from the owner's key, after the images are fixed, gives an exact null: whatever a suspect
answers on the images, its answers were chosen without knowledge of the labels, so each one matches with probability
1/K, independently of the others. Nothing is assumed about the suspect: it may answer every trigger with one class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from earmark.core import Null
from earmark.errors import BadInput, unknown_name, whole
from earmark.keys import KeyedStream

__all__ = [
    "POLICIES",
    "AsShown",
    "Chain",
    "LabelPolicy",
    "Listed",
    "NotSources",
    "NotTrue",
    "OneClass",
    "Uniform",
    "policy_from",
]

MOST_LISTED = 1 << 13


@dataclass(frozen=True)
class LabelPolicy(ABC):
    """A rule that gives n triggers their labels; settings know it by its `name`."""

    name: ClassVar[str]

    @abstractmethod
    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        """Labels int64 (count,) below `classes`.

        `true` are the carriers' own classes, where the triggers have any: (count,), or (count, m) where each trigger is
        made from images of m classes.
        """

    @abstractmethod
    def null(self, classes: int) -> Null:
        """What a suspect that has nothing to do with the key would score."""

    @property
    def sources_excluded(self) -> int:
        """How many source images each trigger has whose classes its label is never one of."""
        return 0

    def settings(self) -> dict[str, Any]:
        """The name and every field, as JSON."""
        return {"policy": self.name, **asdict(self)}


@final
@dataclass(frozen=True)
class Uniform(LabelPolicy):
    """Each label uniform over the K classes: the default, with the exact null Binomial(n, 1/K)."""

    name: ClassVar[str] = "uniform"

    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        return stream.integers(classes, count)

    def null(self, classes: int) -> Null:
        return Null(
            "exact",
            1 / classes,
            f"Each trigger's label was drawn at random from all {classes} classes by the owner's key, after the images "
            "were fixed. A model made without the key can only guess: whatever it answers, each answer is right with "
            f"probability 1 in {classes}, independently of the others, however biased the model is.",
        )


@final
@dataclass(frozen=True)
class NotTrue(LabelPolicy):
    """Each label uniform over the K - 1 classes that the carrier does not show.

    A suspect's answer is read among those K - 1 classes, so each matches with probability 1/(K-1), or never where it
    gives nothing but the true class: Binomial(n, 1/(K-1)) bounds the number of matches.

    Raises:
        BadInput: on drawing, where the triggers have no true class or K < 3 (with two classes nothing is left to draw).
    """

    name: ClassVar[str] = "not-true"

    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        if true is None:
            raise BadInput(
                "not-true labels need triggers that show a true class, as stamped ones do; use uniform labels"
            )
        self._check(classes)
        return (true + 1 + stream.integers(classes - 1, count)) % classes

    def null(self, classes: int) -> Null:
        self._check(classes)
        return Null(
            "exact",
            1 / (classes - 1),
            "Each trigger shows an image of a known class, and its label was drawn at random from the other "
            f"{classes - 1} classes by the owner's key, after the images were fixed. A model made without the key can "
            "only guess: whichever of those classes it puts first, it is right with probability at most 1 in "
            f"{classes - 1}, independently of its other answers.",
        )

    @property
    def sources_excluded(self) -> int:
        return 1

    def _check(self, classes: int) -> None:
        if classes < 3:
            raise BadInput(f"not-true labels need at least 3 classes, got {classes}; use uniform labels")


@final
@dataclass(frozen=True)
class NotSources(LabelPolicy):
    """Each label uniform over the K - m classes that none of the trigger's m sources shows.

    A suspect's answer is read among those K - m classes, so each matches with probability 1/(K-m) at most, and
    Binomial(n, 1/(K-m)) bounds the number of matches, as for `NotTrue`.

    Attributes:
        sources: m, how many different classes each trigger is made from.

    Raises:
        BadInput: fewer than one source, or on drawing, triggers without so many sources or K < m + 2.
    """

    sources: int = 2
    name: ClassVar[str] = "not-sources"

    def __post_init__(self) -> None:
        whole("sources", self.sources, low=1)

    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        self._check(classes)
        if true is None or true.shape != (count, self.sources):
            came = "none" if true is None else tuple(true.shape)
            raise BadInput(f"not-sources labels need ({count}, {self.sources}) classes of sources, got {came}")
        labels = stream.integers(classes - self.sources, count)
        for lower in true.sort(dim=1).values.T:
            labels = labels + (labels >= lower)
        return labels

    def null(self, classes: int) -> Null:
        self._check(classes)
        left = classes - self.sources
        return Null(
            "exact",
            1 / left,
            f"Each trial's images are made from images of {self.sources} known classes, and its label was drawn at "
            f"random from the other {left} classes by the owner's key, after the images were fixed. A model made "
            "without the key can only guess: whichever of those classes it puts first, it is right with probability "
            f"at most 1 in {left}, independently of its other answers.",
        )

    @property
    def sources_excluded(self) -> int:
        return self.sources

    def _check(self, classes: int) -> None:
        if classes < self.sources + 2:
            raise BadInput(f"labels that no source shows need at least {self.sources + 2} classes, got {classes}")


@final
@dataclass(frozen=True)
class Chain(LabelPolicy):
    """Label j mod `length` for trigger j, as the deep fidelity paper's code has it (`gen_key_chain`).

    The labels do not come from the key, so a match proves nothing about it: no null, and no test may accept.

    Raises:
        BadInput: a length below 2, or on drawing more labels than there are classes.
    """

    length: int = 10
    name: ClassVar[str] = "chain"

    def __post_init__(self) -> None:
        whole("chain length", self.length, low=2)

    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        if self.length > classes:
            raise BadInput(f"a chain of {self.length} labels needs as many classes, got {classes}; give a shorter one")
        return torch.arange(count) % self.length

    def null(self, classes: int) -> Null:
        return Null(
            "none",
            None,
            "The labels follow a fixed order that anyone can know, so how often a model made without the key would "
            "match them is unknown; this mark alone can reject a claim but not prove one.",
        )


@final
@dataclass(frozen=True)
class OneClass(LabelPolicy):
    """Every label is `target`: a model that answers one class for all junk matches all of them, so there is no null.

    Raises:
        BadInput: a negative target, or on drawing a target that is no class.
    """

    target: int = 0
    name: ClassVar[str] = "one-class"

    def __post_init__(self) -> None:
        whole("target class", self.target, low=0)

    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        if self.target >= classes:
            raise BadInput(f"expected a target below {classes}, the number of classes, got {self.target}")
        return torch.full((count,), self.target)

    def null(self, classes: int) -> Null:
        return Null(
            "none",
            None,
            f"All triggers carry the same label, class {self.target}. A model made without the key may well answer "
            "that class for all of them, so matches prove nothing by themselves; this mark alone can reject a claim "
            "but not prove one.",
        )


@final
@dataclass(frozen=True)
class Listed(LabelPolicy):
    """The labels that somebody wrote down, over and over: 0 and 7 for the two stamps of Li & Wang 2021.

    Trial j has `labels[j mod m]`, m of them. They do not come from the key, and few trials say little anyway: a model
    that answers two stamps at random among K classes has both right with probability 1/K^2, however many images are
    under them.

    Raises:
        BadInput: no label, a negative one, or on drawing one that is no class.
    """

    labels: tuple[int, ...] = (0, 7)
    name: ClassVar[str] = "listed"

    def __post_init__(self) -> None:
        given: Any = self.labels
        if not isinstance(given, list | tuple) or not 0 < len(given) <= MOST_LISTED:
            raise BadInput(f"listed labels: expected 1 to {MOST_LISTED} classes, got {given!r:.80}")
        object.__setattr__(self, "labels", tuple(whole("listed label", label, low=0) for label in given))

    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        if max(self.labels) >= classes:
            raise BadInput(f"expected labels below {classes}, the number of classes, got {max(self.labels)}")
        return torch.tensor(self.labels)[torch.arange(count) % len(self.labels)]

    def null(self, classes: int) -> Null:
        return Null(
            "none",
            None,
            f"The labels were written down and not drawn, {len({*self.labels})} classes in all, so how often a model "
            "made without the key would match them is unknown; and all images of a trial are one question, not many. "
            "This mark alone can reject a claim but not prove one.",
        )


@final
@dataclass(frozen=True)
class AsShown(LabelPolicy):
    """Each label the class that the trigger's image shows, as in frontier stitching (Le Merrer et al. 2020).

    Nothing is drawn, and any model that knows the task may give such an answer: no null, and no test may accept.

    Raises:
        BadInput: on drawing, where the triggers show no class, or more than one each.
    """

    name: ClassVar[str] = "as-shown"

    def draw(self, stream: KeyedStream, count: int, classes: int, true: Tensor | None) -> Tensor:
        if true is None or true.shape != (count,):
            raise BadInput(
                "as-shown labels need triggers that show one class each, as frontier ones do; use uniform labels"
            )
        return true.clone()

    def null(self, classes: int) -> Null:
        return Null(
            "none",
            None,
            "The labels are the classes that the images show. A model made without the key may well know them, so "
            "matches prove nothing by themselves; this mark alone can reject a claim but not prove one.",
        )


POLICIES: Mapping[str, type[LabelPolicy]] = {
    policy.name: policy for policy in (Uniform, NotTrue, NotSources, Chain, OneClass, Listed, AsShown)
}


def policy_from(settings: Any) -> LabelPolicy:
    """The policy that `{"policy": name, ...}` describes.

    Raises:
        BadInput: another shape, an unknown name or field, or a field out of its range.

    >>> policy_from({"policy": "one-class", "target": 3})
    OneClass(target=3)
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get("policy"), str):
        raise BadInput(f'expected label settings like {{"policy": "uniform"}}, got {settings!r:.80}')
    name, rest = settings["policy"], {key: value for key, value in settings.items() if key != "policy"}
    if name not in POLICIES:
        raise unknown_name("label policy", name, POLICIES)
    known = [field.name for field in fields(POLICIES[name])]
    for key in rest:
        if key not in known:
            raise unknown_name(f"setting of {name} labels", str(key), [*known, "policy"])
    return POLICIES[name](**rest)
