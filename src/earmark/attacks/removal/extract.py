"""Model extraction: a fresh network learns what the stolen model answers, so that no weight of it is left.

Wen et al. 2023 added it to their code after review, in three forms: soft labels (the mean squared difference of
logits), hard labels (cross entropy on the answered class), and soft labels of noisy images; SGD at 0.01 for 150 epochs,
a tenth after 40, 80 and 120.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.imitation import Imitation, asked
from earmark.core import Data, Images
from earmark.data import drawn
from earmark.errors import BadInput, number
from earmark.models import Reading
from earmark.training import CrossEntropy, Distillation, LogitLoss, Term

__all__ = ["Extract"]


@final
@dataclass(frozen=True)
class Extract(Imitation):
    """Train a fresh network on the thief's images and the stolen model's answers; the images' own labels have no part.

    With `build`, it is extraction across architectures. The other settings are `Imitation`'s.

    Attributes:
        answers: "soft": match all scores; "hard": learn the class that scores highest.
        loss: of soft answers: "kl": T^2 KL(softmax(stolen / T) || softmax(copy / T)); "mse": mean squared difference
            of logits, the released code's.
        temperature: T of "kl".
        noise: standard deviation of Gaussian noise added to the images once, in units of the pixel range; they are
            rounded to pixels again, since that is what can be asked. The released code has 0.1.
    """

    answers: Literal["soft", "hard"] = "soft"
    loss: Literal["kl", "mse"] = "kl"
    temperature: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.answers not in ("soft", "hard"):
            raise BadInput(f"answers: expected soft or hard, got {self.answers!r}")
        if self.loss not in ("kl", "mse"):
            raise BadInput(f"loss: expected kl or mse, got {self.loss!r}")
        number("noise", self.noise, 0, 10)
        super().__post_init__()

    @property
    def needs(self) -> Needs:
        """Images, and what the model answers; its architecture, too, unless the copy has one of its own."""
        wanted: Literal["scores", "classes"] = "scores" if self.answers == "soft" else "classes"
        return Needs(weights=False, data="images", queries=wanted, more="" if self.build else "the architecture")

    def terms(self) -> tuple[Term, ...]:
        if self.answers == "hard":
            return (CrossEntropy(),)
        return (LogitLoss() if self.loss == "mse" else Distillation(self.temperature),)

    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> tuple[Images, Reading | None]:
        images = self._noisy(drawn(data.train, self.images, rng), rng)
        return asked(model, images, hard=self.answers == "hard", own=self.build is not None)

    def _noisy(self, images: Images, rng: torch.Generator) -> Images:
        if not self.noise:
            return images
        noise = torch.randn(images.pixels.shape, generator=rng).mul_(255 * self.noise)
        return replace(images, pixels=noise.add_(images.pixels).round_().clamp_(0, 255).to(torch.uint8))
