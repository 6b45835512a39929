"""Triggers among ordinary images, in an order that only a key knows, so that an audit looks like traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from earmark.core import Images
from earmark.errors import BadInput, whole
from earmark.keys import MarkKey
from earmark.suspects.answers import Answer
from earmark.suspects.pixels import as_pixels
from earmark.suspects.reached import Heard, Reached

__all__ = ["Mixed"]


@final
class Mixed(Reached):
    """A suspect that is asked `each` ordinary images beside every image of the test.

    Which ordinary images, and at which places the test's stand, comes from the key's streams "decoys" and
    "decoy-places", so the same audit asks the same questions in the same order again. Answers to decoys are left aside;
    no test sees them. Images run out where there are fewer than the test needs; then they come again from the start.

    Args:
        suspect: what is asked.
        decoys: images such as the service sees every day, of the triggers' shape.
        key: draws the order.
        each: ordinary images for one of the test's.

    Raises:
        BadInput: no decoys, or fewer than one for each.
    """

    def __init__(self, suspect: Reached, decoys: Images, key: MarkKey, each: int = 3) -> None:
        if not len(decoys):
            raise BadInput("there are no ordinary images to hide triggers among; name data that have some")
        self._suspect, self.classes = suspect, suspect.classes
        self._decoys, self._each = decoys, whole("decoys for each trigger", each, 1, 1000)
        self._which, self._places = key.stream("decoys"), key.stream("decoy-places")
        self._waiting: list[int] = []
        self._used = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self._suspect.facts, "decoys": self._used, "decoys_each": self._each}

    def close(self) -> None:
        self._suspect.close()

    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        pixels, count = as_pixels(images), len(images)
        if pixels.shape[1:] != self._decoys.pixels.shape[1:]:
            raise BadInput(
                f"decoys are {tuple(self._decoys.shape)} and triggers {tuple(pixels.shape[1:])}; a filter would tell "
                "them apart, so bring the decoys to the triggers' shape"
            )
        decoys = self._decoys.pixels[torch.tensor([self._next() for _ in range(count * self._each)])]
        places = self._places.permutation(count + len(decoys))
        mixed = torch.cat([pixels, decoys])[places]
        wanted = {int(at): place for place, at in enumerate(places) if at < count}

        def among(place: int, answer: Answer) -> None:
            if heard is not None and places[place] < count:
                heard(int(places[place]), answer)

        answers = self._suspect.ask(mixed.float().div_(255), among)
        self._used += len(decoys)
        return [answers[wanted[at]] for at in range(count)]

    def _next(self) -> int:
        if not self._waiting:
            self._waiting = self._which.permutation(len(self._decoys)).tolist()
        return self._waiting.pop(0)
