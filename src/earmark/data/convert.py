"""Other sizes and other channel counts, in exact integer arithmetic, so that every machine gives the same pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from earmark.errors import BadInput

__all__ = ["channels_to", "resized"]

LUMA = (299, 587, 114)  # thousandths of red, green and blue in a grey level (ITU-R BT.601)
BLOCK = 1024  # images converted at once, which bounds the memory of the float64 copy


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Area averaging: each new pixel is the mean of the old image over its own rectangle, rounded half up.

    Along one axis of n old and m new pixels, new pixel i weighs old pixel j by the length of the overlap of
    [i n, (i+1) n) and [j m, (j+1) m), an integer; the weights sum to n. Sums stay below 255 H W < 2^53, so float64
    matrix products hold them exactly in any order. It shrinks like a box filter and grows like nearest neighbour.

    Args:
        pixels: uint8 (N, C, H, W).
        height: the new H.
        width: the new W.

    >>> resized(torch.tensor([[[[0, 100], [200, 255]]]], dtype=torch.uint8), 1, 1).item()
    139
    """
    if height < 1 or width < 1:
        raise BadInput(f"expected a size of at least 1 x 1, got {height} x {width}")
    if pixels.shape[-2:] == (height, width):
        return pixels.clone()
    old_height, old_width = pixels.shape[-2:]
    rows, columns = _overlaps(old_height, height), _overlaps(old_width, width).T
    area = old_height * old_width
    blocks = [torch.floor((rows @ block.double() @ columns + area // 2) / area) for block in torch.split(pixels, BLOCK)]
    return torch.cat(blocks).to(torch.uint8)


def _overlaps(old: int, new: int) -> Tensor:
    i, j = torch.arange(new)[:, None], torch.arange(old)[None]
    length = torch.minimum((i + 1) * old, (j + 1) * new) - torch.maximum(i * old, j * new)
    return length.clamp(min=0).double()


def channels_to(pixels: Tensor, channels: int) -> Tensor:
    """Grey repeated to three channels, or colour as the grey level (299 R + 587 G + 114 B + 500) // 1000.

    >>> channels_to(torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1), 1).item()
    76
    """
    if channels not in (1, 3):
        raise BadInput(f"expected 1 or 3 channels, got {channels}")
    if pixels.shape[1] == channels:
        return pixels.clone()
    if channels == 3:
        return pixels.repeat(1, 3, 1, 1)
    weights = torch.tensor(LUMA).reshape(1, 3, 1, 1)
    return ((pixels.int() * weights).sum(1, keepdim=True) + 500).div(1000, rounding_mode="floor").to(torch.uint8)
