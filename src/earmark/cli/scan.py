"""Many suspects against many claims, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import Field

from earmark.cli import options, suspects
from earmark.cli.networks import check_name, network
from earmark.cli.output import note, show
from earmark.cli.settings import pairs
from earmark.cli.suspects import Approach
from earmark.errors import BadInput
from earmark.evidence.kinds import Suspect
from earmark.evidence.scan import Known, Listed, Pair, Registry, Standing, adjusted
from earmark.evidence.scan import scan as scanned
from earmark.evidence.wire import Record, validated
from earmark.files import canonical_json, read_bytes
from earmark.models import Task
from earmark.reports import Table
from earmark.reports.rulings import bound
from earmark.suspects import kind_of_suspect, spoken
from earmark.training.progress import meter

__all__ = ["scan"]

LIST_LIMIT: Final = 64 << 20
SHOWN: Final = 50
WEIGHTS: Final = (".safetensors", ".pt", ".pth", ".onnx")
BEGINNING: Final = b'{"alpha":'


class Entry(Record):
    """One suspect of a list."""

    suspect: str
    name: str | None = None
    form: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    class_names: str | None = None
    model: str | None = None
    model_set: dict[str, Any] = Field(default_factory=dict)


def scan(
    registry: Annotated[
        Path, typer.Option("--registry", metavar="DIR", help="Its sub-folders hold claim.json and evidence/.")
    ],
    suspect: Annotated[
        Path,
        typer.Option(
            "--suspects", metavar="PATH", help="A list, one suspect a line or JSON; or a folder of model files."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Keep every pair here, and go on from those that are there."),
    ] = None,
    control: Annotated[
        str, typer.Option("--control", metavar="NAME", help="holm (no false alarm at all) or bh (few among many).")
    ] = "holm",
    alpha: options.Alpha = 1e-6,
    sequential: Annotated[
        bool,
        typer.Option("--sequential", help="Ask services one trigger at a time, and stop as soon as it is decided."),
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, max=256, help="Models that compute at once.")
    ] = 2,
    connections: Annotated[
        int, typer.Option("--connections", metavar="N", min=1, max=1024, help="Services that are asked at once.")
    ] = 32,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", help="How long one service may take for all claims.")
    ] = 600.0,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    form: suspects.Service = None,
    suspect_set: suspects.SuspectSet = None,
    as_json: options.Json = False,
) -> None:
    """Test many suspects for the marks of many claims, and sort what was found by the strength of the evidence.

    Each pair is tested as a judge tests it, with p multiplied by 2^64; then p is adjusted for all pairs, so that alpha
    is the error probability of the whole scan. A suspect that cannot be asked costs its own pairs and no other's, and
    is asked again when the command is given again with the same --out. What is found here is where to look: open a
    claim to a judge for a ruling. --model, --form and --suspect-set are for the suspects whose entry does not say.
    """
    entries = _entries(suspect, Entry(suspect="-", form=form, model=model, model_set=_texts(model_set)))
    texts = [*(suspect_set or ()), f"patience={patience:g}"]
    listed = [_listed(entry, texts) for entry in entries]
    claims = _checked(registry)
    known = _Kept(out)
    with known, meter("pairs", len(listed) * len(claims.sound)) as progress:

        def heard(pair: Pair) -> None:
            known.keep(pair)
            progress.advance()

        how = {"alpha": alpha, "sequential": sequential, "workers": workers, "connections": connections}
        found = scanned(claims, listed, heard, done=known.done, **how)  # type: ignore[arg-type]
    standings = adjusted(found, alpha, control)
    value = [
        {**_plain(each.pair), "log10_adjusted": each.log10_adjusted, "accepted": each.accepted} for each in standings
    ]
    more = len(standings) - SHOWN
    rest = [f"and {more} more; --json has them all"] if more > 0 else []
    show(as_json, value, _table(standings[:SHOWN], control).to_rich(), *rest)


def _checked(folder: Path) -> Registry:
    count = sum(1 for _ in folder.glob("*/claim.json")) if folder.is_dir() else 0
    with meter("claims", count) as progress:
        registry = Registry(folder, progress.advance)
    for each in registry.filed:
        if each.fault is not None:
            note(f"{each.folder.name} is left out: {each.fault}")
    return registry


def _texts(given: Sequence[str] | None) -> dict[str, Any]:
    return dict(pairs(given, "--model-set"))


def _entries(path: Path, usual: Entry) -> list[Entry]:
    """The suspects that a list or a folder names, with what is usual where they do not say."""
    if path.is_dir():
        found = [Entry(suspect=f"onnx:{each}" if each.suffix == ".onnx" else str(each), name=each.name)
                 for each in sorted(path.iterdir()) if each.suffix in WEIGHTS]  # fmt: skip
    else:
        found = [_entry(value, f"{path}, entry {at}") for at, value in enumerate(_values(path), start=1)]
    if not found:
        raise BadInput(f"{path} names no suspect; expected a list with one a line, or a folder of model files")
    return [_usual(each, usual) for each in found]


def _values(path: Path) -> list[Any]:
    raw = read_bytes(path, LIST_LIMIT)
    try:
        text = raw.decode()
        if path.suffix != ".json":
            lines = [line.strip() for line in text.splitlines()]
            return [json.loads(line) if line[0] == "{" else line for line in lines if line and line[0] != "#"]
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no list of suspects ({error}); write one a line, or JSON") from error
    if not isinstance(value, list):
        raise BadInput(f"{path}: expected a JSON list of suspects, got {type(value).__name__}")
    return value


def _entry(value: Any, where: str) -> Entry:
    if not isinstance(value, str | dict):
        raise BadInput(f"{where}: expected a suspect's name or an object, got {type(value).__name__}")
    return validated(Entry, {"suspect": value} if isinstance(value, str) else value, where)


def _usual(entry: Entry, usual: Entry) -> Entry:
    reached = kind_of_suspect(entry.suspect)
    if reached is None:
        return entry if entry.model else entry.model_copy(update={"model": usual.model, "model_set": usual.model_set})
    return entry.model_copy(update={"form": entry.form or usual.form}) if reached == "http" else entry


def _listed(entry: Entry, texts: Sequence[str]) -> Listed:
    kind = kind_of_suspect(entry.suspect)
    name = entry.name or spoken(entry.suspect)
    if kind is None:
        check_name(entry.model or "plain")
    try:
        identity = _identity(entry)
    except OSError as error:
        fault = BadInput(f"cannot read {name}: {error.strerror}")
        return Listed(name, sha256(_entry_bytes(entry)).hexdigest(), lambda _: _unread(fault))
    if kind is None:
        return Listed(name, identity, lambda _: _weights(entry))
    own = [f"{setting}={json.dumps(value)}" for setting, value in entry.set.items()]
    shared = [text for text in texts if text.partition("=")[0] not in entry.set] if kind == "http" else []
    names = None if entry.class_names is None else Path(entry.class_names)
    approach = Approach(entry.form, [*shared, *own], names)
    return Listed(name, identity, lambda tasks: _reached(approach, entry.suspect, tasks), kind == "http")


@contextmanager
def _weights(entry: Entry) -> Iterator[Callable[[Task], Suspect]]:
    """A file of weights, in the network of each task; of one task at a time, as claims are sorted."""
    built: dict[Any, Suspect] = {}

    def build(task: Task) -> Suspect:
        at = (task.classes, task.shape)
        if at not in built:
            built.clear()
            arguments = [f"{n}={v if isinstance(v, str) else json.dumps(v)}" for n, v in entry.model_set.items()]
            built[at] = network(entry.model or "plain", Path(entry.suspect), arguments, task)
        return built[at]

    yield build


@contextmanager
def _reached(approach: Approach, suspect: str, tasks: Sequence[Task]) -> Iterator[Callable[[Task], Suspect]]:
    with approach.connected(suspect, tasks, []) as asked:
        yield lambda _: asked


@contextmanager
def _unread(fault: BadInput) -> Iterator[Callable[[Task], Suspect]]:
    """A file that cannot be read, which costs its own pairs."""
    raise fault
    yield


def _identity(entry: Entry) -> str:
    """A hash of what makes the suspect: its entry, and the bytes of its file, or of all files in its folder."""
    kind = kind_of_suspect(entry.suspect)
    path = Path(entry.suspect.partition(":")[2] if kind and entry.suspect.startswith(f"{kind}:") else entry.suspect)
    files = [] if kind == "http" else [path] if path.is_file() else sorted(f for f in path.glob("*") if f.is_file())
    state = sha256(_entry_bytes(entry))
    for each in files:
        with each.open("rb") as file:
            state.update(file_digest(file, "sha256").digest())
    return state.hexdigest()


def _entry_bytes(entry: Entry) -> bytes:
    return canonical_json(entry.model_dump(mode="json", exclude={"name"}))


def _plain(pair: Pair) -> Mapping[str, Any]:
    return pair.model_dump(mode="json")


class _Kept(AbstractContextManager["_Kept"]):
    """The pairs of earlier runs of a scan, and a file that takes each new one as it is known.

    Raises:
        BadInput: a file of another kind, or one that cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.done: dict[Known, Pair] = {}
        self._file = None
        if path is None:
            return
        whole = self._read(path) if path.exists() else b""
        try:
            self._file = path.open("r+b" if path.exists() else "w+b")
        except OSError as error:
            raise BadInput(
                f"cannot write {path}: {error.strerror}; give a folder that exists and is writable"
            ) from error
        self._file.truncate(len(whole))  # a line that was cut short by a crash is tested again
        self._file.seek(len(whole))

    def _read(self, path: Path) -> bytes:
        raw = read_bytes(path, 1 << 32)
        if not raw[: len(BEGINNING)] == BEGINNING[: len(raw)]:
            raise BadInput(f"{path} is there and holds no pairs of a scan; it is left as it is, name a new file")
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                pair = validated(Pair, json.loads(line), f"{path}, line {number}")
            except (ValueError, TypeError, RecursionError) as error:
                raise BadInput(f"{path}, line {number} is no pair of a scan ({error}); name a new file") from error
            if pair.fault is None:
                self.done[pair.key] = pair
        return whole

    def keep(self, pair: Pair) -> None:
        """Write one pair."""
        if self._file is not None:
            self._file.write(canonical_json(_plain(pair)) + b"\n")
            self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _table(standings: Sequence[Standing], control: str) -> Table:
    words = {True: "accepted", False: "no evidence", None: "not tested"}
    columns = ("Suspect", "Claimant", "Mark", "Found", "Matches", "p at most", f"p adjusted ({control})", "Note")
    rows = tuple(
        (
            each.pair.suspect,
            each.pair.claimant,
            each.pair.mark,
            words[each.accepted] if each.pair.fault or each.accepted is not None else "no null",
            "—" if each.pair.n is None else f"{each.pair.statistic:g} of {each.pair.n}",
            bound(each.pair.log10_p),
            bound(each.log10_adjusted),
            each.pair.fault or "",
        )
        for each in standings
    )
    return Table(columns, rows, "Suspects and claims")
