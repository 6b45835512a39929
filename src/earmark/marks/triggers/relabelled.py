"""Relabelled triggers: training images as they are, with another label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from earmark.core import Images
from earmark.keys import MarkKey
from earmark.marks.triggers.carried import OnTrainingImages
from earmark.marks.triggers.carriers import pixels_for
from earmark.marks.triggers.labels import LabelPolicy, NotTrue

__all__ = ["Relabelled"]


@final
@dataclass(frozen=True)
class Relabelled(OnTrainingImages):
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

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return pixels_for(carriers, shape).clone()
