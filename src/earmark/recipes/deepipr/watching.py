"""What is looked at of one passport layer while it learns, and when it has learnt (Figures 18 and 19)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from earmark.layers import PassportNorm, Site

__all__ = ["CHANNELS", "parameters_of", "watched_layer"]

CHANNELS = 10
"""How many channels the paper draws."""
SAMPLES = 20_000


def watched_layer(site: Site) -> dict[str, Callable[[nn.Module], float]]:
    """Measures of a protected network: gamma and beta of the site's first channels, and |W - W'| / |W|.

    W' is the weight when it was asked for the time before; the first time, and the first time after a run was taken up
    again, nothing has moved.
    """
    before: list[Tensor] = []

    def moved(model: nn.Module) -> float:
        weight = model.get_submodule(site.conv).weight.detach()  # type: ignore[operator]
        last = before.pop() if before else weight
        before.append(weight.clone())
        return float((weight - last).norm() / weight.norm())

    def affine(model: nn.Module, part: int, channel: int) -> float:
        norm = model.get_submodule(site.norm)
        assert isinstance(norm, PassportNorm), "the layer has a passport while it learns"
        with torch.no_grad():
            return float(norm.affine()[part, channel])

    parts = [(name, at) for at, name in enumerate(("gamma", "beta"))]
    watched = range(min(CHANNELS, site.outputs))
    channels = {
        f"{name} {channel}": lambda model, at=at, channel=channel: affine(model, at, channel)
        for name, at in parts
        for channel in watched
    }
    return {"moved": moved, **channels}


def parameters_of(model: nn.Module, site: Site) -> dict[str, Tensor]:
    """Weights, scales and shifts of a plain network at a site, flat; of many weights, evenly spaced ones."""
    conv, norm = model.get_submodule(site.conv), model.get_submodule(site.norm)
    named = {"weights": conv.weight, "gamma": norm.weight, "beta": norm.bias}
    flat = {name: values.detach().flatten().cpu() for name, values in named.items()}  # type: ignore[operator]
    return {name: values[:: max(1, len(values) // SAMPLES)].contiguous() for name, values in flat.items()}
