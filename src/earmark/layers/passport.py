"""The passport layer: a norm whose scale and shift come from the convolution before it and from secret tensors.

Fan et al. 2021, eq. 3 and 4: O(X) = gamma norm(X) + beta with gamma = Avg(W * P_gamma) and beta = Avg(W * P_beta). The
released model has gamma and beta themselves in the norm's place (scheme V1), or others that are trained beside them
(V2, V3: the *public* path, with the passport on the *private* one).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from earmark.layers.windows import affine
from earmark.models.modes import given

__all__ = ["PassportNorm", "Path", "Route", "expose", "on_path", "passport_norms"]

Path: TypeAlias = Literal["public", "private", "both"]


class Route:
    """Which path a protected network takes, and how many images it was given: shared by all of its passport layers."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.batch = 0


class Made:
    """What a pass computed, for the loss of the same step: taken once, and no part of a copy."""

    def __init__(self) -> None:
        self._made: Tensor | None = None
        self._version = -1

    def __deepcopy__(self, memo: object) -> Made:
        return Made()

    def keep(self, made: Tensor, weight: Tensor) -> None:
        """Keep what has a gradient to a weight and was computed as exactly as that weight is."""
        if made.requires_grad and made.dtype == weight.dtype:
            self._made, self._version = made, weight._version

    def take(self, weight: Tensor) -> Tensor | None:
        """What was kept, unless the weight has changed since."""
        made, self._made = self._made, None
        return made if self._version == weight._version else None


class PassportNorm(nn.Module):
    """A norm with two paths. On "both", a batch of B becomes 2B at the first one: B public images, then B private ones.

    Batch norm keeps statistics of each path apart, so that neither is measured with the other's.

    Args:
        norm: the network's own norm, which is the public path.
        route: the network's route.
        conv: the convolution before it.
        means: S of P_gamma and of P_beta (2, groups, I / groups, height, width); None for a norm between passport
            layers, whose scale and shift both paths share.
        public: whether there is a public path; without it (V1), the norm's own scale and shift are not used.
    """

    means: Tensor | None

    def __init__(
        self, norm: nn.Module, route: Route, conv: nn.Conv2d | None, means: Tensor | None, public: bool
    ) -> None:
        super().__init__()
        self.norm, self.public, self._route, self._conv, self._made = norm, public, route, (conv,), Made()
        flat = None if means is None else means.flatten(2)  # a memory format means nothing to three dimensions
        self.register_buffer("means", flat, persistent=False)
        self.other = copy.deepcopy(norm) if public and isinstance(norm, _NormBase) else None
        for unused in (self.other,) if public else (norm,):
            for parameter in () if unused is None else unused.parameters():
                parameter.requires_grad_(False)

    def affine(self) -> Tensor:
        """The private path's gamma and beta, (2, O), with their gradient to the convolution's weight."""
        if self.means is None:
            return torch.stack([self.norm.weight, self.norm.bias])  # type: ignore[list-item]
        return affine(self._weight, self.means.view(*self.means.shape[:2], *self._weight.shape[1:]))

    def of_the_pass(self) -> Tensor:
        """The same, those that the pass before computed where the weight is what it was then.

        Their gradient is as large as the weight, and so a step computes it once for all that asks for them.
        """
        made = self._made.take(self._weight)
        return self.affine() if made is None else made

    @property
    def _weight(self) -> Tensor:
        (conv,) = self._conv
        assert conv is not None, "a layer with passports has its convolution"
        return conv.weight

    def forward(self, input: Tensor) -> Tensor:
        route = self._route
        if not self.public or route.path == "private":
            return self._private(input)
        if route.path == "public":
            return self._public(input)
        public, private = (input, input) if len(input) == route.batch else input.chunk(2)
        return torch.cat([self._public(public), self._private(private)])

    def _public(self, x: Tensor) -> Tensor:
        seen: Tensor = self.norm(x)
        return seen

    def _private(self, x: Tensor) -> Tensor:
        made = self.affine()
        if self.means is not None:
            self._made.keep(made, self._weight)
        scale, shift = made
        norm = self.norm if self.other is None else self.other
        seen: Tensor = functional_call(norm, {"weight": scale, "bias": shift}, (x,))
        return seen


def passport_norms(model: nn.Module) -> dict[str, PassportNorm]:
    """The layers of a protected network that have passports, by name, in the network's order."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, PassportNorm)}
    return {name: module for name, module in found.items() if module.means is not None}


@contextmanager
def on_path(model: nn.Module, path: Path) -> Iterator[nn.Module]:
    """Within, a protected network takes this path. A network without a public path has one only, and takes it."""
    routes = {id(m._route): m._route for m in model.modules() if isinstance(m, PassportNorm)}
    before = {key: route.path for key, route in routes.items()}
    for route in routes.values():
        route.path = path
    try:
        yield model
    finally:
        for key, route in routes.items():
            route.path = before[key]


def expose(model: nn.Module, path: Literal["public", "private"] = "public") -> nn.Module:
    """A plain copy of a protected network along one path: its own layers again, with no passport, hook or path left.

    Along the private path, and wherever there is no public one, gamma and beta are written into the norms, so that
    nothing is computed from passports when it runs.
    """
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, PassportNorm):
            plain.set_submodule(name, _exposed(module, path == "private" or not module.public))
    for module in plain.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Entry | Doubling):
                del module._forward_pre_hooks[key], module._forward_pre_hooks_with_kwargs[key]
    return plain


def _exposed(layer: PassportNorm, private: bool) -> nn.Module:
    if not private:
        return layer.norm
    norm = layer.norm if layer.other is None else layer.other
    with torch.no_grad():
        scale, shift = layer.affine()
        norm.weight.copy_(scale)  # type: ignore[operator]
        norm.bias.copy_(shift)  # type: ignore[operator]
    for parameter in norm.parameters():
        parameter.requires_grad_(True)
    return norm


class Entry:
    """A hook on a protected network that tells its route how many images come in."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def __call__(self, module: nn.Module, args: Any, named: Any) -> None:
        self._route.batch = len(given(args, named))


class Doubling:
    """A hook on the module where the paths part, for networks in which they cannot part at a norm."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def __call__(self, module: nn.Module, args: Any, named: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._route.path != "both" or len(given(args, named)) != self._route.batch:
            return None
        return tuple(map(_twice, args)), {name: _twice(one) for name, one in named.items()}


def _twice(one: Any) -> Any:
    return torch.cat([one, one]) if isinstance(one, Tensor) else one
