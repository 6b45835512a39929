"""Small data and small networks that many tests share."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from earmark.core import Images, rng
from earmark.layers import affine
from earmark.marks import Passports, Projection

__all__ = ["Chain", "TinyNet", "blobs", "convolutions", "projected", "seeded", "written"]


class TinyNet(nn.Module):
    """Convolution, batch norm, pool, a linear penultimate feature and a head: every layer type that matters, tiny."""

    def __init__(self, channels: int = 1, classes: int = 3, features: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.mix = nn.Conv2d(8, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 4, features)
        self.head = nn.Linear(features, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = nn.functional.adaptive_avg_pool2d(torch.relu(self.mix(x)), 2).flatten(1)
        logits: Tensor = self.head(self.fc(x))
        return logits


class Chain(nn.Module):
    """Three convolutions with norms, and a linear layer: a network for passports, tiny."""

    def __init__(self, norm: str = "bn", groups: int = 1, classes: int = 5, width: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((1, width), (width, width), (width, 3 * width // 2)):
            conv = nn.Conv2d(inside, outside, 3, padding=1, bias=False, groups=groups if inside > 1 else 1)
            layers += [conv, nn.BatchNorm2d(outside) if norm == "bn" else nn.GroupNorm(2, outside), nn.ReLU()]
        self.trunk, self.head = nn.Sequential(*layers), nn.Linear(3 * width // 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(x).mean((2, 3)))
        return logits


def seeded(build: Callable[..., nn.Module], *args: object, seed: int = 0, **settings: object) -> nn.Module:
    """A network with the parameters that `seed` makes, the global random state left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*args, **settings)


def blobs(count: int, classes: int = 3, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Images:
    """Images that a small network learns at once: a bright patch whose place tells the class, on noise."""
    generator = rng(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 60, (count, *shape), generator=generator, dtype=torch.uint8)
    for k in range(classes):
        column = k * shape[2] // classes
        pixels[labels == k, :, :, column : column + max(1, shape[2] // classes)] += 150
    return Images(pixels, labels, classes, "blobs")


def convolutions(mark: Passports) -> nn.Module:
    """What passports are read from, and nothing else: a module with the mark's convolutions, under its names."""
    model = nn.Module()
    for at, site in enumerate(mark.sites):
        conv = nn.Conv2d(site.inputs[0], site.outputs, site.kernel, groups=site.groups)
        conv.weight.data = torch.linspace(-1, 1, conv.weight.numel()).mul(50).sin().view_as(conv.weight)
        model.add_module(site.conv if site.conv.isidentifier() else f"conv{at}", conv)
    return model


def written(model: nn.Module, mark: Passports, wrong: int = 0) -> nn.Module:
    """A copy with the least change that shows the bits, but the first `wrong` ones: W + (b - gamma) S / |S|^2."""
    model = copy.deepcopy(model)
    bits = mark.bits.clone()
    bits[:wrong] *= -1
    for site, weight, means, wanted in zip(
        mark.sites, mark.weights_in(model), mark.means(), mark.split(bits), strict=True
    ):
        scale = means[0].repeat_interleave(site.outputs // site.groups, 0)
        lacking = wanted - affine(weight.detach().double(), means)[0]
        weight.data += lacking.view(-1, 1, 1, 1) * scale / scale.square().sum((1, 2, 3), keepdim=True)
    return model


def projected(mark: Projection) -> nn.Module:
    """A layer in which the mark's projection reads the bits, and nothing else: every filter is X^+ b."""
    _, *filter_shape = mark.layer.weight
    mean = torch.linalg.pinv(mark.projection.double()) @ mark.bits.double()
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(
        mean.float().view(filter_shape).expand(min(mark.layer.weight[0], 64), *filter_shape).clone()
    )
    return nn.ModuleDict({"layer": layer})
