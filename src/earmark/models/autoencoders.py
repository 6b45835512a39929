"""Autoencoders: what a thief puts in front of a stolen model, and what an owner rehearses with.

Li & Wang 2021, Section 3.2: a network that sees images through a narrow code keeps what images have in common and loses
what only a trigger has. All take images (N, C, H, W) in [0, 1] and give back a code and images in [0, 1].
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.errors import BadInput, unknown_name, whole
from earmark.models.anatomy import Reading

__all__ = [
    "AUTOENCODERS",
    "Autoencoder",
    "Coded",
    "ConvAutoencoder",
    "DenoisingAutoencoder",
    "MLPAutoencoder",
    "Reconstruction",
    "VariationalAutoencoder",
    "autoencoder",
]

Shape = tuple[int, int, int]
SMALLEST = 7
"""A convolutional encoder halves its maps until no side is longer than this."""


class Coded(NamedTuple):
    """The code of images (N, b), and the images (N, C, H, W) that were made from it."""

    code: Tensor
    images: Tensor


class Autoencoder(nn.Module, ABC):
    """Dec(Enc(x)), and the penalty on the code that training adds to the squared error.

    Args:
        shape: (C, H, W) of an image.
        bottleneck: b, the length of the code.
    """

    def __init__(self, shape: Shape, bottleneck: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape, self.bottleneck = (channels, height, width), whole("bottleneck", bottleneck, low=1)

    @property
    def dense(self) -> bool:
        """Whether all its layers are dense and it takes images (..., C, H, W): then a `Bank` stacks the layers."""
        return False

    def extra_repr(self) -> str:
        """What its layers do not say."""
        return f"shape={self.shape}"

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to codes (N, b), or (N, 2 b) where a code is a distribution."""

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """Codes (N, b) to images (N, C, H, W) in [0, 1]."""

    def penalty(self, code: Tensor) -> Tensor:
        """||Enc(x)||_2^2 for each row of codes (..., b): the second term of eq. (2)."""
        return code.square().sum(-1)

    def forward(self, images: Tensor) -> Coded:
        """Images (N, C, H, W) to their codes and what these become."""
        self.check(images)
        code = self.encode(images)
        return Coded(code, self.decode(code))

    def check(self, images: Tensor) -> None:
        """Raise `BadInput` where images are of another shape."""
        if images.shape[-3:] != self.shape:
            raise BadInput(
                f"the autoencoder takes images {self.shape}, got {tuple(images.shape[-3:])}; build one for these images"
            )


@dataclass(frozen=True)
class Reconstruction:
    """Reads an autoencoder, or a `Bank` of them: the codes for features, and the images made from them for logits."""

    @property
    def classes(self) -> None:
        """An autoencoder knows no classes."""

    def head_parameters(self, model: nn.Module) -> set[str]:
        """None of its layers is a head."""
        return set()

    def read(self, model: nn.Module, images: Tensor, through: Callable[[Tensor], Any] | None = None) -> Reading:
        """Codes (..., N, b) and images (..., N, C, H, W)."""
        return Reading(*(through or model)(images))


class MLPAutoencoder(Autoencoder):
    """C·H·W - 512 - 256 - 128 - b and back, Tanh after each layer, sigmoid last: the network of Li & Wang 2021.

    Section 4.1 speaks of four layers each way and names the activations; the widths are those of the released code.

    Args:
        shape: (C, H, W) of an image.
        bottleneck: b; 3 in the released code, which leaves a classifier behind it little to see. The paper states none.
        widths: of the encoder's hidden layers; the decoder has them in reverse.
    """

    def __init__(self, shape: Shape, bottleneck: int = 32, widths: Sequence[int] = (512, 256, 128)) -> None:
        super().__init__(shape, bottleneck)
        pixels = math.prod(shape)
        self.encoder = _dense([pixels, *widths, bottleneck])
        self.decoder = _dense([bottleneck, *reversed(widths)])
        self.last = nn.Linear(widths[0] if widths else bottleneck, pixels)

    @property
    def dense(self) -> bool:
        return True

    def encode(self, images: Tensor) -> Tensor:
        code: Tensor = self.encoder(images.flatten(-3))
        return code

    def decode(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.last(self.decoder(code))).view(*code.shape[:-1], *self.shape)


