"""Channels in another order, in every layer that has them: two that follow one another, or all of a residual stream."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from earmark.attacks.needs import Needs
from earmark.attacks.removal.rearrange import IMAGES, Consumer, answers, per_channel, selected, unchanged
from earmark.attacks.removal.streams import Stream, streams
from earmark.core import Data
from earmark.errors import BadInput
from earmark.layers import find_sites

__all__ = ["PermuteChannels", "shuffled"]


@final
@dataclass(frozen=True)
class PermuteChannels:
    """Put the channels of each stream in a random order: outputs of all that write it, norms, inputs of all that read.

    A convolution that the next one reads is a stream of its own; around identity shortcuts, all layers that add to one
    sum are one stream, which keeps its function only if all change together (`streams`). A stream is left as it is
    where answers to a few test images would differ by more than 1e-4 of the largest. Group norm keeps its groups
    together: they change places as a whole, and channels inside each.

    Attributes:
        layers: a pattern for the names of convolutions with norms, or how many, counted from the output; streams that
            none of them writes stay.

    Raises:
        BadInput: on the call, a network without such layers, or one where no stream can be changed.
    """

    layers: str | int = "*"
    needs: ClassVar[Needs] = Needs(weights=True)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> nn.Module:
        changed, images = copy.deepcopy(model), data.test.sample(IMAGES).pixels
        chosen = {site.conv for site in find_sites(changed, images[:1].float() / 255, self.layers)}
        wanted = answers(changed, images)
        found = [stream for stream in streams(changed, images[:1]) if chosen & set(stream.writers)]
        done = [_tried(changed, stream, images, wanted, rng) for stream in found]
        if not any(done):
            raise BadInput("PermuteChannels: no layer can be changed so that the network's answers stay as they are")
        return changed


def _tried(model: nn.Module, stream: Stream, images: Tensor, wanted: Tensor, rng: torch.Generator) -> bool:
    """Permute a stream in place, if the answers stay."""
    writers, norms, readers = (
        [model.get_submodule(name) for name in names] for names in (stream.writers, stream.norms, stream.readers)
    )
    before = [(layer, copy.deepcopy(layer.state_dict())) for layer in (*writers, *norms, *readers)]
    mixers = [[layer for layer in layers if isinstance(layer, Consumer)] for layers in (writers, readers)]
    if _permuted(mixers[0], norms, mixers[1], rng) and unchanged(model, images, wanted):
        return True
    for layer, state in before:
        layer.load_state_dict(state)
    return False


@torch.no_grad()
def _permuted(
    writers: Sequence[Consumer], norms: Sequence[nn.Module], readers: Sequence[Consumer], rng: torch.Generator
) -> bool:
    """Permute the layers of a stream in place; False, and nothing is done, where they do not have the same channels."""
    channels = len(writers[0].weight)
    grouped = [layer.groups for layer in writers if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    blocks = {norm.num_groups for norm in norms if isinstance(norm, nn.GroupNorm)} | set(grouped)
    rows = [tensor for layer in writers for tensor in (layer.weight, layer.bias) if tensor is not None]
    rows += [tensor for norm in norms for tensor in per_channel(norm)]
    if any(len(tensor) != channels for tensor in rows):
        return False
    order = shuffled(channels, math.lcm(*blocks), len(blocks) < 2 and not grouped, rng).to(writers[0].weight.device)
    columns = [selected(reader, order, channels) for reader in readers]
    if any(weight is None for weight in columns):
        return False
    for reader, weight in zip(readers, columns, strict=True):
        assert weight is not None, "all are checked above"
        reader.weight.copy_(weight.clone())
    for tensor in rows:
        tensor.copy_(tensor[order].clone())
    return True


def shuffled(channels: int, blocks: int, moved: bool, rng: torch.Generator) -> Tensor:
    """A random order (C,) of channels that shuffles each of equally many blocks, and their places where `moved`."""
    index = torch.arange(channels).view(blocks, -1)
    if moved:
        index = index[torch.randperm(blocks, generator=rng)]
    return index.gather(1, torch.rand(index.shape, generator=rng).argsort(1)).flatten()
