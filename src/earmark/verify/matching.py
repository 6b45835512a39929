"""Which channel of one network is which of another: assignments by the likeness of what channels do, or are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["Match", "arranged", "column_lengths", "fingerprints", "known", "level", "match", "merged", "settled"]

ROUNDS = 10


class Match(NamedTuple):
    """For each channel of ours one of theirs (-1 for none), and the factor from ours to theirs, 0 for none."""

    channel: Tensor
    factor: Tensor


def match(own: Tensor, theirs: Tensor) -> Match:
    """The assignment with the largest sum of |cosine| between rows (C, d) and rows (C', d), each used once.

    The factor is the slope of theirs on ours, which may be negative; 1 where a row is zero and tells nothing.

    >>> match(torch.eye(2, dtype=torch.float64), torch.tensor([[0.0, -2.0], [3.0, 0.0]], dtype=torch.float64))
    Match(channel=tensor([1, 0]), factor=tensor([ 3., -2.], dtype=torch.float64))
    """
    product, squares = own @ theirs.t(), own.square().sum(1)
    scale = (squares.unsqueeze(1) * theirs.square().sum(1)).sqrt()
    cosine = torch.where(scale > 1e-12, product / scale.clamp(min=1e-12), 0)
    in_place = 1e-9 * torch.eye(*scale.shape, dtype=scale.dtype)
    rows, columns = linear_sum_assignment((cosine.abs() + in_place).numpy(), maximize=True)
    at, to = torch.from_numpy(rows), torch.from_numpy(columns)
    channel, factor = torch.full((len(own),), -1), own.new_zeros(len(own))
    channel[at] = to
    factor[at] = torch.where(cosine[at, to] == 0, 1.0, product[at, to] / squares[at].clamp(min=1e-12))
    return Match(channel, factor)


def known(channel: Tensor) -> Match:
    """Channels (C,) that are known already (-1 for none), of whose scale nothing is."""
    return Match(channel, (channel >= 0).double())


def arranged(weight: Tensor, out: Match, inn: Match) -> Tensor:
    """Their weight (O', I', k) in our order, (O, I, k): signs of outputs, factors of inputs."""
    return _taken(_taken(weight, 0, _signed(out)), 1, inn)


def settled(own: Tensor, theirs: Tensor, lengths: Tensor, out: Match | None, inn: Match | None) -> tuple[Match, Match]:
    """Outputs and inputs of their weight (O', I', k) for ours (O, I, k), from a first guess at one of both.

    Outputs are matched by their filters and inputs by their columns of all filters, in turn, until nothing moves. All
    columns count alike, since a network can have them at any scale; in the end they get ours, `lengths` (I,).
    """
    ours, others = own / _across(lengths), level(theirs)
    if inn is None:
        assert out is not None, "a guess is at one of both"
        inn = _columns(ours, others, out)
    for _ in range(ROUNDS):
        out = match(ours.flatten(1), _taken(others, 1, _signed(inn)).flatten(1))
        before, inn = inn, _columns(ours, others, out)
        if torch.equal(inn.channel, before.channel):
            break
    assert out is not None, "there is a round"
    theirs_now = column_lengths(_taken(_taken(theirs, 0, _signed(out)), 1, _signed(inn)))
    return out, Match(inn.channel, inn.factor.sign() * lengths / theirs_now.clamp(min=1e-12))


def column_lengths(weight: Tensor) -> Tensor:
    """The Euclidean length of each column (O, :, k) of a weight (O, I, k): (I,)."""
    return weight.square().sum((0, 2)).sqrt()


def level(weight: Tensor) -> Tensor:
    """A weight (O, I, k) whose columns have length 1, or 0 where they are 0."""
    return weight / _across(column_lengths(weight))


def merged(weight: Tensor, read: Tensor) -> Tensor:
    """A weight (O, I, k) in which inputs that are one another's multiples, by activations (I, places), are one.

    The first of them has the sum of the columns, and the others have none: a channel that was split into several, or
    padded with several that cancel, is then as it was.
    """
    lengths = read.norm(dim=1, keepdim=True)
    unit = torch.where(lengths > 0, read / lengths.clamp(min=1e-12), 0)
    same = (unit @ unit.t() > 1 - 1e-9).double().argmax(1)  # the first one that is parallel, 0 for a dead channel
    same = torch.where(lengths.squeeze(1) > 0, same, torch.arange(len(read)))
    ratio = lengths.squeeze(1) / lengths.squeeze(1)[same].clamp(min=1e-12)
    ratio = torch.where(lengths.squeeze(1) > 0, ratio, 1.0)
    return torch.zeros_like(weight).index_add_(1, same, weight * ratio.view(1, -1, 1))


def fingerprints(weight: Tensor) -> Tensor:
    """What a filter (I, k) is whatever the order and signs of its inputs: sum_i w_i w_i^T, scaled, without the mean.

    Args:
        weight: filters (O, I, k).

    Returns:
        (O, k * k).
    """
    grams: Tensor = torch.einsum("oik,oil->okl", weight, weight).flatten(1)
    grams = grams / grams.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return grams - grams.mean(0)


def _columns(own: Tensor, theirs: Tensor, out: Match) -> Match:
    ordered = _taken(theirs, 0, _signed(out))
    return match(own.transpose(0, 1).flatten(1), ordered.transpose(0, 1).flatten(1))


def _signed(found: Match) -> Match:
    return Match(found.channel, found.factor.sign())


def _across(lengths: Tensor) -> Tensor:
    return lengths.clamp(min=1e-12).view(1, -1, 1)


def _taken(weight: Tensor, dim: int, found: Match) -> Tensor:
    shape = [-1 if at == dim else 1 for at in range(weight.ndim)]
    return weight.index_select(dim, found.channel.clamp(min=0)) * found.factor.view(shape)
