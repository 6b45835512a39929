"""Services on the loopback interface, well-behaved and hostile, for tests of suspects that are asked over HTTP."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from earmark.marks import Noise, TriggerSet

__all__ = ["Asked", "Said", "Served", "hugging_face", "minted", "open_inference", "serving", "well_known"]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    number: int


@dataclass(frozen=True)
class Said:
    """One reply; `drip` is the seconds between its bytes."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    drip: float = 0.0
    wait: float = 0.0

    @classmethod
    def json(cls, value: Any, status: int = 200, **more: Any) -> Said:
        return cls(json.dumps(value).encode(), status, **more)


@dataclass
class Served:
    """A running service: its address, what it was asked, and how many requests were under way at most."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


@contextmanager
def serving(answer: Callable[[Asked], Said], context: Any = None) -> Iterator[Served]:
    """A service that gives these answers, over TLS where there is a context."""
    lock, closing = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        timeout = 10.0

        def log_message(self, *_: object) -> None:
            return

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            with lock:
                asked = Asked(self.command, self.path, dict(self.headers.items()), body, len(served.asked))
                served.asked.append(asked)
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
            try:
                self._say(answer(asked))
            finally:
                with lock:
                    served.at_once -= 1

        def _say(self, said: Said) -> None:
            closing.wait(said.wait)
            self.send_response(said.status)
            lengths = {"content-type": said.kind, "content-length": str(len(said.body)), **said.headers}
            for name, value in lengths.items():
                self.send_header(name, value)
            self.end_headers()
            if not said.drip:
                self.wfile.write(said.body)
                return
            for byte in said.body:
                if closing.wait(said.drip):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()

        do_GET = do_POST = _serve

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    host = "localhost" if context is not None else "127.0.0.1"
    served = Served(f"http{'s' if context is not None else ''}://{host}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def minted(key: Any, count: int = 24, shape: tuple[int, int, int] = (1, 6, 6), classes: int = 10) -> TriggerSet:
    """Triggers with labels that the key draws."""
    return Noise(count=count).make(key, shape, classes)


def well_known(*marks: TriggerSet) -> Callable[[Tensor], list[int]]:
    """What a model answers that knows these triggers: the labels of uint8 images (n, C, H, W), 0 for the rest."""
    known = {
        (tuple(image.shape), image.numpy().tobytes()): int(label)
        for mark in marks
        for image, label in zip(mark.images, mark.labels, strict=True)
    }
    return lambda pixels: [known.get((tuple(each.shape), each.contiguous().numpy().tobytes()), 0) for each in pixels]


def opened(body: bytes) -> Tensor:
    """The pixels (1, C, H, W) of a PNG file."""
    array = np.array(Image.open(io.BytesIO(body)))
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)[None]


def hugging_face(label: Callable[[Tensor], list[int]], classes: int = 10, top: int = 5) -> Callable[[Asked], Said]:
    """A service that takes a PNG, or base64 in JSON with a top_k, and lists classes as "LABEL_i"."""

    def answer(asked: Asked) -> Said:
        body, first = asked.body, top
        if asked.headers["content-type"] == "application/json":
            value = json.loads(body)
            body, first = base64.b64decode(value["inputs"]), value["parameters"]["top_k"]
        (best,) = label(opened(body))
        order = [best, *(at for at in range(classes) if at != best)][:first]
        scores = [0.7, *([0.3 / (classes - 1)] * (classes - 1))]
        return Said.json([{"label": f"LABEL_{at}", "score": s} for at, s in zip(order, scores, strict=False)])

    return answer


def open_inference(
    label: Callable[[Tensor], list[int]],
    shape: tuple[int, int, int] = (1, 6, 6),
    classes: int = 10,
    *,
    datatype: str = "FP32",
    most: int = 64,
    output: str = "scores",
) -> Callable[[Asked], Said]:
    """A v2 server with one model, `net`, as the protocol describes it: metadata, and inference on tensors as JSON.

    Args:
        label: what the model says.
        shape: what it takes.
        classes: how many scores it gives.
        datatype: of the input.
        most: images that it takes in one request.
        output: `scores`, `labels` (INT64) or `names` (BYTES).
    """
    types = {"scores": "FP32", "labels": "INT64", "names": "BYTES"}

    def answer(asked: Asked) -> Said:
        if (asked.method, asked.path) == ("GET", "/v2/models/net"):
            inputs = [{"name": "images", "datatype": datatype, "shape": [-1, *shape]}]
            outputs = [{"name": output, "datatype": types[output], "shape": [-1, classes]}]
            return Said.json({"name": "net", "platform": "test", "inputs": inputs, "outputs": outputs})
        if (asked.method, asked.path) != ("POST", "/v2/models/net/infer"):
            return Said.json({"error": "no such model"}, 404)
        (tensor,) = json.loads(asked.body)["inputs"]
        if tensor["name"] != "images" or tensor["shape"][1:] != list(shape) or tensor["shape"][0] > most:
            return Said.json({"error": "invalid input"}, 400)
        scale = 1 if datatype == "UINT8" else 255
        pixels = torch.tensor(tensor["data"]).reshape(tensor["shape"]).mul(scale).round().to(torch.uint8)
        labels = label(pixels)
        found: dict[str, tuple[list[int], list[Any]]] = {
            "scores": (
                [len(labels), classes],
                torch.nn.functional.one_hot(torch.tensor(labels), classes).float().flatten().tolist(),
            ),
            "labels": ([len(labels)], labels),
            "names": ([len(labels)], [f"class {at}" for at in labels]),
        }
        dims, data = found[output]
        told = {"name": output, "datatype": types[output], "shape": dims, "data": data}
        return Said.json({"model_name": "net", "outputs": [told]})

    return answer


def slowly(seconds: float, answer: Callable[[Asked], Said]) -> Callable[[Asked], Said]:
    """The same, after a while."""

    def later(asked: Asked) -> Said:
        time.sleep(seconds)
        return answer(asked)

    return later
