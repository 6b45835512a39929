"""Randomness of an evasion: a function of the image and of one key, so that asking twice tells an owner nothing more.

It depends on neither the batch nor what was asked before. After a washer that gives an image other last bits in another
batch, as networks do, it differs with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["chances", "new_key"]


def new_key(rng: torch.Generator) -> bytes:
    """Eight bytes, drawn when a washing is made."""
    return torch.randint(2**63 - 1, (1,), generator=rng).numpy().tobytes()


def chances(images: Tensor, key: bytes) -> Iterator[torch.Generator]:
    """A generator for each image, on the CPU, seeded by the keyed hash of its pixels; use it before the next."""
    generator = torch.Generator()
    for image in images.detach().float().cpu().contiguous():
        seed = hashlib.blake2b(image.numpy().tobytes(), digest_size=8, key=key).digest()
        yield generator.manual_seed(int.from_bytes(seed))
