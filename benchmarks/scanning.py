"""How fast `earmark scan` is: many small networks against many claims, on this machine.

python benchmarks/scanning.py [--models 25] [--claims 40] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from earmark.cli import app
from earmark.evidence import commit
from earmark.files import save_tensors, state_tensors, write_json
from earmark.keys import OwnerKey
from earmark.marks import Noise
from earmark.models import PlainCNN

SHAPE, CLASSES, TRIGGERS = (1, 8, 8), 10, 100


def written(folder: Path, models: int, claims: int) -> None:
    """A registry of claims, and a folder of networks that have nothing to do with them."""
    for part in ("claims", "models"):
        (folder / part).mkdir()
    for at in range(claims):
        owner = OwnerKey(Ed25519PrivateKey.from_private_bytes(at.to_bytes(32, "big")))
        mark = Noise(count=TRIGGERS).make(owner.mark_key("m"), SHAPE, CLASSES)
        out, net = folder / "claims" / str(at), PlainCNN(SHAPE, CLASSES)
        commit(owner, mark, name="m", host=None, marked=net, scheme="x", out=out, owner_name=str(at), check=False)
    for at in range(models):
        torch.manual_seed(at)
        save_tensors(folder / "models" / f"{at}.safetensors", state_tensors(PlainCNN(SHAPE, CLASSES)))


def main() -> None:
    """Measure, and print pairs a minute, processor seconds and the most memory; `--out` gets the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=25)
    parser.add_argument("--claims", type=int, default=40)
    parser.add_argument("--out", type=Path, help="a file for the numbers")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder, asked.models, asked.claims)
        began, used = time.perf_counter(), time.process_time()
        words = ["scan", "--registry", f"{folder}/claims", "--suspects", f"{folder}/models", "--json"]
        found = CliRunner().invoke(app, words)
        seconds, busy = time.perf_counter() - began, time.process_time() - used
    pairs = len(json.loads(found.stdout))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{pairs} pairs in {seconds:.1f} s, {60 * pairs / seconds:.0f} a minute")
    print(f"{busy:.1f} s of processor, at most {memory} MiB of memory")
    if asked.out is not None:
        write_json(asked.out, {"pairs": pairs, "seconds": seconds, "processor_seconds": busy, "memory_mib": memory})


if __name__ == "__main__":
    main()
