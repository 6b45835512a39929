"""Fine-tuning the stolen model on the thief's data: Adi et al. 2018, Section 5.3, "FTLL, FTAL, RTLL, RTAL"."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, final

import torch
from torch import nn

from earmark.attacks.removal.surgery import head_of
from earmark.core import Data, Images
from earmark.errors import BadInput
from earmark.models import reinitialised
from earmark.training import CrossEntropy, Settings, all_layers, answers, fit, head_only
from earmark.training.settings import Augment

__all__ = ["FineTune", "ftal", "ftll", "rtal", "rtll"]

_LAYERS = {"all": all_layers, "last": head_only}


@final
@dataclass(frozen=True)
class FineTune:
    """Minimise the cross entropy on `data.train` from where the stolen model stands.

    Attributes:
        layers: "all", or the "last" one alone, the linear layer that makes the logits.
        fresh_head: the last layer starts from a new random draw ("re-train" instead of "fine-tune").
        labels: the data's "true" labels, or the stolen model's own answers ("model"), for a thief without labels.
        epochs: passes over the data; 0 is the attack of zero strength, an exact copy, its head included.
        lr: learning rate; by default where the host's training ended.
        batch_size: images per step.
        optimizer: "adam", "adamw" or "sgd" (momentum 0.9).
        batchnorm: "train" goes on collecting statistics, "frozen" leaves batch norm as it is.
        augment: a random view of the training images.
        head: the name of the last layer, where the search for it cannot tell.
        checkpoint: a file; a killed run goes on from it.

    Raises:
        BadInput: a setting out of its range.
    """

    layers: Literal["all", "last"] = "all"
    fresh_head: bool = False
    labels: Literal["true", "model"] = "true"
    epochs: int = 5
    lr: float = 1e-4
    batch_size: int = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    batchnorm: Literal["train", "frozen"] = "train"
    augment: Augment | None = None
    head: str | None = None
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if self.layers not in _LAYERS:
            raise BadInput(f"layers: expected all or last, got {self.layers!r}")
        if self.labels not in ("true", "model"):
            raise BadInput(f"labels: expected true or model, got {self.labels!r}")
        self.training()

    def training(self) -> Settings:
        """The settings of the training run."""
        return Settings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            triggers_per_batch=0,
            lr=self.lr,
            optimizer=self.optimizer,
            batchnorm=self.batchnorm,
        )

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        tuned = copy.deepcopy(model)
        if self.epochs == 0:
            return tuned
        images = self._labelled(model, data.train)
        if self.fresh_head:
            head = head_of(tuned, data, self.head)
            head.load_state_dict(reinitialised(head, rng).state_dict())
        fit(
            tuned,
            images,
            (CrossEntropy(),),
            self.training(),
            rng,
            trainable=_LAYERS[self.layers],
            augment=self.augment,
            head=self.head,
            checkpoint=self.checkpoint,
            title="fine-tuning",
        )
        return tuned

    def _labelled(self, model: nn.Module, images: Images) -> Images:
        return images if self.labels == "true" else replace(images, labels=answers(model, images))


ftll: Callable[..., FineTune] = partial(FineTune, layers="last", batchnorm="frozen")
"""Fine-Tune Last Layer: the rest of the model stays bit for bit."""

ftal: Callable[..., FineTune] = partial(FineTune, layers="all")
"""Fine-Tune All Layers."""

rtll: Callable[..., FineTune] = partial(
    FineTune, layers="last", fresh_head=True, batchnorm="frozen", epochs=10, lr=1e-3
)
"""Re-Train Last Layer: from a new draw of it, hence at the host's first learning rate; the rest stays bit for bit."""

rtal: Callable[..., FineTune] = partial(ftal, fresh_head=True, lr=1e-3)
"""Re-Train All Layers: from a new draw of the last one, hence at the host's first learning rate."""
