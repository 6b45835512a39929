"""Whole sets of images through a model: batched, in eval mode, without gradient, the mode restored afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from earmark.core import Images
from earmark.errors import BadInput
from earmark.models import Anatomy, Reading, device_of, dtype_of, evaluating, logits_of

__all__ = ["accuracy", "answers", "predict", "read_all"]


def predict(model: nn.Module, images: Images, batch_size: int = 256) -> Tensor:
    """Logits (N, K) for all images, float32 on the CPU."""
    with evaluating(model), torch.no_grad():
        parts = [
            logits_of(model(batch.to(dtype_of(model)))).float().cpu()
            for batch, _ in images.batches(batch_size, device_of(model))
        ]
    if not parts:
        raise BadInput(f"{images.name} holds no image; give at least one")
    return torch.cat(parts)


def read_all(model: nn.Module, anatomy: Anatomy, images: Images, batch_size: int = 256) -> Reading:
    """Penultimate features (N, d) and logits (N, K) for all images, float32 on the CPU."""
    with evaluating(model), torch.no_grad():
        parts = [
            anatomy.read(model, batch.to(dtype_of(model))) for batch, _ in images.batches(batch_size, device_of(model))
        ]
    if not parts:
        raise BadInput(f"{images.name} holds no image; give at least one")
    return Reading(*(torch.cat([tensor.float().cpu() for tensor in column]) for column in zip(*parts, strict=True)))


def answers(model: nn.Module, images: Images, batch_size: int = 256) -> Tensor:
    """The class (N,) that the model answers for each image."""
    return predict(model, images, batch_size).argmax(dim=1)


def accuracy(model: nn.Module, images: Images, batch_size: int = 256) -> float:
    """Share of images answered with their label, in [0, 1]."""
    return float((answers(model, images, batch_size) == images.labels).double().mean())
