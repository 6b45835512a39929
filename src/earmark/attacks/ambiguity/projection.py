"""Forged projections: matrices fitted to weights that stay (Fan et al. 2021, Section 3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.attacks.ambiguity.forgery import NAME, draw_owner
from earmark.attacks.needs import Needs
from earmark.core import Data
from earmark.errors import number, whole
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import Projection, ProjectionMint
from earmark.models import require_fit

__all__ = ["ForgedProjection", "ProjectionForgery"]


@final
@dataclass(frozen=True, eq=False)
class ProjectionForgery:
    """A projection for a network that its forger never marked, with all that he needs to claim it.

    Attributes:
        mark: the forged projection, with the bits of the forger's choice.
        owner: the forger's own key: he signs and mints in his own name, as any owner does.
        name: the mark's name, under which its key is derived from the owner's.
    """

    mark: Projection
    owner: OwnerKey
    name: str = NAME

    @property
    def key(self) -> MarkKey:
        """The key that the forger would open to a judge."""
        return self.owner.mark_key(self.name)


@final
@dataclass(frozen=True)
class ForgedProjection:
    """X' = argmin over X of -sum_j b'_j log y_j + (1 - b'_j) log(1 - y_j), y = sigmoid(X w), by Adam; W stays.

    No data is needed, and the network's answers are the same to the last bit. The forger starts from what a key of his
    own mints honestly, bits, settings and projection, and moves the projection alone until the network shows all of his
    bits. It still looks normal: each number moves by at most `steps` times `lr`. A test that reads whatever projection
    is presented accepts it. What gives it away is that the key mints another one.

    Attributes:
        mint: the mint whose claim the forger copies.
        steps: gradient steps at most; the paper makes about 50.
        lr: Adam's step size, in standard deviations of an honest projection's numbers.

    Raises:
        BadInput: a setting out of its range; on the call, a network that the mint has no layer in, or data that do not
            fit.
    """

    mint: ProjectionMint = field(default_factory=ProjectionMint)
    steps: int = 50
    lr: float = 0.02
    needs: ClassVar[Needs] = Needs(weights=True)

    def __post_init__(self) -> None:
        whole("steps", self.steps, 0)
        number("lr", self.lr, 0, 1e3)

    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> ProjectionForgery:
        """Make a projection that the given, unmodified `model` seems to have been trained with."""
        require_fit(model, data)
        owner = draw_owner(rng)
        honest = self.mint(owner.mark_key(NAME), model, data)
        weight = model.get_submodule(honest.layer.name).weight
        assert isinstance(weight, Tensor), "the layer that a projection reads has a weight"
        return ProjectionForgery(replace(honest, projection=self._fitted(honest, weight)), owner)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> Projection:
        return self.forge(model, data, rng).mark

    def _fitted(self, honest: Projection, weight: Tensor) -> Tensor:
        mean = weight.detach().cpu().float().mean(0).flatten()
        wanted = (honest.bits > 0).float()
        moved = honest.projection.clone().requires_grad_()
        adam = torch.optim.Adam([moved], self.lr, foreach=False)
        for _ in range(self.steps):
            if torch.equal(replace(honest, projection=moved.detach()).read(weight), honest.bits):
                break
            loss = F.binary_cross_entropy_with_logits(moved @ mean, wanted, reduction="sum")
            (moved.grad,) = torch.autograd.grad(loss, moved)
            adam.step()
        return moved.detach()
