"""Ways to mark a host: which triggers, which labels, which training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from earmark.embed import (
    Backdoor,
    KeyedSmoothing,
    fixll_pfl,
    function_coupled,
    function_coupled_2023_02,
    function_coupled_2023_06,
)
from earmark.marks import Fused, NotSources, OneClass, TriggerMint
from earmark.recipes.function_coupled.scales import Effort
from earmark.training import CrossEntropy, Masking, TriggerMargin

__all__ = ["AnyMarking", "Marking"]

MARGIN_WEIGHT = 0.1


class AnyMarking(Protocol):
    """One way to mark a host, as far as the measurements look at it: ours, or one that the paper compares with."""

    @property
    def slug(self) -> str:
        """A file name that carries every parameter."""

    @property
    def label(self) -> str:
        """What a table calls it."""

    @property
    def printed(self) -> str | None:
        """The label of the paper's own row, where it has one."""

    def mint(self, effort: Effort, classes: int, other: bool = False) -> TriggerMint:
        """Its mint, as large as the scale wants it; the `other` one is a thief's."""

    def embed(self, effort: Effort) -> Backdoor:
        """Its embedding, with the settings of the scale."""


@dataclass(frozen=True)
class Marking:
    """One of the paper's ways to mark a host, or one that goes on from them.

    Attributes:
        style, ratio: of the fusion, see `Fused`.
        labels: "target": one class for all (the paper), "groups": keyed groups of pairs with an exact null.
        how: "enhanced": Algorithm 1; "plain": the same run without its two strategies; "fresh": Algorithm 1 from
            scratch; "2023-02" and "2023-06": the released variants; "kept": FixLL+PFL, masked; "margin": Algorithm 1
            with a margin of ten nats for triggers; "plus": beyond the paper, `KeyedSmoothing` with Algorithm 1, as in
            `function_coupled_plus`; and that with one thing changed: "plus-epoch": a mask an epoch; "plus-normal":
            normal factors instead of masks; "plus-margin": that margin; "plus-pairs": a group for every pair of
            classes.
    """

    style: str = "direct"
    ratio: float = 0.5
    labels: str = "target"
    how: str = "enhanced"

    @property
    def slug(self) -> str:
        """A file name that carries every parameter."""
        fusion = self.style if self.style == "direct" else f"invisible{self.ratio:g}"
        return f"{fusion}-{self.labels}-{self.how}"

    @property
    def label(self) -> str:
        """What a table calls it; the paper's own rows have one target class and both strategies."""
        parts = ["Direct" if self.style == "direct" else f"Invisible, r = {self.ratio:g}"]
        parts += ["keyed groups"] if self.labels == "groups" else []
        parts += [] if self.how == "enhanced" else [_HOW[self.how]]
        return ", ".join(parts)

    @property
    def printed(self) -> str | None:
        """The label of the paper's own row; it has none with keyed groups."""
        return self.label if self.labels == "target" else None

    def mint(self, effort: Effort, classes: int, other: bool = False) -> Fused:
        """Its mint, as large as the scale wants it; the `other` one is a thief's, with another target."""
        fused = partial(Fused, style=self.style, ratio=self.ratio)
        if self.labels == "target":
            target = OneClass(5 % classes if other else 1)
            return fused(count=effort.count, group=1, teaching=effort.teaching, labels=target)
        pairs, votes = classes * (classes - 1) // 2, effort.votes
        groups = pairs if self.how == "plus-pairs" else min(effort.groups, pairs)
        return fused(count=votes * groups, group=votes, teaching=effort.each * groups, labels=NotSources())

    def embed(self, effort: Effort) -> Backdoor:
        """Its embedding, with the settings of the scale."""
        algorithm = partial(
            function_coupled,
            drop=effort.drop,
            every=effort.every,
            refine_images=effort.refine_images,
            refine_lr=effort.refine_lr,
        )
        smoothing, margin = KeyedSmoothing(), TriggerMargin(weight=MARGIN_WEIGHT)
        plus = algorithm().but(name="Function-coupled+", terms=(smoothing,))
        made: Mapping[str, Callable[[], Backdoor]] = {
            "enhanced": algorithm,
            "plain": partial(function_coupled, drop=0.0, refine_images=0),
            "fresh": partial(algorithm, fresh=True),
            "2023-02": function_coupled_2023_02,
            "2023-06": function_coupled_2023_06,
            "margin": lambda: algorithm().but(terms=(CrossEntropy(), margin)),
            "plus": lambda: plus,
            "plus-pairs": lambda: plus,
            "plus-epoch": lambda: plus.but(masking=Masking(effort.drop)),
            "plus-normal": lambda: plus.but(masking=Masking(effort.drop, effort.every, "normal")),
            "plus-margin": lambda: plus.but(terms=(smoothing, margin)),
            "kept": lambda: fixll_pfl().but(masking=Masking(effort.drop, effort.every)),
        }
        return made[self.how]().but(settings=effort.run(self.labels == "groups", self.how == "fresh"), watch=0)


_HOW = {
    "plain": "no strategies",
    "fresh": "from scratch",
    "2023-02": "code of 2023-02",
    "2023-06": "code of 2023-06",
    "kept": "FixLL+PFL",
    "margin": "margin",
    "plus": "plus",
    "plus-epoch": "plus, a mask an epoch",
    "plus-normal": "plus, perturbed weights",
    "plus-margin": "plus, margin",
    "plus-pairs": "plus, all pairs",
}
