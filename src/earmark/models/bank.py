"""Several networks of one architecture as one batched product."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from earmark.errors import BadInput
from earmark.models.autoencoders import Autoencoder, MLPAutoencoder
from earmark.models.stacked import (
    FOLLOWS,
    Dense,
    FrozenChain,
    StackedSequential,
    as_one,
    of_each,
    with_stacked_layers,
)

__all__ = ["Bank", "Halves"]


class Bank(nn.Module):
    """K networks of one architecture; every output has them as its first axis.

    The parameters are stacked, (K, ...) each, so that one optimizer trains all of them at once, each for itself: the
    sum of their losses has the gradients of every one. Random draws (noise, dropout) differ between members. Members of
    dense layers only are computed by `earmark.models.stacked`; others through `torch.func.vmap`, which saves the
    overhead of K small networks, not their arithmetic: on a CPU, stacked convolutions take longer than a loop.

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
        dense = isinstance(members[0], Autoencoder) and members[0].dense
        self._stacked = (with_stacked_layers(members[0]).to("meta"),) if dense else ()
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

    def halves(self) -> Halves | None:
        """The members as they are, frozen and apart after their first layer; None unless they are of dense layers."""
        if not self._stacked:
            return None
        whole, state = copy.deepcopy(self._stacked[0]).eval(), self._state()
        for name, tensor in state.items():
            owner, _, own = name.rpartition(".")
            setattr(whole.get_submodule(owner), own, nn.Parameter(tensor.detach(), requires_grad=False))
        return Halves(whole)

    def _each(self, images: Tensor, axis: int | None) -> Any:
        if self._stacked:
            return functional_call(self._stacked[0].train(self.training), self._state(), (images,))
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


class Halves:
    """K dense autoencoders in eval mode, AE = leave(enter(x)) with an affine first half.

    So what moves images moves what enters by a product of its own: enter(x + t) = enter(x) + shift(t).

    Args:
        whole: an `MLPAutoencoder` of stacked layers.
    """

    def __init__(self, whole: nn.Module) -> None:
        assert isinstance(whole, MLPAutoencoder), "these are the dense ones"
        assert isinstance(whole.encoder, StackedSequential), "its layers are stacked"
        assert isinstance(whole.decoder, StackedSequential), "its layers are stacked"
        *down, code = whole.encoder.dense()
        biases = None if code.bias is None else code.bias[:, : whole.bottleneck]
        mean = Dense(code.weight[:, : whole.bottleneck], biases, code.then)
        last = Dense(whole.last.weight, whole.last.bias, "sigmoid")
        layers = [*down, mean, *whole.decoder.dense(), last]
        wide = as_one(layers[0])
        self._count, self._check, self._shape = len(layers[0].weight), whole.check, whole.shape
        self._product, self._bias = FrozenChain([Dense(wide.weight, None)]), copy.deepcopy(layers[0].bias)
        self._then, self._others = FOLLOWS[wide.then], FrozenChain(layers[1:])

    def enter(self, images: Tensor) -> Tensor:
        """The first layer of images (N, C, H, W): (K, N, h)."""
        self._check(images)
        made = self.shift(images)
        return made if self._bias is None else made + self._bias[:, None]

    def shift(self, moves: Tensor) -> Tensor:
        """What moves (N, C, H, W) do to it: (K, N, h)."""
        return of_each(self._product(moves.flatten(-3)), self._count)

    def leave(self, entered: Tensor) -> Tensor:
        """The other layers of what entered (K, N, h): images (K, N, C, H, W)."""
        return self._others(self._then(entered)).view(*entered.shape[:2], *self._shape)


def _architecture(network: nn.Module) -> str:
    """What has to be the same in all members: the layers, and the form of every parameter and buffer."""
    named = (*network.named_parameters(), *network.named_buffers())
    return f"{network!r} {[(name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in named]}"


def _flat(kind: str, name: str) -> str:
    return f"{kind}_of_{name.replace('.', '__')}"
