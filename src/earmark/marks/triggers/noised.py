"""Noised triggers: training images under keyed normal noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from earmark.core import Images
from earmark.errors import BadInput, number
from earmark.keys import MarkKey
from earmark.marks.triggers.carried import OnTrainingImages
from earmark.marks.triggers.carriers import pixels_for
from earmark.marks.triggers.labels import LabelPolicy, NotTrue

__all__ = ["Noised"]


@final
@dataclass(frozen=True)
class Noised(OnTrainingImages):
    """Normal noise on training images, the "noise" marks of Zhang et al. 2018: clip(round(x + 255 std N(0, 1))).

    The paper adds it to images of one class and teaches one other class: `carrier_class=4, labels=OneClass(6)`, which
    has no null. By default each label is drawn from the classes that the image does not show.

    Attributes:
        std: standard deviation in units of the whole range, before clipping.
        shared: the same noise on all images, so that it is what tells the mark; otherwise new noise on each.
        carrier_class: take images of this class only.

    Raises:
        BadInput: a setting out of its range, or when drawing, too few images.
    """

    name: ClassVar[str] = "noised"
    labels: LabelPolicy = NotTrue()  # noqa: RUF009  (frozen)
    std: float = 0.4
    shared: bool = True
    carrier_class: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "std", float(number("noise std", self.std, 0.01, 10)))
        if not isinstance(self.shared, bool):
            raise BadInput(f"shared noise: expected True or False, got {self.shared!r:.80}")

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        channels, height, width = shape
        pixels, each = pixels_for(carriers, shape), 1 if self.shared else self.count
        normals = key.stream("noise").normals(each * channels * height * width).reshape(each, channels, height, width)
        return (pixels + 255 * self.std * normals).round().clamp(0, 255).to(torch.uint8)
