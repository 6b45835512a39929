"""What a washer costs the thief: one that ruins the classifier is no attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from earmark.attacks.evasion.washer import black_box
from earmark.core import Data, Evade, Images, Query
from earmark.errors import BadInput

__all__ = ["Cost", "cost", "query_accuracy"]


@final
@dataclass(frozen=True)
class Cost:
    """Shares of clean test images answered with their label: by the model alone, and with the evasion in front."""

    alone: float
    washed: float

    @property
    def points(self) -> float:
        """The percentage points of accuracy that the thief pays; below 0 where washing helps."""
        return 100 * (self.alone - self.washed)


def cost(evade: Evade, model: Query | nn.Module, data: Data, rng: torch.Generator) -> Cost:
    """Accuracy on `data.test` without and with the evasion, made from `data` and `rng`, in front of the model.

    Raises:
        BadInput: no test images.
    """
    query = black_box(model)
    return Cost(query_accuracy(query, data.test), query_accuracy(evade(query, data, rng), data.test))


def query_accuracy(query: Query, images: Images, batch_size: int = 256) -> float:
    """The share of images, in [0, 1], for which the first class of the scores, or the label that came, is the label.

    Raises:
        BadInput: no images, or another number of answers.
    """
    if not len(images):
        raise BadInput(f"{images.name} holds no image; give at least one")
    right = 0
    for batch, labels in images.batches(batch_size):
        answers = torch.as_tensor(query(batch)).cpu()
        answers = answers.argmax(1) if answers.ndim == 2 and answers.shape[1] > 1 else answers.flatten()
        if answers.shape != labels.shape:
            raise BadInput(f"the query answered {len(answers)} of {len(labels)} images; expected an answer for each")
        right += int((answers == labels).sum())
    return right / len(images)
