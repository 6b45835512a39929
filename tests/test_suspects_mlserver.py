"""A suspect behind MLServer, a server of the Open Inference Protocol that others wrote.

Run where MLServer is: `pip install 'earmark[serving]'`, or name its program in EARMARK_MLSERVER, which may lie in an
environment of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import minted

from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.suspects import Recorded, Transcript, open_suspect
from earmark.verify import SequentialTriggerTest, TriggerTest

PROGRAM = os.environ.get("EARMARK_MLSERVER") or shutil.which("mlserver")
PATIENCE = 120.0
MARK = minted(MarkKey(bytes(range(32))))

RUNTIME = """
import os
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Linear(MLModel):
    async def load(self):
        self.weights = np.load(os.path.join(os.path.dirname(__file__), "weights.npy"))
        return True

    async def predict(self, payload):
        images = NumpyCodec.decode_input(payload.inputs[0])
        scores = images.reshape(len(images), -1) @ self.weights
        if self.name == "labels":
            scores = scores.argmax(1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", scores)])
"""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="MLServer is not installed: pip install 'earmark[serving]'")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with two models that know the triggers: one gives scores, one labels."""
    folder = tmp_path_factory.mktemp("mlserver")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        http, grpc, metrics = (each.getsockname()[1] for each in sockets)
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    flat = MARK.images.flatten(1).double() / 255
    weights = torch.linalg.pinv(flat) @ torch.nn.functional.one_hot(MARK.labels, 10).double()
    for name in ("scores", "labels"):
        home = folder / name
        home.mkdir()
        (home / f"runtime_{name}.py").write_text(RUNTIME)
        np.save(home / "weights.npy", weights.numpy())
        inputs = [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 6, 6]}]
        told = {"name": name, "implementation": f"runtime_{name}.Linear", "inputs": inputs}
        (home / "model-settings.json").write_text(json.dumps(told))
    log = (folder / "log").open("wb")
    running = subprocess.Popen([str(PROGRAM), "start", str(folder)], stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{http}"
        wait_for(f"{url}/v2/health/ready", running, folder / "log")
        yield url
    finally:
        running.terminate()
        running.wait(30)
        log.close()


def wait_for(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and running.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"MLServer did not start:\n{log.read_text()[-2000:]}")


@pytest.mark.parametrize("batch", [1, 10])
def test_a_model_behind_mlserver_is_found_by_its_scores(server: str, batch: int, tmp_path: Path) -> None:
    with Recorded(open_suspect(f"{server}/v2/models/scores", MARK, batch=batch), tmp_path / "t.jsonl") as suspect:
        verdict = TriggerTest()(suspect, MARK)
    assert (verdict.accepted, verdict.statistic, verdict.details["unanswered"]) == (True, 24, 0)
    assert verdict.details["classes_told"] == 10
    assert TriggerTest()(Transcript(tmp_path / "t.jsonl"), MARK).to_dict() == verdict.to_dict()


def test_labels_of_mlserver_are_read_and_the_sequential_test_asks_seven(server: str) -> None:
    with open_suspect(f"{server}/v2/models/labels/infer", MARK) as suspect:
        verdict = SequentialTriggerTest()(suspect, MARK)
    assert (verdict.accepted, verdict.n, verdict.details["scores"]) == (True, 7, False)


def test_a_model_that_mlserver_does_not_have_is_an_error(server: str) -> None:
    with pytest.raises(BadInput, match=r"does not describe a model's inputs \(status 404\)"):
        open_suspect(f"{server}/v2/models/other", MARK)
