"""A module as a black box: images in, scores out, nothing of the module changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from earmark.core import Query
from earmark.errors import BadInput
from earmark.models import evaluating, logits_of

__all__ = ["as_query"]


def as_query(module: nn.Module, batch_size: int = 256) -> Query:
    """The black box that a remote API would be: images (N, C, H, W) in [0, 1] to scores (N, K) on the CPU.

    Each call runs in eval mode, without gradients, on the device and in the precision that the module has at that
    moment, `batch_size` images at a time; afterwards every submodule is back in its own mode. Scores come back as
    float32; a module that answers with labels (integers) is passed on as it is.

    Args:
        module: any classifier whose output is a tensor, an object with `.logits`, or a tuple that ends in the logits.
        batch_size: images per forward pass.

    Raises:
        BadInput: a batch size below 1; when called, images that are not (N, C, H, W), or an output without logits.
    """
    if batch_size < 1:
        raise BadInput(f"expected a batch size of at least 1, got {batch_size}")

    def query(images: Tensor) -> Tensor:
        if images.ndim != 4:
            raise BadInput(f"expected images (N, C, H, W), got shape {tuple(images.shape)}; add the batch dimension")
        device, dtype = _placement(module, images)
        with evaluating(module), torch.inference_mode():
            batches = torch.split(images, batch_size)
            answers = torch.cat([_plain(logits_of(module(batch.to(device, dtype)))) for batch in batches])
        return answers.clone()

    return query


def _placement(module: nn.Module, images: Tensor) -> tuple[torch.device, torch.dtype]:
    held: Iterator[Tensor] = chain(module.parameters(), module.buffers())
    first = next((tensor for tensor in held if tensor.is_floating_point()), images)
    return first.device, first.dtype


def _plain(answers: Tensor) -> Tensor:
    return answers.float().cpu() if answers.is_floating_point() else answers.cpu()
