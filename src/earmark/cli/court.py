"""What a judge does: test a suspect for a mark, and rule on claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from earmark.cli import options, suspects
from earmark.cli.claimants import Brought, Builder, brought, check_there, names_of
from earmark.cli.group import BAD_INPUT
from earmark.cli.hearings import heard, ruling_of
from earmark.cli.networks import fitting, network
from earmark.cli.opening import draws_of
from earmark.cli.output import new_file, note, show
from earmark.cli.secrets import Minted
from earmark.cli.suspects import Approach
from earmark.cli.timestamps import dated_by, moment, times_of
from earmark.core import Verdict
from earmark.errors import BadInput, whole
from earmark.evidence import Claim, arbitrate
from earmark.evidence.judge import is_earlier, require_drawn
from earmark.evidence.kinds import Suspect, kind_of
from earmark.marks import TriggerSet
from earmark.reports import write_ruling
from earmark.suspects import spoken

__all__ = ["STATUS", "judge", "verify"]

STATUS: Final = {True: 0, False: 1, None: 3}
"""The exit status of each decision; 2 is bad input, so no mistake of the caller reads as a verdict."""

Times = Annotated[
    list[str] | None,
    typer.Option(
        "--committed-before",
        metavar="TIME",
        help="When a source that the judge trusts had seen the claim, such as 2024-05-01T12:00:00Z; once per claim.",
    ),
]
Sequential = Annotated[
    bool, typer.Option("--sequential", help="Ask one trigger at a time and stop as soon as it is decided.")
]
Innocents = Annotated[
    list[Path] | None,
    typer.Option(
        "--innocent",
        metavar="FILE",
        help="The weights of a model that has nothing to do with the owner, to calibrate a null on; may be repeated.",
    ),
]


def verify(
    suspect: suspects.Suspect,
    mark: options.MarkFile,
    alpha: options.Alpha = 1e-6,
    sequential: Sequential = False,
    innocent: Innocents = None,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    form: suspects.Service = None,
    suspect_set: suspects.SuspectSet = None,
    class_names: suspects.ClassNamesFile = None,
    transcript: suspects.TranscriptFile = None,
    decoys: suspects.Decoys = None,
    decoys_each: suspects.DecoysEach = 3,
    as_json: options.Json = False,
) -> None:
    """Test a suspect for a mark, as its owner does.

    Triggers are asked; passports and projections are read from the suspect's weights. Nothing has to be opened to a
    judge for it. Ends with status 0 if the mark is found, 1 if it is not, 3 if the mark's null allows no answer. It
    does not ask whether the mark was minted or committed to; `earmark judge` does. --innocent gives marks without a
    null one that is calibrated, at an --alpha above 1.1 / (M + 1) for M models.
    """
    minted = Minted.open(mark)
    if sequential and not isinstance(minted.mark, TriggerSet):
        raise BadInput(
            f"--sequential asks triggers one by one, and bits of {minted.mark.kind} are read at once; leave it out"
        )
    kind = kind_of(minted.mark)
    test, task = kind.sequential if sequential else kind.test, minted.task(mark)
    if innocent and minted.mark.null.basis == "exact":
        note("the mark's null is exact, so innocent models are not asked")
    others = []
    if innocent and kind.calibrated is not None and minted.mark.null.basis == "none":
        if sequential:
            raise BadInput("--innocent calibrates the null of a test that asks all triggers; leave out --sequential")
        others = [fitting(network(model, path, model_set, task), task, str(path)) for path in innocent]
    approach = Approach(form, suspect_set, class_names, transcript, decoys, decoys_each)
    with ExitStack() as stack:
        accused: Suspect
        if approach.applies(suspect):
            accused = stack.enter_context(approach.reached(suspect, [task], [minted.mark]))
        else:
            accused = network(model, Path(suspect), model_set, task)
        if others and kind.calibrated is not None:
            verdict = kind.calibrated(accused, minted.mark, alpha, 0, others, 1)
        else:
            verdict = test(accused, minted.mark, alpha, 0)
    show(as_json, {"suspect": spoken(suspect), "claimant": minted.name, **verdict.to_dict()}, str(verdict))
    raise typer.Exit(STATUS[verdict.accepted])


def judge(
    suspect: suspects.Suspect,
    claim: Annotated[list[Path], typer.Option("--claim", metavar="FILE", help="A claim; may be repeated.")],
    evidence: Annotated[
        list[Path], typer.Option("--evidence", metavar="DIR", help="The opened evidence of that claim.")
    ],
    released: Annotated[
        list[str] | None,
        typer.Option(
            "--released",
            metavar="FILE",
            help="The weights that a claim commits to, or - where they are not shown; none, or one per claim.",
        ),
    ] = None,
    released_model: Annotated[
        list[str] | None,
        typer.Option(
            "--released-model",
            metavar="NAME",
            help="Builds the network of those weights where it is not that of --model; none, or one per claim.",
        ),
    ] = None,
    committed_before: Times = None,
    tsa_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--tsa-root",
            metavar="PEM",
            help="Take the claims' dates from their time-stamp tokens: the authority's root certificate.",
        ),
    ] = None,
    known_since: Annotated[
        str | None, typer.Option("--known-since", metavar="TIME", help="When the suspect first appeared.")
    ] = None,
    owner_public: Annotated[
        str | None, typer.Option("--owner-public", metavar="HEX", help="The public key that the first claim must have.")
    ] = None,
    nonce: Annotated[
        list[str] | None,
        typer.Option(
            "--nonce",
            metavar="HEX",
            help="What the judge drew for a slice, or - where the whole mark is opened; once per claim.",
        ),
    ] = None,
    count: Annotated[
        list[int] | None,
        typer.Option("--count", metavar="K", help="How many trials he asked for with that nonce; once per claim."),
    ] = None,
    ruling: Annotated[
        Path | None,
        typer.Option("--ruling", metavar="FILE", help="Write the ruling as a page to read and to print, HTML."),
    ] = None,
    alpha: options.Alpha = 1e-6,
    sequential: Sequential = False,
    innocent: Innocents = None,
    commitments: Annotated[
        list[int] | None,
        typer.Option(
            "--commitments",
            metavar="J",
            help="How many commitments a claimant had made that he could have shown, with this one; once per claim.",
        ),
    ] = None,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    force: options.Force = False,
    form: suspects.Service = None,
    suspect_set: suspects.SuspectSet = None,
    class_names: suspects.ClassNamesFile = None,
    transcript: suspects.TranscriptFile = None,
    decoys: suspects.Decoys = None,
    decoys_each: suspects.DecoysEach = 3,
    as_json: options.Json = False,
) -> None:
    """Rule on a claim on a suspect, or between several.

    The steps are signature, commitment, minting, time, and the suspect. p is multiplied by 2^64 for the keys that may
    have been tried in secret, whatever the times. With several claims, the options --evidence, --released,
    --released-model, --committed-before and --commitments go with them in their order, and --released lets the judge
    see whose mark was there first; a file that is not the committed model does not count, and the verdict says so. With
    --released, --committed-before and --known-since, passports are also found in a suspect whose channels were flipped,
    moved, scaled, folded or padded: they are matched to those of the released model. A claimant whose files are broken
    is rejected, and the others are ruled on. --evidence may be a slice of it (`earmark open`): with the --nonce and
    --count that the judge drew, p counts what was opened, and without them it is multiplied as though the claimant had
    chosen the trials. --sequential keeps the error probability and needs a mark of more triggers. --innocent, with both
    times, gives marks without a null one that is calibrated, for an --alpha (and the claim's own) above 1.1 / (M + 1)
    for M models; with --commitments J, p has to fall to alpha / J, and J times as many models are needed. --ruling
    writes a page for people, with the opened triggers in it. Ends with the status of the first claim: 0
    accepted, 1 rejected, 3 inconclusive, 2 broken files.
    """
    of = {"evidence": evidence, "released": released, "released_model": released_model}
    _same_number(claim, **of, committed_before=committed_before, nonce=nonce, count=count, commitments=commitments)
    shown = [None if name == "-" else Path(name) for name in released or ["-"] * len(claim)]
    check_there(*shown, *(innocent or ()), *(path for path in (*claim, *evidence) if len(claim) > 1))
    found, builder = brought(claim, evidence), Builder(model, model_set)
    times = times_of([each.claim for each in found], committed_before, tsa_root)
    expected = [_public(owner_public), *(None for _ in claim[1:])]
    exhibits = [builder.exhibit(*it) for it in zip(found, shown, released_model or [model] * len(claim), strict=True)]
    sources, draws = [dated_by(tsa_root)] * len(found), draws_of(len(found), nonce, count)
    if len(found) == 1 and found[0].evidence is not None:
        require_drawn(found[0].evidence, draws[0])
    made = [whole("--commitments", number, low=1) for number in commitments or [1] * len(found)]
    facts = zip(names_of(found), times, expected, exhibits, sources, draws, made, strict=True)
    cases = [each.case(*known) for each, known in zip(found, facts, strict=True)]
    since = None if known_since is None else moment(known_since)
    page = None if ruling is None else new_file(ruling, force)
    others = [builder.accused(path, found) for path in innocent or ()]
    approach = Approach(form, suspect_set, class_names, transcript, decoys, decoys_each)
    early = [each.claim for each, time in zip(found, times, strict=True) if each.claim and is_earlier(time, since)]
    with _accused(suspect, builder, approach, found, early) as accused:
        suspected = accused if page is None else heard(accused, found)
        outcomes = arbitrate(
            cases, suspected, alpha=alpha, suspect_known_since=since, sequential=sequential, innocents=others
        )
    verdicts = {one.claimant: one.verdict if len(outcomes) > 1 else one.alone for one in outcomes}
    if page is not None:
        write_ruling(page, ruling_of(suspect, suspected, found, verdicts, known_since))
    _tell(as_json, suspect, verdicts)
    raise typer.Exit(_status(verdicts[cases[0].claimant]))


@contextmanager
def _accused(
    suspect: str, builder: Builder, approach: Approach, found: Sequence[Brought], early: Sequence[Claim]
) -> Iterator[Suspect]:
    if not approach.applies(suspect):
        yield builder.accused(Path(suspect), found)
        return
    tasks = [each.task for each in found if each.task is not None]
    marks = [each.evidence.mark for each in found if each.evidence is not None]
    with approach.committed_to(early).reached(suspect, tasks, marks) as asked:
        yield asked


def _tell(as_json: bool, suspect: str, verdicts: Mapping[str, Verdict]) -> None:
    values = [{"suspect": spoken(suspect), "claimant": name, **verdict.to_dict()} for name, verdict in verdicts.items()]
    value: Any = values if len(values) > 1 else values[0]
    show(as_json, value, *(f"{name}: {_words(verdict)}" for name, verdict in verdicts.items()))


def _status(verdict: Verdict) -> int:
    return BAD_INPUT if verdict.details["step"] == "files" else STATUS[verdict.accepted]


def _words(verdict: Verdict) -> str:
    told = f"{verdict}, decided at the step {verdict.details['step']!r}"
    return f"{told}; its time rests on {verdict.details['time']}" if "time" in verdict.details else told


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _same_number(claims: Sequence[Path], **options: Sequence[object] | None) -> None:
    wrong = [
        f"--{name.replace('_', '-')} {_times(len(given))}"
        for name, given in options.items()
        if given is not None and len(given) != len(claims)
    ]
    if wrong:
        raise BadInput(f"--claim is given {_times(len(claims))} but {' and '.join(wrong)}; give one for each claim")


def _public(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise BadInput(f"expected a public key as 64 hexadecimal digits, got {text[:80]!r}") from error
