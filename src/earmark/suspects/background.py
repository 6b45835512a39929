"""One event loop for all connections, in a thread of its own: queries are plain calls, waiting is done here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["done"]

T = TypeVar("T")

_LOCK = threading.Lock()
_LOOPS: list[asyncio.AbstractEventLoop] = []


def done(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run in the background loop; whoever is interrupted while waiting cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _loop() -> asyncio.AbstractEventLoop:
    with _LOCK:
        if not _LOOPS:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="earmark-connections", daemon=True).start()
            _LOOPS.append(loop)
        return _LOOPS[0]
