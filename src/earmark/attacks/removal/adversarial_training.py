"""Adversarial training: fine-tuning on images that are moved against the model, step by step.

Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks" (ICLR), Section 2.1: the inner
maximisation by projected gradient steps of sign(grad) from a random start in the L-infinity ball.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.attacks.removal.tuning import OwnTask
from earmark.core import Images
from earmark.errors import number, whole
from earmark.models import evaluating, logits_of
from earmark.training import Step, Term

__all__ = ["AdversarialCrossEntropy", "AdversarialTraining", "adversarial"]


@final
@dataclass(frozen=True)
class AdversarialTraining(OwnTask):
    """Minimise max over |d| <= epsilon of CE(f(x + d), y), the maximum approached by PGD, all layers by default.

    It smooths the model around its images, and so takes away what only a few odd pixels call up. Lukas et al. 2022 take
    epsilon 0.01 to 0.25 and 40 iterations. The other settings are `OwnTask`'s.

    Attributes:
        epsilon: how far a pixel may move, in units of the pixel range.
        iterations: gradient steps of the inner maximisation.
        step: how far each goes; None for 2.5 epsilon / iterations.

    Raises:
        BadInput: a setting out of its range.
    """

    epsilon: float = 0.1
    iterations: int = 10
    step: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        number("epsilon", self.epsilon, 0, 1)
        whole("iterations", self.iterations, 1, 10_000)
        if self.step is not None:
            number("step", self.step, 0, 1)

    def terms(self, images: Images) -> tuple[Term, ...]:
        step = 2.5 * self.epsilon / self.iterations if self.step is None else self.step
        return (AdversarialCrossEntropy(self.epsilon, self.iterations, step),)


@dataclass(frozen=True)
class AdversarialCrossEntropy:
    """Mean cross entropy (nats) of the training images of a batch, moved by `adversarial` against the model."""

    epsilon: float
    iterations: int
    step: float
    weight: float = 1.0
    needs_host = False
    needs_triggers = False
    needs_labels = True
    name = "adversarial"

    def __call__(self, step: Step) -> Tensor:
        images, labels = step.images[: step.clean], step.targets[: step.clean]
        moved = adversarial(step.model, images, labels, self.epsilon, self.iterations, self.step)
        return F.cross_entropy(logits_of(step.model(moved)).float(), labels)


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, iterations: int, step: float
) -> Tensor:
    """Images moved against the model: x <- clip(x + step sign(grad_x CE(f(x), y))), from a uniform start in the ball.

    The model is asked in eval mode, so that no statistics see the steps; the start comes from the device's own random
    generator, which training seeds for each step.

    Args:
        model: a classifier.
        images: float in [0, 1] (N, C, H, W), on its device and in its type.
        labels: what they are (N,).
        epsilon: the radius of the ball, which the clip keeps to as it keeps to [0, 1].
        iterations: how many steps.
        step: how far each goes.
    """
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    moved = low + (high - low) * torch.rand_like(images)
    with evaluating(model), torch.enable_grad():
        for _ in range(iterations):
            moved = moved.detach().requires_grad_()
            loss = F.cross_entropy(logits_of(model(moved)).float(), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, moved)
            moved = torch.minimum(torch.maximum(moved + step * slope.sign(), low), high)
    return moved.detach()
