"""Several attacked copies that answer together: what each has kept of the mark, the others outvote."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.attacks.needs import Needs, needs_of
from earmark.attacks.removal.fine_tune import ftal
from earmark.core import Data, Remove
from earmark.errors import BadInput, whole
from earmark.files import model_digest
from earmark.models import logits_of

__all__ = ["Averaged", "Ensemble"]


class Averaged(nn.Module):
    """log of the mean of softmax(member(x)) over the members: logits (N, K) whose softmax is that mean."""

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        each = torch.stack([F.log_softmax(logits_of(member(x)), dim=1) for member in self.members])
        return each.logsumexp(0) - math.log(len(self.members))


@final
@dataclass(frozen=True)
class Ensemble:
    """Attack several copies of the stolen model, each with its own part of the thief's data, and average their answers.

    Lukas et al. 2022 have three, on disjoint parts. The network that comes out is an `Averaged`: it answers as a
    classifier does, costs `copies` times as much to ask, and has no single last layer. Copies that come out equal are
    one, and a single one is returned as it is.

    Attributes:
        copies: how many.
        attack: what each copy goes through; fine-tuning of all layers unless given.
        apart: whether the training images are dealt out, each to one copy; otherwise all copies see all of them.

    Raises:
        BadInput: less than two copies, or an attack that is none; on the call, fewer images than copies.
    """

    copies: int = 3
    attack: Remove = field(default_factory=ftal)
    apart: bool = True

    def __post_init__(self) -> None:
        whole("copies", self.copies, 2, 1000)
        given: Any = self.attack
        if not callable(given):
            raise BadInput(f"attack: expected an attack, such as FineTune(), got {given!r:.80}")

    @property
    def needs(self) -> Needs:
        """What the attack of each copy needs."""
        return needs_of(self.attack)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        attacked = [self.attack(model, part, rng) for part in self._parts(data, rng)]
        members = list({model_digest(copy): copy for copy in attacked}.values())
        if len(members) == 1:
            return members[0]
        averaged = Averaged(*members)
        averaged.training = averaged.members.training = model.training
        return averaged

    def _parts(self, data: Data, rng: torch.Generator) -> list[Data]:
        if not self.apart:
            return [data] * self.copies
        if len(data.train) < self.copies:
            raise BadInput(f"{len(data.train)} images cannot be dealt out to {self.copies} copies; give more images")
        order = torch.randperm(len(data.train), generator=rng)
        return [Data(data.train.subset(rows.sort().values), data.test) for rows in order.tensor_split(self.copies)]
