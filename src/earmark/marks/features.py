"""Passports made of images: the feature maps that a trained network has at the layers to be protected."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from earmark.core import Data, Images
from earmark.errors import BadInput
from earmark.keys import KeyedStream, MarkKey
from earmark.layers import Site
from earmark.models import device_of, dtype_of, evaluating, logits_of
from earmark.models.modes import given

__all__ = ["PASSPORTS", "passports_of_images"]

PASSPORTS = ("random", "image", "shuffle", "mix")
PROBED = 1_000


def passports_of_images(
    how: str, images: int, key: MarkKey, host: nn.Module, data: Data, sites: Sequence[Site]
) -> tuple[tuple[Tensor, Tensor], ...]:
    """P_gamma and P_beta of each site (Fan et al. 2021, Section 4.2), from test images that the key chooses.

    Args:
        how: "image", "shuffle" or "mix" (see `PassportMint`).
        images: how many images each passport is chosen from.
        key: what chooses.
        host: the trained network.
        data: whose test images are used.
        sites: the layers.

    Raises:
        BadInput: fewer images than that, or a network that answers no better than by chance.
    """
    count = 1 if how == "image" else images
    if len(data.test) < 2 * count:
        raise BadInput(f"{how} passports need {2 * count} test images, got {len(data.test)}")
    _require_trained(host, data)
    stream = key.stream("passport images")
    chosen = data.test.subset(stream.choice(len(data.test), 2 * count))
    scales, shifts = (_feature_maps(host, part, sites) for part in (chosen.pixels[:count], chosen.pixels[count:]))
    return tuple((_taken(how, a, stream), _taken(how, b, stream)) for a, b in zip(scales, shifts, strict=True))


def _taken(how: str, maps: Tensor, stream: KeyedStream) -> Tensor:
    """One passport (1, I, H, W) of feature maps (N, I, H, W)."""
    count, channels = maps.shape[:2]
    if how != "mix":
        at = int(stream.integers(count, 1))
        return maps[at : at + 1].clone()
    order = stream.permutation(channels)
    return maps[torch.arange(channels) % count, order].unsqueeze(0).clone()


def _feature_maps(host: nn.Module, pixels: Tensor, sites: Sequence[Site]) -> list[Tensor]:
    """What each site's convolution reads: float32 (N, I, H, W)."""
    read: dict[str, Tensor] = {}
    images = (pixels.float() / 255).to(device_of(host), dtype_of(host))
    with ExitStack() as stack:
        for site in sites:
            conv = host.get_submodule(site.conv)

            def note(_: nn.Module, args: Any, named: Any, name: str = site.conv) -> None:
                read[name] = given(args, named)

            stack.callback(conv.register_forward_pre_hook(note, with_kwargs=True).remove)
        stack.enter_context(evaluating(host))
        stack.enter_context(torch.no_grad())
        host(images)
    return [read[site.conv].detach().float().cpu().contiguous() for site in sites]


def _require_trained(host: nn.Module, data: Data) -> None:
    """Refuse a network that has learnt nothing: its feature maps are noise that anyone can make.

    It must be right clearly more often than whoever always names the most frequent class.
    """
    some: Images = data.train.sample(PROBED)
    right = 0
    with evaluating(host), torch.inference_mode():
        for images, labels in some.batches(128, device_of(host)):
            right += int((logits_of(host(images.to(dtype_of(host)))).argmax(1) == labels).sum())
    blind = float(some.labels.bincount().max()) / len(some)
    if right <= len(some) * min(1.5 * blind, blind + (1 - blind) / 10):
        raise BadInput(
            f"feature maps as passports need a trained network, and this one answers {right} of {len(some)} training "
            "images; train it first, or take random passports"
        )
