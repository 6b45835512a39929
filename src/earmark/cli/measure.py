"""What anyone does: measure how far a marked model stands from its host, and write a report."""

from __future__ import annotations

from collections.abc import Mapping
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
from earmark.reports import Picture, Report, Reproduction, Ruling, Table, fidelity_table, figures, write_report

__all__ = ["fidelity", "report"]


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
    triggers = None if mark is None else _of_task(Minted.open(mark).mark, mark, images)
    ours, theirs = (fitting(network(model, path, model_set, images), images, str(path)) for path in (marked, host))
    others = {"corrupted": corrupted(images.test, "gaussian-noise", 3, rng(seed)), "ood": ood(images.test, rng(seed))}
    found = DeepFidelity(triggers, others)(ours, theirs, images)
    show(as_json, {"model": marked.name, **found.to_dict()}, upright(fidelity_table({marked.name: found})).to_rich())


def _of_task(mark: TriggerSet, path: Path, images: Data) -> TriggerSet:
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
    rulings: list[Ruling] = []
    reports: dict[str, FidelityReport] = {}
    tables: list[Table] = []
    for path in files:
        for value in _objects(path):
            if "claimant" in value:
                rulings.append(Ruling.from_dict(value))
            elif "ave_spl" in value:
                reports[str(value.get("model", path.stem))] = _fidelity(path, value)
            elif "rows" in value:
                tables.append(Reproduction.from_dict(value).to_table())
            else:
                raise BadInput(
                    f"{path} holds no verdict, fidelity report or reproduced table; give what --json printed"
                )
    pictures = [evidence_picture(rulings)] if rulings else []
    tables = [*([fidelity_table(reports)] if reports else []), *tables]
    write_report(out, Report(title, rulings, tables=tables, pictures=pictures))
    value = {"out": str(out), "verdicts": len(rulings), "tables": len(tables)}
    show(as_json, value, f"{out}: {len(rulings)} verdicts, {len(tables)} tables")


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


def _fidelity(path: Path, value: Mapping[str, Any]) -> FidelityReport:
    try:
        return FidelityReport(**{name: part for name, part in value.items() if name != "model"})
    except TypeError as error:
        raise BadInput(f"{path} holds a damaged fidelity report ({error}); write it with `earmark fidelity`") from error
