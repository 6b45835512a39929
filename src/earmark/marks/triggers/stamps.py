"""Stamps that pass an autoencoder: how 8-bit images hold them, what the key gives them, and how they are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from earmark.data import resized
from earmark.errors import BadInput, number, whole
from earmark.keys import KeyedStream
from earmark.models import Bank, Coded, device_of, evaluating

Passing = Callable[[Tensor, Tensor], Tensor]

__all__ = ["PRESTAMPS", "Penetration", "distance", "inverted", "prestamps", "stamp_on", "stamp_values"]

HALF = 191
"""A stamp of 0.5 in 8 bits, the released code's level; see `stamp_values`."""
NOTHING, DARKEST, BRIGHTEST = 128, 1, 255
STEPS = 16
CHECKERS = 5
CELLS = 4
TRIES = 64
"""How often nothing new is drawn before it is said that there is no more."""


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


def inverted(stamps: Tensor) -> Tensor:
    """The stamps that take away what these add, uint8 of the same shape.

    >>> stamp_values(inverted(torch.tensor([128, 191, 1, 255], dtype=torch.uint8))).tolist()
    [0, -126, 254, -254]
    """
    return (2 * NOTHING - stamps.int()).clamp_(DARKEST, BRIGHTEST).to(torch.uint8)


def prestamps(
    stream: KeyedStream, pattern: str, count: int, shape: tuple[int, int, int], picture: Tensor | None = None
) -> Tensor:
    """P_1..P_I from the key, uint8 (I, C, H, W): what embeds the owner's identity (Li & Wang 2021, Section 3.1).

    * "half-planes": 0.5 on one side of a keyed line through the middle and 0 on the other, in all channels; then the
      other way round, then the next line. The released code has the two horizontal ones.
    * "low-frequency": 4 x 4 blocks of keyed levels from 0 to 0.5 in each channel.
    * "noise": such a level for every pixel of each channel.
    * "checkerboard": 5 x 5 cells of 1 and -1 at a keyed place, as the released code has the Wonder filter.
    * "bits": 5 x 5 cells at a keyed place, each 1 or -1 by a keyed coin, the Wonder filter of Li et al. 2019 itself.
    * "picture": what the owner gives, 0.5 where it is white, moved by a keyed way and around the edges.

    Args:
        stream: the key's.
        pattern: one of these.
        count: I.
        shape: (C, H, W) of an image.
        picture: uint8 (C, h, w) of a "picture", no larger than the image.

    Raises:
        BadInput: not so many different stamps come out, none of them blank.
    """
    blank = torch.full(shape, NOTHING, dtype=torch.uint8)
    found, misses = {blank.numpy().tobytes(): blank}, 0
    while misses < TRIES:
        before = len(found)
        for stamp in _DRAWN[pattern](stream, shape, picture):
            found.setdefault(stamp.numpy().tobytes(), stamp)
        if len(found) > count:
            return torch.stack(list(found.values())[1 : count + 1])
        misses = 0 if len(found) > before else misses + 1
    raise BadInput(
        f"no {count} different prestamps of the pattern {pattern!r} fit into {'x'.join(map(str, shape))} pixels; "
        "ask for fewer stamps, or take another pattern, text or logo"
    )


Shape = tuple[int, int, int]


def _levels(stream: KeyedStream, shape: Shape, cells: tuple[int, int]) -> list[Tensor]:
    """A keyed level in each cell of each channel."""
    channels, height, width = shape
    levels = stream.integers(HALF - NOTHING + 1, channels * cells[0] * cells[1]) + NOTHING
    return list(resized(levels.reshape(1, channels, *cells).to(torch.uint8), height, width))


def _low_frequency(stream: KeyedStream, shape: Shape, picture: Tensor | None) -> list[Tensor]:
    return _levels(stream, shape, (CELLS, CELLS))


def _noise(stream: KeyedStream, shape: Shape, picture: Tensor | None) -> list[Tensor]:
    return _levels(stream, shape, shape[1:])


def _half_planes(stream: KeyedStream, shape: Shape, picture: Tensor | None) -> list[Tensor]:
    """The two sides of one line, which are told apart."""
    _, height, width = shape
    steep, flat = (2 * stream.integers(STEPS, 2) - STEPS + 1).tolist()  # odd, so that none is no direction
    down, across = (2 * torch.arange(size) - size + 1 for size in (height, width))
    side = (steep * width * down)[:, None] + flat * height * across > 0
    return [torch.where(half, HALF, NOTHING).to(torch.uint8).expand(shape).contiguous() for half in (side, ~side)]


def _checkerboard(stream: KeyedStream, shape: Shape, picture: Tensor | None) -> list[Tensor]:
    return [_in_square(stream, shape, lambda down, across: (down + across + stream.integers(2, 1)) % 2 == 0)]


