"""Arrays of any usual layout and type to uint8 (N, C, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.errors import BadInput

__all__ = ["to_labels", "to_pixels"]

CHANNELS = (1, 3)


def to_pixels(what: str, array: NDArray[Any]) -> Tensor:
    """uint8 (N, C, H, W) from (N, H, W), (N, C, H, W) or (N, H, W, C); floats in [0, 1] become round(255 x).

    Args:
        what: the name that errors call the images by.
        array: whole numbers in 0..255 or floats in [0, 1].

    Raises:
        BadInput: another rank, a layout that is none of these or could be two of them, or values outside the range.
    """
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise BadInput(f"{what}: expected (N, H, W), (N, C, H, W) or (N, H, W, C) with C 1 or 3, got {array.shape}")
    first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
    if first == last:
        raise BadInput(f"{what}: cannot tell the channels in the shape {array.shape}; give (N, C, H, W) with C 1 or 3")
    return torch.from_numpy(np.array(_bytes(what, array if first else array.transpose(0, 3, 1, 2)), order="C"))


def _bytes(what: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind not in "iuf":
        raise BadInput(f"{what}: expected pixels as whole numbers or floats, got {array.dtype}")
    low, high, top = float(array.min()), float(array.max()), 1 if array.dtype.kind == "f" else 255
    if not 0 <= low <= high <= top:
        raise BadInput(
            f"{what}: expected {array.dtype} pixels from 0 to {top}, got {low:g} to {high:g}; scale them, and if a "
            "Normalize transform made them, drop it and wrap the model with earmark.models.normalised"
        )
    scaled: NDArray[np.uint8] = (np.rint(array * 255.0) if top == 1 else array).astype(np.uint8)
    return scaled


def to_labels(what: str, array: NDArray[Any]) -> Tensor:
    """int64 (N,) from whole numbers (N,) or (N, 1).

    Raises:
        BadInput: another shape, as one-hot labels have, or no whole numbers.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadInput(f"{what}: expected one whole number per image, got {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.int64))
