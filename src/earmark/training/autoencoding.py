"""Training autoencoders, one or a bank of them at once, and asking whether they are worth anything."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, final

import torch
from torch import Tensor

from earmark.core import Images
from earmark.errors import Diverged, unknown_name, whole
from earmark.models import (
    AUTOENCODERS,
    Autoencoder,
    Bank,
    Coded,
    Reconstruction,
    as_input,
    autoencoder,
    built,
    device_of,
    evaluating,
)
from earmark.training.checkpoint import Checkpoint
from earmark.training.loop import fit
from earmark.training.settings import Settings
from earmark.training.terms import ReconstructionLoss

__all__ = ["AUTOENCODING", "ShadowTraining", "autoencoding_run", "reconstruction_errors", "train_autoencoder"]

AUTOENCODING = Settings(epochs=12, batch_size=100, lr=1e-3, milestones=(9,), batchnorm="train", triggers_per_batch=0)
"""Adam at 1e-3. The paper states its loss (eq. 2) and no optimiser, epochs or batch."""

STEPS = 4_800
"""As many as 12 epochs are on the 40,000 images of the paper's shadows: fewer images are seen more often."""

COLLAPSED = 0.02
"""An autoencoder is said to have collapsed where its images vary by less than this share of what its input varies."""
LOOK, BATCH = 512, 32
"""Images on which that is measured, and how many at a time."""

A = TypeVar("A", Autoencoder, Bank)


def train_autoencoder(
    model: A,
    images: Images,
    rng: torch.Generator,
    settings: Settings = AUTOENCODING,
    *,
    code: float = 1e-3,
    checkpoint: Checkpoint | Path | None = None,
    title: str = "autoencoder",
) -> A:
    """A trained copy of an autoencoder, or of a bank of them, by eq. (2) of Li & Wang 2021.

    Args:
        model: the autoencoder, or a `Bank` whose members all see the same batches.
        images: what it learns to make again; labels are not looked at.
        rng: a CPU generator.
        settings: see `Settings`; the model runs in training mode throughout.
        code: lambda_1 of eq. (2).
        checkpoint: a run that was killed goes on from there.
        title: what the progress display calls the run.

    Raises:
        BadInput: images of another shape, or settings that do not fit.
        Diverged: the loss stopped being finite, or what came out is the same image for whatever is put in.
    """
    trained = copy.deepcopy(model)
    loss = ReconstructionLoss(code)
    fit(
        trained,
        images,
        (loss,),
        settings,
        rng,
        head=Reconstruction(),
        identity=repr(model),
        checkpoint=checkpoint,
        title=title,
    )
    _alive(trained, images)
    return trained


def autoencoding_run(
    images: int, epochs: int | None = None, batch_size: int = AUTOENCODING.batch_size, lr: float = AUTOENCODING.lr
) -> Settings:
    """The training of an autoencoder on so many images by Adam, the rate divided by 10 after three quarters.

    Without `epochs` it takes 12, or as many as make 4,800 steps.

    >>> autoencoding_run(40_000).epochs, autoencoding_run(1_000).epochs
    (12, 480)
    """
    steps_per_epoch = max(1, images // batch_size)
    count = max(AUTOENCODING.epochs, -(-STEPS // steps_per_epoch)) if epochs is None else epochs
    late = (3 * count // 4,) if count > 1 else ()
    return AUTOENCODING.but(epochs=count, batch_size=batch_size, lr=lr, milestones=late)


@final
@dataclass(frozen=True)
class ShadowTraining:
    """Trains the owner's shadow autoencoders when a mark is drawn (Li & Wang 2021, Section 3.2).

    Attributes:
        shadows: K; the paper has 2 to 8.
        family: "mlp" (the paper's), "conv", "denoising" or "variational", see `models.AUTOENCODERS`.
        bottleneck: b, the length of the code; the paper states none, its code has 3.
        epochs, batch_size, lr: of the training, see `autoencoding_run`.

    Raises:
        BadInput: an unknown family or a number out of range; when called, images that it cannot be trained on.
        Diverged: when called, an autoencoder collapsed, or the loss stopped being finite.
    """

    shadows: int = 8
    family: str = "mlp"
    bottleneck: int = 32
    epochs: int | None = None
    batch_size: int = AUTOENCODING.batch_size
    lr: float = AUTOENCODING.lr

    def __post_init__(self) -> None:
        if str(self.family) not in AUTOENCODERS:
            raise unknown_name("autoencoder", str(self.family), AUTOENCODERS)
        for name in ("shadows", "bottleneck", "batch_size"):
            whole(name, getattr(self, name), low=1)
        if self.epochs is not None:
            whole("epochs", self.epochs, low=1)
        autoencoding_run(1, self.epochs, self.batch_size, self.lr)

    def __call__(self, images: Images, rng: torch.Generator) -> Bank:
        """K autoencoders that have learnt to make the images again, each from a start of its own."""
        make = partial(autoencoder, self.family, images.shape, bottleneck=self.bottleneck)
        settings = autoencoding_run(len(images), self.epochs, self.batch_size, self.lr)
        fresh = Bank([built(make, rng) for _ in range(self.shadows)]).to(settings.torch_device())
        return train_autoencoder(fresh, images, rng, settings, title="shadow autoencoders")


def reconstruction_errors(model: Autoencoder | Bank, images: Images, batch_size: int = 256) -> Tensor:
    """Mean of ||x - AE(x)||_2^2 over the images, for each member: (K,) float64, (1,) for a single autoencoder."""
    sums = torch.zeros(len(model) if isinstance(model, Bank) else 1, dtype=torch.float64)
    for batch, made in _made(model, images, batch_size):
        sums += (made - batch).square().flatten(2).sum((1, 2)).double().cpu()
    return sums / len(images)


def _made(model: Autoencoder | Bank, images: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (N, C, H, W) and what each member makes of them (K, N, C, H, W)."""
    for batch, _ in images.batches(batch_size, device_of(model)):
        with evaluating(model), torch.no_grad():
            made = Coded(*model(as_input(batch, model))).images
        yield batch, made if isinstance(model, Bank) else made[None]


def _alive(model: Autoencoder | Bank, images: Images) -> None:
    """Raise `Diverged` where what comes out varies much less over the images than what goes in."""
    some, given, made = images.sample(LOOK), _Spread(), _Spread()
    for batch, come in _made(model, some, BATCH):
        given.add(batch[None])
        made.add(come)
    dead = [at for at, share in enumerate((made.total() / given.total()).tolist()) if share < COLLAPSED]
    if len(some) > 1 and dead and float(given.total()) > 0:
        which = f"members {dead} of the bank have" if isinstance(model, Bank) else "the autoencoder has"
        raise Diverged(
            f"{which} collapsed: almost the same image comes out for every image; train for longer, above all on few "
            "images, lower the learning rate or the weight of the code, or widen the bottleneck"
        )


class _Spread:
    """The sum over the pixels of their variance over images that come in batches (K, N, C, H, W)."""

    def __init__(self) -> None:
        self._count, self._sums, self._squares = 0, torch.zeros(1), torch.zeros(1)

    def add(self, images: Tensor) -> None:
        wide = images.double().cpu()
        self._count += wide.shape[1]
        self._sums = self._sums + wide.sum(1)
        self._squares = self._squares + wide.square().sum(1)

    def total(self) -> Tensor:
        """(K,) float64."""
        variance = self._squares / self._count - (self._sums / self._count).square()
        return variance.flatten(1).sum(1)
