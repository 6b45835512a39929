"""What each step sees: training images and triggers, joined into one batch on the device.

All randomness is a function of (seed, epoch, step), so that a killed run goes on from any step as it would have gone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from earmark.core import Images
from earmark.training.settings import Augment, Settings

__all__ = ["Batch", "Feed", "generator", "mix"]


@dataclass(frozen=True, eq=False)
class Batch:
    """`clean` training images followed by triggers.

    Attributes:
        rows: which training images (clean,), and `drawn`, which triggers (m,), on the device.
        images: in [0, 1] (clean + m, C, H, W), of the type that the model computes in.
        targets: labels (clean + m,).
    """

    rows: Tensor
    drawn: Tensor
    images: Tensor
    targets: Tensor

    @property
    def clean(self) -> int:
        """How many rows are training images."""
        return len(self.rows)


class Feed:
    """The batches of one run. uint8 images stay on the device; a process of several takes every `world`-th row."""

    def __init__(
        self,
        data: Images,
        triggers: Images | None,
        settings: Settings,
        augment: Augment | None,
        seed: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._settings, self._augment, self._seed = settings, augment, seed
        self._rank, self._world = share
        self._dtype = dtype
        self._pixels, self._labels = data.pixels.to(device), data.labels.to(device)
        self._triggers = None if triggers is None or not settings.triggers_per_batch else triggers
        if self._triggers is not None:
            self._trigger_pixels = self._triggers.pixels.to(device)
            self._trigger_labels = self._triggers.labels.to(device)
        self._layout = torch.channels_last if settings.channels_last else torch.contiguous_format

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch: a whole pass, or as many as the settings allow."""
        full, rest = divmod(len(self._labels), self._settings.batch_size)
        needed = 2 if full and self._settings.batchnorm == "train" else 1  # one image alone has no batch statistics
        whole = full + (rest >= max(needed, self._world))
        return min(whole, self._settings.steps_per_epoch or whole)

    def order(self, epoch: int) -> Tensor:
        """The order (N,) in which epoch `epoch` sees the images."""
        return torch.randperm(len(self._labels), generator=generator(self._seed, epoch, -1))

    def batch(self, order: Tensor, epoch: int, step: int) -> Batch:
        """The batch of one step of an epoch with this order."""
        size, drawing = self._settings.batch_size, generator(self._seed, epoch, step)
        rows = self._mine(order[step * size : (step + 1) * size])
        pixels, targets = self._pixels.index_select(0, rows), self._labels.index_select(0, rows)
        if self._augment is not None:
            pixels = self._augment(pixels, drawing)
        if self._triggers is None:
            drawn = rows[:0]
        else:
            order = torch.randperm(len(self._triggers), generator=drawing)
            drawn = self._mine(order[: self._settings.triggers_per_batch])
            pixels = torch.cat([pixels, self._trigger_pixels.index_select(0, drawn)])
            targets = torch.cat([targets, self._trigger_labels.index_select(0, drawn)])
        images = pixels.div(255).to(self._dtype).contiguous(memory_format=self._layout)
        return Batch(rows, drawn, images, targets)

    def _mine(self, index: Tensor) -> Tensor:
        mine = index if self._world == 1 else index[self._rank :: self._world]
        return mine if mine.device == self._pixels.device else mine.to(self._pixels.device)


def mix(seed: int, epoch: int, step: int) -> int:
    """A seed for one step of a run, 56 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(b"%d/%d/%d" % (seed, epoch, step), digest_size=7).digest(), "big")


def generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """The generator of one step of a run; step -1 is the epoch's order."""
    return torch.Generator().manual_seed(mix(seed, epoch, step))
