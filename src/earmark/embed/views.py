"""What a model is taught of its triggers beside the triggers themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from earmark.core import Images
from earmark.errors import BadInput
from earmark.models import Bank, Coded, as_input, device_of, evaluating

__all__ = ["ShadowViews"]

BATCH = 64


@dataclass(frozen=True, eq=False)
class ShadowViews:
    """Each lesson as it is, and as each of K shadow autoencoders gives it back, with the same label.

    A stamp that passes an autoencoder is of use only if the classifier knows what comes out. Li & Wang 2021 teach x + T
    alone (a line of their code for AE_k(x + T) is commented out), and leave it to the stamp to look the same on both
    sides.

    Attributes:
        shadows: the trained autoencoders, those that the stamps were found on or others.

    Raises:
        BadInput: by the call, images that the shadows do not take.
    """

    shadows: Bank

    def __call__(self, lessons: Images) -> Images:
        """(K + 1) n images, uint8: the lessons, then all of them through the first shadow, and so on."""
        device, seen = device_of(self.shadows), []
        with evaluating(self.shadows), torch.no_grad():
            for batch, _ in lessons.batches(BATCH, device):
                made = Coded(*self.shadows(as_input(batch, self.shadows))).images
                if not bool(torch.isfinite(made).all()):
                    raise BadInput("a shadow autoencoder gives back numbers that are not finite; train it again")
                seen.append((made.clamp(0, 1) * 255).round().to(torch.uint8).cpu())
        views = torch.cat(seen, dim=1).flatten(0, 1)
        labels = lessons.labels.repeat(1 + len(self.shadows))
        return Images(torch.cat([lessons.pixels, views]), labels, lessons.classes, lessons.name)
