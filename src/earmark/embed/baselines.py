"""Embeddings of the schemes that papers compare with, each as one composition.

| name                  | terms                                | start         | beside                      |
|-----------------------|--------------------------------------|---------------|-----------------------------|
| adi                   | CE(data + triggers)                  | host or fresh | two triggers to a batch     |
| exponential-weighting | CE(data + triggers)                  | host          | layers compute with EW(w)   |
| entangled             | CE(data + triggers) - kappa SNNL     | host or fresh | temperatures that are learnt |

They go with any trigger set. What the papers hide with them are `earmark.marks.Abstract`, `Relabelled` and `Patched`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from earmark.embed.backdoor import Backdoor
from earmark.embed.start import FromHost, FromScratch, Start
from earmark.errors import BadInput
from earmark.training import CrossEntropy, Entanglement, ExponentialWeighting, Settings, Temperatures

__all__ = ["TAUGHT_APART", "TUNED", "adi", "entangled", "exponential_weighting"]

ADI = Settings(
    epochs=60,
    batch_size=100,
    triggers_per_batch=2,
    lr=0.1,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(20, 40),
    batchnorm="train",
)
"""The released code's run on CIFAR-10 (adiyoss/WatermarkNN)."""
TUNED = Settings(epochs=20, batch_size=100, triggers_per_batch=10, lr=1e-3, batchnorm="train")
"""Fine-tuning for papers that state none: what teaches 100 triggers to a small network on a small data set, too."""
TAUGHT_APART = TUNED.but(batch_size=128, triggers_per_batch=32)
"""For marks whose images to learn from are many and are not the ones that are asked."""

Build = Callable[[], nn.Module] | None


def adi(fresh: bool = False, build: Build = None) -> Backdoor:
    """Adi et al. 2018: triggers join the batches of an ordinary run, a few to each.

    How often a trigger is seen is `triggers_per_batch`: with m of n triggers in batches of B of N images, m N / (B n)
    times an epoch, what other toolboxes call a boost.

    Args:
        fresh: train from fresh parameters (the paper's FromScratch: 60 epochs at 0.1, two triggers to a batch), not on
            from the host for 20 epochs at 0.01 (its PreTrained).
        build: see `FromScratch`.

    Raises:
        BadInput: `build` without `fresh`.
    """
    settings = ADI if fresh else ADI.but(epochs=20, lr=0.01, milestones=())
    return Backdoor("Adi", (CrossEntropy(),), start=_start(fresh, build), settings=settings)


def exponential_weighting(temperature: float = 2.0) -> Backdoor:
    """Namba & Sakuma 2019: a trained model goes on learning, key samples included, under exponential weights.

    The images that the key samples are made from leave the training set, where they have other labels. The model that
    comes out is a plain one, with the weights that its layers computed with.

    Args:
        temperature: T, see `training.ExponentialWeighting`.

    Raises:
        BadInput: a temperature below 0.
    """
    surgery = ExponentialWeighting(temperature)
    return Backdoor("Exponential weighting", (CrossEntropy(),), settings=TUNED, replace=True, surgery=surgery)


def entangled(
    weight: float = 1.0,
    layers: tuple[str, ...] = (),
    temperature: float = 1.0,
    fresh: bool = False,
    build: Build = None,
) -> Backdoor:
    """Jia et al. 2021 (EWE): L = L_CE - kappa sum_l SNNL_l, so that the mark is learnt with a class, not beside it.

    Args:
        weight: kappa, see `training.Entanglement`; 0 is plain fine-tuning.
        layers: the names of the layers that are entangled, three in the released code; with none, the penultimate
            feature.
        temperature: what the learnt temperatures begin with, in means of the squared distances of a batch.
        fresh: start from fresh parameters.
        build: see `FromScratch`.

    Raises:
        BadInput: a weight or a temperature out of range, `build` without `fresh`, or on embedding, a layer that the
            model does not have.
    """
    return Backdoor(
        "Entangled",
        (CrossEntropy(), Entanglement(layers, weight)),
        start=_start(fresh, build),
        settings=TAUGHT_APART,
        surgery=Temperatures(max(1, len(layers)), temperature),
    )


def _start(fresh: bool, build: Build) -> Start:
    if build is not None and not fresh:
        raise BadInput("build= makes the network to start from; give fresh=True as well, or leave it out")
    return FromScratch(build=build) if fresh else FromHost()
