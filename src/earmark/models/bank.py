"""Several networks of one architecture as one batched product."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from earmark.errors import BadInput

__all__ = ["Bank"]


class Bank(nn.Module):
    """K networks of one architecture; every output has them as its first axis.

    The parameters are stacked, (K, ...) each, so that one optimizer trains all of them at once, each for itself: the
    sum of their losses has the gradients of every one. Random draws (noise, dropout) differ between members. It saves
    the overhead of K small networks, not their arithmetic; on a CPU, stacked convolutions take longer than a loop.

    Args:
        members: the networks, copied; what they hold beside parameters and buffers has to be the same in all.

    Raises:
        BadInput: no network, networks of different architectures, or one without parameters.

    >>> bank = Bank([nn.Linear(2, 3) for _ in range(4)])
    >>> bank(torch.zeros(5, 2)).shape
    torch.Size([4, 5, 3])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members or len({_architecture(member) for member in members}) > 1:
            raise BadInput("a bank takes one or more networks of one architecture; make one bank for each")
        self._count, self._template = len(members), (copy.deepcopy(members[0]),)  # in a tuple it is no submodule
        for name, parameter in members[0].named_parameters():
            stacked = torch.stack([member.get_parameter(name).detach() for member in members])
            self.register_parameter(_flat("parameter", name), nn.Parameter(stacked, parameter.requires_grad))
        for name, _ in members[0].named_buffers():
            self.register_buffer(_flat("buffer", name), torch.stack([member.get_buffer(name) for member in members]))
        if not list(self.parameters()):
            raise BadInput("a bank takes networks that have parameters")

    @property
    def template(self) -> nn.Module:
        """A network of their architecture, for what does not hang on parameters: its own are nobody's."""
        return self._template[0]

    def __len__(self) -> int:
        return self._count

    def forward(self, images: Tensor) -> Any:
        """Every member's output for the same images (N, ...), stacked: (K, N, ...)."""
        return self._each(images, None)

    def separately(self, images: Tensor) -> Any:
        """Each member's output for images of its own (K, N, ...), stacked: (K, N, ...)."""
        return self._each(images, 0)

    def _each(self, images: Tensor, axis: int | None) -> Any:
        template = self.template.train(self.training)

        def one(own: dict[str, Tensor], seen: Tensor) -> Any:
            return functional_call(template, own, (seen,))

        return vmap(one, in_dims=(0, axis), randomness="different")(self._state(), images)

    def members(self) -> list[nn.Module]:
        """The networks themselves, as copies."""
        state, made = self._state(), []
        for at in range(len(self)):
            member = copy.deepcopy(self.template).train(self.training)
            for name, tensor in (*member.named_parameters(), *member.named_buffers()):
                tensor.data = state[name][at].detach().clone()
            made.append(member)
        return made

    def _state(self) -> dict[str, Tensor]:
        """Parameters and buffers by the names that a member has for them, stacked."""
        names = {"parameter": self.template.named_parameters(), "buffer": self.template.named_buffers()}
        return {name: getattr(self, _flat(kind, name)) for kind, named in names.items() for name, _ in named}


def _architecture(network: nn.Module) -> str:
    """What has to be the same in all members: the layers, and the form of every parameter and buffer."""
    named = (*network.named_parameters(), *network.named_buffers())
    return f"{network!r} {[(name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in named]}"


def _flat(kind: str, name: str) -> str:
    return f"{kind}_of_{name.replace('.', '__')}"
