"""The cheapest forgery: ask the model first, and call what it answers the labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import nn

from earmark.attacks.ambiguity.forgery import Forger, Forgery, honest_start
from earmark.attacks.needs import Needs
from earmark.core import Data
from earmark.marks import TriggerMint, log_shares
from earmark.training import predict

__all__ = ["ReadOff"]


@final
@dataclass(frozen=True)
class ReadOff(Forger):
    """Any images, labelled with the model's own answers: every model "carries" such a mark, so a test alone accepts it.

    Attributes:
        count: n, the number of triggers; None for the posed mint's own number, or 100.
        pose_as: the mint whose triggers and claim the forger copies; None for random test images.

    Raises:
        BadInput: on the call, more triggers than test images, or data that do not fit the model.
    """

    count: int | None = None
    pose_as: TriggerMint | None = None
    needs: ClassVar[Needs] = Needs(weights=False, data="images", queries="classes")

    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> Forgery:
        start = honest_start(self.pose_as, self.count, model, data, rng)
        mark = start.mark
        read = mark.read(log_shares(predict(model, mark.as_images()), mark.classes)).repeat_interleave(mark.group)
        labels = torch.where(read < 0, mark.labels, read)
        return replace(start, mark=replace(mark, labels=labels))
