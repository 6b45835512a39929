"""What a training run is told, and what it tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from earmark.errors import BadInput, unknown_name

__all__ = ["Augment", "History", "Record", "Settings"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""A random view of uint8 images (B, C, H, W), drawn from the generator."""

Record = Mapping[str, float]
"""What was measured after one epoch, by name."""

History = Sequence[Record]
"""One record per epoch."""


@dataclass(frozen=True)
class Settings:
    """Settings of one run of `fit`; the defaults are the embedding settings of Hua & Teoh 2023.

    Attributes:
        epochs: passes over the training images, at most.
        batch_size: training images per step, B (triggers come on top).
        triggers_per_batch: the paper's m: distinct triggers drawn for each step.
        lr: learning rate.
        optimizer: "adam", "adamw" or "sgd".
        momentum: of "sgd".
        weight_decay: L2 penalty, as the optimizer defines it.
        clip: the largest L2 norm of a step's gradient, longer ones are scaled down to it; None for no such limit. It
            helps where norms differ much from step to step, as with the softmax loss at the paper's gamma of 1000: a
            few images that the host is unsure of drown the triggers otherwise.
        milestones: epochs after which the rate is multiplied by `decay`.
        decay: see `milestones`.
        batchnorm: "frozen": the model runs in eval mode and no batch norm changes, its affine parameters included
            (the released code's fine-tuning; dropout is off, too). "train": ordinary training mode.
        steps: stop after this many steps in all, wherever the epochs stand; None for no such limit.
        steps_per_epoch: end an epoch after this many steps, a fresh sample of the images each time, so that large data
            are measured, saved and judged for stopping more often; None for a whole pass.
        channels_last: memory layout of the model and its inputs, where PyTorch can train the model in it.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", ...
        precision: Lightning Fabric's name of it: "32-true", which trains a model in the type that it has, "bf16-mixed",
            ...
    """

    epochs: int = 20
    batch_size: int = 32
    triggers_per_batch: int = 4
    lr: float = 1e-4
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = None
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    batchnorm: Literal["frozen", "train"] = "frozen"
    steps: int | None = None
    steps_per_epoch: int | None = None
    channels_last: bool = True
    device: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)!r} ({rule})"
            for name, rule, ok in (
                ("epochs", "0 or more", self.epochs >= 0),
                ("batch_size", "1 or more", self.batch_size >= 1),
                ("triggers_per_batch", "0 or more", self.triggers_per_batch >= 0),
                ("lr", "a finite number above 0", 0 < self.lr < math.inf),
                ("optimizer", "adam, adamw or sgd", self.optimizer in ("adam", "adamw", "sgd")),
                ("momentum", "0 to below 1", 0 <= self.momentum < 1),
                ("weight_decay", "a finite number, 0 or more", 0 <= self.weight_decay < math.inf),
                ("clip", "a finite number above 0, or none", self.clip is None or 0 < self.clip < math.inf),
                ("batchnorm", "frozen or train", self.batchnorm in ("frozen", "train")),
                ("milestones", "1 or more, rising", list(self.milestones) == sorted({*self.milestones} - {0})),
                ("decay", "a finite number above 0", 0 < self.decay < math.inf),
                ("steps", "1 or more, or none", self.steps is None or self.steps >= 1),
                ("steps_per_epoch", "1 or more, or none", self.steps_per_epoch is None or self.steps_per_epoch >= 1),
            )
            if not ok
        ]
        if wrong:
            raise BadInput("training settings out of range: " + "; ".join(wrong))

    def but(self, **changes: Any) -> Settings:
        """A copy with some settings changed.

        Raises:
            BadInput: an unknown name, with the nearest known one, or a value out of range.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise unknown_name("training setting", name, known)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All settings, as JSON types."""
        return {**asdict(self), "milestones": list(self.milestones)}

    def rate(self, epoch: int) -> float:
        """The learning rate in epoch `epoch`, counted from 0.

        >>> Settings(lr=1.0, milestones=(2,)).rate(1), Settings(lr=1.0, milestones=(2,)).rate(2)
        (1.0, 0.1)
        """
        return float(self.lr * self.decay ** sum(epoch >= milestone for milestone in self.milestones))

    def torch_device(self) -> torch.device:
        """The device that `device` names on this machine.

        Raises:
            BadInput: no such device here, or none that a model can be trained on.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device == "cpu":
            return torch.device("cpu")
        try:
            device = torch.device(self.device)
            if device.type not in ("cuda", "mps"):
                raise RuntimeError(f"{device} is no accelerator")
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise BadInput(f"device {self.device!r} is not to be had here; give auto, cpu, cuda or cuda:0") from error
        return device
