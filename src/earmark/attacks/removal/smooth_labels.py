"""Fine-tuning with smoothed labels, against marks that live in confident answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from earmark.attacks.removal.tuning import OwnTask
from earmark.core import Images
from earmark.errors import number
from earmark.training import SmoothedCrossEntropy, Term

__all__ = ["SmoothLabels"]


@final
@dataclass(frozen=True)
class SmoothLabels(OwnTask):
    """Minimise the cross entropy to (1 - s) [k = y] + s / K (Szegedy et al. 2016, Section 7), all layers by default.

    Lukas et al. 2022 take s = 0.3 for five epochs. The other settings are `OwnTask`'s.

    Attributes:
        smoothing: s, the share of the probability that all K classes get alike.

    Raises:
        BadInput: a share outside 0 to 1.
    """

    smoothing: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        number("smoothing", self.smoothing, 0, 1)

    def terms(self, images: Images) -> tuple[Term, ...]:
        k = images.classes
        table = (1 - self.smoothing) * torch.eye(k) + self.smoothing / k
        return (SmoothedCrossEntropy(table),)
