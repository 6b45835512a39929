"""A service on the network as a suspect: asked image by image, and in batches where it takes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any, Final, final

import torch
from torch import Tensor

from earmark.errors import EarmarkError
from earmark.suspects.answers import Answer, Unreadable
from earmark.suspects.background import done
from earmark.suspects.forms import Form
from earmark.suspects.manners import Line, Manners
from earmark.suspects.pixels import as_pixels
from earmark.suspects.reached import Heard, Reached, Unreachable
from earmark.suspects.wire import Reply, checked_address, shown

__all__ = ["Service"]

ROOM: Final = 1 << 20
ROOM_A_SCORE: Final = 256
"""Bytes that an answer may have, beside which it may have these for each class of each image."""
REFUSED: Final = (400, 406, 413, 415, 422, 500)
"""What a service answers that does not want this image."""
DEAF: Final = 8
"""Images without a single answer after which a service is taken to be none that can be asked so."""


@final
class Service(Reached):
    """A black box behind HTTP.

    Each image is asked once, again only where there was no answer. An image that the service refuses, or answers with
    something else than an answer, has none; it costs only itself. A service that never answers anything is told as an
    error, not judged, since the fault is more often in how it is asked.

    Only pixels are sent. The address, the method's own words and the header that authenticates go with them; no label,
    key or name does.

    Args:
        url: the address; its query is sent and never told.
        form: what the service speaks.
        classes: K.
        manners: how it is asked.

    Raises:
        BadInput: an address that is none, or manners that cannot be kept.
        Unreachable: the service does not say what it takes where its form has to know.
    """

    def __init__(self, url: str, form: Form, classes: int, manners: Manners | None = None) -> None:
        self._manners = manners or Manners()
        self.classes, self._form, self._url = classes, form, checked_address(url)
        self._line = Line(url, self._manners)
        self._answered = self._asked = 0
        self._lock = threading.Lock()
        try:
            if (greeting := form.greeting()) is not None:
                form.greeted(done(self._line.tell(greeting, ROOM)))
        except BaseException as error:
            self.close()
            if isinstance(error, Unreadable):
                raise Unreachable(f"{shown(url)}: {error}") from error
            raise

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"kind": "http", "name": shown(self._url), **self._form.facts}

    @property
    def sent(self) -> int:
        """Images sent so far, those sent again included."""
        return self._line.sent

    def close(self) -> None:
        done(self._line.close())

    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        with self._lock:
            return done(self._ask(as_pixels(images), heard))

    async def _ask(self, pixels: Tensor, heard: Heard | None) -> list[Answer]:
        answers: dict[int, Answer] = {}
        faults: list[EarmarkError] = []
        gate = asyncio.Semaphore(self._manners.concurrency)

        async def one(places: Tensor) -> None:
            async with gate:
                if faults:
                    return
                try:
                    said = await self._batch(pixels[places])
                except EarmarkError as error:  # those that are under way are heard out first
                    faults.append(error)
                    return
            for at, answer in zip(places.tolist(), said, strict=True):
                answers[at] = answer
                if heard is not None:
                    heard(at, answer)

        await asyncio.gather(*map(one, torch.split(torch.arange(len(pixels)), self._form.batch)))
        if faults:
            raise faults[0]
        return [answers[at] for at in range(len(pixels))]

    async def _batch(self, pixels: Tensor) -> list[Answer]:
        message = self._form.message(pixels)
        room = ROOM + ROOM_A_SCORE * self.classes * len(pixels)
        try:
            answers = self._read(await self._line.tell(message, room), len(pixels))
            self._answered += len(answers)
            return answers
        except Unreadable as fault:
            if len(pixels) > 1:
                return [answer for each in torch.split(pixels, 1) for answer in await self._batch(each)]
            return [self._none(str(fault))]

    def _read(self, reply: Reply, count: int) -> list[Answer]:
        if reply.status in REFUSED:
            raise Unreadable(f"it refused with status {reply.status}")
        if reply.status != 200:
            raise Unreachable(
                f"{shown(self._url)} answered with status {reply.status}, so it was not asked; check the address and "
                "the form"
            )
        return self._form.read(reply, count)

    def _none(self, words: str) -> Answer:
        self._asked += 1
        if not self._answered and self._asked >= DEAF:
            raise Unreachable(
                f"{shown(self._url)} gave no answer to the first {self._asked} images ({words}); check the address, "
                "the form and its settings"
            )
        return Answer(fault=words)
