"""What all forgers of trigger sets share: an honest start as an owner with a key of his own, which they then leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import final

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from earmark.core import Data
from earmark.errors import BadInput
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import TriggerMint, TriggerSet, Uniform
from earmark.models import require_fit

__all__ = ["Forger", "Forgery", "draw_owner", "honest_start"]

COUNT = 100
NAME = "forged"


@final
@dataclass(frozen=True, eq=False)
class Forgery:
    """A mark for a model that its forger never marked, with all that the forger needs to claim it.

    Attributes:
        mark: the forged mark.
        owner: the forger's own key: he signs and mints in his own name, as any owner does.
        name: the mark's name, under which its key is derived from the owner's.
    """

    mark: TriggerSet
    owner: OwnerKey
    name: str = NAME

    @property
    def key(self) -> MarkKey:
        """The key that the forger would open to a judge."""
        return self.owner.mark_key(self.name)


class Forger(ABC):
    """The verb I for trigger sets: `forge` gives the mark with its key, a call the mark alone."""

    @abstractmethod
    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> Forgery:
        """Make a mark that the given, unmodified `model` seems to carry."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> TriggerSet:
        return self.forge(model, data, rng).mark


def draw_owner(rng: torch.Generator) -> OwnerKey:
    """A throw-away owner's key whose 32-byte seed is drawn from `rng`: reproducible, so nothing to keep a model by."""
    seed = bytes(torch.randint(256, (32,), generator=rng).tolist())
    return OwnerKey(Ed25519PrivateKey.from_private_bytes(seed))


def honest_start(
    pose_as: TriggerMint | None, count: int | None, model: nn.Module, data: Data, rng: torch.Generator
) -> Forgery:
    """The trigger set that a forger starts from.

    With a mint to pose as, it is what that mint makes from the forger's key, so that settings, null and carriers read
    like an honest claim. Otherwise it is `count` random test images with uniform labels, and the settings say "forged".

    Raises:
        BadInput: more triggers than test images, or data that do not fit the model.
    """
    require_fit(model, data)
    owner = draw_owner(rng)
    if pose_as is not None:
        mint = pose_as if count is None else replace(pose_as, count=count)
        return Forgery(mint(owner.mark_key(NAME), model, data), owner)
    count = COUNT if count is None else count
    if not 0 < count <= len(data.test):
        raise BadInput(f"count: expected 1 to {len(data.test)}, the number of test images, got {count}")
    images = data.test.subset(torch.randperm(len(data.test), generator=rng)[:count]).pixels
    labels = torch.randint(data.classes, (count,), generator=rng)
    settings = {"mint": "forged", "labels": Uniform().settings(), "count": count}
    return Forgery(TriggerSet(images, labels, data.classes, Uniform().null(data.classes), settings), owner)
