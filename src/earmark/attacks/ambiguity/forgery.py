"""What all forgers of trigger sets share: an honest start under a key of their own, which they then leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import nn

from earmark.core import Data
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import TriggerMint, TriggerSet, Uniform

__all__ = ["Forger", "Forgery", "draw_key", "honest_start"]

COUNT = 100


@final
@dataclass(frozen=True, eq=False)
class Forgery:
    """A mark for a model that its forger never marked, and the key that the forger would open to a judge."""

    mark: TriggerSet
    key: MarkKey


class Forger(ABC):
    """The verb I for trigger sets: `forge` gives the mark with its key, a call the mark alone."""

    @abstractmethod
    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> Forgery:
        """Make a mark that the given, unmodified `model` seems to carry."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> TriggerSet:
        return self.forge(model, data, rng).mark


def draw_key(rng: torch.Generator) -> MarkKey:
    """A key of 32 bytes from `rng`."""
    return MarkKey(bytes(torch.randint(256, (32,), generator=rng).tolist()))


def honest_start(
    pose_as: TriggerMint | None, count: int | None, model: nn.Module, data: Data, rng: torch.Generator
) -> Forgery:
    """The trigger set that a forger starts from.

    With a mint to pose as, it is what that mint makes from the forger's key, so that settings, null and carriers read
    like an honest claim. Otherwise it is `count` random test images with uniform labels, and the settings say "forged".

    Raises:
        BadInput: more triggers than test images.
    """
    key = draw_key(rng)
    if pose_as is not None:
        return Forgery((pose_as if count is None else replace(pose_as, count=count))(key, model, data), key)
    count = COUNT if count is None else count
    if not 0 < count <= len(data.test):
        raise BadInput(f"count: expected 1 to {len(data.test)}, the number of test images, got {count}")
    images = data.test.pixels[torch.randperm(len(data.test), generator=rng)[:count]]
    labels = torch.randint(data.classes, (count,), generator=rng)
    settings = {"mint": "forged", "labels": Uniform().settings(), "count": count}
    return Forgery(TriggerSet(images, labels, data.classes, Uniform().null(data.classes), settings), key)
