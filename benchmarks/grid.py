"""What the grid costs over the sum of its parts, and what a second process gains; interleaved, with the machine's load.

python benchmarks/grid.py [--rounds 3] [--seeds 2] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from earmark.attacks.ambiguity.forgery import draw_owner
from earmark.bench import Grid, named_attack, named_scheme, run
from earmark.bench.hardware import hardware
from earmark.bench.naming import seed_of
from earmark.core import Data, rng
from earmark.data import corrupted, digits, ood
from earmark.evidence import commit, judge
from earmark.fidelity import DeepFidelity
from earmark.files import write_atomic, write_json
from earmark.models import PlainCNN, built
from earmark.reports import Table
from earmark.suspects import as_query
from earmark.training import HOST, accuracy, train_host

SCHEMES = {
    "deep-fidelity": named_scheme("deep-fidelity", lr=1e-3, triggers_per_batch=16, epochs=10),
    "uchida": named_scheme("uchida", epochs=10),
}
ATTACKS = {
    "fine-tune-ftal": named_attack("fine-tune-ftal", lr=1e-3),
    "extract-hard": named_attack("extract-hard", epochs=10, milestones=()),
    "prune-global": named_attack("prune-global"),
}
TARGETS = {"overhead": 1.05, "gain": 1.6}


def grid(seeds: int) -> Grid:
    """Two schemes under three attacks on digits, on one thread."""
    build = partial(PlainCNN, (1, 8, 8), 10, width=32)
    return Grid(digits, build, SCHEMES, ATTACKS, range(seeds), host=HOST.but(epochs=10, milestones=()))


def by_hand(wanted: Grid, out: Path) -> None:
    """The same hosts, embeddings, commitments, attacks and tests, one call after the other."""
    for seed in wanted.seeds:
        data = digits()
        watched = Data(data.train, data.train.sample(2_000))
        host = train_host(built(wanted.build, rng(seed)), watched, rng(seed), wanted.host)
        for name, scheme in wanted.schemes.items():
            owner = draw_owner(rng(seed))
            mark: Any = scheme.mint(owner.mark_key("grid"), host, data)
            marked = scheme.embed(host, mark, data, rng(seed))
            files = commit(
                owner, mark, name="grid", host=host, marked=marked, scheme=name, out=out / f"{seed} {name}", check=False
            )
            others = {"corrupted": corrupted(data.test, "gaussian-noise", 3, rng(0)), "ood": ood(data.test, rng(0))}
            DeepFidelity(mark if mark.kind == "triggers" else None, others)(marked, host, data)
            accuracy(host, data.test)
            accuracy(marked, data.test)
            suspects = [attack.make(**attack.settings) for attack in wanted.attacks.values()]
            for suspect in [marked, *(attack(marked, data, rng(seed_of(seed, name))) for attack in suspects)]:
                accuracy(suspect, data.test)
                scheme.verify(as_query(suspect) if mark.kind == "triggers" else suspect, mark)
                judge(*files, suspect)


def timed(work: Callable[[Path], object]) -> tuple[float, float]:
    """Seconds by the clock, and seconds of computing in this process and its children."""
    with tempfile.TemporaryDirectory() as folder:
        begun, before = time.monotonic(), os.times()
        work(Path(folder))
        after = os.times()
        used = sum(b - a for a, b in zip(before[:4], after[:4], strict=True))
        return time.monotonic() - begun, used


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wanted = grid(asked.seeds)
    cases: dict[str, Callable[[Path], object]] = {
        "by hand": partial(by_hand, wanted),
        "grid, in one process": lambda out: run(wanted, out, workers=0, threads=1),
        "grid, one worker": lambda out: run(wanted, out, workers=1, threads=1),
        "grid, two workers": lambda out: run(wanted, out, workers=2, threads=1),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    loads = []
    for _ in range(asked.rounds):
        for name, work in cases.items():
            loads.append(os.getloadavg()[0])
            times[name].append(timed(work))
            print(f"{name}: {times[name][-1][0]:.1f} s, {times[name][-1][1]:.1f} s of computing, load {loads[-1]:.1f}")
    found = {
        "overhead, by the clock": ratio(times, "grid, in one process", "by hand", 0),
        "overhead, of computing": ratio(times, "grid, in one process", "by hand", 1),
        "gain of a second worker, by the clock": ratio(times, "grid, one worker", "grid, two workers", 0),
    }
    tell(found, times, loads, asked.out, asked.rounds)


def ratio(times: dict[str, list[tuple[float, float]]], above: str, below: str, which: int) -> float:
    """The median over the rounds of the ratio within a round."""
    return statistics.median(a[which] / b[which] for a, b in zip(times[above], times[below], strict=True))


def tell(
    found: dict[str, float], times: dict[str, list[tuple[float, float]]], loads: list[float], out: Path, rounds: int
) -> None:
    """Write the numbers as JSON and Markdown, and show them."""
    rows = tuple(
        (name, f"{value:.3f}", f"≤ {TARGETS['overhead']}" if name.startswith("overhead") else f"≥ {TARGETS['gain']}")
        for name, value in found.items()
    )
    load = f"{min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} processors"
    about = f"{hardware()}; {rounds} interleaved rounds, median of the ratio within a round; load before each: {load}."
    text = f"# The grid's own cost\n\n{about}\n\n{Table(('What', 'Ratio', 'Target'), rows).to_markdown()}\n"
    out.mkdir(parents=True, exist_ok=True)
    stem = out / time.strftime("grid-%Y-%m-%d")
    write_json(stem.with_suffix(".json"), {"ratios": found, "times": times, "loads": loads, "hardware": hardware()})
    write_atomic(stem.with_suffix(".md"), text.encode())
    print(text)


if __name__ == "__main__":
    main()
