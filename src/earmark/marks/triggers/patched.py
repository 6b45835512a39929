"""Patched triggers: small keyed patches on training images, one label to a patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from earmark.core import Data, Images
from earmark.errors import BadInput, unknown_name, whole
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.carriers import classes_shown, pick, pixels_for
from earmark.marks.triggers.labels import LabelPolicy, NotTrue, OneClass, Uniform
from earmark.marks.triggers.stamps import PRESTAMPS, inverted, prestamps, stamp_on

__all__ = ["Patched"]

PATTERNS = tuple(name for name in PRESTAMPS if name != "picture")


@final
@dataclass(frozen=True)
class Patched(TriggerMint):
    """Patches from the key on training images: the triggers of entangled watermarks and of null embedding.

    With keyed labels a trial is a patch: `group` images under it share one label, and the suspect's answer to them is
    what counts. With `OneClass` labels, as the papers have it, all images are under one patch and each is a trial of a
    test that can only reject. A judge mints patches and labels again and sees the images that they lie on.

    Jia et al. 2021 patch images of one class and teach another: `carrier_class=4, labels=OneClass(6)`. They then move
    the patch to where the gradient is steepest and change the images by a few steps of the gradient, which would be
    content that no key gives; here the key chooses the place.

    Li et al. 2019 teach two things of a filter of bright and dark cells. True embedding: images under it have its
    label. Null embedding: images under the inverted filter keep their own classes, so that it is the bits that tell.
    `opposed` is the number of the latter. Filters far out of the range of pixels, +-2000 in code that compares with
    them, are what no image file can hold; here a cell is as bright or as dark as can be.

    Attributes:
        group: images under a patch that are asked; `count` is a multiple of it. 1 with `OneClass` labels.
        teaching: images to learn from, a multiple of the patches, none of which is asked; 0 where the triggers
            themselves are learnt.
        opposed: images under inverted patches that are learnt with their own classes, a multiple of the patches.
        pattern: of the patches, see `stamps.prestamps`.
        carrier_class: take images of this class only, which `NotTrue` labels ask for.

    Raises:
        BadInput: numbers that do not divide, settings that do not go together, or when drawing, too few images.
    """

    name: ClassVar[str] = "patched"
    count: int = 120
    labels: LabelPolicy = Uniform()  # noqa: RUF009  (frozen)
    group: int = 4
    teaching: int = 600
    opposed: int = 0
    pattern: str = "bits"
    carrier_class: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("triggers of a patch", self.group, low=1)
        whole("images to learn from", self.teaching, low=0)
        whole("images under inverted patches", self.opposed, low=0)
        if self.pattern not in PATTERNS:
            raise unknown_name("pattern of patches", str(self.pattern), PATTERNS)
        if self.carrier_class is not None:
            whole("carrier class", self.carrier_class, low=0)
        if not isinstance(self.labels, Uniform | NotTrue | OneClass):
            raise BadInput(f"patched triggers have uniform, not-true or one-class labels, got {self.labels.name}")
        if isinstance(self.labels, OneClass) and self.group != 1:
            raise BadInput("with one-class labels each trigger is a trial; give group = 1")
        if isinstance(self.labels, NotTrue) and self.carrier_class is None:
            raise BadInput("not-true labels go with images of one class; give their carrier class, or uniform labels")
        if self.opposed and not self.teaching:
            raise BadInput("images under inverted patches are learnt beside others; give teaching, too")
        for what, came, unit in (
            ("triggers", self.count, self.group),
            ("images to learn from", self.teaching, self.patches),
            ("images under inverted patches", self.opposed, self.patches),
        ):
            if came % unit:
                raise BadInput(f"{came} {what} cannot be shared out evenly; give a multiple of {unit}")

    @property
    def patches(self) -> int:
        """How many patches there are."""
        return 1 if isinstance(self.labels, OneClass) else self.count // self.group

    @property
    def has_carriers(self) -> bool:
        return True

    @property
    def carriers_needed(self) -> int:
        return self.count + self.lesson_count

    @property
    def triggers_per_trial(self) -> int:
        return self.group

    @property
    def lesson_count(self) -> int:
        return self.teaching + self.opposed

    def draw(self, key: MarkKey, data: Data) -> Images:
        return pick(key, data.train, self.carriers_needed, self.carrier_class)

    def true_labels(self, classes: int, carriers: Images | None) -> Tensor | None:
        assert carriers is not None, "make has checked that there are carriers"
        shown = classes_shown(carriers, classes)
        if self.carrier_class is not None and bool((shown != self.carrier_class).any()):
            raise BadInput(f"the carriers show other classes than {self.carrier_class}; take them from draw")
        return shown[: self.count]

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return self._under(self._patches(key, shape), pixels_for(carriers, shape)[: self.count])

    def paint_lessons(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor | None:
        if not self.teaching:
            return None
        patches, pixels = self._patches(key, shape), pixels_for(carriers, shape)[self.count :]
        true, null = self._under(patches, pixels[: self.teaching]), pixels[self.teaching :]
        return torch.cat([true, self._under(inverted(patches), null)])

    def lesson_labels(self, drawn: Tensor, count: int, carriers: Images | None) -> Tensor:
        assert carriers is not None, "make has checked that there are carriers"
        taught = drawn[:: len(drawn) // self.patches].repeat_interleave(self.teaching // self.patches)
        return torch.cat([taught, carriers.labels[self.count + self.teaching :]])

    def _patches(self, key: MarkKey, shape: tuple[int, int, int]) -> Tensor:
        return prestamps(key.stream("patches"), self.pattern, self.patches, shape)

    @staticmethod
    def _under(patches: Tensor, pixels: Tensor) -> Tensor:
        return stamp_on(pixels, patches.repeat_interleave(len(pixels) // len(patches), dim=0))
