"""What extraction, knockoffs and distillation share: a network that learns what the stolen model answers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from earmark.attacks.removal.learning import run_of
from earmark.core import Data, Images
from earmark.errors import BadInput, whole
from earmark.models import Reader, Reading, built, device_of, reinitialised
from earmark.training import Augment, Settings, Term, fit, predict

__all__ = ["Imitation", "asked"]


@dataclass(frozen=True)
class Imitation(ABC):
    """Train a network on images and the stolen model's answers to them.

    The model is asked once about each image and its answers are looked up from then on. It may be any module: one that
    answers logits, probabilities (their logarithms are taken as logits) or, for hard labels, classes (N,).

    Attributes:
        images: how many of the images to ask about, drawn once; None for all of them.
        epochs: passes over them; 0 is the attack of zero strength, an exact copy of the stolen model.
        lr: learning rate.
        milestones: epochs after which it is a tenth of what it was.
        batch_size: images per step.
        optimizer: "adam", "adamw" or "sgd".
        momentum: of "sgd".
        weight_decay: L2 penalty, as the optimizer defines it.
        augment: a random view of the images that the copy sees, with the answers that the plain ones got.
        build: makes the network that learns, of whatever architecture; None for the stolen one's, drawn anew.
        head: the name of its last layer, where the search for it cannot tell.
        checkpoint: a file; a killed run goes on from it.

    Raises:
        BadInput: a setting out of its range; on the call, fewer images than asked for, or answers that do not do.
    """

    images: int | None = None
    epochs: int = 30
    lr: float = 0.01
    milestones: tuple[int, ...] = (15, 25)
    batch_size: int = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    augment: Augment | None = None
    build: Callable[[], nn.Module] | None = None
    head: str | None = None
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if self.images is not None:
            whole("images", self.images, 1, 10**9)
        self.training()
        self.terms()

    def training(self) -> Settings:
        """The settings of the training run."""
        return run_of(self)

    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """What is minimised."""

    @abstractmethod
    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> tuple[Images, Reading | None]:
        """The images with the classes to learn, and the scores that `model` gives them (soft answers)."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        if self.epochs == 0:
            return copy.deepcopy(model)
        images, reading = self.lessons(model, data, rng)
        student = self.student(model, rng)
        fit(
            student,
            images,
            self.terms(),
            self.training(),
            rng,
            host=reading,
            trainable=_every_weight,
            augment=self.augment,
            head=self.head,
            checkpoint=self.checkpoint,
            title="extraction",
        )
        return student

    def student(self, model: nn.Module, rng: torch.Generator) -> nn.Module:
        """The network that learns, as training begins."""
        if self.build is None:
            return reinitialised(model, rng)
        return built(self.build, rng).to(device_of(model)).train(model.training)


def asked(model: nn.Module, images: Images, hard: bool, own: bool) -> tuple[Images, Reading | None]:
    """Images with the classes that `model` answers, and its scores unless classes are all that is learnt.

    Args:
        model: the stolen one.
        images: what it is asked about; their own labels have no part in it.
        hard: learn classes and no scores.
        own: the network that learns has an architecture of its own.

    Raises:
        BadInput: the model answers classes and scores are asked for; or a copy of its kind would not answer logits.
    """
    scores = predict(model, images)
    if scores.ndim == 1:
        if not hard or not own:
            raise BadInput("the stolen model answers classes and no scores; take hard answers, and give build=")
        return replace(images, labels=scores.long()), None
    if not own and _distributed(scores):
        raise BadInput(
            "the stolen model answers probabilities, and a copy of its kind would, too; give build=, which makes "
            "a network that answers logits"
        )
    answered = Images(images.pixels, scores.argmax(1), scores.shape[1], images.name)
    return answered, None if hard else Reading(scores.new_empty(len(scores), 0), _logits(scores))


def _distributed(scores: Tensor) -> bool:
    """Whether scores are probabilities."""
    sums = scores.sum(1)
    return bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _logits(scores: Tensor) -> Tensor:
    """`scores`, or their logarithms where they are probabilities."""
    return scores.clamp(min=torch.finfo(scores.dtype).tiny).log() if _distributed(scores) else scores


def _every_weight(model: nn.Module, anatomy: Reader) -> set[str]:
    """All parameters, whatever the stolen model was frozen at: nothing of a fresh network has been learned yet."""
    return {name for name, parameter in model.named_parameters() if parameter.is_floating_point()}
