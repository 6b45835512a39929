"""Transfer learning: the stolen model is fine-tuned on another task (Wen et al. 2023, 5.3; Fan et al. 2021, 5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.tuning import Tuning
from earmark.core import Data, Images
from earmark.data import channels_to, drawn, only, resized
from earmark.errors import BadInput
from earmark.training import require_every_class

__all__ = ["Transfer"]


@final
@dataclass(frozen=True)
class Transfer(Tuning):
    """Fine-tune on a target task in the place of the stolen model's own: at 1e-4, in ten trials, with the old head, as
    Wen et al. do, who leave the length of a trial open. The other settings are `Tuning`'s. With `all_classes`
    and a fresh head it is the transfer of Fan et al., to a task with any number of classes.

    Attributes:
        data: the target task. Where it has more classes than the model, as many as the model has are drawn.
        all_classes: the target keeps all of its classes; the new head has a score for each.

    Raises:
        BadInput: all classes under the old head; on the call, a target with fewer classes than the model, unless it
            keeps them all, or with a class without training images.
    """

    trials: int = 10
    all_classes: bool = False
    data: Data = field(kw_only=True)
    needs: ClassVar[Needs] = Needs(weights=True, more="labelled images of another task")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.all_classes and not self.fresh_head:
            raise BadInput("all classes of a target need a head with a score for each: give fresh_head as well")

    def target(self, data: Data, rng: torch.Generator) -> Data:
        """The task that a call with the same `data` and a generator in the same state trains on, to measure accuracy.

        The classes drawn, in rising order, are 0 to K - 1 now; so a target with K classes keeps its labels. Images are
        stretched to the size of `data`'s, with as many channels.
        """
        if self.all_classes:
            return Data(*(_shaped(images, data.shape) for images in (self.data.train, self.data.test)))
        if self.data.classes < data.classes:
            raise BadInput(
                f"the target has {self.data.classes} classes and the model's task {data.classes}; "
                "give a target with at least as many, or keep all of its classes, under a fresh head"
            )
        chosen = sorted(torch.randperm(self.data.classes, generator=rng)[: data.classes].tolist())
        return Data(*(_shaped(only(images, chosen), data.shape) for images in (self.data.train, self.data.test)))

    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> Images:
        train = self.target(data, rng).train
        require_every_class(train)
        return drawn(train, self.images, rng)


def _shaped(images: Images, shape: tuple[int, int, int]) -> Images:
    channels, height, width = shape
    return replace(images, pixels=resized(channels_to(images.pixels, channels), height, width))
