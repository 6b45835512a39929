"""Asking a suspect, whose code is not ours: what counts as an answer, and what becomes of anything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from inspect import getattr_static
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from earmark.core import Query
from earmark.marks import TriggerSet, log_shares, trial_answers
from earmark.suspects import Reached, Unreadable, as_query, plain

__all__ = ["Asking", "Heard", "NoAnswer", "foreign"]

MOST_SCORES = 1 << 17
DECIMALS = 4
UNHEARD = (OSError, HTTPException, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt)


class NoAnswer(Exception):
    """A suspect that does not answer as a classifier of the mark's task would; its text says how, for a verdict."""

    def __init__(self, words: str, error: str | None = None) -> None:
        super().__init__(words)
        self.error = error


class Heard(NamedTuple):
    """What a suspect said in one batch.

    Attributes:
        matched: bool (r,), which of the trials that this batch completes were answered with their label.
        silent: int64 (r,), how many images of each of these trials got no answer.
        on_top: how many images of the batch have their label as the first of the task's classes.
        images: how many the batch held.
    """

    matched: Tensor
    silent: Tensor
    on_top: int
    images: int


@final
class Asking:
    """What a suspect answers to the trials of a mark, in batches of images.

    Each batch is a fresh float tensor in [0, 1], so nothing that the suspect does to it reaches the mark. An image
    whose scores hold a NaN or have no finite maximum, or whose label is no class, has no answer: it has no vote in its
    trial, which can only help an innocent suspect and does not let a thief escape with one broken row. For the same
    reason a batch that raises an error, or is answered in another form than scores (b, K) or integer labels (b,), is
    asked again image by image, and only images that fail alone are without an answer. Labels of any integer type are
    taken as they are, and so are arrays and lists of numbers. An `nn.Module` is asked through `as_query`.

    Args:
        suspect: what is asked.
        mark: whose triggers.
        batch_size: images per query.
        order: the trials in the order in which they are asked, int64 (trials,); None for the mark's own.

    Attributes:
        fault: the first thing that came instead of an answer; None while nothing did.
        scored: whether some answers were scores, not labels alone.
        told: the least number of classes that an answer gave a share to: 1 of a label, k of a list of the first k, K of
            scores; None while there is no answer.
        decimals: to how many decimals all scores were rounded, from 0 to 4; None where they were not.

    Raises:
        OSError, http.client.HTTPException, MemoryError, torch.OutOfMemoryError: on iteration, as the suspect raised
            them; a lost connection or a full machine is no answer of a model. PyTorch's plain RuntimeError for CPU
            memory that is not to be had is a MemoryError.
    """

    def __init__(
        self, suspect: Query | nn.Module, mark: TriggerSet, batch_size: int, order: Tensor | None = None
    ) -> None:
        self._query: Callable[[Tensor], object] = as_query(suspect) if isinstance(suspect, nn.Module) else suspect
        self._mark, self._size = mark, batch_size
        through = getattr_static(suspect, "reached", None)  # runs no code of the suspect's
        self._reached = next((each for each in (suspect, through) if isinstance(each, Reached)), None)
        self._order = torch.arange(mark.trials) if order is None else order
        self.fault: NoAnswer | None = None
        self.scored = False
        self.told: int | None = None
        self._rounded = set(range(DECIMALS + 1))
        self._nothing = torch.full((1, mark.classes), math.nan, dtype=torch.float64)

    def __iter__(self) -> Iterator[Heard]:
        mark, size, read = self._mark, self._mark.group, 0
        images = (self._order[:, None] * size + torch.arange(size)).flatten()
        waiting = self._nothing[:0]
        for rows in torch.split(images, self._size):
            shares = self._shares(mark.images.cpu()[rows])
            on_top = int((trial_answers(shares[:, None]) == mark.labels.cpu()[rows]).sum())
            waiting = torch.cat([waiting, shares])
            whole = len(waiting) // size
            done, waiting = waiting[: whole * size], waiting[whole * size :]
            silent = (~done.isfinite().any(1)).reshape(whole, size).sum(1)
            yield Heard(mark.trials_matched(done, self._order[read : read + whole]), silent, on_top, len(rows))
            read += whole

    def _shares(self, batch: Tensor) -> Tensor:
        """`log_shares` of the answers to a batch."""
        try:
            return self._ask(batch)
        except NoAnswer as fault:
            self.fault = self.fault or fault
            alone = torch.split(batch, 1) if len(batch) > 1 else ()
            return torch.cat([self._alone(image) for image in alone]) if alone else self._nothing

    def _alone(self, image: Tensor) -> Tensor:
        try:
            return self._ask(image)
        except NoAnswer as fault:
            self.fault = self.fault or fault
            return self._nothing

    def _ask(self, images: Tensor) -> Tensor:
        classes = self._mark.classes
        answers = _checked(_answers(self._query, images.cpu().float().div_(255)), len(images), classes)
        self.scored |= answers.ndim == 2
        try:
            shares = log_shares(answers, classes)
        except RuntimeError as error:
            raise NoAnswer(f"it answered with {answers.dtype}, which cannot be computed with") from error
        self._note(answers, shares)
        return shares

    def _note(self, answers: Tensor, shares: Tensor) -> None:
        """See how much the suspect told."""
        given = shares.isfinite().sum(1)
        if bool((given > 0).any()):
            least = int(given[given > 0].min())
            self.told = least if self.told is None else min(self.told, least)
        if answers.ndim == 2:
            scores = answers.double()
            scores = scores[scores.isfinite()]
            self._rounded -= {
                d for d in self._rounded if bool(((scores * 10**d).frac().abs() - 0.5).abs().lt(0.499).any())
            }

    @property
    def decimals(self) -> int | None:
        return min(self._rounded, default=None) if self.scored and self.told is not None else None

    @property
    def seen(self) -> dict[str, Any]:
        """What the suspect told and how it was reached, for a verdict."""
        said: dict[str, Any] = {"scores": self.scored, "classes_told": self.told, "decimals": self.decimals}
        return said if self._reached is None else {**said, "suspect": dict(self._reached.facts)}


