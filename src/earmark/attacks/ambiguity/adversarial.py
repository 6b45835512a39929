"""Forged trigger sets: adversarial noise on base images, until the model answers what the forger wants.

Fan et al. 2021 (DeepIPR), Section 3.2.2: X_T = X_b + eta X_n with trainable noise X_n, random labels y_T, and
min over X_n of the cross entropy L_c(f(W, X_T), y_T). The weights W stay, and no training data is needed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.attacks.ambiguity.forgery import Forger, Forgery, honest_start
from earmark.attacks.needs import Needs
from earmark.core import Data
from earmark.errors import BadInput, whole
from earmark.marks import TriggerMint
from earmark.models import as_input, device_of, logits_of

__all__ = ["AdversarialTriggers", "lead"]


@final
@dataclass(frozen=True)
class AdversarialTriggers(Forger):
    """Triggers that a model nobody marked answers with labels chosen beforehand: a trigger test accepts them.

    The search never leaves the uint8 grid, x <- clip(x - step * sign(grad L_c), x_b - epsilon, x_b + epsilon), so no
    rounding loses a label afterwards. Each image stays at the first iterate whose label leads by `margin`, or at the
    one that came closest.

    With `pose_as`, key, settings and labels are those of an honest mint, and only the pixels are not. What gives the
    forger away is that the key mints other pixels.

    Attributes:
        count: n, the number of triggers; None for the posed mint's own number, or 100.
        steps: gradient steps at most; the paper makes about 100.
        step: pixel levels (of 255) per step.
        epsilon: how many levels a pixel may move; 10 are the paper's eta = 0.04, an 8x8 image needs the default.
        margin: by how many logits the wanted class must lead before an image is left alone.
        labels: the wanted labels, repeated to n; None for those of the posed mint, or random ones.
        pose_as: the mint whose claim the forger copies, base images included; None for random test images.

    Raises:
        BadInput: a setting out of its range, or on the call a label that is no class, or data that do not fit the
            model.
    """

    count: int | None = None
    steps: int = 100
    step: int = 1
    epsilon: int = 64
    margin: float = 1.0
    labels: tuple[int, ...] | None = None
    pose_as: TriggerMint | None = None
    needs: ClassVar[Needs] = Needs(weights=True, data="images")

    def __post_init__(self) -> None:
        for name, low in (("steps", 0), ("step", 1), ("epsilon", 0)):
            whole(name, getattr(self, name), low)
        if self.labels is not None and not self.labels:
            raise BadInput("labels: expected at least one label, or none to draw them at random, got an empty list")

    def forge(self, model: nn.Module, data: Data, rng: torch.Generator) -> Forgery:
        start = honest_start(self.pose_as, self.count, model, data, rng)
        labels = start.mark.labels if self.labels is None else _repeated(self.labels, len(start.mark))
        wanted = replace(start.mark, labels=labels)
        still = copy.deepcopy(model).eval().requires_grad_(False)
        parts = zip(torch.split(wanted.images, 128), torch.split(wanted.labels, 128), strict=True)
        images = torch.cat([self._moved(still, base, label) for base, label in parts])
        return replace(start, mark=replace(wanted, images=images))

    def _moved(self, model: nn.Module, base: Tensor, labels: Tensor) -> Tensor:
        device = device_of(model)
        x, labels = base.to(device).int(), labels.to(device)
        low, high = (x - self.epsilon).clamp(min=0), (x + self.epsilon).clamp(max=255)
        best, most = x.clone(), torch.full((len(x),), -torch.inf, device=device)
        left = torch.arange(len(x), device=device)
        for _ in range(self.steps + 1):
            images = x[left].float().div_(255).requires_grad_()
            logits = logits_of(model(as_input(images, model))).float()
            now = lead(logits.detach(), labels[left])
            better = now > most[left]
            best[left[better]], most[left[better]] = x[left[better]], now[better]
            going = now < self.margin
            if not bool(going.any()):
                break
            (slope,) = torch.autograd.grad(F.cross_entropy(logits, labels[left], reduction="sum"), images)
            left = left[going]
            x[left] = (x[left] - self.step * slope[going].sign().int()).clamp(low[left], high[left])
        return best.to("cpu", torch.uint8)


def lead(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the wanted class minus the largest other, (N,)."""
    wanted = logits.gather(1, labels.unsqueeze(1))
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return wanted.squeeze(1) - others.amax(1)


def _repeated(labels: tuple[int, ...], count: int) -> Tensor:
    return torch.tensor(labels)[torch.arange(count) % len(labels)]
