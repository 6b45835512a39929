"""The training run of an attack that learns, from the settings that it has as fields."""

from __future__ import annotations

from typing import Literal, Protocol

from earmark.training import Settings

__all__ = ["Learner", "run_of"]


class Learner(Protocol):
    """What says how an attack learns; see `Settings` for the meaning of each."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def milestones(self) -> tuple[int, ...]: ...
    @property
    def optimizer(self) -> Literal["adam", "adamw", "sgd"]: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def run_of(attack: Learner, batchnorm: Literal["train", "frozen"] = "train") -> Settings:
    """The settings of one run: those of the attack, and no triggers, which a thief has not.

    Raises:
        BadInput: a setting out of its range.
    """
    return Settings(
        epochs=attack.epochs,
        batch_size=attack.batch_size,
        triggers_per_batch=0,
        lr=attack.lr,
        milestones=attack.milestones,
        optimizer=attack.optimizer,
        momentum=attack.momentum,
        weight_decay=attack.weight_decay,
        batchnorm=batchnorm,
    )