@contextmanager
def foreign(*known: type[Exception]) -> Iterator[None]:
    """Within, a suspect's code runs: whatever it raises is its answer, a `NoAnswer`.

    But for what tells nothing of the model, a lost connection or a full machine, and for errors of the `known` types.
    """
    through: tuple[type[BaseException], ...] = (*UNHEARD, *known)
    try:
        yield
    except through:
        raise
    except Unreadable as error:
        raise NoAnswer(plain(str(error))) from error
    except BaseException as error:
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
            raise MemoryError("the suspect needs more memory than is free here; ask it in smaller batches") from error
        name = type(error).__name__
        raise NoAnswer(f"it raised {name} when it was asked", error=name) from error


def _answers(query: Callable[[Tensor], object], batch: Tensor) -> object:
    with foreign(), torch.no_grad():
        answers = query(batch)
        if isinstance(answers, list | tuple | np.ndarray):
            answers = torch.as_tensor(np.asarray(answers))
        if not isinstance(answers, Tensor):
            return answers
        with torch._C.DisableTorchFunctionSubclass():  # a subclass could redefine what equality means
            plain = answers.detach().cpu()
            return torch.tensor(plain.tolist(), dtype=plain.dtype) if type(plain) is not Tensor else plain


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
    if answers.ndim == 2 and answers.shape[1] > MOST_SCORES:
        raise NoAnswer(f"it gives {answers.shape[1]} scores for one image, more than any task has classes")
    if answers.ndim == 1 and (answers.is_floating_point() or answers.dtype == torch.bool):
        raise NoAnswer(f"it answered with one {answers.dtype} per trigger, neither scores nor integer labels")
    return answers


def _odd(answers: Tensor) -> bool:
    return answers.layout is not torch.strided or answers.is_complex() or answers.is_quantized or answers.is_nested
