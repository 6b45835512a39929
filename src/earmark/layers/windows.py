"""Avg(W * P) without a convolution: it is linear in W, so P matters only through the means of its shifted windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from earmark.errors import BadInput
from earmark.layers.sites import Site

__all__ = ["affine", "windows"]


def windows(passport: Tensor, site: Site) -> Tensor:
    """S with Avg(W * P)_o = <W_o, S_g(o)>: the mean of P under each offset of the kernel (Fan et al. 2021, eq. 4).

    The average goes over the batch, height and width of the convolution's output, with its padding, stride, dilation
    and groups. S is the gradient of that average with respect to W, which is the same for all W.

    Args:
        passport: P, (N_P, I, H, W), of any floating type.
        site: the convolution.

    Returns:
        float64 (groups, I / groups, height, width of the kernel).

    Raises:
        BadInput: a passport of another shape than what the convolution reads.

    >>> site = Site("conv", "norm", inputs=(1, 2, 2), outputs=1, kernel=(1, 1))
    >>> windows(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]), site)
    tensor([[[[3.]]]], dtype=torch.float64)
    """
    if passport.ndim != 4 or tuple(passport.shape[1:]) != site.inputs or not len(passport):
        raise BadInput(
            f"a passport of {site.conv!r} is (N, {', '.join(map(str, site.inputs))}), got {tuple(passport.shape)}"
        )
    _, inside, *kernel = site.weight
    with torch.enable_grad():
        weight = torch.zeros(site.groups, inside, *kernel, dtype=torch.float64, requires_grad=True)
        made = _convolved(passport.detach().to("cpu", torch.float64), weight, site)
        return torch.autograd.grad(made.mean(dim=(0, 2, 3)).sum(), weight)[0]


def _convolved(images: Tensor, weight: Tensor, site: Site) -> Tensor:
    above, below, left, right = site.padding
    mode = "constant" if site.padding_mode == "zeros" else site.padding_mode
    padded = F.pad(images, (left, right, above, below), mode=mode) if any(site.padding) else images
    return F.conv2d(padded, weight, None, site.stride, 0, site.dilation, site.groups)


def affine(weight: Tensor, means: Tensor) -> Tensor:
    """What passports make of a convolution's weight: gamma = <W, S_gamma> and beta = <W, S_beta>, channel by channel.

    Args:
        weight: W, (O, I / groups, height, width).
        means: S of each of the passports, (p, groups, I / groups, height, width).

    Returns:
        (p, O).
    """
    passports, groups = means.shape[:2]
    if groups == 1:
        if weight.is_contiguous():
            return means.flatten(1) @ weight.flatten(1).t()
        return means[:, 0].permute(0, 2, 3, 1).flatten(1) @ weight.permute(0, 2, 3, 1).flatten(1).t()
    each = torch.bmm(weight.reshape(groups, weight.shape[0] // groups, -1), means.flatten(2).permute(1, 2, 0))
    return each.reshape(-1, passports).t()
