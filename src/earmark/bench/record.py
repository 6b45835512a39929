"""One cell of the grid as it is written down: one JSON object, complete in itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from earmark.core import Verdict

__all__ = ["FORMAT", "Accuracy", "Cell", "Evidence", "Family", "Needed", "Point", "Spending", "Status", "schema"]

FORMAT = 1

Status = Literal["done", "unfit", "failed"]
Family = Literal["none", "removal", "evasion", "forgery"]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Written(BaseModel):
    """Base of all parts: frozen, and no field that the format does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Evidence(Written):
    """What one test found; `null` is the basis of its null hypothesis and `step` the one at which a judge decided."""

    word: Literal["accepted", "rejected", "inconclusive"]
    log10_p: Annotated[float, Field(le=0)] | None
    statistic: Annotated[float, Field(ge=0)]
    n: Count
    alpha: Annotated[float, Field(gt=0, lt=1)]
    null: Literal["exact", "calibrated", "none"]
    step: str | None = None
    reason: str

    @classmethod
    def of(cls, verdict: Verdict) -> Evidence:
        """A verdict, without its details."""
        step = verdict.details.get("step")
        return cls(
            word=verdict.word,
            log10_p=verdict.log10_p,
            statistic=verdict.statistic,
            n=verdict.n,
            alpha=verdict.alpha,
            null=verdict.null.basis,
            step=None if step is None else str(step),
            reason=verdict.reason,
        )


class Accuracy(Written):
    """Shares of test images answered correctly: by the host, the marked model, and the suspect after the attack.

    `task` is the suspect's share on a task of the thief's own, where the attack moved the model to one.
    """

    host: Share
    marked: Share
    suspect: Share
    task: Share | None = None

    @property
    def given_up(self) -> float:
        """The percentage points that the thief's model is behind the marked one; below 0 where it is ahead."""
        return 100 * (self.marked - self.suspect)


class Point(Written):
    """Where an attack in several trials stood after one of them."""

    trial: Count
    suspect: Share
    task: Share | None = None
    verify: Evidence


class Needed(Written):
    """What the attack needs of a thief: `earmark.attacks.Needs`."""

    weights: bool
    data: str
    queries: str
    more: str


class Spending(Written):
    """What the attack took on this machine: `earmark.attacks.Spent`; and what making the marked model took."""

    seconds: Seconds
    samples: Count
    queries: Count
    embed_seconds: Seconds
    host_seconds: Seconds
    cell_seconds: Seconds


class Cell(Written):
    """One scheme under one attack with one seed.

    Attributes:
        format: the version of this format.
        id: digits that differ wherever anything that the outcome depends on differs.
        scheme, attack: their labels in the grid.
        family: what the attack does; "none" is the marked model as it was released.
        status: "done"; "unfit", where the attack has nothing to act on in this scheme; "failed".
        reason: why it is not done.
        tries: how often it was begun.
        seed: of the host, the key, the embedding and the attack.
        data, model: what the task and the network are called.
        settings: of scheme, attack, host and data, those that are not their defaults.
        accuracy: kept.
        verify: V, the owner's own test; of a forgery, the test of the forged mark.
        judge: the judge on the owner's claim; of a forgery, on the forger's.
        fidelity: F, once per marked model: in the cell without an attack.
        points: after each trial of an attack in several.
        needs: what the thief must know and own.
        cost: what it took.
        versions, hardware, commit, time: where the numbers come from.
    """

    format: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    scheme: str
    attack: str
    family: Family
    status: Status
    reason: str | None = None
    tries: Annotated[int, Field(ge=1)] = 1
    seed: Count
    data: str
    model: str
    settings: dict[str, Any]
    accuracy: Accuracy | None = None
    verify: Evidence | None = None
    judge: Evidence | None = None
    fidelity: dict[str, Any] | None = None
    points: tuple[Point, ...] = ()
    needs: Needed | None = None
    cost: Spending | None = None
    versions: dict[str, str]
    hardware: str
    commit: str | None
    time: str

    def line(self) -> bytes:
        """The cell as one line of a file."""
        return self.model_dump_json(exclude_defaults=False).encode() + b"\n"


def schema() -> dict[str, Any]:
    """The JSON schema of a line of results."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Cell.model_json_schema()}
