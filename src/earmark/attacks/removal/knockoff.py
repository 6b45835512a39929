"""Knockoffs: a fresh network learns what the stolen model answers to images of another kind.

Orekondy et al. 2019, "Knockoff Nets: stealing functionality of black-box models" (CVPR), Sections 4 and 5: images drawn
at random from a large public set ("random" strategy), the posteriors that come back, and the cross entropy to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.imitation import Imitation, asked
from earmark.core import Data, Images
from earmark.data import channels_to, drawn, resized
from earmark.errors import BadInput
from earmark.models import Reading
from earmark.training import CrossEntropy, Distillation, Term

__all__ = ["Knockoff"]


@final
@dataclass(frozen=True)
class Knockoff(Imitation):
    """Train a fresh network on another data set's images, brought to the shape that the stolen model takes.

    Nothing of the model's own task is needed, nor any label. KL(stolen || copy) is minimised, which differs from the
    paper's cross entropy to the posterior by a constant. Defaults are the released code's: SGD at 0.01 with momentum
    0.5 in batches of 64, 100 epochs, a tenth of the rate after 60. The other settings are `Imitation`'s.

    Attributes:
        data: the other data set, whose training images are the transfer set; `images` is the budget of queries.
        answers: "soft": all posteriors; "hard": the class that scores highest (the paper's "argmax").
    """

    epochs: int = 100
    milestones: tuple[int, ...] = (60,)
    batch_size: int = 64
    momentum: float = 0.5
    answers: Literal["soft", "hard"] = "soft"
    data: Data = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.answers not in ("soft", "hard"):
            raise BadInput(f"answers: expected soft or hard, got {self.answers!r}")
        super().__post_init__()

    @property
    def needs(self) -> Needs:
        """What the model answers, and images of any kind."""
        wanted: Literal["scores", "classes"] = "scores" if self.answers == "soft" else "classes"
        more = "images of any other kind"
        return Needs(weights=False, queries=wanted, more=more if self.build else f"{more}, the architecture")

    def terms(self) -> tuple[Term, ...]:
        return (CrossEntropy(),) if self.answers == "hard" else (Distillation(1.0),)

    def lessons(self, model: nn.Module, data: Data, rng: torch.Generator) -> tuple[Images, Reading | None]:
        channels, height, width = data.shape
        chosen = drawn(self.data.train, self.images, rng)
        pixels = resized(channels_to(chosen.pixels, channels), height, width)
        transfer = Images(pixels, torch.zeros(len(chosen), dtype=torch.int64), data.classes, chosen.name)
        return asked(model, transfer, hard=self.answers == "hard", own=self.build is not None)
