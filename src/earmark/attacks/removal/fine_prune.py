"""Fine-pruning: the channels that the thief's images leave silent go, and fine-tuning mends what they were good for.

Liu, Dolan-Gavitt & Garg 2018, "Fine-Pruning: defending against backdooring attacks on deep neural networks" (RAID),
Section 3: the last convolution's channels go in the order of their mean activation on clean images, since backdoors
live where these do not reach; then all layers are fine-tuned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from earmark.attacks.removal.prune import share_of, smallest
from earmark.attacks.removal.surgery import by_filter, weight_layers
from earmark.attacks.removal.tuning import OwnTask, ahead
from earmark.core import Data, Images
from earmark.data import drawn
from earmark.errors import BadInput, number, whole
from earmark.layers.sites import NORMS
from earmark.models import as_input, device_of, evaluating
from earmark.models.modes import given

__all__ = ["FinePrune"]


class _Place(NamedTuple):
    """A convolution, and the norm that reads the very tensor that it writes, if there is one."""

    name: str
    conv: _ConvNd
    norm: nn.Module | None

    def parts(self) -> list[Tensor]:
        """The parameters that have a row for each channel."""
        found = [self.conv.bias, *(getattr(self.norm, name, None) for name in ("weight", "bias"))]
        return [part for part in found if isinstance(part, nn.Parameter)]

    def silent(self) -> Tensor:
        """Which channels have a filter of zeros, (O,)."""
        return (by_filter(self.conv).detach().flatten(2) == 0).all(2).flatten()


@final
@dataclass(frozen=True)
class FinePrune(OwnTask):
    """Silence the least active channels of the last convolutions, then fine-tune with these held at zero.

    A channel's activity is the mean of max(0, y) over images and positions, y what the norm behind the convolution
    writes, or the convolution itself where there is none. A channel goes with its filter, its bias, and its norm's
    scale and shift. The other settings are `OwnTask`'s; the paper prunes until the accuracy falls, and so leaves the
    share to the thief.

    Attributes:
        share: the share of the channels that go, in each of the convolutions.
        convolutions: how many, counted from the output, or a pattern for their names.

    Raises:
        BadInput: a setting out of its range; on the call, a model without convolutions, or without the ones named.
    """

    share: float = 0.5
    convolutions: int | str = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        number("share", self.share, 0, 1)
        if not isinstance(self.convolutions, str):
            whole("convolutions", self.convolutions, 1)

    def prepared(self, tuned: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        places = self._chosen(tuned, data.test.sample(1).pixels)
        images = drawn(data.train, self.images, ahead(rng))  # those that `lessons` will draw
        with torch.no_grad():
            for place, activity in zip(places, _activities(tuned, places, images), strict=True):
                gone = smallest(activity, share_of(self.share, len(activity)))
                filters = by_filter(place.conv)
                filters[gone.view(filters.shape[:2]).to(filters.device)] = 0
                for part in place.parts():
                    part[gone.to(part.device)] = 0
        return tuned

    def _train(self, tuned: nn.Module, images: Images, rng: torch.Generator, trial: int) -> None:
        with _held(self._chosen(tuned, images.sample(1).pixels)):
            super()._train(tuned, images, rng, trial)

    def _chosen(self, model: nn.Module, pixels: Tensor) -> list[_Place]:
        found = _places(model, pixels)
        if not found:
            raise BadInput("fine-pruning is for convolutions, and the model has none; prune its weights instead")
        if isinstance(self.convolutions, str):
            chosen = [place for place in found if fnmatchcase(place.name, self.convolutions)]
        else:
            chosen = found[-self.convolutions :] if self.convolutions <= len(found) else []
        if not chosen:
            names = ", ".join(repr(place.name) for place in found)
            raise BadInput(f"convolutions: {self.convolutions!r} fits none of {names}")
        return chosen


def _places(model: nn.Module, pixels: Tensor) -> list[_Place]:
    """The convolutions in the order in which they run first, each with the norm behind it."""
    weight_layers(model)
    written: dict[str, Tensor] = {}
    norms: dict[str, nn.Module] = {}

    def wrote(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: written.update({name: output})

    def reads(norm: nn.Module, args: Any, named: Any) -> None:
        read = given(args, named)
        norms.update({name: norm for name, output in written.items() if output is read})

    named = list(model.named_modules())
    convs = {name: module for name, module in named if isinstance(module, _ConvNd)}
    hooks = [module.register_forward_hook(wrote(name)) for name, module in convs.items()]
    hooks += [m.register_forward_pre_hook(reads, with_kwargs=True) for _, m in named if isinstance(m, NORMS)]
    try:
        with evaluating(model), torch.no_grad():
            model(as_input(pixels, model))
    finally:
        for hook in hooks:
            hook.remove()
    return [_Place(name, convs[name], norms.get(name)) for name in written]


def _activities(model: nn.Module, places: Sequence[_Place], images: Images) -> list[Tensor]:
    """The mean of max(0, y) over images and positions, (O,) for each place."""
    sums: dict[str, list[Tensor]] = {place.name: [] for place in places}
    counts: dict[str, list[int]] = {place.name: [] for place in places}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            rows = output.detach().float().relu().transpose(0, 1).flatten(1)
            sums[name].append(rows.sum(1).cpu().double())
            counts[name].append(rows.shape[1])

        return hook

    hooks = [(place.norm or place.conv).register_forward_hook(note(place.name)) for place in places]
    try:
        with evaluating(model), torch.no_grad():
            for batch, _ in images.batches(256, device_of(model)):
                model(as_input(batch, model))
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.stack(sums[place.name]).sum(0) / sum(counts[place.name]) for place in places]


@contextmanager
def _held(places: Sequence[_Place]) -> Iterator[None]:
    """Gradients of silent channels are zero, so that no optimizer brings them back."""
    masked = [pair for place in places for pair in _masks(place)]
    trained = [(part, mask) for part, mask in masked if part.requires_grad]
    hooks = [part.register_hook(_times(mask)) for part, mask in trained]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _masks(place: _Place) -> list[tuple[Tensor, Tensor]]:
    """Each parameter of a place with ones where it may change and zeros where its channel is silent."""
    shown, live = copy.deepcopy(place.conv), ~place.silent()
    with torch.no_grad():
        filters = by_filter(shown)
        filters.copy_(live.view(filters.shape[:2] + (1,) * (filters.ndim - 2)).expand_as(filters))
    return [(place.conv.weight, shown.weight.detach()), *((part, live) for part in place.parts())]


def _times(mask: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda slope: slope * mask.to(slope)
