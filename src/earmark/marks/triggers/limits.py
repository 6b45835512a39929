"""How large a mark may be: what no judge would mint again, no owner should mint."""

from __future__ import annotations

import math

from earmark.errors import BadInput

__all__ = ["MOST_TRIGGERS", "MOST_VALUES", "require_mintable"]

MOST_TRIGGERS = 1 << 13
"""Of the triggers, and of the images to learn from; the weakest mark that can be judged needs fewer."""
MOST_VALUES = 1 << 28
"""Pixel values of the triggers and the images to learn from together."""


def require_mintable(triggers: int, lessons: int, shape: tuple[int, int, int]) -> None:
    """Refuse a mark that would keep a judge minting for a stranger.

    Args:
        triggers: n, how many images are asked.
        lessons: how many other images are learnt; 0 where the triggers themselves are.
        shape: (C, H, W) of one image.

    Raises:
        BadInput: more than 2^13 triggers or images to learn from, or more than 2^28 pixel values in all.
    """
    for what, came in (("triggers", triggers), ("images to learn from", lessons)):
        if came > MOST_TRIGGERS:
            raise BadInput(f"a mark has at most {MOST_TRIGGERS} {what}, since a judge mints it again, got {came}")
    values, count = math.prod(shape), triggers + lessons
    if count * values > MOST_VALUES:
        raise BadInput(
            f"a mark has at most {MOST_VALUES} pixel values, since a judge mints it again, and {count} images of "
            f"{'x'.join(map(str, shape))} have {count * values}; lower their number to {MOST_VALUES // values} or "
            "less, or bring the images to a smaller size"
        )
