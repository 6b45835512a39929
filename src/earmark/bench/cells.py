"""One cell: an attack on a marked model, and what is left of accuracy and evidence afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, final

import torch
from torch import nn

from earmark.attacks import PassportForgery, Transfer, measured, needs_of, query_accuracy
from earmark.bench.attack import NONE, Attack
from earmark.bench.grid import Grid, Task
from earmark.bench.hardware import hardware
from earmark.bench.provenance import code_commit, versions
from earmark.bench.record import Accuracy, Cell, Evidence, Needed, Point, Spending, Status
from earmark.bench.subject import Marked, Subject
from earmark.core import Data, Mark, Query
from earmark.errors import BadInput, CannotCarry
from earmark.evidence import Bundle, claim_of, judge
from earmark.evidence.claim import rfc3339
from earmark.marks import TriggerSet
from earmark.suspects import as_query
from earmark.training import accuracy

__all__ = ["blank", "measure"]

UNWATCHED = {"seconds": 0.0, "samples": 0, "queries": 0}


def measure(subject: Subject, cell: Task) -> Cell:
    """One cell of the grid, measured.

    The owner tests with the scheme's own V, the judge rules on the owner's commitment. Marks that are read from weights
    are looked for in the module, triggers in its answers. Of a forgery, V is asked about the forged mark, and the judge
    about the claim that the forger makes with it in his own name.

    Returns:
        A cell with status "done", or "unfit" with the reason where the attack finds nothing to act on in this scheme.
    """
    assert cell.scheme is not None, "a cell has a scheme"
    begun = time.monotonic()
    grid, marked = subject.grid, subject.marked(cell.scheme)
    attack = None if cell.attack in (None, NONE) else grid.attacks[cell.attack or ""]
    try:
        found = _attacked(subject, marked, attack, cell)
    except (BadInput, CannotCarry) as error:
        return blank(grid, cell, "unfit", str(error))
    facts, spent = marked.facts, found.pop("spent")
    spent |= {name: facts[name] for name in ("embed_seconds", "host_seconds")}
    cost = Spending(**spent, cell_seconds=time.monotonic() - begun)
    return blank(grid, cell, "done").model_copy(update={**found, "cost": cost})


def blank(grid: Grid, cell: Task, status: Status, reason: str | None = None, tries: int = 1) -> Cell:
    """A cell without measurements: what it is, where it was tried, and what became of it."""
    assert cell.scheme is not None, "a cell has a scheme"
    assert cell.attack is not None, "and an attack"
    return Cell(
        id=grid.cell_id(cell),
        scheme=cell.scheme,
        attack=cell.attack,
        family="none" if cell.attack == NONE else grid.attacks[cell.attack].family,
        status=status,
        reason=reason,
        tries=tries,
        seed=cell.seed,
        data=grid.task,
        model=grid.network,
        settings=grid.settings(cell),
        versions=versions(),
        hardware=hardware(),
        commit=code_commit(),
        time=rfc3339(datetime.now(UTC)),
    )


def _attacked(subject: Subject, marked: Marked, attack: Attack | None, cell: Task) -> dict[str, Any]:
    """Accuracy, evidence, points, needs and cost of one attack."""
    if attack is None:
        found = _looked(marked, marked.model, subject.data)
        return {**found, "fidelity": marked.facts["fidelity"], "spent": {**UNWATCHED}}
    if (why := attack.unfit(marked.mark)) is not None:
        raise BadInput(why)
    made = attack.against(marked.scheme, marked.mark, subject.rival)
    draw = subject.rng("attack", cell.scheme or "", cell.attack or "")
    found = _FAMILIES[attack.family](subject, marked, made, draw)
    return {**found, "needs": _needed(made)}


def _removed(subject: Subject, marked: Marked, attack: Any, draw: torch.Generator) -> dict[str, Any]:
    begun = draw.get_state()
    run = _Stages(attack) if getattr(attack, "trials", 1) > 1 and hasattr(attack, "stages") else attack
    result, spent = measured(run, marked.model, subject.thief, draw)
    stages: list[nn.Module] = result if isinstance(run, _Stages) else [result]
    task = None
    if isinstance(attack, Transfer):
        task = attack.target(subject.thief, torch.Generator().set_state(begun))
    found = _looked(marked, stages[-1], subject.data, task)
    course = [marked.model, *stages] if len(stages) > 1 else []
    points = tuple(_point(marked, at, stage, subject.data, task) for at, stage in enumerate(course))
    return {**found, "points": points, "spent": _spending(spent)}


@final
@dataclass(frozen=True)
class _Stages:
    """An attack in several trials, made to give all of its stages."""

    attack: Any

    @property
    def needs(self) -> Any:
        return needs_of(self.attack)

    def __call__(self, model: nn.Module, data: Data, rng: torch.Generator) -> list[nn.Module]:
        return list(self.attack.stages(model, data, rng))


def _evaded(subject: Subject, marked: Marked, attack: Any, draw: torch.Generator) -> dict[str, Any]:
    query, spent = measured(attack, as_query(marked.model), subject.thief, draw)
    return {**_looked(marked, query, subject.data), "spent": _spending(spent)}


def _forged(subject: Subject, marked: Marked, attack: Any, draw: torch.Generator) -> dict[str, Any]:
    """The forger's mark before V, and the forger's claim before the judge."""
    forgery, spent = measured(attack.forge, marked.model, subject.thief, draw)
    presented = forgery.model if isinstance(forgery, PassportForgery) else marked.model
    bundle = Bundle.seal(forgery.mark, forgery.key, name=forgery.name, scheme=marked.scheme.name)
    claim = claim_of(forgery.owner, bundle, host=None, marked=presented, owner_name="forger")
    verdict = judge(claim, bundle, presented, alpha=subject.grid.alpha)
    return {
        "accuracy": _accuracy(marked, accuracy(presented, subject.data.test)),
        "verify": Evidence.of(_asked(marked, presented, forgery.mark)),
        "judge": Evidence.of(verdict),
        "spent": _spending(spent),
    }


_FAMILIES: dict[str, Callable[[Subject, Marked, Any, torch.Generator], dict[str, Any]]] = {
    "removal": _removed,
    "evasion": _evaded,
    "forgery": _forged,
}


def _looked(marked: Marked, suspect: nn.Module | Query, data: Data, task: Data | None = None) -> dict[str, Any]:
    """Accuracy kept and evidence left."""
    ruled = judge(marked.claim, marked.evidence, suspect)
    return {
        "accuracy": _accuracy(marked, _right(suspect, data), None if task is None else _right(suspect, task)),
        "verify": Evidence.of(_asked(marked, suspect, marked.mark)),
        "judge": Evidence.of(ruled),
    }


def _point(marked: Marked, trial: int, suspect: nn.Module, data: Data, task: Data | None) -> Point:
    verdict = Evidence.of(_asked(marked, suspect, marked.mark))
    own = None if task is None else _right(suspect, task)
    return Point(trial=trial, suspect=_right(suspect, data), task=own, verify=verdict)


def _asked(marked: Marked, suspect: nn.Module | Query, mark: Mark) -> Any:
    """V, with the access that it needs: answers for triggers, the module for what is read from weights."""
    black = isinstance(mark, TriggerSet) and isinstance(suspect, nn.Module)
    return marked.scheme.verify(as_query(suspect) if black and isinstance(suspect, nn.Module) else suspect, mark)


def _right(suspect: nn.Module | Query, data: Data) -> float:
    return accuracy(suspect, data.test) if isinstance(suspect, nn.Module) else query_accuracy(suspect, data.test)


def _accuracy(marked: Marked, suspect: float, task: float | None = None) -> Accuracy:
    return Accuracy(host=marked.facts["host"], marked=marked.facts["marked"], suspect=suspect, task=task)


def _needed(attack: Any) -> Needed | None:
    return Needed(**needs_of(attack).to_dict()) if hasattr(attack, "needs") else None


def _spending(spent: Any) -> dict[str, Any]:
    return {"seconds": spent.seconds, "samples": spent.samples, "queries": spent.queries}
