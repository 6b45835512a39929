"""Servers that mean harm: each ends in a clear error or a rejecting verdict, in bounded time and memory."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import json
import socket
import ssl
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Asked, Said, Served, hugging_face, minted, open_inference, serving, well_known

from earmark.core import Verdict
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.suspects import ClassNames, CustomJson, HuggingFace, OpenInference, Unreachable, Unreadable, open_suspect
from earmark.suspects.wire import Reply
from earmark.verify import SequentialTriggerTest, TriggerTest

KEY = MarkKey(bytes(range(32)))
MARK = minted(KEY)
LABEL = well_known(MARK)
GOOD = hugging_face(LABEL)
QUICK: dict[str, Any] = {"backoff": 0.0, "retries": 1, "timeout": 2.0}


def judged(served: Served, form: str = "hf", **how: Any) -> Verdict:
    url = f"{served.url}/v2/models/net" if form == "v2" else served.url
    with open_suspect(url, MARK, form=form, **{**QUICK, **how}) as suspect:
        return TriggerTest()(suspect, MARK)


def sometimes(bad: Callable[[Asked], Said], every: int = 4) -> Callable[[Asked], Said]:
    """A service that is well but for every fourth image."""
    return lambda asked: bad(asked) if asked.number % every == every - 1 else GOOD(asked)


HTML = Said(b"<!doctype html><h1>It works\x1b[2J!</h1>", kind="text/html")
JUNK = {
    "html": HTML,
    "nothing": Said(b""),
    "cut short": Said(b'[{"label": "LABEL_1", "sco'),
    "an object": Said.json({"error": "no"}),
    "a number": Said.json(3),
    "no labels": Said.json([{"x": 1}]),
    "other classes": Said.json([{"label": "cat", "score": 1.0}]),
    "an empty list": Said.json([]),
    "text scores": Said.json([{"label": "LABEL_1", "score": "much"}]),
    "deep": Said(b"[" * 200_000),
    "refusal": Said(b"not this one", 422),
    "crash": Said(b"Traceback", 500),
    "other charset": Said("ü".encode("latin-1")),
    "brotli": Said(b"\x0b\x02\x80[]\x03", headers={"content-encoding": "br"}),
    "no gzip": Said(b"[]", headers={"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_for_some_images_costs_these_images_and_no_more(name: str) -> None:
    with serving(sometimes(lambda _: JUNK[name])) as served:
        verdict = judged(served)
    assert (verdict.accepted, verdict.statistic, verdict.details["unanswered"]) == (True, 18, 6)


@pytest.mark.parametrize("name", JUNK)
def test_junk_and_nothing_else_is_an_error_that_says_what_came(name: str) -> None:
    with serving(lambda _: JUNK[name]) as served:
        with pytest.raises(Unreachable, match=r"gave no answer to the first \d images \(it .*\); check the address"):
            judged(served)
        assert len(served.asked) <= 16


def test_junk_from_a_service_that_could_answer_is_a_rejecting_verdict_that_quotes_it_harmlessly() -> None:
    with (
        serving(lambda asked: GOOD(asked) if not asked.number else HTML) as served,
        open_suspect(served.url, MARK, form="hf", concurrency=1, **QUICK) as suspect,
    ):
        suspect(MARK.images[:1].float() / 255)
        verdict = TriggerTest()(suspect, MARK)
    assert verdict.accepted is False
    assert "it answered with text/html that is not JSON" in verdict.reason
    assert verdict.reason.isprintable()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null"])
def test_scores_that_are_no_numbers_are_no_answer(number: str) -> None:
    bad = Said(f'[{{"label": "LABEL_1", "score": {number}}}]'.encode())
    with serving(sometimes(lambda _: bad)) as served:
        verdict = judged(served)
    assert verdict.accepted is True
    assert verdict.statistic == 18 or number == "null", "a list without scores is a ranking"


@pytest.mark.parametrize(
    "output",
    [
        {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [0.1] * 10},
        {"name": "y", "datatype": "FP32", "shape": [2, 10], "data": [0.1] * 20},
        {"name": "y", "datatype": "FP32", "shape": [-1, 10], "data": [0.1] * 10},
        {"name": "y", "datatype": "FP32", "shape": [1, 10], "data": ["a"] * 10},
        {"name": "y", "datatype": "FP32", "shape": [1, 10], "data": [True] * 10},
        {"name": "y", "datatype": "FP32", "shape": [1, 10], "data": [[[[[[0.1]]]]]]},
        {"name": "y", "datatype": "FP32", "shape": [1] * 400 + [10], "data": [0.1] * 10},
        {"name": "y", "datatype": "FP32", "shape": "1x10", "data": [0.1] * 10},
        {"name": "y", "datatype": "FP32", "shape": [1, 10]},
        {"name": "y", "datatype": "BYTES", "shape": [1, 1], "data": [3]},
        {"name": "y", "datatype": None, "shape": [1, 10], "data": [10**400] * 10},
    ],
)
def test_wrong_shapes_of_a_v2_server_are_no_answer(output: dict[str, Any]) -> None:
    good = open_inference(LABEL)
    bad = Said.json({"outputs": [output]})
    with serving(lambda _: bad) as served, pytest.raises(BadInput, match="does not describe"):
        judged(served, "v2")
    with serving(lambda asked: good(asked) if asked.number % 4 != 3 else bad) as served:
        verdict = judged(served, "v2")
    assert (verdict.accepted, verdict.statistic, verdict.details["unanswered"]) == (True, 18, 6)


def test_too_few_scores_are_a_rejecting_verdict_that_counts_them() -> None:
    mark = minted(KEY, classes=12)
    with (
        serving(open_inference(LABEL, classes=10)) as served,
        open_suspect(f"{served.url}/v2/models/net", mark, **QUICK) as suspect,
    ):
        verdict = TriggerTest()(suspect, mark)
    assert verdict.accepted is False
    assert "10 scores and the mark's task has 12 classes" in verdict.reason


# ------------------------------------------------------------------------------------------------------- size and time


def bomb(size: int) -> bytes:
    engine = zlib.compressobj(9, wbits=31)
    return b"".join([engine.compress(b" " * (1 << 20)) for _ in range(size >> 20)]) + engine.flush()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(b" " * (3 << 20)), "longer than 1051136 bytes, more than"),
        (Said(bomb(256 << 20), headers={"content-encoding": "gzip"}), "bytes when decompressed"),
        (Said(bomb(256 << 20), headers={"content-encoding": "deflate"}), "bytes when decompressed"),
    ],
    ids=["huge", "gzip", "deflate"],
)
def test_huge_bodies_and_bombs_stay_small_in_memory(said: Said, words: str) -> None:
    mark = minted(KEY, classes=10)
    with serving(lambda _: said) as served, open_suspect(served.url, mark, form="hf", **QUICK) as suspect:
        tracemalloc.start()
        with pytest.raises(Unreadable, match=words):
            suspect(mark.images[:2].float() / 255)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 12 << 20


def test_a_body_without_an_end_is_broken_off() -> None:
    lies = Said(b"[" * 64, headers={"content-length": "1000000000"}, drip=0.01)
    with serving(lambda _: lies) as served:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"it took longer than 0.2 seconds|peer closed"):
            judged(served, timeout=0.2, concurrency=8)
        assert time.monotonic() - began < 3


def test_slow_drips_meet_a_total_deadline_for_bodies_and_heads() -> None:
    brief: dict[str, Any] = {"timeout": 0.3, "retries": 0}
    began = time.monotonic()
    with serving(lambda _: Said(b"[]" * 1000, drip=0.05)) as served, pytest.raises(Unreachable, match="took longer"):
        judged(served, **brief)
    head = b"HTTP/1.1 200 OK\r\n" + b"x-filler: 1\r\n" * 1000
    with dripping(head) as url, pytest.raises(Unreachable, match="took longer"):
        judged(Served(url), concurrency=1, **brief)
    assert time.monotonic() - began < 5


@contextmanager
def dripping(content: bytes) -> Iterator[str]:
    """A socket that sends a head byte by byte."""
    import threading

    server, closing = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            for byte in content:
                if closing.wait(0.02):
                    return
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
    finally:
        closing.set()
        thread.join()
        server.close()


def test_nobody_there_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable, match=r"no answer in 2 tries \(.*connect"):
        judged(Served(f"http://127.0.0.1:{port}"))


def test_a_host_that_hangs_up_is_an_error() -> None:
    with (
        dripping(b"") as url,
        pytest.raises(Unreachable, match=r"no answer in 1 tries \((Server disconnected|ReadError)"),
    ):
        judged(Served(url), retries=0, concurrency=1)


# ---------------------------------------------------------------------------------------------------- other hosts, TLS


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed_and_no_pixel_reaches_the_other_host(status: int) -> None:
    with serving(GOOD) as other:
        away = Said(b"", status, headers={"location": f"{other.url}/elsewhere?token=x"})
        with serving(lambda _: away) as served, pytest.raises(Unreachable, match=r"sends requests on to 127\.0\.0\.1"):
            judged(served)
        assert other.asked == []


@pytest.mark.parametrize("place", ["http://[", "http://a]b/"])
def test_a_redirect_to_no_address_is_a_redirect_all_the_same(place: str) -> None:
    with (
        serving(partial(always, Said(b"", 302, headers={"location": place}))) as served,
        pytest.raises(Unreachable, match="sends requests on"),
    ):
        judged(served)


def always(said: Said, _: Asked) -> Said:
    return said


def test_a_door_that_is_closed_is_no_verdict() -> None:
    for status, words in ((401, "token=VARIABLE"), (403, "token=VARIABLE"), (404, "status 404"), (204, "status 204")):
        shut = Said(b"", status)
        with serving(partial(always, shut)) as served, pytest.raises(Unreachable, match=words):
            judged(served)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost that signs itself, and its key, in one PEM file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    built = built.not_valid_after(now + datetime.timedelta(days=1))
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
    built = built.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    signed = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    no_password = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    path.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_that_does_not_hold_ends_it_before_anything_is_sent(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "secret")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    with serving(GOOD, context) as served:
        with pytest.raises(Unreachable, match="certificate of localhost does not hold"):
            judged(served, token="SERVICE_TOKEN")
        with pytest.raises(Unreachable, match=r"certificate of 127.0.0.1 does not hold"):
            judged(Served(served.url.replace("localhost", "127.0.0.1")), ca=str(authority))
        assert served.asked == []
        assert judged(served, ca=str(authority), token="SERVICE_TOKEN").accepted is True


# ------------------------------------------------------------------------------------------------------ fickle answers


def test_answers_that_change_between_calls_cannot_make_an_innocent_guilty_nor_be_asked_twice() -> None:
    """The first answer to an image counts, each image is asked once, and the rest is chance."""
    state = torch.Generator().manual_seed(0)

    def fickle(asked: Asked) -> Said:
        return Said.json([{"label": f"LABEL_{int(torch.randint(0, 10, (), generator=state))}", "score": 1.0}])

    with serving(fickle) as served:
        verdict = judged(served)
        assert verdict.accepted is False
        assert len(served.asked) == 24
    with serving(fickle) as served, open_suspect(served.url, MARK, form="hf") as suspect:
        assert SequentialTriggerTest()(suspect, MARK).accepted is False


# ------------------------------------------------------------------------------------------------------- all of parsing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["label", "score", "outputs", "shape", "data", "datatype", "name", "LABEL_3", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
FORMS = [
    HuggingFace("http://host", ClassNames()),
    CustomJson("http://host", ClassNames()),
    CustomJson("http://host", ClassNames({"x": 0}), answer="outputs.*.data"),
    OpenInference("http://host/v2/models/net", ClassNames()),
]


@settings(max_examples=80, deadline=None)
@given(JSON, st.sampled_from(FORMS), st.integers(1, 3))
def test_whatever_json_comes_is_an_answer_for_each_image_or_unreadable(value: Any, form: Any, count: int) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert read(form, body, count) in (None, count if isinstance(form, OpenInference) else 1)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(FORMS))
def test_whatever_bytes_come_are_an_answer_or_unreadable(body: bytes, form: Any) -> None:
    for content in (body, gzip.compress(body)[:40]):
        assert read(form, content, 1) in (None, 1)


def read(form: Any, body: bytes, count: int) -> int | None:
    """How many answers a form finds in a body; None where it finds none and says so in printable words."""
    try:
        return len(form.read(Reply(200, "?", body), count))
    except Unreadable as error:
        return None if str(error).isprintable() else -1
