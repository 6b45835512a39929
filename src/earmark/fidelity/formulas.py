"""The metrics of deep fidelity (Hua & Teoh 2023, eqs. 3, 5-7), each a pure function."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["agreement", "penultimate_feature_loss", "prototype_change", "softmax_loss", "total_weight_loss"]


def total_weight_loss(model: nn.Module, host: nn.Module) -> float | None:
    """TWL = ||W - W_host||_2^2 over all parameters, buffers left out (eq. 3); None where the architectures differ."""
    ours = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    theirs = {name: parameter.detach().cpu() for name, parameter in host.named_parameters()}
    if {n: p.shape for n, p in ours.items()} != {n: p.shape for n, p in theirs.items()}:
        return None
    return sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in ours)


def penultimate_feature_loss(model: Tensor, host: Tensor) -> float:
    """Average PFL = (1 / N) sum_i ||z_i - z_i,host||_2^2, from penultimate features (N, d), not divided by d (eq. 6).

    >>> import torch
    >>> penultimate_feature_loss(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2))
    12.5
    """
    return float((model.double() - host.double()).square().sum(dim=1).mean())


def softmax_loss(model: Tensor, host: Tensor) -> float:
    """Average SPL = (1 / N) sum_i KL(softmax(host_i) || softmax(model_i)) in nats, from logits (N, K) (eq. 7)."""
    ours, theirs = F.log_softmax(model.double(), dim=1), F.log_softmax(host.double(), dim=1)
    return max(0.0, float(F.kl_div(ours, theirs, reduction="batchmean", log_target=True)))


def prototype_change(model: nn.Linear, host: nn.Linear) -> float | None:
    """||W_P - W_P,host||_2^2, last layers' weights (K, d): exactly 0 under FixLL (eq. 5); None if shapes differ."""
    ours, theirs = model.weight.detach().cpu().double(), host.weight.detach().cpu().double()
    return None if ours.shape != theirs.shape else float((ours - theirs).square().sum())


def agreement(model: Tensor, host: Tensor) -> float:
    """Share of images on which two models answer the same class, from logits (N, K)."""
    return float((model.argmax(dim=1) == host.argmax(dim=1)).double().mean())
