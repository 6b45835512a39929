"""Dense layers of K networks at once, on a CPU one member after the other while its weights are in the cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "FOLLOWS",
    "Dense",
    "FrozenChain",
    "StackedLinear",
    "StackedSequential",
    "as_one",
    "of_each",
    "with_stacked_layers",
]

ONEDNN = torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
    hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
)
"""Whether PyTorch was built with oneDNN's products; no public function reaches them. Without them all is `baddbmm`."""
CPUINFO = Path("/proc/cpuinfo")
INTEL = bool(torch.backends.mkl.is_available()) and (  # type: ignore[no-untyped-call]
    CPUINFO.exists() and "GenuineIntel" in CPUINFO.read_text()
)
"""Whether PyTorch's products are MKL's on its maker's processors: one for all members is then the fastest."""
SMALL = 2**14
"""From so many weights on, oneDNN's product is faster than the call of it is long."""

FOLLOWS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda rows: rows,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Dense(NamedTuple):
    """A layer of all members: W (K, b, a), bias (K, b) or None, and what follows: "none", "tanh" or "sigmoid"."""

    weight: Tensor
    bias: Tensor | None
    then: str = "none"


class Own(NamedTuple):
    """A layer, one member's or all: W (.., b, a), W^T (.., a, b), each as it is fastest, the bias, what follows."""

    weight: Tensor
    turned: Tensor
    bias: Tensor | None
    then: str


class StackedLinear(nn.Linear):
    """x W_k^T + b_k for every member k: (N, a), or (K, N, a) with rows of its own for each, to (K, N, b)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return _chain(inputs, [Dense(self.weight, self.bias)])


class StackedSequential(nn.Sequential):
    """Linear layers and Tanh of K members one after the other: (N, a) or (K, N, a) to (K, N, b)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return _chain(inputs, self.dense())

    def dense(self) -> list[Dense]:
        """Its layers, and those of what is in it."""
        layers: list[Dense] = []
        for layer in self:
            if isinstance(layer, StackedSequential):
                layers += layer.dense()
            elif isinstance(layer, nn.Linear):
                layers.append(Dense(layer.weight, layer.bias))
            else:
                layers[-1] = layers[-1]._replace(then="tanh")
        return layers


class FrozenChain:
    """Such layers with the weights that they have now, in the order in which products are fastest, there and back.

    Args:
        layers: with weights of their own for every member; copied.
    """

    def __init__(self, layers: Sequence[Dense]) -> None:
        own = _members(layers) if _by_member(layers[0].weight) and not INTEL else []
        self._members = [[_packed(layer) for layer in each] for each in own]
        self._layers = [] if own else [_both_ways(layer) for layer in layers]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(N, a) or (K, N, a) to (K, N, b)."""
        made: Tensor
        if self._layers:
            made = _Frozen.apply(inputs.expand(len(self._layers[0].weight), -1, -1), self._layers)  # type: ignore[no-untyped-call]
        else:
            made = _Chain.apply(inputs, self._members)  # type: ignore[no-untyped-call]
        return made


def as_one(layer: Dense) -> Dense:
    """The same rows through all members' layers are one product with a wide one: W (1, K b, a), bias (1, K b)."""
    bias = None if layer.bias is None else layer.bias.flatten()[None]
    return Dense(layer.weight.flatten(0, 1)[None], bias, layer.then)


def of_each(made: Tensor, count: int) -> Tensor:
    """What the wide layer makes (1, N, K b), by member: (K, N, b)."""
    return made[0].view(made.shape[1], count, -1).transpose(0, 1).contiguous()


def with_stacked_layers(network: nn.Module) -> nn.Module:
    """A copy of a network with these layers for its own, under the same names; they want stacked weights."""
    made = copy.deepcopy(network)
    for name, layer in list(made.named_children()):
        setattr(made, name, _replaced(layer))
    return made


def _replaced(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Sequential):
        return StackedSequential(*(_replaced(child) for child in layer))
    if not isinstance(layer, nn.Linear):
        return layer
    other = StackedLinear(1, 1, layer.bias is not None, device="meta")
    other.weight, other.bias = layer.weight, layer.bias
    return other


def _chain(inputs: Tensor, layers: Sequence[Dense]) -> Tensor:
    if not layers:
        return inputs
    if _by_member(inputs):
        if inputs.ndim == 2 and len(layers[0].weight) > 1:
            return _chain(of_each(_chain(inputs, [as_one(layers[0])]), len(layers[0].weight)), layers[1:])
        flat = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        made: Tensor = _Chain.apply(inputs, _members(layers), *flat)  # type: ignore[no-untyped-call]
        return made
    rows = inputs.expand(len(layers[0].weight), -1, -1)
    for weight, bias, then in layers:
        rows = rows @ weight.mT if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
        rows = FOLLOWS[then](rows)
    return rows


