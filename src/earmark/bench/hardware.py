"""The machine that measurements are made on."""

from __future__ import annotations

import os
import platform

import torch

__all__ = ["hardware"]


def hardware() -> str:
    """Processor, threads, GPU and version of PyTorch, as one line."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = f"{os.cpu_count()} CPUs, {torch.get_num_threads()} threads"
    return f"{platform.machine()}, {threads}, {gpu}, torch {torch.__version__}"