class VariationalAutoencoder(MLPAutoencoder):
    """The same layers with N(mu, sigma^2) for a code (Kingma & Welling 2014), and its mean in eval mode.

    The penalty is KL(N(mu, sigma^2) || N(0, 1)) in nats; codes are (mu, log sigma^2) together, 2 b numbers.
    """

    def __init__(self, shape: Shape, bottleneck: int = 32, widths: Sequence[int] = (512, 256, 128)) -> None:
        super().__init__(shape, bottleneck, widths)
        inside = widths[-1] if widths else math.prod(shape)
        self.encoder = nn.Sequential(_dense([math.prod(shape), *widths]), nn.Linear(inside, 2 * bottleneck))

    def decode(self, code: Tensor) -> Tensor:
        mean, log_variance = code.chunk(2, dim=-1)
        drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return super().decode(drawn)

    def penalty(self, code: Tensor) -> Tensor:
        mean, log_variance = code.chunk(2, dim=-1)
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


class ConvAutoencoder(Autoencoder):
    """Convolutions that halve the image, a linear code, and the way back; for images of any size.

    Args:
        shape: (C, H, W) of an image.
        bottleneck: b, the length of the code.
        width: channels of the first convolution; each further one has twice as many.
    """

    def __init__(self, shape: Shape, bottleneck: int = 64, width: int = 16) -> None:
        super().__init__(shape, bottleneck)
        self._sizes = _halved(shape[1:])
        widths = [shape[0], *(width * 2**level for level in range(len(self._sizes) - 1))]
        down = [_convolution(a, b, stride=2) for a, b in itertools.pairwise(widths)]
        self._inside = (widths[-1], *self._sizes[-1])
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(self._inside), bottleneck))
        self.widen = nn.Sequential(nn.Linear(bottleneck, math.prod(self._inside)), nn.ReLU())
        self.up = nn.ModuleList(_convolution(b, max(a, width)) for a, b in itertools.pairwise(widths))[::-1]
        self.last = nn.Conv2d(width, shape[0], 3, padding=1)

    def encode(self, images: Tensor) -> Tensor:
        code: Tensor = self.encoder(images)
        return code

    def decode(self, code: Tensor) -> Tensor:
        maps: Tensor = self.widen(code).view(-1, *self._inside)
        for layer, size in zip(self.up, reversed(self._sizes[:-1]), strict=True):
            maps = layer(F.interpolate(maps, size=size))
        return torch.sigmoid(self.last(maps))


class DenoisingAutoencoder(Autoencoder):
    """Another autoencoder that, in training mode, sees its images through noise (Vincent et al. 2008).

    Args:
        inner: the autoencoder itself.
        std: standard deviation of the normal noise on [0, 1] pixels.
    """

    def __init__(self, inner: Autoencoder, std: float = 0.2) -> None:
        super().__init__(inner.shape, inner.bottleneck)
        if not 0 <= std < math.inf:
            raise BadInput(f"std: expected a finite number, 0 or more, got {std}")
        self.inner, self.std = inner, std

    def extra_repr(self) -> str:
        return f"std={self.std}"

    def encode(self, images: Tensor) -> Tensor:
        return self.inner.encode(images + self.std * torch.randn_like(images) if self.training else images)

    def decode(self, code: Tensor) -> Tensor:
        return self.inner.decode(code)

    def penalty(self, code: Tensor) -> Tensor:
        return self.inner.penalty(code)


def _denoising(shape: Shape, bottleneck: int = 64, width: int = 16, std: float = 0.2) -> DenoisingAutoencoder:
    return DenoisingAutoencoder(ConvAutoencoder(shape, bottleneck, width), std)


AUTOENCODERS: Mapping[str, Callable[..., Autoencoder]] = {
    "mlp": MLPAutoencoder,
    "conv": ConvAutoencoder,
    "denoising": _denoising,
    "variational": VariationalAutoencoder,
}


def autoencoder(family: str, shape: Shape, **settings: Any) -> Autoencoder:
    """A fresh autoencoder of a family: "mlp", "conv", "denoising" (a convolutional one) or "variational".

    Raises:
        BadInput: an unknown family, with the nearest known one, or a bottleneck below 1.
    """
    if family not in AUTOENCODERS:
        raise unknown_name("autoencoder", family, AUTOENCODERS)
    return AUTOENCODERS[family](shape, **settings)


def _dense(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with a Tanh after each."""
    layers = [(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


def _convolution(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, padding=1), nn.ReLU())


def _halved(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes of the maps, from the image's own to the smallest; halved at least once."""
    sizes = [size]
    while len(sizes) == 1 or max(sizes[-1]) > SMALLEST:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes
