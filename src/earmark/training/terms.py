"""Loss terms. Each is a small value with a name and a weight; `fit` minimises the weighted sum.

Constants and reductions are those of Hua & Teoh 2023 and its released code (Section 4.3; eqs. 3, 6, 7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.models import Autoencoder, Bank, Reading

__all__ = [
    "CrossEntropy",
    "Distillation",
    "LogitLoss",
    "PenultimateFeatureLoss",
    "ReconstructionLoss",
    "SmoothedCrossEntropy",
    "SoftmaxLoss",
    "Step",
    "Term",
    "TotalWeightLoss",
    "TriggerMargin",
]


@dataclass(frozen=True, eq=False)
class Step:
    """What one step computed: a joined batch of `clean` training images followed by triggers, in one forward pass.

    Attributes:
        images: what the model saw (clean + m, C, H, W), in [0, 1].
        features: penultimate features (clean + m, d), or what another reader than a classifier's calls so.
        logits: (clean + m, K), likewise.
        targets: labels (clean + m,).
        clean: how many rows are training images.
        nominal: the batch size of the settings (of this process's share), the divisor even in a short last batch.
        host: what the host says of the clean rows, without gradient; None where no term asked for it.
        model: the model in training.
        start: its parameters as they were at the start, by name.
        unmasked: weights that the step computes with in another form, as they are themselves, by name.
        activations: what the layers gave out that some term names as its `layers`, by name (clean + m, ...).
    """

    images: Tensor
    features: Tensor
    logits: Tensor
    targets: Tensor
    clean: int
    nominal: float
    host: Reading | None
    model: nn.Module
    start: Mapping[str, Tensor]
    unmasked: Mapping[str, Tensor] = field(default_factory=dict)
    activations: Mapping[str, Tensor] = field(default_factory=dict)

    def parameters(self) -> dict[str, Tensor]:
        """The parameters in training as they are, by name."""
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return {**trained, **self.unmasked}

    def host_reading(self) -> Reading:
        """The host's reading, which a term with `needs_host` may rely on."""
        assert self.host is not None, "fit provides the host's reading to every term that needs it"
        return self.host


class Term(Protocol):
    """One summand of the objective: what it needs (the host's reading, triggers, true labels) `fit` and callers ask."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def needs_host(self) -> bool: ...
    @property
    def needs_triggers(self) -> bool: ...
    @property
    def needs_labels(self) -> bool: ...
    def __call__(self, step: Step) -> Tensor: ...


class _Weighted:
    """What the terms below share: a weight that only a finite number, 0 or more, can be."""

    def __post_init__(self: Term) -> None:
        if not 0 <= self.weight < math.inf:
            raise BadInput(f"the weight of {self.name} is a finite number, 0 or more, got {self.weight}")


def _divergence(step: Step, temperature: float = 1.0) -> Tensor:
    """KL(softmax(host_i / T) || softmax(model_i / T)) in nats, mean over the training images of the batch."""
    model = F.log_softmax(step.logits[: step.clean].float() / temperature, dim=1)
    host = F.log_softmax(step.host_reading().logits / temperature, dim=1)
    return F.kl_div(model, host, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class CrossEntropy(_Weighted):
    """Mean cross entropy (nats) over the joined batch ("all"), its training images ("clean") or its triggers."""

    on: Literal["all", "clean", "triggers"] = "all"
    weight: float = 1.0
    needs_host = False

    @property
    def needs_triggers(self) -> bool:
        return self.on == "triggers"

    @property
    def needs_labels(self) -> bool:
        return self.on != "triggers"

    @property
    def name(self) -> str:
        return "ce" if self.on == "all" else f"ce_{self.on}"

    def __call__(self, step: Step) -> Tensor:
        logits, targets = step.logits, step.targets
        if self.on != "all":
            rows = slice(step.clean) if self.on == "clean" else slice(step.clean, None)
            logits, targets = logits[rows], targets[rows]
        return F.cross_entropy(logits.float(), targets)


@dataclass(frozen=True, eq=False)
class SmoothedCrossEntropy(_Weighted):
    """Mean cross entropy (nats) over the joined batch, where training images have distributions for targets.

    Attributes:
        table: (K, K); a training image of class a has row a for its target, a trigger its label. Rows add up to 1. It
            may come from a key, so no repr shows it.
    """

    table: Tensor = field(repr=False)
    weight: float = 1.0
    needs_host = False
    needs_triggers = False
    needs_labels = True
    name = "ce"

    def __call__(self, step: Step) -> Tensor:
        clean = step.clean
        logits = step.logits.float()
        targets = self.table.to(logits)[step.targets[:clean]]
        soft = F.cross_entropy(logits[:clean], targets, reduction="sum")
        hard = F.cross_entropy(logits[clean:], step.targets[clean:], reduction="sum")
        return (soft + hard) / len(logits)


@dataclass(frozen=True)
class TriggerMargin(_Weighted):
    """Mean over the triggers of the batch of max(0, margin - (z_y - max_{k != y} z_k)), z the logits, y the label.

    Cross entropy is content with a lead of some nats; this asks for one that a thief has to wear down.

    Attributes:
        margin: the number of nats above which a trigger asks for nothing more.
    """

    margin: float = 10.0
    weight: float = 1.0
    needs_host = False
    needs_triggers = True
    needs_labels = False
    name = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.margin < math.inf:
            raise BadInput(f"the margin of {self.name} is a finite number of nats above 0, got {self.margin}")

    def __call__(self, step: Step) -> Tensor:
        logits, labels = step.logits[step.clean :].float(), step.targets[step.clean :, None]
        others = logits.scatter(1, labels, -math.inf).amax(1)
        return F.relu(self.margin - (logits.gather(1, labels)[:, 0] - others)).mean()


@dataclass(frozen=True)
class TotalWeightLoss(_Weighted):
    """TWL = ||W - W_start||_2^2, summed over all parameters (eq. 3); the paper's alpha is the weight."""

    weight: float = 0.01
    needs_host = False
    needs_triggers = False
    needs_labels = False
    name = "twl"

    def __call__(self, step: Step) -> Tensor:
        moved = [(p - step.start[name]).float() for name, p in step.parameters().items()]
        return torch.stack([difference.square().sum() for difference in moved]).sum()


@dataclass(frozen=True)
class PenultimateFeatureLoss(_Weighted):
    """PFL = (1 / B) sum_i ||z_i - z_i,host||_2^2 over the training images of the batch (eq. 6); beta is the weight."""

    weight: float = 0.01
    needs_host = True
    needs_triggers = False
    needs_labels = False
    name = "pfl"

    def __call__(self, step: Step) -> Tensor:
        difference = step.features[: step.clean].float() - step.host_reading().features
        return difference.square().sum() / step.nominal


@dataclass(frozen=True)
class SoftmaxLoss(_Weighted):
    """SPL = mean_i KL(softmax(host_i) || softmax(model_i)) in nats over the training images (eq. 7); weight gamma."""

    weight: float = 1000.0
    needs_host = True
    needs_triggers = False
    needs_labels = False
    name = "spl"

    def __call__(self, step: Step) -> Tensor:
        return _divergence(step)


@dataclass(frozen=True)
class Distillation(_Weighted):
    """T^2 KL(softmax(host / T) || softmax(model / T)), mean over the training images (Hinton et al. 2015)."""

    temperature: float = 3.0
    weight: float = 1.0
    needs_host = True
    needs_triggers = False
    needs_labels = False
    name = "distillation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < math.inf:
            raise BadInput(f"the temperature of {self.name} is a finite number above 0, got {self.temperature}")

    def __call__(self, step: Step) -> Tensor:
        return self.temperature**2 * _divergence(step, self.temperature)


@dataclass(frozen=True)
class LogitLoss(_Weighted):
    """Mean of (logit_ik - logit_ik,host)^2 over the training images i of the batch and the classes k."""

    weight: float = 1.0
    needs_host = True
    needs_triggers = False
    needs_labels = False
    name = "logits"

    def __call__(self, step: Step) -> Tensor:
        return F.mse_loss(step.logits[: step.clean].float(), step.host_reading().logits)


@dataclass(frozen=True)
class ReconstructionLoss(_Weighted):
    """Mean over the images of ||x - AE(x)||_2^2 + code * penalty(Enc(x)) (Li & Wang 2021, eq. 2), of a `Bank` summed.

    The paper's eq. (2) sums the first term over the images and writes the second without a sum; here both are means, so
    that their weights do not hang on the batch size.

    Attributes:
        code: lambda_1, the weight of the code's penalty: ||Enc(x)||_2^2, of a variational autoencoder KL in nats.
    """

    code: float = 1e-3
    weight: float = 1.0
    needs_host = False
    needs_triggers = False
    needs_labels = False
    name = "reconstruction"

    def __call__(self, step: Step) -> Tensor:
        one = step.model.template if isinstance(step.model, Bank) else step.model
        assert isinstance(one, Autoencoder), "only autoencoders are read as reconstructions"
        error = (step.logits - step.images).square().flatten(-3).sum(-1)
        return (error + self.code * one.penalty(step.features)).mean(-1).sum()
