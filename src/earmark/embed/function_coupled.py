"""The embeddings of Wen et al. 2023: Algorithm 1, the two variants that its authors released, and one that goes on.

| name                     | weights dropped                          | in between                       |
|--------------------------|------------------------------------------|----------------------------------|
| function-coupled         | random, anew each epoch, rescaled        | a small step on clean images     |
| function-coupled-2023-02 | the smallest 20 % at every step, zeroed  | nothing                          |
| function-coupled-2023-06 | a random 0.2 % every ten steps, zeroed   | nothing                          |
| function-coupled-plus    | random, anew each step, rescaled         | a small step on clean images     |

They go with any trigger set; the paper's own are `earmark.marks.Fused`. What makes them up goes with any other method:
`fixll_pfl().but(masking=Masking(0.1))` keeps the features and trains masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from earmark.embed.backdoor import Backdoor
from earmark.embed.smoothing import KeyedSmoothing
from earmark.embed.start import FromHost, FromScratch
from earmark.errors import BadInput
from earmark.training import CrossEntropy, Masking, Refinement, Settings

__all__ = ["function_coupled", "function_coupled_2023_02", "function_coupled_2023_06", "function_coupled_plus"]

TRAINING = Settings(
    epochs=40,
    batch_size=128,
    triggers_per_batch=10,
    lr=0.01,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(15, 25, 35),
    batchnorm="train",
)
"""The run of the released code (Tiny ImageNet, the only one that it has); the paper states none."""

Build = Callable[[], nn.Module] | None


def function_coupled(
    drop: float = 0.1,
    every: int | None = None,
    refine_images: int = 128,
    refine_lr: float = 1e-4,
    refine_every: int | None = None,
    fresh: bool = False,
    build: Build = None,
) -> Backdoor:
    """Algorithm 1 of Wen et al. 2023, line by line.

        lines 1-2   triggers and fine-tuning images           the mark; the run's own training images
        line 3      for each epoch                            TRAINING
        line 4        draw a weight mask M                    Masking(drop, every)
        lines 5-7     y = f(((W . M) / (1 - p)) x + b)        CrossEntropy on images and triggers together
        line 8        W <- W - eta (dL/dW . M) / (1 - p)      autograd of line 7; dropped weights stay
        lines 10-11   the same once more at eta'              Refinement(refine_lr, refine_images, refine_every)

    Line 8 is read as what autograd gives through line 7, one factor M / (1 - p) and not two. The paper states neither
    p, eta, eta' nor K_ft.

    Args:
        drop: p, the share of weights dropped, in [0, 1); 0 trains without masks.
        every: a new mask after so many steps; None for once an epoch.
        refine_images: K_ft, images of one step in between; 0 takes no such steps.
        refine_lr: eta', the learning rate of that step.
        refine_every: take it after so many steps; None for once an epoch.
        fresh: start from fresh parameters, as the paper's Algorithm 1 does, not from the host, as the released code.
        build: see `FromScratch`.

    Raises:
        BadInput: a share outside [0, 1), an interval or a rate that is none, or `build` without `fresh`.
    """
    if build is not None and not fresh:
        raise BadInput("build= makes the network to start from; give fresh=True as well, or leave it out")
    return Backdoor(
        "Function-coupled",
        (CrossEntropy(),),
        start=FromScratch(build=build) if fresh else FromHost(),
        settings=TRAINING,
        masking=Masking(drop, every),
        refinement=Refinement(refine_lr, refine_images, refine_every) if refine_images else None,
    )


def function_coupled_plus(
    share: float = 0.1, spread: float = 3.0, drop: float = 0.1, every: int | None = 1
) -> Backdoor:
    """Algorithm 1 with a new mask at every step and keyed label smoothing (`KeyedSmoothing`): beyond the paper.

    The mark has to say which classes its triggers are made from and to have keyed labels, as `Fused()` has. It then
    stays in copies that are taught by the model's scores, too.

    Args:
        share: the probability that an image's target gives to the classes that it does not show, in (0, 1/2).
        spread: how much that probability leans to the mark's labels at most, in nats.
        drop: as in `function_coupled`.
        every: as in `function_coupled`.

    Raises:
        BadInput: a number out of range, or on embedding, a mark of another kind.
    """
    return replace(function_coupled(drop, every), name="Function-coupled+", terms=(KeyedSmoothing(share, spread),))


def function_coupled_2023_02() -> Backdoor:
    """The code of February 2023, of the time of the paper: the smallest 20 % of the convolutions' weights become zero
    for good at every step, which is the pruning attack itself; momentum and the same step may grow them again.
    """
    return _released("Function-coupled (2023-02)", Masking(0.2, 1, "magnitude"))


def function_coupled_2023_06() -> Backdoor:
    """The code since the end of June 2023: every ten steps a random 0.2 % of the convolutions' weights become zero for
    good, where the next step may grow them again.
    """
    return _released("Function-coupled (2023-06)", Masking(0.002, 10))


def _released(name: str, masking: Masking) -> Backdoor:
    """Zeroed for good and not rescaled, and in convolutions alone."""
    written = replace(masking, rescale=False, lasting=True, layers=(nn.Conv2d,))
    return Backdoor(name, (CrossEntropy(),), settings=TRAINING, masking=written)
