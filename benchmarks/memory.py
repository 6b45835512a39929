"""One process, one kind of run, and how much memory it had at most: `python memory.py KIND DEVICE` prints JSON."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import cases
import torch

PLAIN = "plain"
STEPS, IMAGES = 20, 6_000


def peak_bytes() -> int:
    """The most memory that this process has had resident.

    Linux tells it in /proc; what getrusage tells there may be the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(kind: str, device: torch.device) -> None:
    """Run some steps with 6,000 images at hand, and print the peaks."""
    if kind == PLAIN:
        images = cases.data(IMAGES).train
        images.pixels.to(device)
        step = cases.plain_step(device)
    else:
        step = cases.EmbeddingStep(cases.METHODS[kind](), device, images=IMAGES)
    for _ in range(STEPS):
        step()
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    print(json.dumps({"resident": peak_bytes(), "device": on_device}))


if __name__ == "__main__":
    main(sys.argv[1], torch.device(sys.argv[2]))
