"""An autoencoder in front of the stolen model (Li & Wang 2021, Section 3.2), trained on the thief's own images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from earmark.attacks.evasion.washer import Wash, Washer
from earmark.attacks.needs import Needs
from earmark.core import Data
from earmark.data import drawn
from earmark.errors import BadInput, number, unknown_name, whole
from earmark.models import AUTOENCODERS, Autoencoder, autoencoder, built, device_of, evaluating
from earmark.training import AUTOENCODING, Checkpoint, Settings, autoencoding_run, train_autoencoder

__all__ = ["Autoencode"]

DENSE = ("mlp", "variational")


@final
@dataclass(frozen=True)
class Autoencode(Washer):
    """x -> AE(x): what an autoencoder makes of the image, which has not learned to make triggers.

    Attributes:
        family: "mlp" (the paper's), "conv", "denoising" or "variational", see `models.AUTOENCODERS`.
        bottleneck: b, the length of the code; None for the family's own.
        widths: of its hidden layers, input to code ("mlp", "variational"), or of the first convolution alone ("conv",
            "denoising"); None for the family's own. An owner has to guess them.
        images: how many of the thief's training images it learns from, drawn by the rng; None for all. The paper's
            adversary has 20,000 of 60,000, apart from the owner's.
        code: lambda_1 of eq. (2), the weight of the code's penalty.
        epochs: of its training by Adam, the rate divided by 10 after three quarters; None for 12, or as many as make
            4,800 steps, which is what 12 are on the 40,000 images of the paper's shadows.
        batch_size, lr: of its training.
        checkpoint: a training that was killed goes on from there.

    Raises:
        BadInput: an unknown family or a number out of range; when called, images that it cannot be trained on.
        Diverged: when called, it collapsed, or its loss stopped being finite.
    """

    family: str = "mlp"
    bottleneck: int | None = None
    widths: tuple[int, ...] | None = None
    images: int | None = None
    code: float = 1e-3
    epochs: int | None = None
    batch_size: int = AUTOENCODING.batch_size
    lr: float = AUTOENCODING.lr
    checkpoint: Checkpoint | Path | None = field(default=None, compare=False)
    needs: ClassVar[Needs] = Needs(weights=False, data="images", queries="classes")

    def __post_init__(self) -> None:
        if str(self.family) not in AUTOENCODERS:
            raise unknown_name("autoencoder", str(self.family), AUTOENCODERS)
        for name in ("bottleneck", "images"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), low=1)
        self._shaped()
        number("code", self.code, 0, 1e6)
        number("lr", self.lr, 0, 1e3)
        whole("batch_size", self.batch_size, low=1)
        if self.epochs is not None:
            whole("epochs", self.epochs, low=1)
        self.training(1)

    def training(self, count: int) -> Settings:
        """The settings of its training on so many images."""
        return autoencoding_run(count, self.epochs, self.batch_size, self.lr)

    def trained(self, data: Data, rng: torch.Generator) -> Autoencoder:
        """The autoencoder itself, trained on `data.train`."""
        fresh = built(partial(autoencoder, self.family, data.shape, **self._shaped()), rng)
        assert isinstance(fresh, Autoencoder)
        images = drawn(data.train, None if self.images is None else min(self.images, len(data.train)), rng)
        settings = self.training(len(images))
        return train_autoencoder(
            fresh.to(settings.torch_device()), images, rng, settings, code=self.code, checkpoint=self.checkpoint
        )

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        trained = self.trained(data, rng)

        def wash(images: Tensor) -> Tensor:
            with evaluating(trained), torch.no_grad():
                made: Tensor = trained(images.to(device_of(trained), torch.float32)).images
            return made.to(images.device, images.dtype)

        return wash

    def _shaped(self) -> dict[str, Any]:
        """What the family is asked to be built with."""
        own: dict[str, Any] = {} if self.bottleneck is None else {"bottleneck": self.bottleneck}
        if self.widths is None:
            return own
        for width in self.widths:
            whole("widths", width, low=1)
        if self.family in DENSE:
            return {**own, "widths": self.widths}
        if len(self.widths) != 1:
            raise BadInput(f"widths: {self.family} has one, of its first convolution; got {self.widths}")
        return {**own, "width": self.widths[0]}
