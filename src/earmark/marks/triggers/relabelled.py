"""Relabelled triggers: training images as they are, with another label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from earmark.core import Data, Images
from earmark.errors import whole
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.carriers import classes_shown, pick, pixels_for
from earmark.marks.triggers.labels import LabelPolicy, NotTrue

__all__ = ["Relabelled"]


@final
@dataclass(frozen=True)
class Relabelled(TriggerMint):
    """Keyed picks of the training images, each with a label that it does not show: the key samples of Namba & Sakuma
    2019, which no filter for odd inputs can tell from others.

    Embed them with `replace=True`, as `embed.exponential_weighting` does: a model that also learns the images with
    their own labels is taught two answers to one question. Labels are drawn from the other classes by the key, so a
    model that answers the true class first is read by what it puts second.

    Attributes:
        carrier_class: take images of this class only.

    Raises:
        BadInput: a class that is none, or when drawing, too few images.
    """

    name: ClassVar[str] = "relabelled"
    labels: LabelPolicy = NotTrue()  # noqa: RUF009  (frozen)
    carrier_class: int | None = None

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

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return pixels_for(carriers, shape).clone()
