"""Some of the images: those of some classes, or so many drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from earmark.core import Images
from earmark.errors import BadInput

__all__ = ["drawn", "only"]


def only(images: Images, classes: Sequence[int]) -> Images:
    """The images of `classes`, in the order that they have, labelled 0, 1, ... by the place of their class in the list.

    Raises:
        BadInput: fewer than two classes, one that occurs twice, or one that `images` do not have.

    >>> from earmark.data import digits
    >>> only(digits().test, [7, 2])
    Images('digits', 71 of 1x8x8, 2 classes)
    """
    if len(classes) < 2 or len(set(classes)) < len(classes) or not set(classes) <= set(range(images.classes)):
        raise BadInput(
            f"{images.name}: expected two or more different classes from 0 to {images.classes - 1}, got {classes}"
        )
    place = torch.full((images.classes,), -1)
    place[torch.tensor(classes)] = torch.arange(len(classes))
    labels = place[images.labels]
    kept = (labels >= 0).nonzero().flatten()
    return Images(images.pixels[kept], labels[kept], len(classes), images.name)


def drawn(images: Images, count: int | None, rng: torch.Generator) -> Images:
    """`count` different images drawn from `rng`; None for all of them, as they are and without a draw.

    Raises:
        BadInput: there are fewer.
    """
    if count is None:
        return images
    if not 0 <= count <= len(images):
        raise BadInput(f"{images.name}: {count} images were asked for and there are {len(images)}; ask for fewer")
    return images.subset(torch.randperm(len(images), generator=rng)[:count])
