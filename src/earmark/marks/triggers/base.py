"""The two steps in which every kind of trigger set is minted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from earmark import files
from earmark.core import Data, Images
from earmark.errors import BadInput, whole
from earmark.keys import MarkKey
from earmark.marks.triggers.labels import LabelPolicy, Uniform
from earmark.marks.triggers.limits import require_mintable
from earmark.marks.triggers.trigger_set import TriggerSet

__all__ = ["FORMAT", "TriggerMint"]

FORMAT = 1
"""The version of the rules by which keys become triggers; a released version never changes."""


@dataclass(frozen=True)
class TriggerMint(ABC):
    """What all kinds of triggers share: draw the carriers, make the images, and let the key label them.

    `mint(key, host, data)` is `make(key, shape, classes, draw(key, data))`. The second step takes nothing that a judge
    does not get with the evidence, so it can be repeated without the owner's data.

    Labels come from the key's stream "labels" whose context is the SHA-256 of all trigger images and of the carriers'
    true classes. Whoever chooses or optimises images cannot choose labels with them: one changed pixel draws all anew.

    Attributes:
        count: n, the number of triggers.
        labels: the label policy.
    """

    name: ClassVar[str]
    count: int = 100
    labels: LabelPolicy = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        whole("count of triggers", self.count, low=1)
        if not isinstance(self.labels, LabelPolicy):
            raise BadInput(f"expected a label policy such as Uniform(), got {self.labels!r:.80}")

    def __call__(self, key: MarkKey, host: nn.Module | None, data: Data) -> TriggerSet:
        require_mintable(self.count, self.lesson_count, data.shape)
        return self.make(key, data.shape, data.classes, self.draw(key, data))

    def draw(self, key: MarkKey, data: Data) -> Images | None:
        """The source images that the key picks, or None for kinds that need none."""
        return None

    @abstractmethod
    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        """The trigger images, uint8 (count, C, H, W)."""

    def make(
        self, key: MarkKey, shape: tuple[int, int, int], classes: int, carriers: Images | None = None
    ) -> TriggerSet:
        """The trigger set for models that take images of `shape` (C, H, W) and know `classes` classes.

        Raises:
            BadInput: carriers that do not fit, a class count that the label policy cannot serve, two equal images, or
                a mark too large for a judge (`require_mintable`).
        """
        require_mintable(self.count, self.lesson_count, shape)
        self._check(carriers)
        true = self.true_labels(classes, carriers)
        images, lessons = self.paint(key, shape, carriers), self.paint_lessons(key, shape, carriers)
        bound = {"images": images, "true": true, "teaching": lessons}
        context = files.digest({name: tensor for name, tensor in bound.items() if tensor is not None})
        size = self.triggers_per_trial
        shown = None if true is None else true[::size]
        drawn = self.labels.draw(key.stream("labels", bytes.fromhex(context)), self.count // size, classes, shown)
        labels = drawn.repeat_interleave(size)
        teaching = None
        if lessons is not None:
            teaching = Images(lessons, self.lesson_labels(drawn, len(lessons), carriers), classes, "teaching")
        return TriggerSet(images, labels, classes, self.labels.null(classes), self.settings(), carriers, teaching)

    def paint_lessons(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor | None:
        """Images to learn from in place of the triggers; None where it is the triggers that are learnt."""
        return None

    def lesson_labels(self, drawn: Tensor, count: int, carriers: Images | None) -> Tensor:
        """The labels (count,) of the images to learn from, where `drawn` are the labels of the trials."""
        return drawn.repeat_interleave(count // len(drawn))

    @property
    def triggers_per_trial(self) -> int:
        """How many consecutive triggers share a keyed label and count as one trial."""
        return 1

    def true_labels(self, classes: int, carriers: Images | None) -> Tensor | None:
        """The class of the host's task that each trigger shows, where it shows one."""
        return None

    def settings(self) -> dict[str, Any]:
        """The name, the format and every field, as JSON: what `earmark.marks.from_settings` takes."""
        own = {name: getattr(self, name) for name in self.setting_names()}
        return {"mint": self.name, "format": FORMAT, **own, "labels": self.labels.settings()}

    @classmethod
    def setting_names(cls) -> list[str]:
        """The fields that settings hold: all but those marked as no setting, such as a whole data set."""
        return [field.name for field in fields(cls) if field.metadata.get("setting", True)]

    @property
    def has_carriers(self) -> bool:
        """Whether the triggers are made from source images."""
        return False

    @property
    def carriers_needed(self) -> int:
        """How many source images `make` takes, where the triggers are made from such."""
        return self.count

    @property
    def lesson_count(self) -> int:
        """How many images are learnt in place of the triggers; 0 where it is the triggers that are learnt."""
        return 0

    def _check(self, carriers: Images | None) -> None:
        if self.has_carriers and (carriers is None or len(carriers) != self.carriers_needed):
            came = "none" if carriers is None else len(carriers)
            raise BadInput(
                f"{self.count} {self.name} triggers need {self.carriers_needed} carriers, got {came}; "
                "take them from draw"
            )
        if carriers is not None and not self.has_carriers:
            raise BadInput(f"{self.name} triggers are made from the key alone with these settings; give no carriers")
