"""One-way chains of triggers: each image is the hash of the one before (Zhu et al. 2020)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from earmark.core import Images
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint

__all__ = ["HashChain", "is_chain", "next_image"]

LINK = b"earmark/hash-chain/1"


def next_image(image: Tensor) -> Tensor:
    """H(x), uint8 of the shape of x: SHAKE-256 of a tag, the shape as three 4-byte numbers, and the pixels.

    Args:
        image: uint8 (C, H, W).
    """
    pixels = np.ascontiguousarray(image.numpy())
    sizes = b"".join(size.to_bytes(4, "big") for size in pixels.shape)
    drawn = hashlib.shake_256(LINK + sizes + pixels.tobytes()).digest(pixels.size)
    return torch.frombuffer(bytearray(drawn), dtype=torch.uint8).reshape(image.shape)


def is_chain(images: Tensor) -> bool:
    """Whether each image is the hash of the one before: anyone can tell, without a key.

    A forger who has chosen images, to be answered as he likes, would have to find one whose hash is a chosen image,
    a preimage of SHAKE-256; one who takes a chain as it comes has no say in any image but the first.

    Args:
        images: uint8 (n, C, H, W).
    """
    return all(torch.equal(next_image(first), second) for first, second in pairwise(images))


@final
@dataclass(frozen=True)
class HashChain(TriggerMint):
    """x_0 from the key and x_{i+1} = H(x_i), the trigger samples of Zhu et al. 2020 against forged ones.

    The paper assigns the labels by hash as well. Here they come from a hash of the whole chain under the owner's key,
    as those of all triggers do: with `Uniform` labels the null is exact, and who forges has to meet all at once. Every
    image is uniform noise. Not to be confused with `NoiseChain`, whose images a secret matrix turns into each other
    and whose labels follow their order.
    """

    name: ClassVar[str] = "hash-chain"

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        channels, height, width = shape
        first = bytearray(key.stream("hash-chain").read(channels * height * width))
        images = [torch.frombuffer(first, dtype=torch.uint8).reshape(shape)]
        while len(images) < self.count:
            images.append(next_image(images[-1]))
        return torch.stack(images)
