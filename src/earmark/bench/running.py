"""Running a grid: what is not measured yet is handed out, and each cell is written down as it comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from earmark.bench.cells import blank
from earmark.bench.cluster import Cluster
from earmark.bench.grid import Grid, Task
from earmark.bench.ledger import Ledger
from earmark.bench.plan import Plan, Progress
from earmark.bench.processes import Processes, threads_each
from earmark.bench.record import Cell, schema
from earmark.bench.work import Engine, Here, Outcome
from earmark.errors import BadInput, unknown_name, whole
from earmark.files import write_json

__all__ = ["ENGINES", "run"]

ENGINES = ("local", "ray")
TRIES = 2
"""How often a cell is begun whose worker dies."""


def run(
    grid: Grid,
    out: Path | str,
    *,
    workers: int | None = None,
    engine: str = "local",
    threads: int | None = None,
    again: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> list[Cell]:
    """Measure every cell of a grid that `out` does not hold yet, and return all of them in the grid's order.

    A run that was killed goes on where it stopped: a cell that is written down is not measured again, a host or a
    marked model that is there is not made again, and one in the middle of its training goes on from its checkpoint. A
    cell whose worker dies is begun once more and then marked as failed, with its reason, as is one whose attack raises;
    the grid goes on. Cells do not depend on each other, nor on the order or the process in which they are measured.

    Args:
        grid: what is measured.
        out: gets `results.jsonl`, one line a cell, `schema.json`, which describes a line, and under `models/` hosts,
            marked models and commitments. With several machines it must be a folder that all of them see.
        workers: processes of this machine, one unless set; or actors of a Ray cluster, as many as it has processors
            unless set. 0 measures in this very process: for short grids, and to look for mistakes.
        engine: "local", or "ray": the cluster that RAY_ADDRESS names, or one on this machine.
        threads: that each worker computes with; by default they share the processors, so that none is asked for twice.
        again: measure failed cells once more.
        watch: told after each task how far the grid is.

    Raises:
        BadInput: an unknown engine, a number out of its range, a folder in which another run is writing, or a grid that
            cannot be sent to workers.
    """
    out = Path(out)
    for name, value, low in (("workers", workers, 0), ("threads", threads, 1)):
        if value is not None:
            whole(name, value, low, 10_000)
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {out}: {error.strerror}; give another") from error
    ids = {cell: grid.cell_id(cell) for cell in grid.cells()}
    with Ledger(out).writing() as ledger:
        done = {id for id, cell in ledger.cells.items() if not (again and cell.status == "failed")}
        lacking = [cell for cell, id in ids.items() if id not in done]
        if lacking:
            write_json(out / "schema.json", schema())
            with closing(_engine(grid, out, workers, engine, threads, len(lacking))) as places:
                _drive(Course(grid, ledger, set(ids.values()), watch), Plan(lacking), places)
        return [ledger.cells[id] for id in ids.values()]


def _engine(grid: Grid, out: Path, workers: int | None, engine: str, threads: int | None, cells: int) -> Engine:
    if workers == 0:
        return Here(grid, out, threads)
    if engine == "ray":
        return Cluster(grid, out, workers, threads)
    count = min(workers or 1, cells)
    return Processes(grid, out, count, threads or threads_each(count))


class Course:
    """What happens to outcomes: cells are written down, deaths counted, and whoever watches is told."""

    def __init__(self, grid: Grid, ledger: Ledger, ids: set[str], watch: Callable[[Progress], None] | None) -> None:
        self.grid, self._ledger, self._ids, self._watch = grid, ledger, ids, watch
        self._deaths: Counter[Task] = Counter()

    def take(self, outcome: Outcome, plan: Plan, places: int) -> None:
        """What one outcome means for the plan and for the file; raises `BadInput` where a worker has other code."""
        task = outcome.task
        if outcome.fault is None:
            plan.finish(task, outcome.seconds)
        elif outcome.died and self._deaths[task] + 1 < TRIES:
            self._deaths[task] += 1
            plan.again(task)
        elif task.attack is None:
            for cell in plan.drop(task):
                self._fail(cell, f"{task}: {outcome.fault}")
        else:
            plan.finish(task, outcome.seconds)
            self._fail(task, outcome.fault)
        if outcome.cell is not None:
            if outcome.cell.id not in self._ids:
                raise BadInput(
                    f"the worker that measured {task} has other code or settings than this process; give all machines "
                    "one version, and do not change it while a grid runs"
                )
            self._ledger.append(outcome.cell.model_copy(update={"tries": 1 + self._deaths[task]}))
        if self._watch is not None:
            known = [cell for id, cell in self._ledger.cells.items() if id in self._ids]
            failed = sum(cell.status == "failed" for cell in known)
            self._watch(Progress(len(known), len(self._ids), failed, plan.left(places), str(task)))

    def _fail(self, cell: Task, reason: str) -> None:
        self._ledger.append(blank(self.grid, cell, "failed", reason, 1 + self._deaths[cell]))


def _drive(course: Course, plan: Plan, engine: Engine) -> None:
    """Keep every place busy until nothing is left."""
    idle: dict[int, Task | None] = dict.fromkeys(range(engine.places))
    while plan:
        for place in list(idle):
            task = plan.take(idle[place])
            if task is not None:
                del idle[place]
                engine.submit(place, task)
        place, outcome = engine.wait()
        idle[place] = outcome.task
        course.take(outcome, plan, engine.places)
