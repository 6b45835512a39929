"""Reading passports from a network whose channels were flipped, moved, rescaled, folded or padded, at no cost to it.

Signs, order and scale of channels are the thief's choice (`attacks.FlipSigns` and its like), so weights that look
foreign are first brought into the order of the network that the owner released: each channel of the suspect is told by
what it does on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from earmark.core import Null, rng
from earmark.errors import CannotCarry
from earmark.layers import Site
from earmark.marks import Passports
from earmark.models import as_input, evaluating
from earmark.models.modes import given
from earmark.verify.matching import Match, arranged, column_lengths, fingerprints, known, level, match, merged, settled

__all__ = ["ALIGNED", "Alignment", "align"]

IMAGES, SAMPLES = 64, 8192
COSINE, CLEAR = 0.5, 0.995
ALIGNED = Null(
    "calibrated",
    0.5,
    "A bit counts only where the suspect's filter resembles the released one apart from the passports' directions, and "
    "what it has in those directions is then a coin for a network made without the key. It is no exact null, since the "
    "channels are told apart with the help of a network that knows the bits; unrelated networks were measured far "
    "below it.",
)


class Alignment(NamedTuple):
    """What an aligned reading shows.

    Attributes:
        shown: the bits (n,), int8, 0 where no channel of the suspect is the released one.
        counted: how many are.
        cosine: the median over all channels of the cosine between released and aligned filter, the passports'
            directions taken out of both.
    """

    shown: Tensor
    counted: int
    cosine: float


class _Trace(NamedTuple):
    """A convolution, and what it read and wrote in the same places of the same images: (channels, places)."""

    conv: nn.Conv2d
    read: Tensor
    wrote: Tensor


class _Found(NamedTuple):
    """The suspect's weight (O, I, k) in the released one's order, its outputs' match, and the filters' cosines (O,)."""

    out: Match
    weight: Tensor
    cosine: Tensor


def align(suspect: nn.Module, released: nn.Module, mark: Passports) -> Alignment:
    """Match the suspect's channels to the released network's, and read the bits from the weights in that order.

    Both answer the mark's witnesses, and these drowned in noise. At each protected convolution, pi_o maximises the sum
    of |correlation| between outputs, with s_o its sign, and pi_i that between inputs, with c_i the slope of the
    suspect's on the released one's. The aligned weight is W'[o, i] = s_o c_i W[pi_o(o), pi_i(i)], whatever the number
    of channels; norms have no part in it, so that folded ones are no obstacle. Training moves what channels do more
    than what they are, so that from there (from what filters look like in any order of their inputs, too, from the
    outputs of the protected layers before, and from the order as it stands) filters and their columns are matched in
    turn, until the aligned weight is like the released one; the likest is taken.

    A bit counts only where W'_o and the released filter have a cosine of 0.5 or more after S_gamma and S_beta were
    projected out of both, and all likeness to the released weight is to the projected one: the share of the weights
    that carries the bits has no say in which channel is which, or with which sign. Where bits are signs of products,
    the public scale is the released network's, whose channels these are then: the suspect's may lie anywhere.

    Args:
        suspect: the accused network.
        released: the network that the owner released, with the mark's layers by name.
        mark: the passports.

    Raises:
        CannotCarry: a mark without witnesses, a released network without the mark's layers, or a suspect whose
            convolutions do not correspond, neither by name nor by number.
        RuntimeError, ValueError, TypeError: as a network raised them on the images.
    """
    probes = _probes(mark)
    own = _traces(released, probes)
    if any(site.conv not in own or tuple(own[site.conv].conv.weight.shape) != site.weight for site in mark.sites):
        raise CannotCarry("the released network does not have the mark's layers")
    theirs = _paired(own, _traces(suspect, probes), mark)
    found: list[_Found] = []
    for site, means in zip(mark.sites, mark.means(), strict=True):
        found.append(_closest(own[site.conv], theirs[site.conv], _bases(means, site), [one.out for one in found]))
    cosine = torch.cat([one.cosine for one in found])
    weights = [_grouped(one.weight, site) for one, site in zip(found, mark.sites, strict=True)]
    public = mark.public_in(released, [site.conv for site in mark.sites]) if mark.scale == "product" else None
    bits = torch.where(cosine >= COSINE, mark.read(weights, public), 0).to(torch.int8)
    return Alignment(bits, int((cosine >= COSINE).sum()), float(cosine.median()))


def _probes(mark: Passports) -> Tensor:
    if mark.witnesses is None:
        raise CannotCarry("the mark has no witnesses to compare two networks on")
    images = mark.witnesses.sample(IMAGES).pixels
    noise = torch.randint(256, images.shape, generator=rng(0), dtype=torch.uint8)
    return torch.cat([images, (images.int() + noise.int()).div(2, rounding_mode="floor").to(torch.uint8)])


def _traces(model: nn.Module, probes: Tensor) -> dict[str, _Trace]:
    """Of each convolution, in the order in which they run first."""
    found: dict[str, _Trace] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any, Tensor], None]:
        def hook(conv: nn.Module, args: Any, named: Any, output: Tensor) -> None:
            assert isinstance(conv, nn.Conv2d), "hooks are on convolutions alone"
            found.setdefault(name, _Trace(conv, _sampled(given(args, named)), _sampled(output)))

        return hook

    convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    hooks = [conv.register_forward_hook(note(name), with_kwargs=True) for name, conv in convs.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(as_input(probes, model))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _sampled(x: Tensor) -> Tensor:
    """Of activations (N, C, H, W), the same places for all networks: (C, places)."""
    rows = x.detach().transpose(0, 1).flatten(1)
    places = torch.randperm(rows.shape[1], generator=rng(1))[:SAMPLES].to(rows.device)
    return torch.nan_to_num(rows[:, places].cpu().double(), posinf=0, neginf=0)


def _paired(own: Mapping[str, _Trace], theirs: Mapping[str, _Trace], mark: Passports) -> dict[str, _Trace]:
    """The suspect's convolution for each of the mark's: of the same name, or the one that runs at the same time."""
    names = [site.conv for site in mark.sites]
    if all(name in theirs and _alike(own[name], theirs[name]) for name in names):
        return {name: theirs[name] for name in names}
    at_once = dict(zip(own, theirs.values(), strict=False))
    if len(own) != len(theirs) or not all(_alike(own[name], at_once[name]) for name in names):
        raise CannotCarry("its convolutions correspond to the released network's neither by name nor by number")
    return {name: at_once[name] for name in names}


def _alike(a: _Trace, b: _Trace) -> bool:
    """Whether two convolutions have one kernel, and wrote as much for the same images."""
    forms = [(t.conv.kernel_size, t.conv.stride, t.conv.dilation, t.read.shape[1], t.wrote.shape[1]) for t in (a, b)]
    return forms[0] == forms[1]


def _closest(own: _Trace, theirs: _Trace, bases: Tensor, before: Sequence[Match]) -> _Found:
    """The order of the suspect's channels in which its weight is most like the released one.

    `before` are the outputs of the layers that were matched already: they may be this one's inputs.
    """
    whole, suspect = _dense(own.conv), _dense(theirs.conv)
    released, lengths = _without(whole, bases), column_lengths(whole)
    others, inputs = whole.shape[1], suspect.shape[1]
    if inputs > others:
        suspect = merged(suspect, theirs.read)

    def tried(out: Match, inn: Match) -> _Found:
        weight = arranged(suspect, out, inn)
        return _Found(out, weight, torch.cosine_similarity(_without(weight, bases).flatten(1), released.flatten(1)))

    out, inn = (match(_centred(a), _centred(b)) for a, b in ((own.wrote, theirs.wrote), (own.read, theirs.read)))
    best = tried(out, inn)
    starts: list[tuple[Match | None, Match | None]] = [(None, inn), (out, None)]
    starts += [(match(fingerprints(level(released)), fingerprints(level(suspect))), None)]
    orders = [one.channel for one in reversed(before) if len(one.channel) == others and int(one.channel.max()) < inputs]
    starts += [(None, known(order)) for order in (*orders, *([torch.arange(others)] if others == inputs else []))]
    for start in starts:
        if float(best.cosine.mean()) > CLEAR:
            break
        best = max(best, tried(*settled(released, suspect, lengths, *start)), key=lambda one: float(one.cosine.sum()))
    return best


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


def _dense(conv: nn.Conv2d) -> Tensor:
    """A convolution's weight (O, I, height * width) with zeros where groups keep an input from an output."""
    weight = conv.weight.detach().cpu().double().flatten(2)
    if conv.groups == 1:
        return weight
    outside, inside = len(weight) // conv.groups, weight.shape[1]
    dense = weight.new_zeros(len(weight), conv.in_channels, weight.shape[2])
    for group in range(conv.groups):
        rows = slice(group * outside, (group + 1) * outside)
        dense[rows, group * inside : (group + 1) * inside] = weight[rows]
    return dense


