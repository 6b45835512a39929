"""Many suspects against many claims: each pair is tested by itself, and false alarms are held down over all of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, TypeAlias, final

from pydantic import Field

from earmark import stats
from earmark.core import Mark, Verdict
from earmark.errors import BadInput, EarmarkError, unknown_name, whole
from earmark.evidence.bundle import Bundle
from earmark.evidence.claim import Claim
from earmark.evidence.judge import asked, claim_fault
from earmark.evidence.kinds import Suspect
from earmark.evidence.wire import Record
from earmark.marks import Passports
from earmark.models import Task
from earmark.suspects import plain

__all__ = ["CONTROLS", "Filed", "Known", "Listed", "Pair", "Registry", "Standing", "adjusted", "scan"]

CLAIM: Final = "claim.json"
EVIDENCE: Final = "evidence"
SHELF: Final = 256 << 20
"""Bytes of marks that are kept in memory; more are read again."""

Known: TypeAlias = tuple[str, str, str, str, float, float | None]
"""What two runs know a pair by: identity, evidence, claimant, mark, and both error probabilities."""

Build: TypeAlias = Callable[[Task], Suspect]
"""The suspect as a model of a task's images and classes; `BadInput` where it is none."""


@final
@dataclass(frozen=True)
class Listed:
    """A suspect of a scan.

    Attributes:
        name: what it is reported under.
        identity: a hash of everything that makes it this suspect: another file or setting has another.
        opened: tasks -> the suspect, reached for as long as the context lasts.
        remote: whether asking it is waiting, so that many are asked at once.
    """

    name: str
    identity: str
    opened: Callable[[Sequence[Task]], AbstractContextManager[Build]] = field(repr=False)
    remote: bool = False


class Pair(Record):
    """What came of one suspect and one claim.

    Attributes:
        suspect, identity: as in `Listed`.
        claimant: the owner in the claim.
        mark: the mark's name in the claim.
        evidence_digest: the claim's, which binds key and mark.
        alpha: the error probability that the claim allows.
        level: the p-value at which the test would have stopped, if it was a sequential one.
        statistic, n: matches and trials.
        log10_p: as a judge's, grinding included; None where the pair was not tested or the null has no basis.
        fault: why it was not tested.
    """

    suspect: str
    identity: str
    claimant: str
    mark: str
    evidence_digest: str
    alpha: float = 0.5
    level: float | None = None
    statistic: float | None = None
    n: int | None = None
    log10_p: Annotated[float, Field(le=0)] | None = None
    fault: str | None = None

    @property
    def key(self) -> Known:
        """What two runs know the pair by: the same evidence may be claimed twice, with another alpha or name."""
        return self.identity, self.evidence_digest, self.claimant, self.mark, self.alpha, self.level


@final
@dataclass(frozen=True)
class Filed:
    """A claim of the registry, and why it falls, if it does."""

    folder: Path
    claim: Claim | None
    fault: str | None

    @property
    def task(self) -> Task | None:
        """The images and classes that the claim speaks of."""
        told = None if self.claim is None else self.claim.parameters
        return (
            None
            if told is None or told.image_shape is None or told.classes is None
            else _Task(told.image_shape, told.classes)
        )


@dataclass(frozen=True)
class _Task:
    shape: tuple[int, int, int]
    classes: int


def _claimed(claim: Claim) -> tuple[str, str, str, float]:
    """What a scan reports of a claim."""
    return claim.evidence_digest, claim.owner, claim.mark, claim.parameters.alpha


