"""Stamped triggers: a text, a logo or a keyed pattern laid on other images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from earmark.core import Data, Images
from earmark.data import channels_to
from earmark.errors import BadInput, number, unknown_name, whole
from earmark.keys import KeyedStream, MarkKey
from earmark.marks.triggers.abstract import abstract_images
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.carriers import classes_shown, pick, pixels_for
from earmark.marks.triggers.font import typeset
from earmark.marks.triggers.labels import LabelPolicy, NotTrue, Uniform
from earmark.marks.triggers.logos import as_logo, fitted_into

__all__ = ["Stamped"]

CARRIERS = ("train", "abstract")
CELLS = 4
TEXT_SIZE, PICTURE_SIZE = 0.9, 0.4
NOT_GIVEN = Uniform()
"""Told apart by identity from a `Uniform()` that the caller gives."""

Stamp = tuple[Tensor, Tensor]
"""Pixels int64 (C, h, w), and bool (h, w) for where they cover the carrier."""


@final
@dataclass(frozen=True)
class Stamped(TriggerMint):
    """A stamp at a keyed place: the "content" marks of Zhang et al. 2018, the "abstract+string" of Hua & Teoh 2023.

    The carriers are keyed picks of the training images, kept in the mark with their true labels, or keyed abstract art.
    With neither `text` nor `logo`, the stamp is a keyed pattern of 4 x 4 coloured blocks.

    Labels come from the key here too, one draw for each trigger: a stamp that always means the same class would be a
    single trial, not n (see `OneClass`). By default they are never what a training image shows (`NotTrue`, which needs
    three classes), and uniform on abstract art.

    Attributes:
        text: letters, digits and . , : ; ! ? - _ + = / ' ( ) # * & @ %, light with a dark rim or the other way round.
        logo: uint8 (h, w) or (h, w, 1 or 3), as a tensor, an array or nested lists; up to 256 x 256.
        size: the share of the image's height and width that the stamp fits into; where it is not given, 0.9 for a text,
            which needs the pixels, and otherwise 0.4.
        opacity: 1 hides the carrier under the stamp.
        carrier: "train" or "abstract".
        carrier_class: take training images of this class only.
    """

    name: ClassVar[str] = "stamped"
    labels: LabelPolicy = NOT_GIVEN
    text: str | None = None
    logo: Any = None
    size: float | None = None
    opacity: float = 1.0
    carrier: str = "train"
    carrier_class: int | None = None

    def __post_init__(self) -> None:
        if self.labels is NOT_GIVEN:
            object.__setattr__(self, "labels", NotTrue() if self.carrier == "train" else Uniform())
        super().__post_init__()
        if self.text is not None and self.logo is not None:
            raise BadInput("a stamp is a text or a logo, but both were given; leave one out")
        if self.text is not None and not isinstance(self.text, str):
            raise BadInput(f"text to stamp: expected letters and digits, got {self.text!r:.80}")
        if self.carrier not in CARRIERS:
            raise unknown_name("carrier", str(self.carrier), CARRIERS)
        size = (PICTURE_SIZE if self.text is None else TEXT_SIZE) if self.size is None else self.size
        object.__setattr__(self, "size", float(number("stamp size", size, 0.05, 1)))
        object.__setattr__(self, "opacity", float(number("stamp opacity", self.opacity, 0.05, 1)))
        object.__setattr__(self, "logo", None if self.logo is None else as_logo(self.logo))
        if self.carrier_class is not None:
            whole("carrier class", self.carrier_class, low=0)
            if self.carrier != "train":
                raise BadInput("abstract art has no classes; leave the carrier class out")

    @property
    def has_carriers(self) -> bool:
        return self.carrier == "train"

    def draw(self, key: MarkKey, data: Data) -> Images | None:
        return pick(key, data.train, self.count, self.carrier_class) if self.has_carriers else None

    def true_labels(self, classes: int, carriers: Images | None) -> Tensor | None:
        return None if carriers is None else classes_shown(carriers, classes)

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        images = abstract_images(key, self.count, shape) if carriers is None else pixels_for(carriers, shape).clone()
        stream = key.stream("stamp")
        stamp = self._stamp(stream, shape)
        for image in images:
            self._lay(image, stamp(), stream)
        return images

    def _stamp(self, stream: KeyedStream, shape: tuple[int, int, int]) -> Callable[[], Stamp]:
        """What gives each image its stamp: the same one, or for a text one of two."""
        channels, height, width = shape
        assert self.size is not None
        box = max(int(self.size * height), 1), max(int(self.size * width), 1)
        if self.text is not None:
            ink = torch.from_numpy(typeset(self.text, *box))
            return lambda: _written(ink, channels, light=bool(stream.integers(2, 1)))
        pixels = _blocks(stream, channels) if self.logo is None else torch.tensor(self.logo, dtype=torch.uint8)
        picture = fitted_into(channels_to(pixels.movedim(-1, 0)[None], channels), box)
        return lambda: (picture, torch.ones(picture.shape[1:], dtype=torch.bool))

    def _lay(self, image: Tensor, stamp: Stamp, stream: KeyedStream) -> None:
        """Blend in whole numbers: old + floor((new - old) a / 256), with a = round(256 opacity), in place."""
        pixels, cover = (_within(part, image.shape[1], image.shape[2]) for part in stamp)
        top, left = (int(stream.integers(image.shape[i] - pixels.shape[i] + 1, 1)) for i in (1, 2))
        place = image[:, top : top + pixels.shape[1], left : left + pixels.shape[2]]
        old = place.long()
        step = ((pixels - old) * round(256 * self.opacity)).div(256, rounding_mode="floor")
        place.copy_((old + step * cover).to(torch.uint8))


def _written(ink: Tensor, channels: int, light: bool) -> Stamp:
    """Letters with a rim of one pixel in the other shade, which keeps them legible on any carrier."""
    padded = torch.nn.functional.pad(ink, (1, 1, 1, 1))
    rim = torch.nn.functional.max_pool2d(padded[None].float(), 3, stride=1, padding=1)[0].bool()
    shade = torch.where(padded == light, 255, 0)
    return shade.expand(channels, *shade.shape), rim


def _within(part: Tensor, height: int, width: int) -> Tensor:
    """Without as much of the rim as the image has no room for."""
    top, left = (max(part.shape[-2] - height, 0) // 2, max(part.shape[-1] - width, 0) // 2)
    return part[..., top : top + height, left : left + width]


def _blocks(stream: KeyedStream, channels: int) -> Tensor:
    """uint8 (4, 4, C): each channel of each cell full or empty by a keyed coin."""
    return (stream.integers(2, CELLS * CELLS * channels) * 255).reshape(CELLS, CELLS, channels).to(torch.uint8)
