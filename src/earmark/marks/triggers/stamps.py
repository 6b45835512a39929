"""Stamps that pass an autoencoder: how 8-bit images hold them, what the key gives them, and how they are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from earmark.data import resized
from earmark.errors import BadInput, number, whole
from earmark.keys import KeyedStream
from earmark.models import Bank, Coded, device_of, evaluating

__all__ = ["PRESTAMPS", "Penetration", "distance", "prestamps", "stamp_on", "stamp_values"]

PRESTAMPS = ("half-planes", "low-frequency", "noise", "checkerboard", "picture")
HALF = 191
"""A stamp of 0.5 in 8 bits, the released code's level; see `stamp_values`."""
NOTHING, DARKEST, BRIGHTEST = 128, 1, 255
STEPS = 16
CHECKERS = 5
_CELLS: Mapping[str, tuple[int, int] | None] = {"low-frequency": (4, 4), "noise": None}
"""Patterns of keyed levels, and how many blocks they have; None for one for each pixel."""


def stamp_values(stamps: Tensor) -> Tensor:
    """What uint8 stamps add to an image, in 255ths, int32: 0 (at 128) in even steps from -254 to 254.

    >>> stamp_values(torch.tensor([128, 191, 0], dtype=torch.uint8)).tolist()
    [0, 126, -254]
    """
    return (2 * (stamps.int() - NOTHING)).clamp_(-254, 254)


def stamp_on(pixels: Tensor, stamps: Tensor) -> Tensor:
    """The 8-bit image x + T: uint8 (n, C, H, W), clipped to 0..255.

    Args:
        pixels: the carriers x, uint8 (n, C, H, W).
        stamps: T for each of them, uint8 of the same shape.
    """
    return (pixels.int() + stamp_values(stamps)).clamp_(0, 255).to(torch.uint8)


