"""Images that a model was not trained for: corrupted ones, and ones from outside the distribution.

Accuracy on clean test images hides what a mark did to a model elsewhere (Hua & Teoh 2023, Section 1); agreement with
the host on these shows it. Kinds and severities follow the idea of Hendrycks & Dietterich 2019, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", in the few kinds that make sense down to 8 x 8 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from earmark.core import Images
from earmark.data.convert import resized
from earmark.errors import BadInput, unknown_name

__all__ = ["CORRUPTIONS", "corrupted", "ood"]

SEVERITIES = range(1, 6)
Corruption = Callable[[Tensor, int, torch.Generator], Tensor]
"""float (N, C, H, W) in [0, 1], severity 1 to 5, generator -> float of the same shape, not yet clipped."""


def _gaussian_noise(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    return x + (0.04, 0.08, 0.12, 0.18, 0.26)[severity - 1] * torch.randn(x.shape, generator=rng)


def _impulse_noise(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    share = (0.02, 0.05, 0.09, 0.15, 0.25)[severity - 1]
    hit = torch.rand(x.shape, generator=rng) < share
    return torch.where(hit, torch.randint(2, x.shape, generator=rng).float(), x)


def _blur(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Gaussian, its standard deviation 0.3 pixels and a share of the shorter side; edges repeated."""
    sigma = 0.3 + (0.01, 0.02, 0.03, 0.045, 0.065)[severity - 1] * min(x.shape[-2:])
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    kernel = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    wide = functional.pad(x, [reach, reach, 0, 0], mode="replicate")
    tall = functional.pad(functional.conv2d(wide, kernel, groups=x.shape[1]), [0, 0, reach, reach], mode="replicate")
    return functional.conv2d(tall, kernel.transpose(2, 3), groups=x.shape[1])


def _contrast(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (0.75, 0.6, 0.45, 0.3, 0.2)[severity - 1] * (x - mean)


def _brightness(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Each image darker or lighter by the same amount, which way is drawn."""
    sign = torch.randint(2, (len(x), 1, 1, 1), generator=rng) * 2 - 1
    return x + (0.08, 0.15, 0.22, 0.3, 0.4)[severity - 1] * sign


def _pixelate(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    height, width = x.shape[-2:]
    share = (0.8, 0.65, 0.5, 0.4, 0.3)[severity - 1]
    small = resized(_to_bytes(x), max(round(share * height), 1), max(round(share * width), 1))
    return resized(small, height, width).float() / 255


def _occlusion(x: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """A grey rectangle of a share of each side, somewhere in the image."""
    share, inside = (0.15, 0.25, 0.35, 0.45, 0.55)[severity - 1], torch.ones(len(x), 1, 1, 1, dtype=torch.bool)
    for axis, size in ((2, x.shape[2]), (3, x.shape[3])):
        side = max(round(share * size), 1)
        start = torch.randint(size - side + 1, (len(x), 1), generator=rng)
        at = torch.arange(size)
        inside = inside & ((at >= start) & (at < start + side)).unsqueeze(1).unsqueeze(5 - axis)
    return torch.where(inside, torch.tensor(0.5), x)


CORRUPTIONS: Mapping[str, Corruption] = {
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "gaussian-noise": _gaussian_noise,
    "impulse-noise": _impulse_noise,
    "occlusion": _occlusion,
    "pixelate": _pixelate,
}


def corrupted(images: Images, kind: str, severity: int, rng: torch.Generator) -> Images:
    """A corrupted copy with the same labels.

    Args:
        images: left as they are.
        kind: a name in `CORRUPTIONS`.
        severity: 1 (hardly visible) to 5 (hard for people).
        rng: a CPU generator.

    Raises:
        BadInput: an unknown kind, or a severity outside 1..5.
    """
    if kind not in CORRUPTIONS:
        raise unknown_name("corruption", kind, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise BadInput(f"expected a severity from 1 to 5, got {severity!r}")
    blocks = [CORRUPTIONS[kind](block.float() / 255, severity, rng) for block in torch.split(images.pixels.cpu(), 1024)]
    pixels = torch.cat([_to_bytes(block) for block in blocks]) if len(images) else images.pixels.clone()
    return Images(pixels, images.labels.clone(), images.classes, f"{images.name} ({kind} {severity})")


def _to_bytes(x: Tensor) -> Tensor:
    return x.mul(255).round().clamp(0, 255).to(torch.uint8)


def ood(images: Images, rng: torch.Generator) -> Images:
    """Images from outside the distribution: the patches of each image in random order, its labels without meaning.

    Patches have the largest side that divides both height and width and is at most a quarter of the shorter one, so
    local statistics stay and the objects go.
    """
    n = len(images)
    channels, height, width = images.shape
    common = math.gcd(height, width)
    side = next(s for s in range(max(min(height, width) // 4, 1), 0, -1) if common % s == 0)
    patches = functional.unfold(images.pixels.cpu().float(), side, stride=side)
    order = torch.rand(n, 1, patches.shape[2], generator=rng).argsort(2)
    mixed = functional.fold(patches.gather(2, order.expand_as(patches)), (height, width), side, stride=side)
    pixels = mixed.to(torch.uint8).reshape(n, channels, height, width)
    return Images(pixels, images.labels.clone(), images.classes, f"{images.name} (shuffled patches)")
