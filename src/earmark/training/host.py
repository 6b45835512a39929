"""Training a host, the model that is worth marking."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from earmark.core import Data, Images
from earmark.errors import BadInput
from earmark.files import digest
from earmark.training.checkpoint import Checkpoint
from earmark.training.evaluate import accuracy
from earmark.training.loop import fit
from earmark.training.settings import Augment, Settings
from earmark.training.terms import CrossEntropy

__all__ = ["HOST", "require_every_class", "train_host"]

HOST = Settings(epochs=20, lr=1e-3, milestones=(10,), batchnorm="train", triggers_per_batch=0)
"""Adam at 1e-3, divided by 10 halfway (released code, MNIST)."""


def require_every_class(images: Images) -> None:
    """Raise `BadInput` where a class has no image to learn from."""
    empty = [k for k, n in enumerate(torch.bincount(images.labels, minlength=images.classes).tolist()) if not n]
    if empty:
        raise BadInput(f"no training image of class {', '.join(map(str, empty[:5]))}; give images of every class")


def train_host(
    model: nn.Module,
    data: Data,
    rng: torch.Generator,
    settings: Settings = HOST,
    *,
    augment: Augment | None = None,
    head: str | None = None,
    checkpoint: Checkpoint | Path | None = None,
    title: str = "host",
) -> nn.Module:
    """A trained copy of `model`: the epoch with the best accuracy on `data.test` (Hua & Teoh 2023, Section 5).

    Raises:
        BadInput: a class without training images, and as `fit`.
        Diverged: as `fit`.
    """
    require_every_class(data.train)
    if settings.batchnorm != "train":
        raise BadInput(
            "a host learns with batchnorm='train', frozen is for fine-tuning; start from training.HOST.but()"
        )
    host = copy.deepcopy(model)
    fit(
        host,
        data.train,
        (CrossEntropy(),),
        settings,
        rng,
        augment=augment,
        head=head,
        monitor=lambda m: {"val_acc": accuracy(m, data.test)},
        prefer=lambda record: record["val_acc"],
        identity=digest({"pixels": data.test.pixels, "labels": data.test.labels}),
        checkpoint=checkpoint,
        title=title,
    )
    return host
