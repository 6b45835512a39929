"""An owner's logo: how settings hold it, and how it comes to the size of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from earmark.data import resized
from earmark.errors import BadInput

__all__ = ["as_logo", "fitted_into"]

LARGEST_LOGO = 256


def fitted_into(pixels: Tensor, box: tuple[int, int]) -> Tensor:
    """One image uint8 (1, C, h, w) at the largest size of its proportions that fits, as int64 (C, h', w')."""
    height, width = pixels.shape[-2:]
    if box[0] * width <= box[1] * height:
        box = box[0], max(box[0] * width // height, 1)
    else:
        box = max(box[1] * height // width, 1), box[1]
    return resized(pixels, *box)[0].long()


def as_logo(value: Any) -> tuple[Any, ...]:
    """Nested tuples (h, w, C) of whole numbers, which compare, hash and become JSON."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(f"logo: expected uint8 (h, w) or (h, w, C), got something else ({error})") from error
    array = array[..., None] if array.ndim == 2 else array
    fits = array.ndim == 3 and array.shape[2] in (1, 3) and min(array.shape) > 0 and max(array.shape) <= LARGEST_LOGO
    if not fits or array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise BadInput(
            f"logo: expected uint8 (h, w) or (h, w, 1 or 3) up to 256 x 256, got {array.dtype} {array.shape}"
        )
    return tuple(tuple(tuple(int(v) for v in pixel) for pixel in row) for row in array)
