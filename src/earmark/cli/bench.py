"""Schemes against attacks on the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from earmark.bench import ENGINES, PRESETS, Cell, Progress, read_cells, run
from earmark.cli import options
from earmark.cli.gridding import ALL, Asked, grid_of
from earmark.cli.networks import NETWORKS
from earmark.cli.output import new_folder, note, show
from earmark.reports import write_board
from earmark.schemes import SCHEMES
from earmark.training.progress import meter

__all__ = ["bench", "leaderboard"]

QUIET = 15.0
"""Seconds between two lines of progress where nobody watches a terminal."""


def bench(
    schemes: Annotated[
        str, typer.Option("--schemes", metavar="A,B", help=f"Of {', '.join(SCHEMES)}; all: those that need no more.")
    ] = ALL,
    attacks: Annotated[
        str, typer.Option("--attacks", metavar="X,Y", help="Names of `earmark attack` and `earmark evade`; or all.")
    ] = ALL,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help=f"{', '.join(PRESETS)}: a task with its settings.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="SOURCE", help="digits, idx:DIR, folder:DIR or npz:FILE; else the preset's."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help=f"{', '.join(NETWORKS)}, or what `train` takes."),
    ] = None,
    model_set: options.ModelArguments = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="How many seeds, from 0 up.")] = 5,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.SETTING=VALUE", help="Of a scheme, an attack or the host; repeatable."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="ATTACK.SETTING=V,W", help="An attack at several strengths; may be repeated."),
    ] = None,
    others: Annotated[
        str | None,
        typer.Option("--others", metavar="SOURCE", help="Other data, for zhang-unrelated: letters, or as --data."),
    ] = None,
    aside: Annotated[
        int, typer.Option("--aside", metavar="N", min=0, help="Training images that only the thief has; 0: all shared.")
    ] = 0,
    augment: Annotated[bool, typer.Option("--augment", help="Crop and flip training images at random.")] = False,
    alpha: options.Alpha = 1e-6,
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help=f"{' or '.join(ENGINES)}.")] = "local",
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Processes; 1, or all that a Ray cluster has.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="Of each worker; a fair share without it.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure failed cells once more.")] = False,
    out: options.Out = Path("bench"),
    as_json: options.Json = False,
) -> None:
    """Measure schemes against attacks: accuracy kept, evidence left, and what each attack cost.

    Each scheme is embedded once a seed and put under each attack. --preset names a task with settings that suit it
    (digits, if neither it nor --data is given); --data and --model take any other. --set takes the settings that
    `mint`, `embed`, `attack` and `evade` know, after the name that they belong to: deep-fidelity.count=60,
    prune-global.share=0.5, host.epochs=5; mint and method name another mint and method of a scheme. OUT gets
    results.jsonl, one line a cell, and drawn from it table.csv, README.md, report.html and figures. A run that was
    killed goes on where it was when the same command is given again; a cell that fails is written down with its reason,
    and the grid goes on. Keys are throw-away and follow from the seeds.
    """
    asked = (schemes, attacks, preset, data, model, model_set or [], sets or [], sweep or [], seeds, aside, augment)
    grid = grid_of(Asked(*asked, alpha, others))
    new_folder(out)
    with _watching(len(list(grid.cells()))) as watch:
        cells = run(grid, out, workers=workers, engine=engine, threads=threads, again=again, watch=watch)
    _tell(as_json, out, cells)


def leaderboard(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Results of `earmark bench`: results.jsonl.")],
    out: options.Out,
    as_json: options.Json = False,
) -> None:
    """Draw tables and figures from files of results: README.md, report.html, table.csv and pictures in OUT."""
    cells = [cell for file in files for cell in read_cells(file)]
    _tell(as_json, new_folder(out), cells)


def _tell(as_json: bool, out: Path, cells: Sequence[Cell]) -> None:
    boards = write_board(out, cells)
    value = {"out": str(out), "cells": len(cells), **_counted(cells), "boards": [board.to_dict() for board in boards]}
    tables = [table.to_rich() for board in boards for table in (board.table(), board.attack_table())]
    show(as_json, value, *tables, f"{len(cells)} cells; written to {out}")


def _counted(cells: Sequence[Cell]) -> dict[str, int]:
    return {status: sum(cell.status == status for cell in cells) for status in ("done", "unfit", "failed")}


@contextmanager
def _watching(total: int) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; a line now and then anywhere else."""
    seen, told = 0, time.monotonic()
    terminal = sys.stderr.isatty()
    with meter("cells", total) as bar:

        def watch(progress: Progress) -> None:
            nonlocal seen, told
            for _ in range(progress.done - seen):
                bar.advance()
            seen = progress.done
            bar.note({} if progress.left is None else {"minutes left": progress.left / 60})
            if not terminal and (time.monotonic() - told > QUIET or progress.done == progress.total):
                told = time.monotonic()
                note(str(progress))

        yield watch
