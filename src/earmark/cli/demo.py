"""The demonstration: `earmark.recipes.demo` with a page to look at."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console

from earmark.cli import options
from earmark.cli.measure import evidence_picture
from earmark.cli.output import new_folder, show, upright
from earmark.errors import BadInput
from earmark.files import write_atomic, write_json
from earmark.models import dissect
from earmark.recipes.demo import ALPHA, CLAIMANTS, KEPT, WIDTH, Story, Trial, tell
from earmark.reports import Picture, Report, Ruling, fidelity_table, figures, ruling_table, write_report
from earmark.training import read_all

__all__ = ["demo"]

ABOUT, VERDICTS, PAGE = "README.txt", "verdicts.json", "report.html"
SIGN: Final = b"Made by `earmark demo`."
WORDS: Final = f"""{SIGN.decode()} Keys and marks in it are throw-away; the next run replaces them.

To judge one of these models again, from this folder:

    earmark judge pruned-copy-20.safetensors --model-set width={WIDTH} \\
        --claim owner/claim.json --evidence owner/evidence
"""
NOTES: Final = (
    f"A copy has kept its accuracy if it is within {100 * KEPT:g} points of the host's. The demonstration succeeds if "
    "the owner's claim is accepted on every such copy and every other claim is rejected.",
    "Times are real: the judge noted when he first saw each claim and each suspect. Whatever the times, p is "
    "multiplied by 2⁶⁴ for the keys that a claimant may have tried in secret.",
    "The keys are throw-away, which is why the owner's triggers can be shown here. Nobody should ever show those of a "
    "model that is in use.",
)


def demo(
    out: options.Out = Path("demo"),
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Mark, steal, attack and judge a small model.

    On handwritten digits, in about a minute. Writes OUT/report.html and OUT/verdicts.json; models, claims and evidence
    stay in OUT for you to play with. Ends with status 0 only if the true owner wins on every copy that kept its
    accuracy (within 5 points of the host's) and the thief, the forger and the claim on an innocent model lose; 1 if
    not.
    """
    _clear(out)
    console = Console(stderr=True, highlight=False)
    chapters = iter(range(1, 100))
    story = tell(out, seed, lambda title: console.print(f"[bold]{next(chapters):2}[/bold]  {title}"))
    rulings = [Ruling.of(t.suspect, t.claimant, t.verdict, t.accuracy) for t in story.trials]
    values = [_verdict(trial, ruling) for trial, ruling in zip(story.trials, rulings, strict=True)]
    write_json(out / VERDICTS, values)
    write_report(out / PAGE, _report(story, rulings, seed))
    fidelity = upright(fidelity_table({"Marked": story.fidelity}))
    faults = story.faults
    found = "The owner won and everybody else lost." if not faults else f"Not as it should be: {'; '.join(faults)}."
    value = {"out": str(out), "success": not faults, "fidelity": story.fidelity.to_dict(), "verdicts": values}
    show(as_json, value, fidelity.to_rich(), ruling_table(rulings).to_rich(), f"{found} {out / PAGE}")
    raise typer.Exit(1 if faults else 0)


def _clear(out: Path) -> None:
    """Take away what an earlier demonstration left in `out`; a folder of anything else is not touched."""
    new_folder(out)
    if any(out.iterdir()) and not _is_ours(out / ABOUT):
        raise BadInput(f"{out} holds files that no demonstration made; give a new folder")
    write_atomic(out / ABOUT, WORDS.encode())
    for name in (VERDICTS, PAGE):
        (out / name).unlink(missing_ok=True)
    for name in CLAIMANTS:
        shutil.rmtree(out / name, ignore_errors=True)


def _is_ours(about: Path) -> bool:
    return about.is_file() and about.read_bytes().startswith(SIGN)


def _verdict(trial: Trial, ruling: Ruling) -> dict[str, Any]:
    return {**ruling.to_dict(), "wanted": trial.wanted, "details": trial.verdict.to_dict()["details"]}


def _report(story: Story, rulings: Sequence[Ruling], seed: int) -> Report:
    share = f"{story.forgery.statistic:g} of {story.forgery.n}"
    return Report(
        "A model of handwritten digits, and who owns it",
        rulings,
        subtitle="A demonstration of earmark on scikit-learn's digits",
        tables=[fidelity_table({"Marked (FixLL+PFL)": story.fidelity})],
        pictures=_pictures(story, rulings),
        settings={
            "triggers": len(story.mark),
            "alpha": ALPHA,
            "epochs of embedding": len(story.history),
            "seed": seed,
        },
        notes=[
            *NOTES,
            f"The forger's triggers pass a plain trigger test ({share} matches): the judge rejects them because the "
            "forger's key does not mint them.",
        ],
    )


def _pictures(story: Story, rulings: Sequence[Ruling]) -> list[Picture]:
    sheet = figures.contact_sheet(story.mark.images, story.mark.labels, "The owner's triggers", limit=30)
    records = {"FixLL+PFL": [{"epoch": at, **record} for at, record in enumerate(story.history, start=1)]}
    return [
        evidence_picture(list(rulings)),
        Picture(
            figures.to_png(figures.feature_clouds([_panel(story, "Host"), _panel(story, "Marked")])),
            "Penultimate features of the training images, by class, before and after marking. The prototypes (the last "
            "layer's weights) are the same.",
        ),
        Picture(figures.to_png(figures.training_curves(records)), "Embedding: accuracies after each epoch."),
        Picture(
            figures.to_png(sheet),
            "The owner's triggers and the class that the key drew for each. Throw-away, like the owner's key.",
        ),
    ]


def _panel(story: Story, title: str) -> figures.Panel:
    model = story.host if title == "Host" else story.marked
    anatomy = dissect(model, story.data.train.pixels[:1].float() / 255)
    features = read_all(model, anatomy, story.data.train).features
    return figures.Panel(title, features, story.data.train.labels, anatomy.linear(model).weight.detach())
