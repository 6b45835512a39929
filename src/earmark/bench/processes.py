"""Places that are processes of this machine: none shares memory with another, and each may die alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, final

import torch

from earmark.bench.grid import Grid, Task
from earmark.bench.work import Outcome, Worker
from earmark.errors import BadInput

__all__ = ["Processes", "threads_each"]

LOGS = "workers"
TAIL = 2_000


def threads_each(workers: int) -> int:
    """How many threads each of so many workers may compute with, so that all together fit the machine.

    As many as OMP_NUM_THREADS says, where that is set; else the processors that this process may use, shared out.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // workers)


@final
class Processes:
    """So many processes, started anew where one dies; what they have to say goes to `out/workers/N.log`.

    Raises:
        BadInput: a grid that cannot be sent to another process, or processes that do not come up; the message ends with
            what they said.
    """

    def __init__(self, grid: Grid, out: Path, workers: int, threads: int) -> None:
        self.places = workers
        self._grid, self._out, self._threads = grid.shipped(), out, threads
        self._spawning = multiprocessing.get_context("spawn")
        (out / LOGS).mkdir(parents=True, exist_ok=True)
        self._pipes: dict[int, Connection[Any, Any]] = {}
        self._processes: dict[int, Any] = {}
        self._running: dict[int, tuple[Task, float]] = {}
        try:
            for place in range(workers):
                self._start(place)
            for place in range(workers):
                self._greet(place)
        except BaseException:
            self.close()
            raise

    def _log(self, place: int) -> Path:
        return self._out / LOGS / f"{place}.log"

    def _start(self, place: int) -> None:
        ours, theirs = self._spawning.Pipe()
        told = (theirs, self._grid, self._out, self._threads, self._log(place))
        process = self._spawning.Process(target=_serve, args=told, daemon=True, name=f"earmark bench {place}")
        try:
            process.start()
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise BadInput(
                f"this grid cannot be sent to another process ({error}); give functions that a module defines, no "
                "lambdas and no closures, or measure in this process with workers=0"
            ) from error
        theirs.close()
        self._pipes[place], self._processes[place] = ours, process

    def _greet(self, place: int) -> None:
        try:
            self._pipes[place].recv()
        except (EOFError, OSError):
            self._processes[place].join()
            said = self._log(place).read_bytes()[-TAIL:].decode(errors="replace") if self._log(place).exists() else ""
            last = said.strip().splitlines()[-1:] or ["it said nothing"]
            raise BadInput(
                f"a worker process ended before it began ({_ended(self._processes[place])}): {last[0]}; a script that "
                'measures must keep its own work under `if __name__ == "__main__":`'
            ) from None

    def submit(self, place: int, task: Task) -> None:
        self._running[place] = (task, time.monotonic())
        try:
            self._pipes[place].send(task)
        except OSError:
            return  # it died between two tasks, which `wait` finds out

    def wait(self) -> tuple[int, Outcome]:
        pipes = {self._pipes[place]: place for place in self._running}
        ready: Any = wait(list(pipes))[0]
        place = pipes[ready]
        task, begun = self._running.pop(place)
        try:
            outcome: Outcome = ready.recv()
        except (EOFError, OSError):
            outcome = self._dead(place, task, begun)
        return place, outcome

    def _dead(self, place: int, task: Task, begun: float) -> Outcome:
        process = self._processes[place]
        process.join()
        self._pipes[place].close()
        words = f"the worker process died ({_ended(process)})"
        self._start(place)
        self._greet(place)
        return Outcome(task, time.monotonic() - begun, fault=words, died=True)

    def close(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for place, process in self._processes.items():
            process.join()
            self._pipes[place].close()


def _ended(process: Any) -> str:
    code = process.exitcode
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"


def _serve(pipe: Connection[Any, Any], grid: Grid, out: Path, threads: int, log: Path) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr
    torch.set_num_threads(threads)
    worker = Worker(grid, out)
    pipe.send("ready")
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(worker.do(task))


def _end_with_parent() -> None:
    """A worker whose grid was killed must not go on computing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
