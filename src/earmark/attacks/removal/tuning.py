"""What attacks that train on share: training that goes on from the stolen model, in one trial or in several."""

from __future__ import annotations

import copy
import glob
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.learning import run_of
from earmark.attacks.removal.surgery import head_of
from earmark.core import Data, Images
from earmark.data import drawn
from earmark.errors import BadInput, whole
from earmark.models import reinitialised
from earmark.training import Augment, CrossEntropy, Settings, Term, all_layers, answers, fit, head_only

__all__ = ["OwnTask", "Tuning", "ahead", "saved_trials"]

_LAYERS = {"all": all_layers, "last": head_only}


@dataclass(frozen=True)
class Tuning(ABC):
    """Minimise `terms` from where the stolen model stands, on images that `lessons` names.

    A trial is a training run of `epochs`. Each goes on with the model that the one before it left, on the same images
    and with a new optimizer (Wen et al. 2023, Section 5.2, ten trials in a row; released code).

    Attributes:
        layers: "all", or the "last" one alone, the linear layer that makes the logits.
        fresh_head: the last layer starts from a new random draw ("re-train" instead of "fine-tune").
        epochs: passes over the images in each trial; 0 is the attack of zero strength, an exact copy, head included.
        lr: learning rate; by default where the host's training ended.
        milestones: epochs of a trial after which the rate is divided by 10.
        batch_size: images per step.
        optimizer: "adam", "adamw" or "sgd".
        momentum: of "sgd".
        weight_decay: L2 penalty, as the optimizer defines it.
        batchnorm: "train" goes on collecting statistics, "frozen" leaves batch norm as it is.
        augment: a random view of the training images.
        images: how many of the thief's training images, drawn once for all trials; None for all of them.
        trials: training runs in a row.
        head: the name of the last layer, where the search for it cannot tell.
        checkpoint: a file; a killed attack goes on from it (and, in trial k > 1, from the one named `checkpoint`.k).

    Raises:
        BadInput: a setting out of its range; on the call, fewer images than are asked for.
    """

    layers: Literal["all", "last"] = "all"
    fresh_head: bool = False
    epochs: int = 5
    lr: float = 1e-4
    milestones: tuple[int, ...] = ()
    batch_size: int = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    batchnorm: Literal["train", "frozen"] = "train"
    augment: Augment | None = None
    images: int | None = None
    trials: int = 1
    head: str | None = None
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if self.layers not in _LAYERS:
            raise BadInput(f"layers: expected all or last, got {self.layers!r}")
        whole("trials", self.trials, 1)
        if self.images is not None:
            whole("images", self.images, 1, 10**9)
        self.training()

    def training(self) -> Settings:
        """The settings of one trial."""
        return run_of(self, self.batchnorm)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        return deque(self.stages(model, data, rng), maxlen=1).pop()

    def stages(self, model: nn.Module, data: Data, rng: torch.Generator) -> Iterator[nn.Module]:
        """A copy of the model after each trial, the first to the last, which is what the call returns.

        The stolen model is not among them. Trials draw from `rng` as they go, so leave it alone until the last stage.
        """
        tuned = self.prepared(copy.deepcopy(model), data, rng)
        if self.epochs == 0:
            yield from (copy.deepcopy(tuned) for _ in range(self.trials))
            return
        images = self.lessons(model, data, rng)
        if self.fresh_head:
            _renew_head(tuned, head_of(tuned, data, self.head), images.classes, rng)
        for trial in range(1, self.trials + 1):
            self._train(tuned, images, rng, trial)
            yield copy.deepcopy(tuned)

    @abstractmethod
    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> Images:
        """The labelled images that every trial trains on."""

    def prepared(self, tuned: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        """A copy of the stolen model as training begins: as it is, unless overridden. `lessons` draws after it."""
        return tuned

    def terms(self, images: Images) -> tuple[Term, ...]:
        """What is minimised: the cross entropy, unless overridden."""
        return (CrossEntropy(),)

    def _train(self, tuned: nn.Module, images: Images, rng: torch.Generator, trial: int) -> None:
        fit(
            tuned,
            images,
            self.terms(images),
            self.training(),
            rng,
            trainable=_LAYERS[self.layers],
            augment=self.augment,
            head=self.head,
            checkpoint=None if self.checkpoint is None else _of_trial(self.checkpoint, trial),
            title="fine-tuning" if self.trials == 1 else f"fine-tuning, {trial} of {self.trials}",
        )


@dataclass(frozen=True)
class OwnTask(Tuning):
    """Training that goes on with images of the model's own task.

    Attributes:
        labels: the data's "true" labels, or the stolen model's own answers ("model"), for a thief without labels.
    """

    labels: Literal["true", "model"] = "true"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels not in ("true", "model"):
            raise BadInput(f"labels: expected true or model, got {self.labels!r}")

    @property
    def needs(self) -> Needs:
        """The weights, and images with labels unless the model gives them."""
        return Needs(weights=True, data="labelled images" if self.labels == "true" else "images")

    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> Images:
        images = drawn(data.train, self.images, rng)
        return images if self.labels == "true" else replace(images, labels=answers(model, images))


def ahead(rng: torch.Generator) -> torch.Generator:
    """A generator in the same state: it tells what the given one is going to draw, which has drawn nothing then."""
    return torch.Generator().set_state(rng.get_state())


def _renew_head(model: nn.Module, head: nn.Linear, classes: int, rng: torch.Generator) -> None:
    """Draw the last layer anew, in place, with as many classes as the images have."""
    if head.out_features != classes:
        wider = nn.Linear(head.in_features, classes, head.bias is not None, head.weight.device, head.weight.dtype)
        model.set_submodule(next(name for name, module in model.named_modules() if module is head), wider)
        head = wider
    head.load_state_dict(reinitialised(head, rng).state_dict())


def _of_trial(checkpoint: Path, trial: int) -> Path:
    return checkpoint if trial == 1 else checkpoint.with_name(f"{checkpoint.name}.{trial}")


def saved_trials(checkpoint: Path) -> list[Path]:
    """The files that an attack with this `checkpoint` has left, one for each trial that was begun."""
    later = checkpoint.parent.glob(f"{glob.escape(checkpoint.name)}.[1-9]*")
    return [file for file in (checkpoint, *later) if file.exists()]
