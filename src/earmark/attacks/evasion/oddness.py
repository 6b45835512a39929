"""How odd an image is to a model: the distance of its features from those of honest images, or its energy.

Distances are those of Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples and
adversarial attacks" (NeurIPS), Section 2; energies those of Liu et al. 2020, "Energy-based out-of-distribution
detection" (NeurIPS), Section 3. The threshold is that of split conformal prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from earmark.core import Query
from earmark.errors import BadInput
from earmark.models import as_input, evaluating, logits_of

__all__ = ["Distance", "Look", "Seen", "asking", "energy", "looking_into", "threshold"]

SHRINKAGE = 0.1
"""How much of a covariance is replaced by a sphere of the same trace, so that it can be inverted."""


class Seen(NamedTuple):
    """What one look at images tells: a vector for each image from each layer, (N, d), and the model's answers."""

    features: tuple[Tensor, ...]
    answers: Tensor

    @property
    def classes(self) -> Tensor:
        """The class (N,) that was answered."""
        return self.answers.argmax(1) if self.answers.ndim == 2 else self.answers


Look: TypeAlias = Callable[[Tensor], Seen]
"""Images (N, C, H, W), float in [0, 1], to what is seen of them, on the CPU."""


def looking_into(model: nn.Module) -> Look:
    """A look at what each convolution and linear layer writes, averaged over places, in eval mode, without gradient.

    Of layers that write a row for each image. One that writes tokens first, or the same for every batch, is none of
    them, and is not taken for one where a batch happens to hold as many images as it writes rows: the first look also
    shows the model an image once and twice, and sees which layers follow.
    """
    followed: list[nn.Module] = []

    def look(images: Tensor) -> Seen:
        if not followed:
            one, two = (_written(model, _layers(model), images[:1].repeat(n, 1, 1, 1))[0] for n in (1, 2))
            followed.extend(layer for layer, rows in one.items() if (len(rows), len(two[layer])) == (1, 2))
        written, answers = _written(model, followed, images)
        features = tuple(_averaged(rows, 1 if isinstance(layer, _ConvNd) else -1) for layer, rows in written.items())
        return Seen(features, (answers.float() if answers.is_floating_point() else answers).cpu())

    return look


def _layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _ConvNd | nn.Linear)]


def _written(model: nn.Module, layers: Sequence[nn.Module], images: Tensor) -> tuple[dict[nn.Module, Tensor], Tensor]:
    """What each of some layers writes for images, in the order in which they run first, and the model's answers."""
    written: dict[nn.Module, Tensor] = {}

    def note(layer: nn.Module, _: Any, output: Tensor) -> None:
        written[layer] = output.detach()

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with evaluating(model), torch.no_grad():
            return written, logits_of(model(as_input(images, model)))
    finally:
        for hook in hooks:
            hook.remove()


def asking(query: Query) -> Look:
    """A look at answers alone."""
    return lambda images: Seen((), torch.as_tensor(query(images)).cpu())


def _averaged(output: Tensor, channel: int) -> Tensor:
    """The mean over all but the images and the channels, float64 (N, d) on the CPU."""
    wide = output.detach().movedim(channel, 1)
    return wide.flatten(2).mean(2).cpu().double() if wide.ndim > 2 else wide.cpu().double()


@final
class Distance:
    """score(x) = sum over layers of min_c (z - mu_c)^T S^-1 (z - mu_c), over its mean on the known images.

    mu_c is the mean of the known images that the model calls c, S the covariance around these means, the same for all
    classes, a tenth of it replaced by a sphere.

    Args:
        known: honest images; their labels are the model's answers.
    """

    def __init__(self, known: Seen) -> None:
        if not known.features:
            raise BadInput("distances need a model whose layers can be looked into; give the module, or score='energy'")
        self._layers = [_Gaussians.of(features, known.classes) for features in known.features]
        self._usual = [layer.nearest(z).mean() for layer, z in zip(self._layers, known.features, strict=True)]

    def __call__(self, seen: Seen) -> Tensor:
        """Scores (N,), high where an image is odd."""
        each = zip(self._layers, self._usual, seen.features, strict=True)
        return torch.stack([layer.nearest(z) / usual.clamp(min=1e-12) for layer, usual, z in each]).sum(0)


@dataclass(frozen=True, eq=False)
class _Gaussians:
    """One layer's classes: the means (K, d) after whitening, and what whitens."""

    whiten: Tensor
    means: Tensor

    @classmethod
    def of(cls, features: Tensor, classes: Tensor) -> _Gaussians:
        found, place = torch.unique(classes, return_inverse=True)
        counts = torch.bincount(place, minlength=len(found)).unsqueeze(1)
        means = torch.zeros(len(found), features.shape[1], dtype=features.dtype).index_add_(0, place, features) / counts
        centred = features - means[place]
        covariance = centred.t() @ centred / len(features)
        sphere = covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance), dtype=covariance.dtype)
        root = torch.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * sphere)
        whiten = torch.linalg.solve_triangular(root, torch.eye(len(root), dtype=root.dtype), upper=False).t()
        return cls(whiten, means @ whiten)

    def nearest(self, features: Tensor) -> Tensor:
        """The squared distance (N,) to the nearest mean."""
        return torch.cdist(features @ self.whiten, self.means).amin(1).square()


def energy(seen: Seen) -> Tensor:
    """-log sum_k exp(logit_k), (N,): high where no class is likely.

    Raises:
        BadInput: a model that answers classes.
    """
    if seen.answers.ndim != 2 or not seen.answers.is_floating_point():
        raise BadInput("energies need a model that answers scores, and this one answers classes")
    return -seen.answers.double().logsumexp(1)


def threshold(scores: Tensor, share: float) -> float:
    """What the score of another honest image, exchangeable with these, exceeds with a probability of at most `share`.

    The ceil((n + 1) (1 - share))-th smallest of n scores; infinity where there is none.

    >>> threshold(torch.arange(1.0, 10.0), 0.2), threshold(torch.arange(1.0, 10.0), 0.05)
    (8.0, inf)
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - share), 9))
    return float(scores.sort().values[max(rank, 1) - 1]) if rank <= len(scores) else math.inf
