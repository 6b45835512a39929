"""One exchange with a server that may be hostile: bounded in time and in size, never sent on to another host."""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit, urlunsplit

from earmark.errors import BadInput
from earmark.suspects.answers import Unreadable, plain
from earmark.suspects.reached import Unreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["Broken", "Message", "Reply", "checked_address", "exchange", "host_of", "is_private", "shown"]

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
PORTS: Final = {"http": 80, "https": 443}


class Broken(Exception):
    """An exchange that came to nothing and may be tried again; its words say how."""


@final
@dataclass(frozen=True)
class Message:
    """What is sent: pixels in the form that a service takes, and nothing else."""

    url: str
    body: bytes | None = field(default=None, repr=False)
    kind: str = "application/json"
    images: int = 0


@final
@dataclass(frozen=True)
class Reply:
    """What came back, its body decoded and within the limit."""

    status: int
    kind: str
    body: bytes = field(repr=False)
    wait: float | None = None
    location: str | None = None


def checked_address(url: str) -> str:
    """`url`, if it is the http or https address of a host, without a password in it.

    Raises:
        BadInput: anything else.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:  # its words may hold a part of a password
        raise BadInput(f"{shown(url)!r} is no address of a service; give http:// or https:// and a host") from None
    if parts.scheme not in PORTS or not parts.hostname or not port_is_fine:
        raise BadInput(f"expected the http:// or https:// address of a service, got {shown(url)!r}")
    if "@" in parts.netloc:
        raise BadInput("an address with a name or a password in it would show it everywhere; use token=VARIABLE")
    return url


def shown(url: str) -> str:
    """The address as it may be told: without a name or a password, and without a query, which may hold a key.

    >>> shown("https://me:pw@host/x?key=k"), shown("http://me:pw@[host/x?key=k")
    ('https://host/x', '[host/x')
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # no address; what stands before an @ may be a password with signs that end a host
        return plain(url.partition("?")[0].rpartition("@")[2])
    return plain(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))


def host_of(url: str) -> str:
    """The host that an address of somebody else names, fit to be told; nothing where it names none."""
    try:
        return plain(urlsplit(url).netloc.rpartition("@")[2], 80)
    except ValueError:
        return ""


def is_private(url: str) -> bool:
    """Whether nobody on the way can read along: TLS, or this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


async def exchange(client: httpx.AsyncClient, message: Message, limit: int, timeout: float) -> Reply:
    """Send one message and read the answer.

    The whole of it, from the look-up of the name to the last byte, takes at most `timeout` seconds, however slowly the
    bytes drip; the body has at most `limit` bytes, as sent and as decoded. No redirect is followed.

    Raises:
        Broken: no connection, a timeout, a server that breaks off.
        Unreachable: a certificate that does not hold.
        Unreadable: a body beyond the limit, or in an encoding that was not asked for.
    """
    import httpx

    how = {"content-type": message.kind} if message.body is not None else {}
    method = "GET" if message.body is None else "POST"
    try:
        async with (
            asyncio.timeout(timeout),
            client.stream(method, message.url, content=message.body, headers=how) as response,
        ):
            return await _read(response, limit)
    except TimeoutError as error:
        raise Broken(f"it took longer than {timeout:g} seconds") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if _about_certificates(error):
            raise Unreachable(
                f"the certificate of {urlsplit(message.url).hostname} does not hold ({plain(str(error))}); nothing was "
                "sent. If the service has an authority of its own, name its root with ca=FILE"
            ) from error
        raise Broken(plain(str(error)) or type(error).__name__) from error


def _about_certificates(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


async def _read(response: httpx.Response, limit: int) -> Reply:
    head = response.headers
    coding = head.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "", "gzip", "deflate"):
        raise Unreadable(f"it answered in the encoding {plain(coding, 20)!r}, which was not asked for")
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > limit:
            raise Unreadable(f"its answer is longer than {limit} bytes, more than any answer to this needs")
    body = bytes(raw) if coding in ("identity", "") else _inflated(bytes(raw), limit)
    kind = head.get("content-type", "").partition(";")[0].strip().lower()
    return Reply(response.status_code, kind, body, _wait(head), head.get("location"))


def _inflated(raw: bytes, limit: int) -> bytes:
    """Decompressed by at most one byte beyond the limit, so that no bomb goes off."""
    engine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        body = engine.decompress(raw, limit + 1)
    except zlib.error as error:
        raise Unreadable("it answered with compressed bytes that cannot be read") from error
    if len(body) > limit:
        raise Unreadable(f"its answer is longer than {limit} bytes when decompressed, more than any answer needs")
    if not engine.eof:
        raise Unreadable("it answered with compressed bytes that are cut short")
    return body


def _wait(head: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to be left alone, by its Retry-After, as a number or as a date."""
    text = head.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (ValueError, TypeError, OverflowError):
        return None
