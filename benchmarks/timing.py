"""Interleaved timing: in each round every case runs once, so that a busy moment hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Times", "interleaved"]


@dataclass(frozen=True)
class Times:
    """Seconds of one case, one value a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    def over(self, floor: Times) -> float:
        """Median over rounds of this case's time divided by the floor's time in the same round."""
        return statistics.median(own / least for own, least in zip(self.seconds, floor.seconds, strict=True))

    def each(self, count: int) -> Times:
        """The time of one of `count` equal steps."""
        return Times(tuple(seconds / count for seconds in self.seconds))

    def to_dict(self) -> dict[str, Any]:
        """Milliseconds, as JSON types."""
        return {
            "median_ms": 1e3 * self.median,
            "min_ms": 1e3 * min(self.seconds),
            "max_ms": 1e3 * max(self.seconds),
            "rounds": len(self.seconds),
        }


def interleaved(
    cases: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warmup: int = 3
) -> dict[str, Times]:
    """Run every case `warmup` times unmeasured, then once a round; the order turns by one each round."""
    for case in cases.values():
        for _ in range(warmup):
            _seconds(case, device)
    names = list(cases)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for at in range(rounds):
        for name in _turned(names, at):
            taken[name].append(_seconds(cases[name], device))
    return {name: Times(tuple(seconds)) for name, seconds in taken.items()}


def _turned(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def _seconds(case: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    case()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
