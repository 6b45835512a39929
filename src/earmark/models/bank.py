"""Several networks of one architecture as one batched product, instead of a loop over them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from earmark.errors import BadInput

__all__ = ["Bank"]


class Bank(nn.Module):
    """K networks of one architecture; every output has them as its first axis.

    The parameters are stacked, (K, ...) each, so that one optimizer trains all of them at once, each for itself: the
    sum of their losses has the gradients of every one. Random draws (noise, dropout) differ between members.

    Args:
        members: the networks, copied.

    Raises:
        BadInput: no network, or networks of different architectures.

    >>> bank = Bank([nn.Linear(2, 3) for _ in range(4)])
    >>> bank(torch.zeros(5, 2)).shape
    torch.Size([4, 5, 3])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        shapes = [{name: tensor.shape for name, tensor in member.state_dict().items()} for member in members]
        if not members or any(shape != shapes[0] for shape in shapes):
            raise BadInput("a bank takes one or more networks of one architecture; make one bank for each")
        parameters, buffers = stack_module_state(list(members))
        self.parameters_of = nn.ParameterDict({_flat(name): tensor.detach() for name, tensor in parameters.items()})
        for name, tensor in buffers.items():
            self.register_buffer(_flat(name), tensor)
        self._buffer_names = list(buffers)
        self._template = (copy.deepcopy(members[0]),)  # in a tuple, or it would count as a part of the bank

    @property
    def template(self) -> nn.Module:
        """A network of their architecture, for what does not hang on parameters: its own are nobody's."""
        return self._template[0]

    def __len__(self) -> int:
        return len(next(iter(self.parameters_of.values())))

    def forward(self, images: Tensor) -> Any:
        """Every member's output for the same images (N, ...), stacked: (K, N, ...)."""
        return self._each(images, None)

    def separately(self, images: Tensor) -> Any:
        """Each member's output for images of its own (K, N, ...), stacked: (K, N, ...)."""
        return self._each(images, 0)

    def _each(self, images: Tensor, axis: int | None) -> Any:
        template = self._template[0].train(self.training)

        def one(own: dict[str, Tensor], seen: Tensor) -> Any:
            return functional_call(template, own, (seen,))

        return vmap(one, in_dims=(0, axis), randomness="different")(self._state(), images)

    def members(self) -> list[nn.Module]:
        """The networks themselves, as copies."""
        state, made = self._state(), []
        for at in range(len(self)):
            member = copy.deepcopy(self._template[0]).to(next(iter(state.values())).device)
            member.load_state_dict({name: tensor[at].detach() for name, tensor in state.items()}, strict=False)
            made.append(member.train(self.training))
        return made

    def _state(self) -> dict[str, Tensor]:
        """Parameters and buffers by the names that a member has for them, stacked."""
        names = [name for name, _ in self._template[0].named_parameters()]
        state: dict[str, Tensor] = {name: self.parameters_of[_flat(name)] for name in names}
        return state | {name: getattr(self, _flat(name)) for name in self._buffer_names}


def _flat(name: str) -> str:
    return name.replace(".", "__")