def _bits(stream: KeyedStream, shape: Shape, picture: Tensor | None) -> list[Tensor]:
    def light(down: Tensor, across: Tensor) -> Tensor:
        return stream.integers(2, CHECKERS * CHECKERS).view(CHECKERS, CHECKERS)[down, across] == 0

    return [_in_square(stream, shape, light)]


def _in_square(stream: KeyedStream, shape: Shape, light: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """1 in the cells of a square at a keyed place that are light, -1 in its others, 0 around it."""
    _, height, width = shape
    cell = max(1, min(height, width) // 28)
    sides = [min(CHECKERS * cell, size) for size in (height, width)]
    top, left = (int(stream.integers(size - side + 1, 1)) for size, side in zip((height, width), sides, strict=True))
    down, across = (torch.arange(side) // cell for side in sides)
    stamp = torch.full(shape, NOTHING, dtype=torch.uint8)
    cells = torch.where(light(down[:, None], across), BRIGHTEST, DARKEST).to(torch.uint8)
    stamp[:, top : top + sides[0], left : left + sides[1]] = cells
    return stamp


def _moved(stream: KeyedStream, shape: Shape, picture: Tensor | None) -> list[Tensor]:
    assert picture is not None, "a picture is drawn by whoever gives it"
    stamp = torch.full(shape, NOTHING, dtype=torch.uint8)
    stamp[:, : picture.shape[1], : picture.shape[2]] += (picture.int() * (HALF - NOTHING) // 255).to(torch.uint8)
    return [stamp.roll((int(stream.integers(shape[1], 1)), int(stream.integers(shape[2], 1))), (1, 2))]


_DRAWN: Mapping[str, Callable[[KeyedStream, Shape, Tensor | None], list[Tensor]]] = {
    "half-planes": _half_planes,
    "low-frequency": _low_frequency,
    "noise": _noise,
    "checkerboard": _checkerboard,
    "bits": _bits,
    "picture": _moved,
}
PRESTAMPS = tuple(_DRAWN)


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
        adam = torch.optim.Adam([stamps], lr=self.lr, fused=True)
        with evaluating(shadows), torch.enable_grad():
            passing = self._passing(shadows, images)
            for _ in range(self.iterations):
                loss = self._loss(passing, images, stamps, wanted)
                (stamps.grad,) = torch.autograd.grad(loss.sum(), [stamps])
                adam.step()
        if not bool(torch.isfinite(stamps).all()):
            raise BadInput("the stamps are no finite numbers any more; lower the rate")
        return _as_bytes(stamps.detach()).cpu()

    def loss(self, shadows: Bank, images: Tensor, stamps: Tensor, wanted: Tensor) -> Tensor:
        """L(T_i) for each stamp: (I,), in squared units of [0, 1] pixels."""
        return self._loss(self._passing(shadows, images), images, stamps, wanted)

    def _loss(self, passing: Passing, images: Tensor, stamps: Tensor, wanted: Tensor) -> Tensor:
        if self.clipped:
            stamps = _through(stamps, _values(_as_bytes(stamps)))
        moved = images + stamps[:, None]
        seen = _through(moved, (moved.clamp(0, 1) * 255).round() / 255) if self.clipped else moved
        goal = stamps[:, None] if self.target == "stamp" else seen
        passed = (passing(seen, stamps) - goal).square().flatten(-3).sum(-1).mean(dim=(0, 2))
        kept: Tensor = passed + self.similarity * (stamps - wanted).square().flatten(1).sum(1)
        return kept

    def _passing(self, shadows: Bank, images: Tensor) -> Passing:
        """From x + T (I, J, C, H, W) and T (I, C, H, W), what the shadows make of x + T (K, I, J, C, H, W).

        The gradient by x + T is that by T, clipped or not. Where the first layer is affine, its gradient is a product
        for each stamp, not for each image, and unclipped its value is, too: that of x is the same in every iteration.
        """
        halves, (stamps, looks) = shadows.halves(), images.shape[:2]
        if halves is None:

            def passing(seen: Tensor, _: Tensor) -> Tensor:
                each = seen.flatten(0, 1).expand(len(shadows), -1, -1, -1, -1)  # faster than one product for all
                return Coded(*shadows.separately(each)).images.view(-1, *images.shape)

            return passing
        with torch.no_grad():
            still = halves.enter(images.flatten(0, 1)).view(len(shadows), stamps, looks, -1)

        def moved(seen: Tensor, by: Tensor) -> Tensor:
            entered = still + halves.shift(by)[:, :, None]
            if self.clipped:
                entered = _through(entered, halves.enter(seen.detach().flatten(0, 1)).view_as(entered))
            return halves.leave(entered.flatten(1, 2)).view(-1, *images.shape)

        return moved


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
