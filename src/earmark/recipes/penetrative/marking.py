"""One way to mark a host: which stamps, which labels, what is taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from earmark.core import Images
from earmark.embed import Backdoor, ShadowViews, ftal, scratch
from earmark.marks import LabelPolicy, Listed, Penetration, Penetrative, TriggerMint, Uniform, Unrelated
from earmark.models import Bank
from earmark.recipes.penetrative.scales import Effort

__all__ = ["Marking"]

ANY_DISTANCE = 4.0
"""The paper's own stamps are bound by nothing; how far they moved is measured."""


@dataclass(frozen=True)
class Marking:
    """One way to mark a host.

    Attributes:
        kind: "random", "stamp", "outside", "wonder" or "penetrative": the columns of the paper's Table 1.
        labels: "fixed": two stamps with the paper's two labels; "groups": keyed stamps with keyed labels.
        shadows: K, how many of the shadows the stamps are found on; None for all.
        views: whether the classifier also learns what the shadows make of its lessons.
        bottleneck: of the shadows; None for the scale's own.
    """

    kind: str = "penetrative"
    labels: str = "fixed"
    shadows: int | None = None
    views: bool = False
    bottleneck: int | None = None

    @property
    def slug(self) -> str:
        """A file name that carries every parameter."""
        parts = [self.kind, self.labels, *(["views"] if self.views else [])]
        parts += [f"k{self.shadows}"] if self.shadows else []
        return "-".join([*parts, *([f"b{self.bottleneck}"] if self.bottleneck else [])])

    @property
    def label(self) -> str:
        """What a table calls it; the paper's own rows have two stamps with two labels."""
        parts = [_CALLED[self.kind]]
        parts += ["keyed groups"] if self.labels == "groups" else []
        return ", ".join([*parts, *(["shadow views"] if self.views else [])])

    def mint(self, effort: Effort, shadows: Bank, outside: Images) -> TriggerMint:
        """Its mint, as large as the scale wants it."""
        fixed = self.labels == "fixed"
        group = effort.looks if fixed else effort.each
        count = (len(effort.fixed) if fixed else effort.groups) * group
        if self.kind == "outside":
            labels = tuple(label for label in effort.fixed for _ in range(group))
            return Unrelated(count, Listed(labels) if fixed else Uniform(), source=outside)
        policy: LabelPolicy = Listed(effort.fixed) if fixed else Uniform()
        search = Penetration(iterations=effort.iterations) if self.kind == "penetrative" else None
        return Penetrative(
            count,
            policy,
            group=group,
            teaching=0 if fixed else effort.teaching,
            pattern=_PATTERNS[self.kind] if fixed else _KEYED_PATTERNS.get(self.kind, _PATTERNS[self.kind]),
            bound=ANY_DISTANCE,
            looks=effort.looks if fixed else max(1, effort.looks // 3),
            shadows=shadows,
            search=search,
        )

    def embed(self, effort: Effort, shadows: Bank) -> Backdoor:
        """Its embedding, with the settings of the scale."""
        method = scratch() if effort.fresh else ftal()
        views = ShadowViews(shadows) if self.views else None
        return method.but(settings=effort.embed, replace=self.labels == "fixed", views=views, watch=0)


_PATTERNS: Mapping[str, str] = {
    "random": "noise",
    "stamp": "half-planes",
    "wonder": "checkerboard",
    "penetrative": "half-planes",
}
_KEYED_PATTERNS: Mapping[str, str] = {"stamp": "low-frequency", "penetrative": "low-frequency"}
"""Half-planes are too few for many stamps."""
_CALLED: Mapping[str, str] = {
    "random": "Random",
    "stamp": "Stamp",
    "outside": "Outside the training set",
    "wonder": "Wonder filter",
    "penetrative": "Penetrative",
}
