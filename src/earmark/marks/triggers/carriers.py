"""Source images that the key picks, and whether they are such as a host takes."""

from __future__ import annotations

import torch
from torch import Tensor

from earmark.core import Images
from earmark.errors import BadInput
from earmark.keys import MarkKey

__all__ = ["classes_shown", "pick", "pixels_for"]


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
        raise BadInput(f"{count} carriers are needed, but {where} has {len(pool)} images; lower the count")
    return images.subset(pool[key.stream("carriers").choice(len(pool), count)])


def classes_shown(carriers: Images, classes: int) -> Tensor:
    """The classes that carriers show, int64 (n,), for a host that knows `classes` classes.

    Raises:
        BadInput: carriers of another task.
    """
    if carriers.classes != classes:
        raise BadInput(f"the host has {classes} classes and the carriers {carriers.classes}; take them from its data")
    return carriers.labels


def pixels_for(carriers: Images | None, shape: tuple[int, int, int]) -> Tensor:
    """The pixels of carriers, uint8 (n, C, H, W), for a host that takes images of `shape`.

    Raises:
        BadInput: carriers of another shape.
    """
    assert carriers is not None, "make has checked that there are carriers"
    if carriers.shape != shape:
        raise BadInput(f"the host takes images {shape} and the carriers are {carriers.shape}; take them from its data")
    return carriers.pixels
