"""Which layers write and read the same channels: found by running a network once and following what reaches what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from earmark.attacks.removal.rearrange import Consumer, answers
from earmark.layers.sites import NORMS
from earmark.models.modes import given

__all__ = ["Stream", "streams"]


@dataclass(frozen=True)
class Stream:
    """Channels that several layers have in common, such as those of a residual stream, by the layers' names.

    Attributes:
        writers: convolutions and linear layers whose outputs are these channels; several where outputs are added or
            multiplied.
        norms: what normalises the channels, one by one or in groups.
        readers: convolutions and linear layers whose inputs they are.
    """

    writers: tuple[str, ...]
    norms: tuple[str, ...]
    readers: tuple[str, ...]


def streams(model: nn.Module, images: Tensor) -> list[Stream]:
    """The streams of a network, in the order in which it writes them first.

    Every convolution and linear layer is cut off behind: what it writes starts a graph of its own, which autograd
    follows through activations, norms, sums and pooling to the layers that read it. All whose outputs reach one layer
    write one stream. One that nothing reads (logits), or with a layer that runs more than once, is left out.

    Args:
        model: any network; it is run once, in eval mode.
        images: uint8 (n, C, H, W).
    """
    mixers = {name: module for name, module in model.named_modules() if isinstance(module, Consumer)}
    norms = {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}
    written: dict[str, Tensor] = {}
    sources: dict[str, set[str]] = {}
    runs: Counter[str] = Counter()

    def reads(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, named: Any) -> None:
            runs[name] += 1
            sources[name] = _origins(given(args, named), written)

        return hook

    def writes(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            written[name] = output.detach().requires_grad_()
            return written[name].clone()

        return hook

    layers = (mixers | norms).items()
    hooks = [module.register_forward_pre_hook(reads(name), with_kwargs=True) for name, module in layers]
    hooks += [module.register_forward_hook(writes(name)) for name, module in mixers.items()]
    try:
        answers(model, images, grad=True)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for group in _joined(list(sources.values())):
        reached = [name for name, origins in sources.items() if origins & group]
        writers = tuple(name for name in written if name in group)
        readers = tuple(name for name in reached if name in mixers)
        if readers and all(runs[name] == 1 for name in (*writers, *reached)):
            found.append(Stream(writers, tuple(name for name in reached if name in norms), readers))
    order = list(written)
    return sorted(found, key=lambda stream: order.index(stream.writers[0]))


def _origins(x: Tensor, written: dict[str, Tensor]) -> set[str]:
    """The layers whose outputs reach a tensor with no other layer in between."""
    if not x.requires_grad or not written:
        return set()
    ends = list(written.values())
    slopes: tuple[Tensor | None, ...] = torch.autograd.grad(x.sum(), ends, retain_graph=True, allow_unused=True)
    return {name for name, slope in zip(written, slopes, strict=True) if slope is not None}


def _joined(sets: list[set[str]]) -> list[set[str]]:
    """The union of all sets that have members in common, directly or by others."""
    groups: list[set[str]] = []
    for some in sets:
        if some:
            touched = [group for group in groups if group & some]
            groups = [group for group in groups if not group & some] + [set.union(some, *touched)]
    return groups