def _grouped(dense: Tensor, site: Site) -> Tensor:
    """The share of a dense weight (O, I, k) that a site's groups let through, (O, I / groups, height, width)."""
    parts = dense.view(site.groups, site.outputs // site.groups, site.groups, -1, dense.shape[2])
    return torch.cat([part[:, group] for group, part in enumerate(parts)]).view(site.weight)


def _bases(means: Tensor, site: Site) -> Tensor:
    """For each group an orthonormal basis of the span of S_gamma and S_beta: (groups, I * k, 2)."""
    inside, size = site.weight[1], site.kernel[0] * site.kernel[1]
    bases = means.new_zeros(site.groups, site.inputs[0], size, len(means))
    for group, pair in enumerate(means.flatten(2).unbind(1)):
        found = torch.linalg.qr(pair.t()).Q.view(inside, size, -1)
        bases[group, group * inside : (group + 1) * inside, :, : found.shape[-1]] = found
    return bases.flatten(1, 2)


def _without(weight: Tensor, bases: Tensor) -> Tensor:
    """Filters (O, I, k) with what lies in the span of their group's basis taken out."""
    rows = weight.flatten(1).view(len(bases), -1, weight[0].numel())
    return (rows - rows @ bases @ bases.transpose(1, 2)).view_as(weight)
