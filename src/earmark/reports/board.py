"""A grid's pages: tables, figures, the leaderboard as Markdown and the report as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.bench import Cell, Evidence
from earmark.files import write_atomic
from earmark.reports.figures import Met, Survivor, evidence_survival, heat_map, robustness_curves, save, to_png
from earmark.reports.html import Picture, Report, write_report
from earmark.reports.standings import Board, Standing, boards_of, strength_of, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["board_figures", "write_board"]

PAGE, REPORT, TABLE = "README.md", "report.html", "table.csv"
CAPTIONS = {
    "survival": "Evidence that survives: −log₁₀ p of the owner's test against the accuracy that the thief gave up. "
    "Points are attacked models, the line is the best that a thief can do, its band the range over seeds.",
    "heat": "In how many seeds the judge upholds the owner's claim (light: all), and the change of accuracy in points. "
    "Hatched: nothing to act on.",
}


def write_board(out: Path, cells: Sequence[Cell]) -> list[Board]:
    """Write `README.md`, `report.html`, `table.csv` and the figures to `out`.

    Raises:
        BadInput: no cell, or a folder that is not writable.
    """
    boards = boards_of(cells)
    drawn = {board.title: board_figures(board) for board in boards}
    for board in boards:
        for name, figure in drawn[board.title].items():
            save(figure, out / _file(board, name))
    write_atomic(out / TABLE, tidy(cells).encode())
    write_atomic(out / PAGE, _page(boards, drawn).encode(errors="replace"))
    write_report(out / REPORT, _report(boards, drawn))
    return boards


def _file(board: Board, name: str) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', board.title.lower()).strip('-')}-{name}"


def board_figures(board: Board) -> dict[str, Figure]:
    """The figures of a board, by name; what has no cells has none."""
    found: dict[str, Figure] = {}
    rows, released = _survivors(board)
    if rows:
        found["survival"] = evidence_survival(rows, released)
    kinds = {attack: _family(board, attack) for attack in board.attacks}
    own, forged = (_met(board, [n for n in kinds if (kinds[n] == "forgery") is wanted]) for wanted in (False, True))
    found["heat"] = heat_map(own, forged)
    return {**found, **_curves(board)}


def _family(board: Board, attack: str) -> str:
    return next(cell.family for cell in board.cells if cell.attack == attack)


def _survivors(board: Board) -> tuple[dict[str, list[Survivor]], dict[str, dict[int, float]]]:
    """Of schemes whose tests have a null: the attacked models, and the released ones by seed."""
    rows: dict[str, list[Survivor]] = {}
    released: dict[str, dict[int, float]] = {}
    for scheme in board.schemes:
        before = {cell.seed: p for cell, p in _evidence(board.standing(scheme, "none"))}
        if before:
            released[scheme] = before
            rows[scheme] = [
                Survivor(cell.attack, cell.family, cell.seed, cell.accuracy.given_up, p)
                for standing in board.of(scheme)
                for cell, p in _evidence(standing)
                if cell.family in ("removal", "evasion") and cell.accuracy and cell.seed in before
            ]
    return rows, released


def _evidence(standing: Standing) -> Iterator[tuple[Cell, float]]:
    for cell in standing.done:
        if cell.verify and cell.verify.log10_p is not None:
            yield cell, abs(cell.verify.log10_p)


def _met(board: Board, attacks: Sequence[str]) -> dict[str, dict[str, Met]]:
    return {attack: {one: _one(board.standing(one, attack)) for one in board.schemes} for attack in attacks}


def _one(standing: Standing) -> Met:
    if not standing.cells or standing.unfit:
        return Met(None, 0)
    count = len(standing.done)
    if count and standing.done[0].family == "forgery":
        return Met(standing.judged, count, verified=standing.verified)
    return Met(standing.judged, count, -sum(standing.given_up) / count if count else None)


def _curves(board: Board) -> dict[str, Figure]:
    """Accuracy and matches over the strength of an attack: its trials, or the values of a setting."""
    found = {}
    for attack in board.attacks:
        rows = {scheme: curves for scheme in board.schemes if (curves := _trials(board.standing(scheme, attack)))}
        if rows:
            found[f"{attack}-trials"] = robustness_curves(rows, "trial")
    for name, setting in dict.fromkeys(at[:2] for label in board.attacks if (at := strength_of(label))):
        swept = {scheme: curves for scheme in board.schemes if (curves := _swept(board, scheme, name, setting))}
        if swept:
            found[f"{name}-{setting}"] = robustness_curves(swept, setting)
    return found


def _trials(standing: Standing) -> list[list[dict[str, float | None]]]:
    return [
        [{"trial": float(p.trial), **_shares(p.suspect, p.verify)} for p in cell.points]
        for cell in standing.done
        if cell.points
    ]


def _swept(board: Board, scheme: str, name: str, setting: str) -> list[list[dict[str, float | None]]]:
    """One list of points a seed that was measured at every strength; the first is the released model."""
    at = {label: found[2] for label in board.attacks if (found := strength_of(label)) and found[:2] == (name, setting)}
    labels = sorted(at, key=lambda label: at[label])
    cells = {label: {cell.seed: cell for cell in board.standing(scheme, label).done} for label in labels}
    released = {cell.seed: cell for cell in board.standing(scheme, "none").done}
    rising = setting == "share"
    curves = []
    for seed, first in released.items():
        own = [cells[label].get(seed) for label in labels]
        course = [(at[label], cell) for label, cell in zip(labels, own, strict=True) if cell is not None]
        if len(course) == len(labels):
            points = [(0.0, first), *course] if rising else course
            curves.append([{setting: place, **_shares_of(cell)} for place, cell in points])
    return curves


def _shares_of(cell: Cell) -> dict[str, float | None]:
    assert cell.accuracy is not None, "the cell was measured"
    assert cell.verify is not None, "and its mark looked for"
    return _shares(cell.accuracy.suspect, cell.verify)


def _shares(accuracy: float, verify: Evidence) -> dict[str, float | None]:
    return {"val_acc": 100 * accuracy, "matched": 100 * verify.statistic / max(1, verify.n), "log10_p": verify.log10_p}


def _page(boards: Sequence[Board], drawn: Mapping[str, Mapping[str, Figure]]) -> str:
    """The leaderboard in Markdown."""
    parts = [
        "# Schemes against attacks",
        "Each mark under each attack, over seeds. The judge rules on the owner's commitment at alpha = 1e-6 with p "
        "multiplied by 2^64 for the keys that a claimant may have tried. Drawn by `earmark leaderboard` from the "
        "results beside it; every line of these holds its seed, settings, versions, hardware and cost.",
    ]
    for board in boards:
        parts += [f"## {board.title}", board.table().to_markdown()]
        parts += [f"![{name}]({_file(board, name)}.png)\n\n{_caption(name)}" for name in drawn[board.title]]
        parts += [f"### {table.title}\n\n{table.to_markdown()}" for table in (board.attack_table(), board.cost_table())]
        parts += [_facts(board)]
        if failures := board.failures():
            parts.append("Failed:\n\n" + "\n".join(f"- {' '.join(line.split())}" for line in failures))
    return "\n\n".join(parts) + "\n"


def _caption(name: str) -> str:
    if name in CAPTIONS:
        return CAPTIONS[name]
    attack, _, over = name.rpartition("-")
    return f"{attack} over its {over}: the mean of the seeds and their range."


def _facts(board: Board) -> str:
    """Where the numbers come from, as a list."""
    spent = sum(cell.cost.cell_seconds for cell in board.cells if cell.cost)
    made = {(cell.scheme, cell.seed): cell.cost.embed_seconds for cell in board.cells if cell.cost}
    facts = {
        "seeds": ", ".join(map(str, sorted({cell.seed for cell in board.cells}))),
        "cells": f"{len(board.cells)}, {(spent + sum(made.values())) / 60:.0f} minutes by the clocks of their workers",
        "machines": "; ".join(dict.fromkeys(cell.hardware for cell in board.cells)),
        "versions": "; ".join(dict.fromkeys(_versions(cell) for cell in board.cells)),
        "code": ", ".join(dict.fromkeys(_commit(cell) for cell in board.cells)),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _commit(cell: Cell) -> str:
    if cell.commit is None:
        return "not from a checkout"
    return cell.commit[:12] + (" with changes" if cell.commit.endswith("+") else "")


def _versions(cell: Cell) -> str:
    return ", ".join(f"{name} {version}" for name, version in cell.versions.items())


def _report(boards: Sequence[Board], drawn: Mapping[str, Mapping[str, Figure]]) -> Report:
    pictures = [
        Picture(to_png(figure), f"{board.title}. {_caption(name)}")
        for board in boards
        for name, figure in drawn[board.title].items()
    ]
    tables = [table for board in boards for table in (board.table(), board.attack_table(), board.cost_table())]
    notes = [line for board in boards for line in board.failures()]
    return Report(
        "Which mark survives what",
        subtitle="; ".join(board.title for board in boards),
        tables=tables,
        pictures=pictures,
        notes=notes,
    )
