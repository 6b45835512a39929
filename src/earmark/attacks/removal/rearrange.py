"""What changes to a network's weights that keep its function share: places to make them, and a check that they do.

Signs, order, scale and number of channels mean nothing to a network's function, and everything to a mark that is read
from its weights (Yan et al. 2023, "Rethinking white-box watermarks on deep learning models under neural structural
obfuscation"; Yan et al. 2023, "Cracking white-box DNN watermarks via invariant neuron transforms").
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from earmark.attacks.needs import Needs
from earmark.core import Data
from earmark.errors import BadInput
from earmark.layers import Site, find_sites
from earmark.models import as_input, evaluating, logits_of

__all__ = ["IMAGES", "Consumer", "Norm", "Rearrange", "answers", "per_channel", "selected", "unchanged"]

IMAGES = 8
TOLERANCE = 1e-4

Norm: TypeAlias = nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d
Consumer: TypeAlias = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Rearrange(ABC):
    """Change convolutions with the norms behind them, one after the other, and keep each change that changes no answer.

    A change may need the *consumer*, the only layer that reads what the norm writes, through an activation and pooling.
    The next convolution or linear layer that runs is tried; where there is a second one (a shortcut, say), answers
    change and the place is left as it was. Answers are the same where those to a few test images differ by no more than
    1e-4 of the largest.

    Attributes:
        layers: a pattern for the names of convolutions, or how many places, counted from the output.

    Raises:
        BadInput: on the call, a network without such places, or one where none can be changed.
    """

    layers: str | int = "*"
    needs: ClassVar[Needs] = Needs(weights=True)
    consumed: ClassVar[bool] = True
    """Whether the consumer changes as well."""

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        changed, images = copy.deepcopy(model), data.test.sample(IMAGES).pixels
        sites = find_sites(changed, images[:1].float() / 255, self.layers)
        readers, wanted = _readers(changed, images), answers(changed, images)
        done = [self._tried(changed, names, images, wanted, rng) for names in self._places(sites, readers)]
        if not any(done):
            raise BadInput(
                f"{type(self).__name__}: no layer can be changed so that the network's answers stay as they are"
            )
        return changed

    @abstractmethod
    def _change(
        self, conv: nn.Conv2d, norm: nn.Module, reader: Consumer | None, rng: torch.Generator
    ) -> Sequence[nn.Module] | None:
        """What takes the place of copies of these layers, of the reader only where `consumed`; None for nothing."""

    def _places(self, sites: Sequence[Site], readers: dict[str, str]) -> list[list[str]]:
        if not self.consumed:
            return [[site.conv, site.norm] for site in sites]
        return [[site.conv, site.norm, readers[site.norm]] for site in sites if site.norm in readers]

    def _tried(
        self, model: nn.Module, names: Sequence[str], images: Tensor, wanted: Tensor, rng: torch.Generator
    ) -> bool:
        before = [model.get_submodule(name) for name in names]
        conv, norm, *more = copy.deepcopy(before)
        assert isinstance(conv, nn.Conv2d), "sites have convolutions"
        readers = [layer for layer in more if isinstance(layer, Consumer)]
        with torch.no_grad():
            after = self._change(conv, norm, readers[0] if readers else None, rng)
        if after is None:
            return False
        for name, layer, old in zip(names, after, before, strict=True):
            model.set_submodule(name, layer.train(old.training))
        if unchanged(model, images, wanted):
            return True
        for name, layer in zip(names, before, strict=True):
            model.set_submodule(name, layer)
        return False


def per_channel(norm: nn.Module) -> list[Tensor]:
    """The norm's tensors that have one number for each channel, which an attack may change in place."""
    names = ("weight", "bias", "running_mean", "running_var")
    return [tensor for tensor in (getattr(norm, name, None) for name in names) if isinstance(tensor, Tensor)]


def selected(consumer: Consumer, order: Tensor, channels: int) -> Tensor | None:
    """The consumer's weight with its inputs in `order`, or None where it does not read all channels alike.

    A linear layer reads a flattened map (channels, H, W): each channel is a run of equal length.
    """
    inputs = consumer.weight.shape[1]
    if isinstance(consumer, nn.Conv2d):
        return consumer.weight[:, order] if consumer.groups == 1 and inputs == channels else None
    if inputs % channels:
        return None
    return consumer.weight.reshape(len(consumer.weight), channels, -1)[:, order].flatten(1)


def _readers(model: nn.Module, images: Tensor) -> dict[str, str]:
    """For each norm that runs once, the convolution or linear layer that runs next."""
    order: list[tuple[str, bool]] = []

    def note(name: str, norm: bool) -> Callable[[nn.Module, object], None]:
        return lambda _, __: order.append((name, norm))

    watched = {n: m for n, m in model.named_modules() if isinstance(m, _NormBase | nn.GroupNorm | Consumer)}
    hooks = [m.register_forward_pre_hook(note(n, not isinstance(m, Consumer))) for n, m in watched.items()]
    try:
        answers(model, images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, _ in order]
    layers = [(at, name) for at, (name, norm) in enumerate(order) if not norm]
    following = {
        name: [reader for later, reader in layers if later > at] for at, (name, norm) in enumerate(order) if norm
    }
    return {n: found[0] for n, found in following.items() if found and names.count(n) == names.count(found[0]) == 1}


def answers(model: nn.Module, images: Tensor, grad: bool = False) -> Tensor:
    """The logits, float32 (n, K), that a network gives images in eval mode, with a graph behind them if wanted."""
    with evaluating(model), torch.set_grad_enabled(grad):
        return logits_of(model(as_input(images, model))).float()


def unchanged(model: nn.Module, images: Tensor, wanted: Tensor) -> bool:
    """Whether a network's answers to images differ from `wanted` by no more than 1e-4 of the largest."""
    try:
        found = answers(model, images)
    except RuntimeError:  # shapes that no longer fit
        return False
    return float((found - wanted).abs().max()) <= TOLERANCE * max(1.0, float(wanted.abs().max()))
