"""Distillation: a network learns the stolen model's softened answers, and the labels beside them if the thief has any.

Hinton et al. 2015, "Distilling the knowledge in a neural network", Section 2.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.imitation import Imitation, asked
from earmark.core import Data, Images
from earmark.data import drawn
from earmark.errors import BadInput, number
from earmark.models import Reading
from earmark.training import CrossEntropy, Distillation, Term

__all__ = ["Distil"]


@final
@dataclass(frozen=True)
class Distil(Imitation):
    """Minimise alpha T^2 KL(softmax(stolen / T) || softmax(copy / T)) + (1 - alpha) CE(copy, label).

    T = 3 and alpha = 1 are the settings of Lukas et al. 2022. The other settings are `Imitation`'s.

    Attributes:
        temperature: T.
        alpha: how much the answers count against the labels.
        start: "fresh": new parameters; "stolen": the stolen ones, which the answers hold where they are, so that the
            labels (alpha below 1) decide what goes.

    Raises:
        BadInput: as `Imitation`; an alpha outside 0 to 1, or a network of its own that starts as the stolen one.
    """

    temperature: float = 3.0
    alpha: float = 1.0
    start: Literal["fresh", "stolen"] = "fresh"

    def __post_init__(self) -> None:
        number("alpha", self.alpha, 0, 1)
        if self.start not in ("fresh", "stolen"):
            raise BadInput(f"start: expected fresh or stolen, got {self.start!r}")
        if self.start == "stolen" and self.build is not None:
            raise BadInput("start: a network that build= makes starts fresh; leave one of the two out")
        super().__post_init__()

    @property
    def needs(self) -> Needs:
        """Images, with labels where these count, and the model's scores, or its weights to start from."""
        more = "" if self.build or self.start == "stolen" else "the architecture"
        return Needs(self.start == "stolen", "images" if self.alpha == 1 else "labelled images", "scores", more)

    def terms(self) -> tuple[Term, ...]:
        answers = Distillation(self.temperature, weight=self.alpha)
        return (answers,) if self.alpha == 1 else (answers, CrossEntropy(weight=1 - self.alpha))

    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> tuple[Images, Reading | None]:
        images = drawn(data.train, self.images, rng)
        _, reading = asked(model, images, hard=False, own=self.build is not None)
        return images, reading

    def student(self, model: nn.Module, rng: torch.Generator) -> nn.Module:
        return copy.deepcopy(model) if self.start == "stolen" else super().student(model, rng)
