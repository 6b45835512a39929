"""What anyone does: measure how far a marked model stands from its host, and write a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli import options
from earmark.cli.networks import fitting, network
from earmark.cli.output import new_file, show, upright
from earmark.cli.secrets import Minted
from earmark.core import Data, FidelityReport, rng
from earmark.data import corrupted, ood, open_data
from earmark.errors import BadInput
from earmark.fidelity import DeepFidelity
from earmark.files import read_json
from earmark.marks import TriggerSet
from earmark.reports import Picture, Report, Reproduction, Ruling, Table, fidelity_table, figures, record, write_report

__all__ = ["fidelity", "of_task", "report"]


def fidelity(
    marked: Annotated[Path, typer.Argument(metavar="MODEL", help="The weights of the marked model.")],
    host: Annotated[Path, typer.Option("--host", metavar="FILE", help="The weights before marking.")],
    data: options.DataSource,
    mark: Annotated[Path | None, typer.Option("--mark", metavar="FILE", help="The mark, for its accuracy.")] = None,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Measure how far a marked model stands from its host.

    Deep fidelity: accuracies, TWL, PFL, SPL, prototype change, and agreement on images of three sorts. Agreement with
    the host is measured on the test images, on the same images with Gaussian noise (severity 3) and on images outside
    the distribution (shuffled patches).
    """
    images = open_data(data)
    triggers = None if mark is None else of_task(Minted.open(mark).triggers(mark), mark, images)
    ours, theirs = (fitting(network(model, path, model_set, images), images, str(path)) for path in (marked, host))
    others = {"corrupted": corrupted(images.test, "gaussian-noise", 3, rng(seed)), "ood": ood(images.test, rng(seed))}
    found = DeepFidelity(triggers, others)(ours, theirs, images)
    show(as_json, {"model": marked.name, **found.to_dict()}, upright(fidelity_table({marked.name: found})).to_rich())


def of_task(mark: TriggerSet, path: Path, images: Data) -> TriggerSet:
    """`mark`, if its triggers look like the data and have their classes."""
    ours, theirs = (mark.shape, mark.classes), (images.shape, images.classes)
    if ours != theirs:
        raise BadInput(
            f"{path} holds triggers of shape {ours[0]} for {ours[1]} classes and the data are {theirs[0]} of "
            f"{theirs[1]} classes; give the mark and the data that the model was marked with"
        )
    return mark


def report(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="What judge, verify, fidelity and reproduce gave as JSON.")
    ],
    out: options.Out,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="The page's title.")] = "Who owns this model?",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Write verdicts and tables as one HTML page.

    The page needs nothing outside itself.
    """
    out = new_file(out, force)
    found = _Found()
    for path in files:
        for value in _objects(path):
            found.add(path, value)
    pictures = [evidence_picture(found.rulings)] if found.rulings else []
    tables = [*([fidelity_table(found.reports)] if found.reports else []), *found.tables]
    write_report(out, Report(title, found.rulings, tables=tables, pictures=pictures))
    told = {"out": str(out), "verdicts": len(found.rulings), "tables": len(tables)}
    counted = [f"{n} {what}{'s' * (n != 1)}" for n, what in ((len(found.rulings), "verdict"), (len(tables), "table"))]
    show(as_json, told, f"{out}: {', '.join(counted)}")


@dataclass
class _Found:
    """What the files of a report hold, by kind."""

    rulings: list[Ruling] = field(default_factory=list)
    reports: dict[str, FidelityReport] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)

    def add(self, path: Path, value: Mapping[str, Any]) -> None:
        """Take one object in; what is wrong with it is said with its file."""
        try:
            self._add(path, value)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error

    def _add(self, path: Path, value: Mapping[str, Any]) -> None:
        if "claimant" in value:
            self.rulings.append(Ruling.from_dict(value))
        elif "ave_spl" in value:
            report = record(FidelityReport, value, "a fidelity report", "earmark fidelity")
            self.reports[str(value.get("model", path.stem))] = report
        elif "rows" in value:
            self.tables.append(Reproduction.from_dict(value).to_table())
        else:
            raise BadInput("neither a verdict nor a fidelity report nor a reproduced table; give what --json printed")


def evidence_picture(rulings: list[Ruling]) -> Picture:
    """The p-values of all verdicts against the line that they had to cross."""
    plot = figures.to_png(figures.evidence_plot(rulings))
    return Picture(plot, "Each verdict's p-value; the line is alpha. Further right is stronger evidence.")


def _objects(path: Path) -> list[Mapping[str, Any]]:
    found = read_json(path)
    values = found if isinstance(found, list) else [found]
    if not values or not all(isinstance(value, dict) for value in values):
        raise BadInput(f"{path} holds no JSON object; give what --json printed")
    return values
