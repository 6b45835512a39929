"""What a suspect said while it was judged, kept for the ruling: which opened trial it answered with what."""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np
import torch
from torch import Tensor, nn

from earmark.evidence.kinds import Suspect
from earmark.marks import TriggerSet, log_shares
from earmark.suspects import Reached, as_query

__all__ = ["NO_ANSWER", "Hearing"]

NO_ANSWER: Final = -1
"""What `Hearing.answers` gives for a trial that was asked and not answered."""


@final
class Hearing:
    """A suspect that is asked as before, and whose answers are kept by the image that was asked.

    The suspect's answers go through as they came, whatever they are, and its errors as they were raised; what is kept
    of them is read as the test reads them (`marks.log_shares`, `TriggerSet.read`). An image that is asked twice counts
    with its last answer, as in the test.

    Args:
        suspect: images in [0, 1] to scores or labels, or a module.

    Attributes:
        reached: the suspect, if it is one that tells how it was reached; a test puts that into its verdict.
    """

    def __init__(self, suspect: Suspect) -> None:
        self.reached = suspect if isinstance(suspect, Reached) else None
        self._query = as_query(suspect) if isinstance(suspect, nn.Module) else suspect
        self._heard: dict[bytes, Tensor] = {}
        self._asked: set[bytes] = set()

    def __call__(self, images: Tensor) -> Tensor:
        pixels = [row.tobytes() for row in images.mul(255).round().to(torch.uint8).numpy()]
        self._asked.update(pixels)
        answers = self._query(images)
        for name, row in zip(pixels, _rows(answers, len(pixels)), strict=False):
            self._heard[name] = row
        return answers

    def answers(self, mark: TriggerSet) -> list[int | None]:
        """The suspect's answer to each trial of a mark: a class, `NO_ANSWER`, or None where it was not asked."""
        names = [row.tobytes() for row in mark.images.cpu().numpy()]
        shares = torch.stack([self._share(name, mark.classes) for name in names])
        read = mark.read(shares).tolist()
        asked = [any(name in self._asked for name in names[at : at + mark.group]) for at in _starts(mark)]
        return [answer if there else None for answer, there in zip(read, asked, strict=True)]

    def _share(self, name: bytes, classes: int) -> Tensor:
        nothing = torch.full((classes,), math.nan, dtype=torch.float64)
        row = self._heard.get(name)
        if row is None or (row.ndim == 1 and len(row) < classes):
            return nothing
        try:
            return log_shares(row[None], classes)[0]
        except RuntimeError:
            return nothing


def _starts(mark: TriggerSet) -> range:
    return range(0, len(mark), mark.group)


def _rows(answers: object, count: int) -> list[Tensor]:
    """One row of scores, or one label, for each image; nothing where the answers are not of either form."""
    if isinstance(answers, list | tuple | np.ndarray):
        answers = torch.as_tensor(np.asarray(answers))
    if not isinstance(answers, Tensor) or answers.layout is not torch.strided or answers.ndim not in (1, 2):
        return []
    with torch._C.DisableTorchFunctionSubclass():  # a subclass could redefine what its rows are
        plain = answers.detach().cpu().clone()
        labels = plain.ndim == 1 and not (plain.is_floating_point() or plain.dtype == torch.bool)
        sound = len(plain) == count and not plain.is_complex() and (plain.ndim == 2 or labels)
        return [torch.tensor(row.tolist(), dtype=plain.dtype) for row in plain] if sound else []
