"""Asking a suspect, whose code is not ours: what counts as an answer, and what becomes of anything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from earmark.core import Query
from earmark.marks import log_shares
from earmark.suspects import as_query

__all__ = ["Asking", "NoAnswer"]


class NoAnswer(Exception):
    """A suspect that does not answer as a classifier of the mark's task would; its text says how, for a verdict."""

    def __init__(self, words: str, error: str | None = None) -> None:
        super().__init__(words)
        self.error = error


@final
class Asking:
    """What the suspect answers to one batch of images after the other, as `log_shares`: float64 (b, K).

    Each batch is a fresh float tensor in [0, 1], so nothing that the suspect does to it reaches the mark. A row of NaN
    is no answer: it matches nothing, which can only help an innocent suspect and does not let a thief escape with one
    broken row. For the same reason a batch that raises an error, or is answered in another form than scores (b, K) or
    integer labels (b,), is asked again image by image, and only images that fail alone are without an answer. Labels of
    any integer type are taken as they are, and so are arrays and lists of numbers. An `nn.Module` is asked through
    `as_query`.

    Attributes:
        fault: the first thing that came instead of an answer; None while nothing did.
        scored: whether some answers were scores, not labels alone.

    Raises:
        OSError, http.client.HTTPException, MemoryError, torch.OutOfMemoryError: on iteration, as the suspect raised
            them; a lost connection or a full machine is no answer of a model. PyTorch's plain RuntimeError for CPU
            memory that is not to be had is a MemoryError.
    """

    def __init__(self, suspect: Query | nn.Module, images: Tensor, classes: int, batch_size: int) -> None:
        self._query: Callable[[Tensor], object] = as_query(suspect) if isinstance(suspect, nn.Module) else suspect
        self._images, self._classes, self._size = images, classes, batch_size
        self.fault: NoAnswer | None = None
        self.scored = False
        self._nothing = torch.full((1, classes), math.nan, dtype=torch.float64)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in torch.split(self._images, self._size):
            try:
                yield self._ask(batch)
            except NoAnswer as fault:
                self.fault = self.fault or fault
                yield (
                    torch.cat([self._alone(image) for image in torch.split(batch, 1)])
                    if len(batch) > 1
                    else self._nothing
                )

    def _alone(self, image: Tensor) -> Tensor:
        try:
            return self._ask(image)
        except NoAnswer as fault:
            self.fault = self.fault or fault
            return self._nothing

    def _ask(self, images: Tensor) -> Tensor:
        answers = _checked(_answers(self._query, images.cpu().float().div_(255)), len(images), self._classes)
        self.scored |= answers.ndim == 2
        return log_shares(answers, self._classes)


def _answers(query: Callable[[Tensor], object], batch: Tensor) -> object:
    try:
        with torch.no_grad():
            answers = query(batch)
            if isinstance(answers, list | tuple | np.ndarray):
                answers = torch.as_tensor(np.asarray(answers))
            if not isinstance(answers, Tensor):
                return answers
            with torch._C.DisableTorchFunctionSubclass():  # a subclass could redefine what equality means
                plain = answers.detach().cpu()
                return torch.tensor(plain.tolist(), dtype=plain.dtype) if type(plain) is not Tensor else plain
    except (OSError, HTTPException, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the suspect is foreign code: whatever it raises is its answer
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
            raise MemoryError("the suspect needs more memory than is free here; ask it in smaller batches") from error
        name = type(error).__name__
        raise NoAnswer(f"it raised {name} when it was asked", error=name) from error


def _checked(answers: object, count: int, classes: int) -> Tensor:
    if not isinstance(answers, Tensor) or _odd(answers):
        raise NoAnswer(f"it answered with {type(answers).__name__}, not with a dense tensor of real numbers")
    if answers.ndim not in (1, 2) or len(answers) != count:
        raise NoAnswer(f"it answered {count} triggers with shape {tuple(answers.shape)}, not with a row for each")
    if answers.ndim == 2 and answers.shape[1] < classes:
        raise NoAnswer(
            f"it gives {answers.shape[1]} scores and the mark's task has {classes} classes; if it is a cut-down copy, "
            "map its scores to those classes and ask again"
        )
    if answers.ndim == 1 and (answers.is_floating_point() or answers.dtype == torch.bool):
        raise NoAnswer(f"it answered with one {answers.dtype} per trigger, neither scores nor integer labels")
    return answers


def _odd(answers: Tensor) -> bool:
    return answers.layout is not torch.strided or answers.is_complex() or answers.is_quantized or answers.is_nested
