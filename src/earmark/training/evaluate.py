"""Whole sets of images through a model: batched, in eval mode, without gradient, the mode restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from earmark.core import Images
from earmark.errors import BadInput
from earmark.models import Reader, Reading, as_input, device_of, evaluating, logits_of

__all__ = ["accuracy", "answers", "predict", "read_all", "readings"]


def predict(model: nn.Module, images: Images, batch_size: int = 256) -> Tensor:
    """Logits (N, K) for all images, float32 on the CPU."""
    with evaluating(model), torch.no_grad():
        parts = [
            logits_of(model(as_input(batch, model))).float().cpu()
            for batch, _ in images.batches(batch_size, device_of(model))
        ]
    if not parts:
        raise BadInput(f"{images.name} holds no image; give at least one")
    return torch.cat(parts)


def readings(model: nn.Module, anatomy: Reader, images: Images, batch_size: int = 256) -> Iterator[Reading]:
    """Penultimate features (b, d) and logits (b, K) of one batch after the other, float32 on the CPU.

    Nothing is kept, so that sums over any number of images take the memory of one batch; between two batches the model
    is in its own mode.
    """
    if not len(images):
        raise BadInput(f"{images.name} holds no image; give at least one")
    for batch, _ in images.batches(batch_size, device_of(model)):
        with evaluating(model), torch.no_grad():
            features, logits = anatomy.read(model, as_input(batch, model))
        yield Reading(features.float().cpu(), logits.float().cpu())


def read_all(model: nn.Module, anatomy: Reader, images: Images, batch_size: int = 256) -> Reading:
    """Penultimate features (N, d) and logits (N, K) for all images, float32 on the CPU: 4 N (d + K) bytes."""
    parts = readings(model, anatomy, images, batch_size)
    first = next(parts)
    whole = Reading(*(tensor.new_empty(len(images), *tensor.shape[1:]) for tensor in first))
    at = 0
    for part in chain([first], parts):
        for column, rows in zip(whole, part, strict=True):
            column[at : at + len(rows)] = rows
        at += len(part.logits)
    return whole


def answers(model: nn.Module, images: Images, batch_size: int = 256) -> Tensor:
    """The class (N,) that the model answers for each image."""
    return predict(model, images, batch_size).argmax(dim=1)


def accuracy(model: nn.Module, images: Images, batch_size: int = 256) -> float:
    """Share of images answered with their label, in [0, 1]."""
    return float((answers(model, images, batch_size) == images.labels).double().mean())
