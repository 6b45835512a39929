"""Places that are actors of a Ray cluster, on this machine or on many: the same worker, somewhere else."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any, final

import torch

from earmark.bench.grid import Grid, Task
from earmark.bench.work import Outcome, Worker
from earmark.errors import BadInput

__all__ = ["Cluster"]


@final
class Cluster:
    """So many actors, each with its own marked model in memory; one that dies is started anew.

    The cluster is the one that the program has joined already, else the one that RAY_ADDRESS names, else a new one on
    this machine, which ends with the grid. All machines need earmark, and must see the folder of results.

    Raises:
        BadInput: Ray is not installed or does not start, or its actors cannot be given the grid.
    """

    def __init__(self, grid: Grid, out: Path, workers: int | None, threads: int | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise BadInput("the engine ray needs Ray; install it with pip install 'earmark[ray]'") from error
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            address = os.environ.get("RAY_ADDRESS")
            paths = os.pathsep.join(filter(None, sys.path))
            here: Any = {} if address else {"runtime_env": {"env_vars": {"PYTHONPATH": paths}}}
            try:
                ray.init(address=address, include_dashboard=False, log_to_driver=False, **here)
            except Exception as error:  # Ray raises bare exceptions where a node does not come up
                raise BadInput(f"Ray does not start ({_short(error)}); check RAY_ADDRESS") from error
        self._threads = threads or 1
        fitting = int(ray.cluster_resources().get("CPU", 1)) // self._threads
        self.places = workers or max(1, fitting)
        self._actor: Any = ray.remote(num_cpus=self._threads)(Remote)
        self._told = (ray.put(grid.shipped()), str(out.resolve()), self._threads)
        self._actors = {place: self._actor.remote(*self._told) for place in range(self.places)}
        self._running: dict[Any, tuple[int, Task, float]] = {}
        try:
            ray.get([actor.ready.remote() for actor in self._actors.values()])
        except ray.exceptions.RayError as error:
            self.close()
            raise BadInput(
                f"the grid does not arrive at its Ray actors ({_short(error)}); all machines need earmark and the "
                "modules that its networks, schemes and attacks are defined in"
            ) from error

    def submit(self, place: int, task: Task) -> None:
        self._running[self._actors[place].do.remote(task)] = (place, task, time.monotonic())

    def wait(self) -> tuple[int, Outcome]:
        (ready, *_), _ = self._ray.wait(list(self._running), num_returns=1)
        place, task, begun = self._running.pop(ready)
        try:
            outcome: Outcome = self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            self._actors[place] = self._actor.remote(*self._told)
            words = f"the Ray actor died ({_short(error)})"
            outcome = Outcome(task, time.monotonic() - begun, fault=words, died=True)
        return place, outcome

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        if self._ours:
            self._ray.shutdown()


def _short(error: Exception) -> str:
    """The end of what Ray says, where the cause stands, in one line without colours."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[-300:]


class Remote:
    """What an actor runs."""

    def __init__(self, grid: Grid, out: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._worker = Worker(grid, Path(out))

    def ready(self) -> bool:
        """Whether it came up, which it did where it can be asked."""
        return True

    def do(self, task: Task) -> Outcome:
        """The task's outcome."""
        return self._worker.do(task)
