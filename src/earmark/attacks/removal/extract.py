"""Model extraction: a fresh network learns what the stolen model answers, so that no weight of it is left.

Wen et al. 2023 added it to their code after review, in three forms: soft labels (the mean squared difference of
logits), hard labels (cross entropy on the answered class), and soft labels of noisy images; SGD at 0.01 for 150 epochs,
a tenth after 40, 80 and 120.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor, nn

from earmark.attacks.needs import Needs
from earmark.core import Data, Images
from earmark.data import drawn
from earmark.errors import BadInput, number, whole
from earmark.models import Reader, Reading, built, device_of, reinitialised
from earmark.training import Augment, CrossEntropy, Distillation, LogitLoss, Settings, Term, fit, predict

__all__ = ["Extract"]


@final
@dataclass(frozen=True)
class Extract:
    """Train a fresh network on the thief's images and the stolen model's answers.

    The model is asked once about each image and its answers are looked up from then on; the images' own labels have no
    part in it. It may be any module: one that answers logits, probabilities (their logarithms are taken as logits) or,
    for hard labels, classes (N,).

    Attributes:
        answers: "soft": match all scores; "hard": learn the class that scores highest.
        loss: of soft answers: "kl": T^2 KL(softmax(stolen / T) || softmax(copy / T)); "mse": mean squared difference
            of logits, the released code's.
        temperature: T of "kl".
        noise: standard deviation of Gaussian noise added to the images once, in units of the pixel range; they are
            rounded to pixels again, since that is what can be asked. The released code has 0.1.
        images: how many of the thief's training images to ask about, drawn once; None for all of them.
        epochs: passes over them; 0 is the attack of zero strength, an exact copy of the stolen model.
        lr: learning rate.
        milestones: epochs after which it is a tenth of what it was.
        batch_size: images per step.
        optimizer: "adam", "adamw" or "sgd".
        momentum: of "sgd".
        weight_decay: L2 penalty, as the optimizer defines it.
        augment: a random view of the images that the copy sees, with the answers that the plain ones got.
        build: makes the network that learns; None for the stolen one's architecture, drawn anew.
        head: the name of its last layer, where the search for it cannot tell.
        checkpoint: a file; a killed run goes on from it.

    Raises:
        BadInput: a setting out of its range; on the call, fewer images than asked for, or answers that do not do.
    """

    answers: Literal["soft", "hard"] = "soft"
    loss: Literal["kl", "mse"] = "kl"
    temperature: float = 1.0
    noise: float = 0.0
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

    @property
    def needs(self) -> Needs:
        """Images, and what the model answers; its architecture, too, unless the copy has one of its own."""
        asked: Literal["scores", "classes"] = "scores" if self.answers == "soft" else "classes"
        return Needs(weights=False, data="images", queries=asked, more="" if self.build else "the architecture")

    def __post_init__(self) -> None:
        if self.answers not in ("soft", "hard"):
            raise BadInput(f"answers: expected soft or hard, got {self.answers!r}")
        if self.loss not in ("kl", "mse"):
            raise BadInput(f"loss: expected kl or mse, got {self.loss!r}")
        number("noise", self.noise, 0, 10)
        if self.images is not None:
            whole("images", self.images, 1, 10**9)
        self.training()
        self.term()

    def training(self) -> Settings:
        """The settings of the training run."""
        return Settings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            triggers_per_batch=0,
            lr=self.lr,
            milestones=self.milestones,
            optimizer=self.optimizer,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batchnorm="train",
        )

    def term(self) -> Term:
        """What is minimised."""
        if self.answers == "hard":
            return CrossEntropy()
        return LogitLoss() if self.loss == "mse" else Distillation(self.temperature)

    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> tuple[Images, Reading | None]:
        """The images with the classes that `model` answers, and the scores that it gives them (soft answers)."""
        images = self._noisy(drawn(data.train, self.images, rng), rng)
        scores = predict(model, images)
        if scores.ndim == 1:
            return replace(images, labels=self._classes_alone(scores)), None
        if self.build is None and _distributed(scores):
            raise BadInput(
                "the stolen model answers probabilities, and a copy of its kind would, too; give build=, which makes "
                "a network that answers logits"
            )
        answered = Images(images.pixels, scores.argmax(1), scores.shape[1], images.name)
        return answered, None if self.answers == "hard" else Reading(scores.new_empty(len(scores), 0), _logits(scores))

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        if self.epochs == 0:
            return copy.deepcopy(model)
        images, reading = self.lessons(model, data, rng)
        student = self._student(model, rng)
        fit(
            student,
            images,
            (self.term(),),
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

    def _classes_alone(self, answered: Tensor) -> Tensor:
        if self.answers == "soft" or self.build is None:
            raise BadInput("the stolen model answers classes and no scores; take hard answers, and give build=")
        return answered.long()

    def _noisy(self, images: Images, rng: torch.Generator) -> Images:
        if not self.noise:
            return images
        noise = torch.randn(images.pixels.shape, generator=rng).mul_(255 * self.noise)
        return replace(images, pixels=noise.add_(images.pixels).round_().clamp_(0, 255).to(torch.uint8))

    def _student(self, model: nn.Module, rng: torch.Generator) -> nn.Module:
        if self.build is None:
            return reinitialised(model, rng)
        return built(self.build, rng).to(device_of(model)).train(model.training)


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
