"""Neural Cleanse: triggers are searched for in the model itself, and unlearnt with the labels that images have.

Wang et al. 2019, "Neural Cleanse: identifying and mitigating backdoor attacks in neural networks" (IEEE S&P): for each
class the smallest patch that turns images into it, and the classes whose patch is an outlier by the median absolute
deviation (Section IV); unlearning with the patch on a fifth of the images (Section VI).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.attacks.removal.prune import share_of
from earmark.attacks.removal.tuning import OwnTask
from earmark.core import Data, Images
from earmark.errors import BadInput, number, whole
from earmark.models import as_input, device_of, logits_of
from earmark.training.progress import meter

__all__ = ["Cleanse", "Patch", "flagged", "reversed_patch"]

MAD = 1.4826
"""The median absolute deviation of normal numbers times this is their standard deviation."""


class Patch(NamedTuple):
    """What turns images into a class: x -> (1 - mask) x + mask pattern, mask (1, 1, H, W), pattern (1, C, H, W)."""

    mask: Tensor
    pattern: Tensor

    def on(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] that carry it."""
        return (1 - self.mask) * images + self.mask * self.pattern

    @property
    def size(self) -> float:
        """The L1 norm of the mask."""
        return float(self.mask.sum())


@final
@dataclass(frozen=True)
class Cleanse(OwnTask):
    """Search a patch for each class, then fine-tune on images of which some carry one, under the labels that they have.

    Little data will do, and nothing need be known of the mark. The other settings are `OwnTask`'s; the paper trains for
    one epoch on a tenth of the data.

    Attributes:
        classes: whose patches are unlearnt: "flagged": of classes whose mask is smaller than the median by more than
            `outlier` deviations, of the smallest where none is; or "all".
        outlier: the anomaly index above which a class is flagged; the paper has 2.
        share: of the images, how many carry a patch.
        steps: gradient steps of Adam for each patch.
        rate: its learning rate; the paper has 0.1.
        size: weight of the mask's L1 norm against the cross entropy; the paper has 0.01.

    Raises:
        BadInput: a setting out of its range.
    """

    classes: Literal["flagged", "all"] = "flagged"
    outlier: float = 2.0
    share: float = 0.2
    steps: int = 200
    rate: float = 0.1
    size: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes not in ("flagged", "all"):
            raise BadInput(f"classes: expected flagged or all, got {self.classes!r}")
        whole("steps", self.steps, 1)
        for name, high in (("outlier", 1e6), ("share", 1), ("rate", 1e3), ("size", 1e6)):
            number(name, getattr(self, name), 0, high)

    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> Images:
        images = super().lessons(model, data, rng)
        patches = self.patches(model, images, rng)
        order = torch.randperm(len(images), generator=rng)
        carriers = order[: share_of(self.share, len(images))].tensor_split(len(patches))
        pixels = images.pixels.clone()
        for patch, rows in zip(patches, carriers, strict=True):
            pixels[rows] = patch.on(pixels[rows].float() / 255).mul(255).round().clamp(0, 255).to(torch.uint8)
        return replace(images, pixels=pixels)

    def patches(self, model: nn.Module, images: Images, rng: torch.Generator) -> list[Patch]:
        """The patches that are unlearnt, on the CPU."""
        still = copy.deepcopy(model).eval().requires_grad_(False)
        with meter("searching patches", images.classes) as show:
            found = []
            for label in range(images.classes):
                found.append(reversed_patch(still, images, label, self.steps, self.rate, self.size, rng))
                show.advance()
        if self.classes == "all":
            return found
        return [found[label] for label in flagged([patch.size for patch in found], self.outlier)]


def flagged(sizes: list[float], outlier: float) -> list[int]:
    """The places of sizes below the median by more than `outlier` times 1.4826 MAD; of the smallest where none is.

    >>> flagged([10.0, 11.0, 9.0, 2.0, 10.5], outlier=2.0)
    [3]
    >>> flagged([10.0, 11.0, 9.0], outlier=2.0)
    [2]
    """
    values = torch.tensor(sizes, dtype=torch.float64)
    below = values.quantile(0.5) - values
    index = below / (MAD * below.abs().quantile(0.5)).clamp(min=1e-12)
    return (index > outlier).nonzero().flatten().tolist() or [int(values.argmin())]


def reversed_patch(
    model: nn.Module, images: Images, label: int, steps: int, rate: float, size: float, rng: torch.Generator
) -> Patch:
    """The patch that turns images into the class `label`: argmin of CE(f((1 - m) x + m p), label) + size |m|_1.

    Mask and pattern are (tanh + 1) / 2 of what Adam moves; each step sees up to 64 images, drawn anew.

    Args:
        model: in eval mode, without gradients of its own; a `Patch` of the CPU comes back.
        images: what the patch is put on.
        label: the class that they shall be taken for.
        steps: gradient steps.
        rate: Adam's learning rate.
        size: the weight of the mask's norm.
        rng: draws the start and the batches.
    """
    channels, height, width = images.shape
    device = device_of(model)
    mask, pattern = (torch.randn(1, c, height, width, generator=rng).to(device).requires_grad_() for c in (1, channels))
    adam = torch.optim.Adam([mask, pattern], rate, betas=(0.5, 0.9))
    count = min(64, len(images))
    wanted = torch.full((count,), label, device=device)
    for _ in range(steps):
        batch = images.pixels[torch.randint(len(images), (count,), generator=rng)]
        patch = Patch((mask.tanh() + 1) / 2, (pattern.tanh() + 1) / 2)
        seen = patch.on(batch.to(device).float() / 255)
        loss = F.cross_entropy(logits_of(model(as_input(seen, model))).float(), wanted) + size * patch.mask.sum()
        mask.grad, pattern.grad = torch.autograd.grad(loss, (mask, pattern))
        adam.step()
    with torch.no_grad():
        return Patch(((mask.tanh() + 1) / 2).cpu(), ((pattern.tanh() + 1) / 2).cpu())