def _by_member(tensor: Tensor) -> bool:
    return ONEDNN and tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _members(layers: Sequence[Dense]) -> list[list[Own]]:
    """The layers of each member, detached views of the stacked ones."""
    apart = []
    for weight, bias, then in layers:
        weights = weight.detach().unbind()
        biases = [None] * len(weights) if bias is None else bias.detach().unbind()
        apart.append([Own(w, w.t(), b, then) for w, b in zip(weights, biases, strict=True)])
    return [list(own) for own in zip(*apart, strict=True)]


def _both_ways(layer: Dense) -> Own:
    weight, bias = layer.weight.detach().clone(), _copy(layer.bias)
    return Own(weight, weight.mT.contiguous(), None if bias is None else bias[:, None], layer.then)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _packed(layer: Own) -> Own:
    weight, bias = layer.weight, _copy(layer.bias)
    if weight.numel() < SMALL:
        weight = weight.clone()
        return Own(weight, weight.t(), bias, layer.then)
    there, back = (torch.ops.mkldnn._reorder_linear_weight(w.contiguous()) for w in (weight, layer.turned))
    return Own(there, back, bias, layer.then)


class _Frozen(torch.autograd.Function):
    """All members' layers by one product each, with no gradient but that of the rows (K, N, a)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layers: Sequence[Own]) -> Tensor:
        made: list[Tensor] = []
        for _, turned, bias, then in layers:
            rows = rows @ turned if bias is None else torch.baddbmm(bias, rows, turned)
            made.append(rows := FOLLOWS[then](rows))
        ctx.layers = layers
        ctx.save_for_backward(*made)
        return rows

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        for layer, made in zip(reversed(ctx.layers), reversed(ctx.saved_tensors), strict=True):
            slope = _back_through(layer.then, slope, made) @ layer.weight
        return slope, None


class _Chain(torch.autograd.Function):
    """The same, member by member, with oneDNN's products.

    PyTorch's own matrix products are MKL's, which use half of the vector width on processors that are not Intel's. On
    Intel's they gain where weights can be turned beforehand, and nothing where they learn.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, members: Sequence[Sequence[Own]], *flat: Tensor | None) -> Tensor:
        made: list[Tensor] = []
        for layers, given in zip(members, _rows(inputs, len(members)), strict=True):
            rows = given
            for layer in layers:
                rows = _product(rows, layer.weight, layer.bias, layer.then)
                made.append(rows)
        ctx.members = members
        ctx.save_for_backward(inputs, *made, *flat)
        deep = len(members[0])
        return _joined(made[deep - 1 :: deep])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *made = ctx.saved_tensors
        to_inputs, learns = ctx.needs_input_grad[0], ctx.needs_input_grad[2:]
        deep = len(ctx.members[0])
        lowest = 0 if to_inputs else learns.index(True) // 2
        found: list[list[Tensor]] = [[] for _ in learns]
        back: list[Tensor] = []
        for at, (layers, rows) in enumerate(zip(ctx.members, _rows(inputs, len(ctx.members)), strict=True)):
            seen, slope = [rows, *made[at * deep : (at + 1) * deep]], gradient[at]
            for level in reversed(range(lowest, deep)):
                slope = _back_through(layers[level].then, slope, seen[level + 1])
                weight, bias = learns[2 * level : 2 * level + 2] or (False, False)
                if weight:
                    found[2 * level].append(_product(slope.t(), seen[level].t()))
                if bias:
                    found[2 * level + 1].append(slope.sum(0))
                if level > lowest or to_inputs:
                    slope = _product(slope, layers[level].turned)
            back.append(slope)
        by_rows = _joined(back) if to_inputs else None
        by_inputs = by_rows.sum(0) if by_rows is not None and inputs.ndim == 2 else by_rows
        return by_inputs, None, *(_joined(slopes) if slopes else None for slopes in found)


def _rows(inputs: Tensor, count: int) -> Sequence[Tensor]:
    """What each member sees."""
    return inputs.unbind() if inputs.ndim == 3 else [inputs] * count


def _joined(apart: Sequence[Tensor]) -> Tensor:
    """Every member's tensor in one, without a copy where there is only one."""
    return torch.stack(list(apart)) if len(apart) > 1 else apart[0][None]


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """Rows (N, a) times weight (b, a) transposed, plus a bias, and what follows."""
    if weight.numel() < SMALL:
        return FOLLOWS[then](F.linear(rows, weight, bias))
    fused: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, then, [], "")
    return fused


def _back_through(then: str, slope: Tensor, made: Tensor) -> Tensor:
    """The gradient by what came before it, from that by what it made."""
    if then == "none":
        return slope
    back = torch.ops.aten.tanh_backward if then == "tanh" else torch.ops.aten.sigmoid_backward
    before: Tensor = back(slope, made)
    return before
