"""How a service is asked: with patience, at the pace that it bears, within a budget, and under a name if need be."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from earmark.errors import BadInput, number, whole
from earmark.suspects.answers import plain
from earmark.suspects.reached import Unreachable, library
from earmark.suspects.wire import Broken, Message, Reply, exchange, host_of, is_private, shown

if TYPE_CHECKING:
    import httpx

__all__ = ["Line", "Manners"]

BUSY: Final = (429, 502, 503, 504)
"""What a service answers that may be well in a moment."""
LOCKED: Final = (401, 403, 407)
LONGEST_PAUSE: Final = 60.0
NEAR: Final = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""What no proxy is asked for: what goes to this machine goes to no other, a token least of all."""


@final
@dataclass(frozen=True)
class Manners:
    """The settings of a conversation with a service.

    Attributes:
        timeout: seconds that one request may take in all, from the look-up of the name to the last byte.
        retries: how often a request is sent again that had no answer, or one of 429, 502, 503 and 504.
        backoff: seconds before the first of them; each next one waits twice as long, up to a minute. Where the service
            says Retry-After, or how long a model still takes to load, that many; beyond a minute the audit ends, to be
            taken up again later.
        rate: requests a second at most; None for as many as are answered.
        budget: images that may be sent in all, those sent again included; None for as many as the test asks.
        patience: seconds that the whole audit may take; None for as long as it takes.
        concurrency: requests under way at once.
        token: the environment variable whose value authenticates; never told, written or sent to another host.
        header: the header that it goes into. In `Authorization`, a value without a scheme is a bearer token.
        agent: the User-Agent; None for that of the HTTP library, which says nothing of an audit.
        ca: a PEM file with the authority that signed the service's certificate, where the system does not know it.

    Raises:
        BadInput: a number out of range.
    """

    timeout: float = 30.0
    retries: int = 4
    backoff: float = 0.5
    rate: float | None = None
    budget: int | None = None
    patience: float | None = None
    concurrency: int = 4
    token: str | None = None
    header: str = "Authorization"
    agent: str | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        number("timeout", self.timeout, 0.001, 3600)
        whole("retries", self.retries, 0, 100)
        number("backoff", self.backoff, 0, LONGEST_PAUSE)
        whole("concurrency", self.concurrency, 1, 256)
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", self.header):
            raise BadInput(f"header: expected the name of a header such as X-Api-Key, got {plain(self.header, 60)!r}")
        if self.rate is not None:
            number("rate", self.rate, 1e-4, 1e6)
        if self.budget is not None:
            whole("budget", self.budget, 0, 1 << 31)
        if self.patience is not None:
            number("patience", self.patience, 0.001, 1e7)

    def headers(self, url: str) -> dict[str, str]:
        """What goes with every request to `url`.

        Raises:
            BadInput: the variable is not set or holds no header value, or the way to the service is not private.
        """
        known = {"accept": "application/json", "accept-encoding": "identity"}
        known |= {} if self.agent is None else {"user-agent": self.agent}
        if self.token is None:
            return known
        value = os.environ.get(self.token, "")
        if not value or not value.isascii() or not value.isprintable():
            raise BadInput(f"the environment variable {self.token} holds no value that can go into a header; set it")
        if not is_private(url):
            raise BadInput(f"{shown(url)} is not encrypted, so everybody on the way could read the token; use https://")
        bare = self.header.lower() == "authorization" and " " not in value.strip()
        return {**known, self.header: f"Bearer {value.strip()}" if bare else value.strip()}

    def certificates(self, url: str) -> ssl.SSLContext | bool:
        """What the service's certificate is checked against; nothing is loaded, and nothing passes, without TLS."""
        if not url.startswith("https:"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is None:
            return True
        try:
            return ssl.create_default_context(cafile=Path(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise BadInput(f"{self.ca} holds no certificates; give the authority's root as PEM") from error


def _untold(record: logging.LogRecord) -> bool:
    """Takes names, passwords and queries out of the addresses that httpx logs: a query may hold a key."""
    import httpx

    if isinstance(record.args, tuple):
        record.args = tuple(shown(str(one)) if isinstance(one, httpx.URL) else one for one in record.args)
    return True


@final
class Line:
    """A line to one service, with manners.

    Attributes:
        sent: images sent so far, those sent again included.
    """

    def __init__(self, url: str, manners: Manners) -> None:
        http: Any = library("httpx", "http")
        logging.getLogger("httpx").addFilter(_untold)  # once, however many lines there are
        self._manners, self._url, self.sent, self._free = manners, url, 0, 0.0
        self._end = math.inf if manners.patience is None else time.monotonic() + manners.patience
        limits = http.Limits(max_connections=manners.concurrency, max_keepalive_connections=manners.concurrency)
        headers, verify = manners.headers(url), manners.certificates(url)
        try:
            self._client: httpx.AsyncClient = http.AsyncClient(
                headers=headers,
                verify=verify,
                limits=limits,
                timeout=None,
                follow_redirects=False,
                mounts=dict.fromkeys(NEAR),
            )
        except (ValueError, ImportError, http.InvalidURL):  # whose words may hold a part of the proxy's password
            raise BadInput(
                "the environment names a proxy that cannot be used; mend or unset HTTP_PROXY, HTTPS_PROXY and "
                "ALL_PROXY, or install httpx[socks] for one that speaks SOCKS"
            ) from None

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def tell(self, message: Message, limit: int) -> Reply:
        """The service's reply, after as many tries as it takes.

        Raises:
            Unreachable: there is none, the budget is used up, or it is a redirect, or asks for credentials.
            Unreadable: as `exchange`.
        """
        pause, words = self._manners.backoff, ""
        for left in range(self._manners.retries, -1, -1):
            await self._turn(message)
            try:
                reply = await exchange(self._client, message, limit, self._time())
            except Broken as error:
                words, wait = str(error), None
            else:
                if reply.status not in BUSY:
                    return self._let_in(reply)
                words, wait = f"it answered with status {reply.status}", _asked_for(reply)
            if wait is not None and wait > LONGEST_PAUSE:
                raise Unreachable(f"{shown(self._url)} asks to be left alone for {wait:.0f} seconds; go on after that")
            if left:
                await asyncio.sleep(min(pause if wait is None else wait, max(0.0, self._end - time.monotonic())))
            pause = min(2 * pause, LONGEST_PAUSE)
        tries = self._manners.retries + 1
        raise Unreachable(f"{shown(self._url)} gave no answer in {tries} tries ({words}); so there is no verdict")

    def _let_in(self, reply: Reply) -> Reply:
        if 300 <= reply.status < 400:
            host = host_of(reply.location or "")
            there = f" to {host}" if host else ""
            raise Unreachable(
                f"{shown(self._url)} sends requests on{there}, and pixels go to nobody but the host that was named; "
                "give the address that it means, if it is the suspect's"
            )
        if reply.status in LOCKED:
            raise Unreachable(
                f"{shown(self._url)} does not let this client in (status {reply.status}); name the environment "
                "variable that holds its token with token=VARIABLE"
            )
        return reply

    def _time(self) -> float:
        """Seconds that the next exchange may take.

        Raises:
            Unreachable: the audit has taken as long as it may.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self._late()
        return min(self._manners.timeout, left)

    def _late(self) -> Unreachable:
        return Unreachable(f"{shown(self._url)} is too slow: the audit took its {self._manners.patience:g} seconds")

    async def _turn(self, message: Message) -> None:
        """Wait for the rate, and pay from the budget.

        Raises:
            Unreachable: the budget is used up, or the rate lets nothing through in the time that is left.
        """
        now = time.monotonic()
        if max(now, self._free) > self._end:  # its turn would come too late: nothing is waited for or paid
            raise self._late()
        budget = self._manners.budget
        if budget is not None and self.sent + message.images > budget:
            raise Unreachable(
                f"the budget of {budget} images is used up; raise budget= to go on, what was answered is in the "
                "transcript, if one is kept"
            )
        self.sent += message.images
        if self._manners.rate is not None:
            at = max(now, self._free)
            self._free = at + 1 / self._manners.rate
            await asyncio.sleep(at - now)


def _asked_for(reply: Reply) -> float | None:
    """Seconds that a busy service asks for: its Retry-After, or the `estimated_time` until its model is loaded."""
    if reply.wait is not None:
        return reply.wait
    try:
        told = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    seconds = told.get("estimated_time") if isinstance(told, dict) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return None
    return float(seconds)