def prestamps(
    stream: KeyedStream, pattern: str, count: int, shape: tuple[int, int, int], picture: Tensor | None = None
) -> Tensor:
    """P_1..P_I from the key, uint8 (I, C, H, W): what embeds the owner's identity (Li & Wang 2021, Section 3.1).

    * "half-planes": 0.5 on one side of a keyed line through the middle and 0 on the other, in all channels; then the
      other way round, then the next line. The released code has the two horizontal ones.
    * "low-frequency": 4 x 4 blocks of keyed levels from 0 to 0.5 in each channel.
    * "noise": such a level for every pixel of each channel.
    * "checkerboard": 5 x 5 cells of 1 and -1 at a keyed place, the Wonder filter of Li et al. 2019.
    * "picture": what the owner gives, 0.5 where it is white, moved by a keyed way and around the edges.

    Args:
        stream: the key's.
        pattern: one of these.
        count: I.
        shape: (C, H, W) of an image.
        picture: uint8 (C, h, w) of a "picture", no larger than the image.
    """
    channels, height, width = shape
    if pattern in _CELLS:
        down, across = _CELLS[pattern] or (height, width)
        levels = stream.integers(HALF - NOTHING + 1, count * channels * down * across) + NOTHING
        return resized(levels.reshape(count, channels, down, across).to(torch.uint8), height, width)
    if pattern == "half-planes":
        return _half_planes(stream, count, shape)
    if pattern == "checkerboard":
        return torch.stack([_checkerboard(stream, shape) for _ in range(count)])
    assert picture is not None, "a picture is drawn by whoever gives it"
    white = torch.full(shape, NOTHING, dtype=torch.uint8)
    white[:, : picture.shape[1], : picture.shape[2]] += (picture.int() * (HALF - NOTHING) // 255).to(torch.uint8)
    ways = [(int(stream.integers(height, 1)), int(stream.integers(width, 1))) for _ in range(count)]
    return torch.stack([white.roll(way, (1, 2)) for way in ways])


def _half_planes(stream: KeyedStream, count: int, shape: tuple[int, int, int]) -> Tensor:
    """The two sides of one line, then those of another: stamps that are told apart."""
    channels, height, width = shape
    lines = -(-count // 2)
    angles = 2 * stream.integers(STEPS, 2 * lines).reshape(lines, 2) - STEPS + 1  # odd, so that none is no direction
    down, across = (2 * torch.arange(size) - size + 1 for size in (height, width))
    side = angles[:, 0, None, None] * down[:, None] * width + angles[:, 1, None, None] * across * height > 0
    both = torch.stack([side, ~side], dim=1).flatten(0, 1)[:count]
    halves = torch.where(both, HALF, NOTHING).to(torch.uint8)
    return halves[:, None].expand(count, channels, height, width).contiguous()


def _checkerboard(stream: KeyedStream, shape: tuple[int, int, int]) -> Tensor:
    _, height, width = shape
    cell = max(1, min(height, width) // 28)
    sides = [min(CHECKERS * cell, size) for size in (height, width)]
    top, left = (int(stream.integers(size - side + 1, 1)) for size, side in zip((height, width), sides, strict=True))
    down, across = (torch.arange(side) // cell for side in sides)
    light = (down[:, None] + across + stream.integers(2, 1)) % 2 == 0
    stamp = torch.full(shape, NOTHING, dtype=torch.uint8)
    stamp[:, top : top + sides[0], left : left + sides[1]] = torch.where(light, BRIGHTEST, DARKEST).to(torch.uint8)
    return stamp


@dataclass(frozen=True)
class Penetration:
    """Eq. (5) of Li & Wang 2021 by Adam, for all stamps, carriers and shadows in one batched computation.

    L(T_i) = mean over j, k of ||AE_k(x_ij + T_i) - T_i||_2^2 + similarity * ||T_i - P_i||_2^2, where x + T is the image
    that an API accepts, clipped and rounded to 8 bits; the gradient passes rounding and clipping as if they were not
    there. Each sum is over the pixels of an image on [0, 1], so that `similarity` means the same for any J and K. (The
    released code sums over j and k and takes means over the pixels: its 0.02 is 0.02 * C H W / (J K) here.)

    Attributes:
        iterations: steps of Adam; 4,000 in the released code.
        lr: its rate; 1e-3 in the released code.
        similarity: lambda_2, 0.02 in the paper.
        target: what an autoencoder should make of x + T: "stamp", T alone as in eqs. (4) and (5), or "image", x + T
            itself, which is what the paper's eq. (6) argues with.
        clipped: whether the shadows see x + T as an API would, clipped and rounded to 8 bits. The paper's and the
            released code's search sees it as it is, up to 2 and below 0; what is found is then rounded at the end.
    """

    iterations: int = 4_000
    lr: float = 1e-3
    similarity: float = 0.02
    target: str = "stamp"
    clipped: bool = True

    def __post_init__(self) -> None:
        whole("iterations", self.iterations, low=0)
        number("lr", self.lr, 1e-9, 1e3)
        number("similarity", self.similarity, 0, 1e9)
        if self.target not in ("stamp", "image"):
            raise BadInput(f"target: expected 'stamp' or 'image', got {self.target!r:.80}")

    def __call__(self, shadows: Bank, carriers: Tensor, starts: Tensor) -> Tensor:
        """T_1..T_I, uint8 (I, C, H, W), found from the prestamps on.

        Args:
            shadows: K trained autoencoders.
            carriers: x_ij, uint8 (I, J, C, H, W).
            starts: P_i, uint8 (I, C, H, W).

        Raises:
            BadInput: a loss that is no finite number.
        """
        device = device_of(shadows)
        images, wanted = carriers.to(device).float() / 255, stamp_values(starts.to(device)).float() / 255
        stamps = wanted.clone().requires_grad_()
        adam = torch.optim.Adam([stamps], lr=self.lr)
        with evaluating(shadows), torch.enable_grad():
            for _ in range(self.iterations):
                adam.zero_grad(set_to_none=True)
                loss = self.loss(shadows, images, stamps, wanted)
                (stamps.grad,) = torch.autograd.grad(loss.sum(), [stamps])
                adam.step()
        if not bool(torch.isfinite(stamps).all()):
            raise BadInput("the stamps are no finite numbers any more; lower the rate")
        return _as_bytes(stamps.detach()).cpu()

    def loss(self, shadows: Bank, images: Tensor, stamps: Tensor, wanted: Tensor) -> Tensor:
        """L(T_i) for each stamp: (I,), in squared units of [0, 1] pixels."""
        if self.clipped:
            stamps = _through(stamps, _values(_as_bytes(stamps)))
        moved = images + stamps[:, None]
        seen = _through(moved, (moved.clamp(0, 1) * 255).round() / 255) if self.clipped else moved
        each = seen.flatten(0, 1).expand(len(shadows), -1, -1, -1, -1)  # faster than one product for all
        made = Coded(*shadows.separately(each)).images.view(-1, *images.shape)
        goal = stamps[:, None] if self.target == "stamp" else seen
        passed = (made - goal).square().flatten(-3).sum(-1).mean(dim=(0, 2))
        kept: Tensor = passed + self.similarity * (stamps - wanted).square().flatten(1).sum(1)
        return kept


def distance(stamps: Tensor, starts: Tensor) -> Tensor:
    """l(T_i, P_i) of eq. (3): the mean over the pixels of (T - P)^2 on [0, 1], float64 (I,)."""
    apart = stamp_values(stamps).double() - stamp_values(starts).double()
    return apart.square().flatten(1).mean(1) / 255**2


def _as_bytes(stamps: Tensor) -> Tensor:
    return (stamps * 255 / 2).round().add(NOTHING).clamp(DARKEST, BRIGHTEST).to(torch.uint8)


def _values(stamps: Tensor) -> Tensor:
    return stamp_values(stamps).float() / 255


def _through(values: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `values` (Bengio et al. 2013's straight-through estimator)."""
    return values + (rounded - values).detach()