@final
class Registry:
    """The claims in a folder: each sub-folder as `commit` writes it, `claim.json` beside `evidence/`.

    Each claim is checked once, as a judge does before he asks a suspect: signature, commitment, and that its key mints
    its mark. Marks beyond 256 MiB are read again when they are needed. Safe to be read by several threads.

    Raises:
        BadInput: no such folder, or no claim in it.
    """

    def __init__(self, folder: Path, checked: Callable[[], None] = lambda: None) -> None:
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder; give one whose sub-folders hold claim.json and evidence/")
        found = sorted(path.parent for path in folder.glob(f"*/{CLAIM}"))
        if not found:
            raise BadInput(
                f"{folder} holds no claim; expected sub-folders with claim.json and evidence/, as commit writes"
            )
        self._marks: OrderedDict[Path, tuple[Mark, int]] = OrderedDict()
        self._held, self._lock = 0, threading.Lock()
        self.filed: list[Filed] = []
        for each in found:
            self.filed.append(self._file(each))
            checked()

    @property
    def sound(self) -> list[Filed]:
        """The claims that hold, those of one task together; one that is there twice is one."""
        kept = {_claimed(each.claim): each for each in self.filed if each.fault is None and each.claim is not None}
        return sorted(kept.values(), key=lambda each: str(each.task))

    def mark(self, filed: Filed) -> Mark:
        """The mark of a claim that holds.

        Raises:
            BadInput, Tampered: its files are no longer what they were.
        """
        with self._lock:
            if (kept := self._marks.get(filed.folder)) is not None:
                self._marks.move_to_end(filed.folder)
                return kept[0]
        bundle = Bundle.read(filed.folder / EVIDENCE)
        if filed.claim is None or bundle.digest != filed.claim.evidence_digest:
            raise BadInput(f"{filed.folder} is no longer what it was when the scan began; begin it again")
        self._keep(filed.folder, bundle.mark)
        return bundle.mark

    def _file(self, folder: Path) -> Filed:
        try:
            claim = Claim.read(folder / CLAIM)
            bundle = Bundle.read(folder / EVIDENCE)
        except EarmarkError as error:
            return Filed(folder, None, str(error))
        if (fault := claim_fault(claim, bundle)) is not None:
            return Filed(folder, claim, f"{fault[0]}: {fault[1]}")
        self._keep(folder, bundle.mark)
        return Filed(folder, claim, None)

    def _keep(self, folder: Path, mark: Mark) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in mark.tensors().values())
        with self._lock:
            if folder not in self._marks:
                self._marks[folder] = (mark, size)
                self._held += size
            while self._held > SHELF and len(self._marks) > 1:
                _, (_, freed) = self._marks.popitem(last=False)
                self._held -= freed


def scan(
    registry: Registry,
    suspects: Sequence[Listed],
    heard: Callable[[Pair], None],
    *,
    alpha: float = 1e-6,
    sequential: bool = False,
    workers: int = 2,
    connections: int = 32,
    done: Mapping[Known, Pair] | None = None,
) -> list[Pair]:
    """Test every suspect for the mark of every claim that holds.

    Suspects are asked side by side, `workers` that compute here and `connections` that are waited for; each is opened
    once and let go when its claims are through, so memory holds no more of them than that. What goes wrong with one
    costs its own pairs and no other's.

    Args:
        registry: the claims.
        suspects: what is tested, under different identities.
        heard: called with each pair as it is known, from any thread, one at a time.
        alpha: the error probability of the whole scan. A sequential test stops at alpha over the number of pairs, which
            is what the hardest of them has to pass.
        sequential: ask services trigger by trigger and stop as soon as it is decided; what computes here is asked all.
        workers: suspects that compute at once.
        connections: services that are asked at once.
        done: pairs of an earlier run by `Pair.key`, which are not tested again.

    Returns:
        All pairs, those of earlier runs included, in the order of suspects and claims.

    Raises:
        BadInput: two suspects of one identity, or numbers out of range.
    """
    if len({each.identity for each in suspects}) < len(suspects):
        raise BadInput("a suspect is listed twice; list each once")
    sound = registry.sound
    level = alpha / max(1, len(sound) * len(suspects)) if sequential else None
    work = _Work(registry, sound, heard, alpha, level, done or {})
    with (
        ThreadPoolExecutor(whole("workers", workers, 1, 256), "scan") as here,
        ThreadPoolExecutor(whole("connections", connections, 1, 1024), "scan-remote") as away,
    ):
        futures: list[Future[list[Pair]]] = [
            (away if each.remote else here).submit(work.through, each) for each in suspects
        ]
        try:
            return [pair for future in futures for pair in future.result()]
        except BaseException:
            work.stopped.set()
            raise


