"""Source images that the key picks."""

from __future__ import annotations

import torch

from earmark.core import Images
from earmark.errors import BadInput
from earmark.keys import MarkKey

__all__ = ["pick"]


def pick(key: MarkKey, images: Images, count: int, label: int | None = None) -> Images:
    """`count` distinct images in keyed order, of class `label` only where one is given.

    Raises:
        BadInput: a class that is none, or fewer images than wanted, as an empty class has.
    """
    if label is not None and label >= images.classes:
        raise BadInput(f"{images.name} has the classes 0 to {images.classes - 1}, got carrier class {label}")
    wanted = torch.ones(len(images), dtype=torch.bool) if label is None else images.labels == label
    pool = torch.nonzero(wanted).flatten()
    if count > len(pool):
        where = images.name if label is None else f"class {label} of {images.name}"
        raise BadInput(f"{count} triggers need as many carriers, but {where} has {len(pool)} images; lower the count")
    return images.subset(pool[key.stream("carriers").choice(len(pool), count)])
