"""The soft nearest neighbour loss, by which marks are entangled with what a model has to know (Jia et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from earmark.errors import BadInput, number
from earmark.models import device_of, dtype_of
from earmark.training.terms import Step

__all__ = ["Entanglement", "Temperatures", "layers_watched", "soft_nearest_neighbour", "squared_distances"]

LEARNT = "entanglement_log_temperatures"
"""What the parameter is called by which a model's temperatures are learnt, while they are."""


def squared_distances(points: Tensor) -> Tensor:
    """||x_i - x_j||_2^2 of all pairs, (n, n), for points (n, d)."""
    centred = points - points.mean(0).detach()
    norms = centred.square().sum(1)
    return (norms[:, None] + norms - 2 * centred @ centred.T).clamp_min(0)


def soft_nearest_neighbour(
    distances: Tensor, labels: Tensor, temperature: Tensor | float, among: Tensor | None = None
) -> Tensor:
    """-mean_i log(sum_{j != i, y_j = y_i} e^(-d_ij / T) / sum_{k != i} e^(-d_ik / T)) (Frosst et al. 2019, eq. 1).

    Large where points have near neighbours of the other labels: entangled. A point without another one of its label has
    no part in it, and without any such pair the loss is 0.

    Args:
        distances: d, squared, (n, n).
        labels: y, (n,).
        temperature: T, above 0.
        among: (n,), so that only points with equal entries are neighbours of each other; None for all of them.
    """
    near = -distances / temperature
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    if among is not None:
        others = others & (among[:, None] == among)
    alike = others & (labels[:, None] == labels)
    some = alike.any(1)
    same, every = (near[some].masked_fill(~mask[some], -math.inf).logsumexp(1) for mask in (alike, others))
    return (every - same).sum() / max(1, len(same))


@contextmanager
def layers_watched(model: nn.Module, names: tuple[str, ...]) -> Iterator[Mapping[str, Tensor]]:
    """Within, the mapping holds what these layers of `model` gave out last, by name.

    Raises:
        BadInput: a name that no layer has.
    """
    seen: dict[str, Tensor] = {}
    hooks = []
    for name in names:
        layer = dict(model.named_modules()).get(name)
        if layer is None:
            raise BadInput(f"no layer is called {name!r}; take a name of model.named_modules()")

        def note(_: nn.Module, args: tuple[object, ...], output: Tensor, name: str = name) -> None:
            seen[name] = output

        hooks.append(layer.register_forward_hook(note))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@final
@dataclass(frozen=True)
class Temperatures:
    """A temperature for each layer of `Entanglement`, a parameter of the model while it is trained and gone afterwards.

    Attributes:
        count: how many layers there are.
        start: the temperature to begin with, in means of the squared distances of a batch.

    Raises:
        BadInput: a start that is no number above 0.
    """

    count: int = 1
    start: float = 1.0

    def __post_init__(self) -> None:
        if not number("temperature", self.start, 0, 1e6) > 0:
            raise BadInput(f"temperature: expected a number above 0, got {self.start}")

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Within, `model` has the parameter."""
        first = torch.full((self.count,), math.log(self.start), dtype=dtype_of(model), device=device_of(model))
        model.register_parameter(LEARNT, nn.Parameter(first))
        try:
            yield model
        finally:
            delattr(model, LEARNT)


@final
@dataclass(frozen=True)
class Entanglement:
    """-sum_l SNNL_l(T_l): to minimise it is to entangle triggers with the images of the class that they are taught as.

    Jia et al. 2021: L = L_CE - kappa sum_l SNNL([X_w, X_cT], Y', T_l), where Y' tells triggers X_w from
    training images X_cT of their target class, and kappa is the weight. Neighbours of a trigger or an image are those
    of the batch with the same target, so that any number of target classes goes. Where triggers and images lie among
    each other, a copy that learns the one class from the model's answers learns the mark with it.

    T_l is learnt: it descends on SNNL as the model's layers ascend on it (Frosst et al. 2019, eq. 2, have the least
    loss over all T). As features differ much in size from net to net, T_l counts in means of the squared distances of
    the batch, which take no gradient. Without a learnt parameter (`Temperatures`) it is 1.

    Attributes:
        layers: the names of the layers; with none, the penultimate feature.
        weight: kappa. The paper's is for a sum over the batch of cross entropies, this one for their mean.
    """

    layers: tuple[str, ...] = ()
    weight: float = 1.0
    needs_host = False
    needs_triggers = True
    needs_labels = True
    name = "entanglement"

    def __post_init__(self) -> None:
        number("weight of the entanglement", self.weight, 0, 1e9)

    def __call__(self, step: Step) -> Tensor:
        targets, rows = step.targets, torch.arange(len(step.targets), device=step.targets.device)
        kept = torch.isin(targets, targets[step.clean :])
        outputs = [step.activations[name] for name in self.layers] if self.layers else [step.features]
        learnt = step.model._parameters.get(LEARNT)
        values = []
        for at, output in enumerate(outputs):
            distances = squared_distances(output.flatten(1).float()[kept])
            unit = distances.detach().mean().clamp_min(1e-12)
            temperature = unit if learnt is None else unit * _against(learnt[at].float()).exp()
            values.append(soft_nearest_neighbour(distances, rows[kept] < step.clean, temperature, targets[kept]))
        return -torch.stack(values).sum()


def _against(value: Tensor) -> Tensor:
    """`value`, with its gradient turned round."""
    return 2 * value.detach() - value
