"""Training-time fine-tuning: small steps on in-distribution images in between, ahead of any thief's."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.core import Images
from earmark.errors import BadInput, whole
from earmark.files import digest
from earmark.models import as_input, logits_of
from earmark.training.feed import generator
from earmark.training.masking import Masks

__all__ = ["Refinement", "refine"]

REFINEMENTS = 1 << 61
"""Step numbers from here on seed what refinements draw."""


@dataclass(frozen=True)
class Refinement:
    """W <- W - eta' grad L_ft(W), L_ft the mean cross entropy of K_ft images (Wen et al. 2023, eq. 8, Algorithm 1).

    A plain gradient step, apart from the run's optimizer and its moments. Under masked training the gradient is that of
    the masked weights, and dropped weights stay. The paper leaves eta', K_ft and the schedule open.

    Attributes:
        lr: eta', the learning rate of the step.
        images: K_ft, images per step.
        every: take it after every so many steps; None for once at the end of each epoch (Algorithm 1).
        data: in-distribution images; None for the run's own training images.

    Raises:
        BadInput: a rate that is no finite number above 0, or fewer than one image or step.
    """

    lr: float = 1e-4
    images: int = 128
    every: int | None = None
    data: Images | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise BadInput(f"lr: expected a finite number above 0 for the steps in between, got {self.lr}")
        whole("images", self.images, low=1)
        if self.every is not None:
            whole("every", self.every, low=1)

    def due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether a refinement follows this step, counted from 0 in its epoch."""
        return (step + 1) % (self.every or steps_per_epoch) == 0

    def to_dict(self) -> dict[str, Any]:
        """All settings, as JSON types, and a digest of the images."""
        seen = None if self.data is None else digest({"pixels": self.data.pixels, "labels": self.data.labels})
        return {"lr": self.lr, "images": self.images, "every": self.every, "data": seen}


def refine(
    how: Refinement, model: nn.Module, data: Images, place: tuple[int, int, int], masks: Masks | None = None
) -> Tensor:
    """One step of `how` in place; `place` is (seed, epoch, step). Returns the loss before it, detached."""
    seed, epoch, step = place
    source = data if how.data is None else how.data
    rows = torch.randperm(len(source), generator=generator(seed, epoch, REFINEMENTS + step))[: how.images]
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    factors = {} if masks is None else masks.factors
    images = as_input(source.pixels[rows], model)
    with nullcontext() if masks is None else masks.applied():
        loss = F.cross_entropy(logits_of(model(images)).float(), source.labels[rows].to(images.device))
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    with torch.no_grad():
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                weight.sub_(gradient * factors.get(name, 1.0), alpha=how.lr)
    return loss.detach()
