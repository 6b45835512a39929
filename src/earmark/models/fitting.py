"""Whether a model fits a task: it takes its images and has a score for each of its classes."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from earmark.errors import BadInput
from earmark.models.anatomy import logits_of
from earmark.models.modes import as_input, evaluating

__all__ = ["Task", "require_fit", "require_shape"]


class Task(Protocol):
    """What a model must take and answer; images, data and marks all say it."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> int: ...


def require_fit(model: nn.Module, task: Task, what: str = "the model", whose: str = "the data") -> None:
    """Ask a model about two grey images of a task before work on it begins.

    Args:
        model: the model, which stays as it is.
        task: the images' shape and the number of classes.
        what: how errors call the model.
        whose: how errors call the task.

    Raises:
        BadInput: the model fails on such images, or does not answer one score for each class.
    """
    scores = require_shape(model, task.shape, what)
    if len(scores) != 1 or scores[0] != task.classes:
        raise BadInput(
            f"{what} answers with {tuple(scores)} scores an image, expected {task.classes}, one for each class of "
            f"{whose}; check which belongs to which, and if {whose} shows some of the classes alone, name their number"
        )


def require_shape(model: nn.Module, shape: tuple[int, int, int], what: str = "the model") -> torch.Size:
    """The shape of what a model answers for one image of `shape` (C, H, W).

    Raises:
        BadInput: the model fails on such images, or answers no tensor.
    """
    try:
        with evaluating(model), torch.no_grad():
            return logits_of(model(as_input(torch.full((2, *shape), 0.5), model))).shape[1:]
    except (Exception, SystemExit) as error:  # the model's code is the user's, whatever it raises
        raise BadInput(
            f"{what} cannot take images {tuple(shape)}: {type(error).__name__}: {error}; check channels and size"
        ) from error
