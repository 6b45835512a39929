"""What triggers share that are training images with something done to them, or nothing, one image to a trigger."""

from __future__ import annotations

from abc import ABC

from torch import Tensor

from earmark.core import Data, Images
from earmark.errors import whole
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.carriers import classes_shown, pick

__all__ = ["OnTrainingImages"]


class OnTrainingImages(TriggerMint, ABC):
    """Keyed picks of the training images, of one class where the mint says so; each shows the class of its image.

    A mint of this kind is a dataclass with the field `carrier_class`, wherever among its fields that stands.

    Raises:
        BadInput: a carrier class that is none, or when drawing, too few images.
    """

    carrier_class: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.carrier_class is not None:
            whole("carrier class", self.carrier_class, low=0)

    @property
    def has_carriers(self) -> bool:
        return True

    def draw(self, key: MarkKey, data: Data) -> Images:
        return pick(key, data.train, self.count, self.carrier_class)

    def true_labels(self, classes: int, carriers: Images | None) -> Tensor | None:
        return None if carriers is None else classes_shown(carriers, classes)
