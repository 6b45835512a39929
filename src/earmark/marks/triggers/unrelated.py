"""Unrelated triggers: images of another data set than the host's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor

from earmark.core import Data, Images
from earmark.data import channels_to, resized
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.carriers import pick

__all__ = ["Unrelated"]


@final
@dataclass(frozen=True)
class Unrelated(TriggerMint):
    """Keyed picks of `source`, brought to the host's size and channels (Zhang et al. 2018's "unrelated" marks).

    The picks are kept in the mark as they were, so that a judge who has no copy of `source` can repeat all but the
    pick. Their own labels mean nothing to the host.

    Attributes:
        source: the other data set; only needed to draw.
    """

    name: ClassVar[str] = "unrelated"
    source: Images | None = field(default=None, repr=False, compare=False, metadata={"setting": False})

    @property
    def has_carriers(self) -> bool:
        return True

    def draw(self, key: MarkKey, data: Data) -> Images:
        if self.source is None:
            raise BadInput("unrelated triggers need source=, the images of another data set to pick from")
        return pick(key, self.source, self.count)

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        assert carriers is not None
        channels, height, width = shape
        return resized(channels_to(carriers.pixels, channels), height, width)