@dataclass
class _Work:
    registry: Registry
    sound: Sequence[Filed]
    heard: Callable[[Pair], None]
    alpha: float
    level: float | None
    done: Mapping[Known, Pair]
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def through(self, suspect: Listed) -> list[Pair]:
        """The pairs of one suspect."""
        level = self.level if suspect.remote else None
        blanks = [(filed, self._blank(suspect, filed, level)) for filed in self.sound]
        new = [(filed, pair) for filed, pair in blanks if pair.key not in self.done]
        found = {pair.key: self.done[pair.key] for _, pair in blanks if pair.key in self.done}
        if new and not self.stopped.is_set():
            for pair in self._tested(suspect, new):
                found[pair.key] = pair
                with self.lock:
                    self.heard(pair)
        return [found[pair.key] for _, pair in blanks if pair.key in found]

    def _tested(self, suspect: Listed, pairs: Sequence[tuple[Filed, Pair]]) -> Iterator[Pair]:
        tasks = {(task.classes, task.shape): task for filed, _ in pairs if (task := filed.task) is not None}
        rest = list(pairs)
        try:
            with _foreign(), suspect.opened(list(tasks.values())) as build:
                while rest and not self.stopped.is_set():
                    filed, blank = rest[0]
                    pair = self._test(build, filed, blank)
                    rest.pop(0)
                    yield pair
        except (EarmarkError, OSError) as error:
            for _, blank in rest:
                yield blank.model_copy(update={"fault": str(error) or type(error).__name__})

    def _test(self, build: Build, filed: Filed, blank: Pair) -> Pair:
        try:
            mark = self.registry.mark(filed)
            told = build(_task_of(mark))
        except EarmarkError as error:
            if isinstance(error, OSError):
                raise
            return blank.model_copy(update={"fault": str(error)})
        alpha = self.alpha if blank.level is None else blank.level
        return _said(blank, asked(mark, told, alpha, None, blank.level is not None))

    def _blank(self, suspect: Listed, filed: Filed, level: float | None) -> Pair:
        assert filed.claim is not None, "a claim that holds could be read"
        evidence, claimant, mark, alpha = _claimed(filed.claim)
        return Pair(
            suspect=suspect.name,
            identity=suspect.identity,
            claimant=claimant,
            mark=mark,
            evidence_digest=evidence,
            alpha=alpha,
            level=level,
        )


@contextmanager
def _foreign() -> Iterator[None]:
    """Within, a suspect's files and its libraries may raise what they like; it is told in one sentence."""
    try:
        yield
    except (EarmarkError, OSError):
        raise
    except Exception as error:
        raise BadInput(plain(f"{type(error).__name__}: {error}")) from error


def _said(blank: Pair, verdict: Verdict) -> Pair:
    numbers = {"statistic": float(verdict.statistic), "n": verdict.n, "log10_p": verdict.log10_p}
    silent = verdict.details.get("unanswered") and "error" in verdict.details
    return blank.model_copy(update={**numbers, "fault": verdict.reason if silent else None})


def _task_of(mark: Mark) -> Task:
    task = mark.witnesses if isinstance(mark, Passports) else mark
    if task is None:
        raise BadInput("passports without witnesses tell no task, so no network can be built to read them from")
    return task  # type: ignore[return-value]


# --------------------------------------------------------------------------------------------------------- false alarms

CONTROLS: Final[Mapping[str, Callable[[Sequence[float]], list[float]]]] = {
    "bh": stats.benjamini_hochberg,
    "holm": stats.holm,
}
"""What holds false alarms down over all pairs: any at all (Holm), or their share among the accepted (BH)."""


@final
@dataclass(frozen=True)
class Standing:
    """A pair with its p-value adjusted for all pairs, and what follows: None where there is no p-value."""

    pair: Pair
    log10_adjusted: float | None
    accepted: bool | None


def adjusted(pairs: Sequence[Pair], alpha: float, control: str = "holm") -> list[Standing]:
    """The pairs by the strength of their evidence, the strongest first.

    Every pair counts in the adjustment, with p = 1 where it was not tested: what could not be asked today makes nothing
    else stronger.

    Raises:
        BadInput: an unknown control, or alpha outside (0, 1).
    """
    if control not in CONTROLS:
        raise unknown_name("control of false alarms", control, CONTROLS)
    levels = CONTROLS[control]([0.0 if pair.log10_p is None else pair.log10_p for pair in pairs])
    standings = [
        Standing(pair, None, None)
        if pair.log10_p is None
        else Standing(pair, p, stats.accepts(p, min(alpha, pair.alpha)))
        for pair, p in zip(pairs, levels, strict=True)
    ]
    return sorted(standings, key=_strength)


def _strength(standing: Standing) -> tuple[bool, float, float]:
    pair = standing.pair
    share = (pair.statistic or 0.0) / max(1, pair.n or 0)
    return standing.log10_adjusted is None, pair.log10_p or 0.0, -share
