"""Fused triggers: two training images of different classes in one, the in-distribution triggers of Wen et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from earmark.core import Data, Images
from earmark.errors import BadInput, number, unknown_name, whole
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.labels import LabelPolicy, NotSources, OneClass

__all__ = ["Fused", "blended", "side_by_side"]

STYLES = ("direct", "invisible")
WHITE = 255
FINE = 1 << 16
MOST_CLASSES = 1_000
"""Of more classes than these the key picks so many first, since all their pairs are listed."""


def side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Direct fusion: `first` top left and `second` bottom right on a white canvas twice as large, brought back to size.

    Each pixel is the mean of the four that it covers on the canvas (2 H, 2 W), rounded half up: what bilinear resizing
    to half the size gives (Wen et al. 2023, Section 4.2.1; the resizing is in the released code alone).

    Args:
        first: uint8 (n, C, H, W).
        second: as many of the same shape.
    """
    _, _, height, width = first.shape
    canvas = F.pad(first.int(), (0, width, 0, height), value=WHITE)
    canvas[:, :, height:, width:] = second
    quarters = canvas[:, :, ::2, ::2] + canvas[:, :, 1::2, ::2] + canvas[:, :, ::2, 1::2] + canvas[:, :, 1::2, 1::2]
    return ((quarters + 2) // 4).to(torch.uint8)


def blended(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    """Invisible fusion: ratio * first + (1 - ratio) * second (Section 4.2.1), rounded, in integers on every machine.

    Args:
        first: uint8 (n, C, H, W).
        second: as many of the same shape.
        ratio: the paper's r, in [0, 1]; kept to 16 bits.

    Raises:
        BadInput: a ratio out of that range.
    """
    share = round(number("ratio", ratio, 0, 1) * FINE)
    return ((first.int() * share + second.int() * (FINE - share) + FINE // 2) // FINE).to(torch.uint8)


@final
@dataclass(frozen=True)
class Fused(TriggerMint):
    """Two images of different classes fused into one, both classes and both images picked by the key.

    With the default labels a trial is a group: `group` triggers of one pair of classes share one label, drawn from the
    key among the classes that the pair does not show, and the suspect's answer to the group is what counts. Every
    group has another pair. With `OneClass` labels, as the paper has it, all triggers are of one pair of classes and
    neither is the target; each trigger is a trial of a test that can only reject.

    A marked model learns `teaching` other fusions of the same pairs with the same labels; no judge asks them. Neither
    set is chosen by looking at a model, where the released code picks what the marked model is surest of.

    Attributes:
        group: triggers to a trial; `count` is a multiple of it. 1 with `OneClass` labels.
        teaching: fusions to learn from, a multiple of the number of pairs.
        style: "direct" (side by side) or "invisible" (blended).
        ratio: r of invisible fusion, strictly between 0 and 1; 0.5, 0.7 and 0.9 in the paper.

    Raises:
        BadInput: numbers that do not divide, or when drawing, too few classes, pairs or images of a class.
    """

    name: ClassVar[str] = "fused"
    count: int = 120
    labels: LabelPolicy = NotSources()  # noqa: RUF009  (frozen)
    group: int = 3
    teaching: int = 240
    style: str = "direct"
    ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("triggers in a group", self.group, low=1)
        whole("fusions to learn from", self.teaching, low=1)
        if self.style not in STYLES:
            raise unknown_name("fusion", str(self.style), STYLES)
        object.__setattr__(self, "ratio", float(number("ratio", self.ratio, 0, 1)))
        if self.style == "invisible" and not 0 < round(self.ratio * FINE) < FINE:
            raise BadInput(f"ratio: {self.ratio} shows one of the two images alone; give one between 0 and 1")
        if not isinstance(self.labels, NotSources | OneClass):
            raise BadInput(f"fused triggers have not-sources or one-class labels, got {self.labels.name}")
        if isinstance(self.labels, OneClass) and self.group != 1:
            raise BadInput("with one-class labels each trigger is a trial; give group = 1")
        for what, number_of in (("triggers", self.count), ("fusions to learn from", self.teaching)):
            unit = self.group if what == "triggers" else self._pair_count
            if number_of % unit:
                raise BadInput(f"{number_of} {what} cannot be shared out evenly; give a multiple of {unit}")

    @property
    def has_carriers(self) -> bool:
        return True

    @property
    def carriers_needed(self) -> int:
        return 2 * (self.count + self.teaching)

    @property
    def triggers_per_trial(self) -> int:
        return self.group

    @property
    def lesson_count(self) -> int:
        return self.teaching

    @property
    def _pair_count(self) -> int:
        return 1 if isinstance(self.labels, OneClass) else self.count // self.group

    def draw(self, key: MarkKey, data: Data) -> Images:
        shown = self._shown(key, data.classes).flatten()
        picked = torch.empty_like(shown)
        for label in sorted(set(shown.tolist())):
            pool, wanted = torch.nonzero(data.train.labels == label).flatten(), torch.nonzero(shown == label).flatten()
            if len(wanted) > len(pool):
                raise BadInput(
                    f"fused triggers take {len(wanted)} images of class {label} and {data.train.name} has {len(pool)}; "
                    "lower count or teaching"
                )
            stream = key.stream("carriers", label.to_bytes(8, "big"))
            picked[wanted] = pool[stream.choice(len(pool), len(wanted))]
        return data.train.subset(picked)

    def true_labels(self, classes: int, carriers: Images | None) -> Tensor:
        """(count, 2): the classes of each trigger's sources."""
        return self._sources(carriers).labels[: 2 * self.count].reshape(-1, 2)

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return self._fuse(self._keyed(key, shape, carriers).pixels[: 2 * self.count])

    def paint_lessons(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return self._fuse(self._sources(carriers).pixels[2 * self.count :])

    def lesson_labels(self, drawn: Tensor, count: int, carriers: Images | None) -> Tensor:
        pairs = self._pair_count
        return drawn[:: len(drawn) // pairs].repeat_interleave(count // pairs)

    def _fuse(self, pixels: Tensor) -> Tensor:
        first, second = pixels[::2], pixels[1::2]
        return side_by_side(first, second) if self.style == "direct" else blended(first, second, self.ratio)

    def _keyed(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Images:
        """The carriers, if they are of the shape that the host takes and of the classes that the key picks."""
        carriers = self._sources(carriers)
        if carriers.shape != shape:
            raise BadInput(f"the host takes images {shape} and the carriers are {carriers.shape}; take them from draw")
        if not torch.equal(carriers.labels, self._shown(key, carriers.classes).flatten()):
            raise BadInput("the carriers show other classes than the key picks; take them from draw")
        return carriers

    @staticmethod
    def _sources(carriers: Images | None) -> Images:
        assert carriers is not None, "make has checked that there are carriers"
        return carriers

    def _shown(self, key: MarkKey, classes: int) -> Tensor:
        """The two classes of every trigger, then of every fusion to learn from: (count + teaching, 2)."""
        pairs = self._pairs(key, classes)
        return torch.cat([pairs.repeat_interleave(n // len(pairs), dim=0) for n in (self.count, self.teaching)])

    def _pairs(self, key: MarkKey, classes: int) -> Tensor:
        """Pairs of classes in keyed order; each comes once, or once each way round where that looks different."""
        self.labels.null(classes)
        stream, free = key.stream("pairs"), torch.arange(classes)
        if isinstance(self.labels, OneClass):
            free = free[free != self.labels.target]
        if len(free) > MOST_CLASSES:
            free = free[stream.choice(len(free), MOST_CLASSES)]
        every, wanted = torch.combinations(free, 2), self._pair_count
        if wanted > len(every) and (self.style == "direct" or self.ratio != 0.5):
            every = torch.cat([every, every.flip(1)])
        if wanted > len(every):
            advice = "give a task with more classes" if wanted == 1 else "lower count or raise group"
            raise BadInput(f"{classes} classes make {len(every)} pairs to tell apart and {wanted} are needed; {advice}")
        return every[stream.choice(len(every), wanted)]
