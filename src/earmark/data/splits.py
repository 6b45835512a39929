"""Cutting one set of images into train and test, the same way on every machine."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from earmark.core import Data, Images
from earmark.errors import BadInput
from earmark.keys import KeyedStream, MarkKey

__all__ = ["split"]


def split(images: Images, test_share: float = 0.2, seed: int = 0) -> Data:
    """A stratified split: of each class's n images, round(test_share * n), and at least one on either side, are test.

    Which ones is drawn from a hash of `seed`, so it depends on no library's random generator. Both sides keep the
    order of `images`.

    Raises:
        BadInput: `test_share` outside (0, 1), or a class with fewer than two images.
    """
    if not 0 < test_share < 1:
        raise BadInput(f"expected a test share between 0 and 1, got {test_share}; 0.2 keeps a fifth for testing")
    stream = MarkKey(hashlib.sha256(b"earmark/split/%d" % seed).digest()).stream("split")
    is_test = torch.zeros(len(images), dtype=torch.bool)
    for label in range(images.classes):
        is_test[_drawn(stream, images, label, test_share)] = True
    return Data(images.subset(torch.nonzero(~is_test).flatten()), images.subset(torch.nonzero(is_test).flatten()))


def _drawn(stream: KeyedStream, images: Images, label: int, share: float) -> Tensor:
    members = torch.nonzero(images.labels == label).flatten()
    if len(members) < 2:
        raise BadInput(
            f"{images.name}: class {label} has {len(members)} images and a split needs two; "
            "add images or drop the class"
        )
    take = min(max(round(share * len(members)), 1), len(members) - 1)
    return members[stream.permutation(len(members))[:take]]
