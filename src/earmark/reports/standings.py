"""What a grid found, over its seeds: each scheme under each attack, and how the schemes stand beside each other."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

from earmark.bench import Cell
from earmark.errors import BadInput
from earmark.reports.tables import ABSENT, Table, number, percent, spread

__all__ = ["KEPT", "Board", "Standing", "boards_of", "strength_of", "tidy"]

KEPT: Final = 5.0
"""Percentage points of accuracy that a thief may give up and still have a model worth stealing."""

STRENGTH = re.compile(r"^(?P<name>\S+) (?P<setting>\w+)=(?P<value>-?[0-9.]+(e-?[0-9]+)?)$")


def strength_of(label: str) -> tuple[str, str, float] | None:
    """Attack, setting and value in the label of an attack at one of several strengths; None for any other.

    >>> strength_of("prune-global share=0.2"), strength_of("half")
    (('prune-global', 'share', 0.2), None)
    """
    found = STRENGTH.match(label)
    return None if found is None else (found["name"], found["setting"], float(found["value"]))


@final
@dataclass(frozen=True)
class Standing:
    """One scheme under one attack.

    Attributes:
        scheme, attack: their labels.
        cells: one a seed.
    """

    scheme: str
    attack: str
    cells: tuple[Cell, ...]

    @cached_property
    def done(self) -> list[Cell]:
        """The cells that were measured."""
        return [cell for cell in self.cells if cell.status == "done" and cell.accuracy and cell.verify and cell.judge]

    @property
    def unfit(self) -> bool:
        """Whether the attack has nothing to act on here."""
        return all(cell.status == "unfit" for cell in self.cells)

    @property
    def given_up(self) -> list[float]:
        """Percentage points of accuracy that the thief gave up, by seed."""
        return [cell.accuracy.given_up for cell in self.done if cell.accuracy]

    @property
    def log10_p(self) -> list[float | None]:
        """V's, by seed; None where the mark has no null."""
        return [cell.verify.log10_p for cell in self.done if cell.verify]

    @property
    def judged(self) -> int:
        """In how many the judge accepted."""
        return sum(cell.judge is not None and cell.judge.word == "accepted" for cell in self.done)

    @property
    def verified(self) -> int:
        """In how many V did."""
        return sum(cell.verify is not None and cell.verify.word == "accepted" for cell in self.done)

    @property
    def words(self) -> str:
        """The standing in a cell of a table: how often the judge accepted, and the accuracy given up in points."""
        if not self.done:
            return ABSENT if self.unfit else "failed"
        ruled = f"{self.judged}/{len(self.done)}"
        if self.done[0].family == "forgery":
            return f"V {self.verified}/{len(self.done)}, judge {ruled}"
        return f"{ruled} ({_signed(sum(self.given_up) / len(self.given_up))})"


def _signed(points: float) -> str:
    """Points given up as a change of accuracy.

    >>> _signed(1.26), _signed(-0.5), _signed(0.001)
    ('−1.3', '+0.5', '0')
    """
    rounded = round(-points, 1)
    return "0" if not rounded else f"{'+' if rounded > 0 else '−'}{abs(rounded):.1f}"


@final
@dataclass(frozen=True)
class Board:
    """All that was measured on one task with one network.

    Attributes:
        data, model: which.
        cells: everything.
    """

    data: str
    model: str
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """Task and network."""
        return f"{self.data}, {self.model}"

    @cached_property
    def schemes(self) -> list[str]:
        """By label, the one that most survived first."""
        names = {cell.scheme for cell in self.cells}
        return sorted(names, key=lambda name: (-self._share(name), name))

    @cached_property
    def attacks(self) -> list[str]:
        """By label, the released model first, then removals, evasions and forgeries."""
        order = ("none", "removal", "evasion", "forgery")
        families = {cell.attack: cell.family for cell in self.cells}
        return sorted(families, key=lambda name: order.index(families[name]))

    @cached_property
    def _standings(self) -> dict[tuple[str, str], Standing]:
        grouped: dict[tuple[str, str], list[Cell]] = {}
        for cell in sorted(self.cells, key=lambda cell: cell.seed):
            grouped.setdefault((cell.scheme, cell.attack), []).append(cell)
        return {key: Standing(*key, tuple(cells)) for key, cells in grouped.items()}

    def standing(self, scheme: str, attack: str) -> Standing:
        """One scheme under one attack; without cells where the two never met."""
        return self._standings.get((scheme, attack), Standing(scheme, attack, ()))

    def of(self, scheme: str) -> Iterator[Standing]:
        """A scheme under every attack."""
        return (self.standing(scheme, attack) for attack in self.attacks)

    def worth(self, scheme: str) -> list[Cell]:
        """The cells of removals and evasions that leave the thief a model worth stealing (`KEPT`)."""
        return [
            cell
            for standing in self.of(scheme)
            for cell in standing.done
            if cell.family in ("removal", "evasion") and cell.accuracy and cell.accuracy.given_up <= KEPT
        ]

    def _share(self, scheme: str) -> float:
        worth = self.worth(scheme)
        won = sum(cell.judge is not None and cell.judge.word == "accepted" for cell in worth)
        return won / len(worth) if worth else 0.0

    def table(self) -> Table:
        """The leaderboard: one row a scheme."""
        columns = (
            "Scheme",
            "Null",
            "Host acc (%)",
            "Marked acc (%)",
            "Answers as the host, ood (%)",
            "log10 p, released",
            "Survived",
            "Weakest there",
            "Forgeries, V",
            "Forgeries, judge",
            "Embedding (s)",
        )
        caption = (
            f"Mean ± standard deviation over seeds. Survived: of the attacked models within {KEPT:g} points of the "
            "marked one's accuracy, those on which the judge (p times 2^64) upholds the owner's claim; weakest: the "
            "attack among these that leaves the least evidence, with its mean log10 p. Forgeries: how many of the "
            "forgers' claims each accepts; the fewer the better."
        )
        rows = tuple(self._row(scheme) for scheme in self.schemes)
        return Table(columns, rows, f"Leaderboard: {self.title}", caption)

    def _row(self, scheme: str) -> tuple[str, ...]:
        released = self.standing(scheme, "none").done
        worth, forged = self.worth(scheme), [cell for one in self.of(scheme) for cell in one.done if one.done]
        forged = [cell for cell in forged if cell.family == "forgery"]
        accuracies = [cell.accuracy for cell in released if cell.accuracy]
        ood = [_agreement(cell) for cell in released]
        return (
            scheme,
            released[0].verify.null if released and released[0].verify else ABSENT,
            spread([100 * one.host for one in accuracies]),
            spread([100 * one.marked for one in accuracies]),
            spread([None if one is None else 100 * one for one in ood]),
            spread(self.standing(scheme, "none").log10_p),
            f"{sum(_upheld(cell) for cell in worth)} of {len(worth)} ({percent(self._share(scheme))} %)",
            self._weakest(scheme),
            f"{sum(cell.verify is not None and cell.verify.word == 'accepted' for cell in forged)} of {len(forged)}",
            f"{sum(_upheld(cell) for cell in forged)} of {len(forged)}",
            spread([cell.cost.embed_seconds for cell in released if cell.cost]),
        )

    def _weakest(self, scheme: str) -> str:
        means = {}
        for standing in self.of(scheme):
            ps = [p for p in standing.log10_p if p is not None]
            cheap = standing.given_up and sum(standing.given_up) / len(standing.given_up) <= KEPT
            if ps and cheap and standing.done[0].family in ("removal", "evasion"):
                means[standing.attack] = sum(ps) / len(ps)
        if not means:
            return ABSENT
        worst = max(means, key=lambda name: means[name])
        return f"{worst}: {number(round(means[worst], 1))}"

    def attack_table(self) -> Table:
        """One row an attack, one column a scheme."""
        rows = tuple((attack, *(self.standing(one, attack).words for one in self.schemes)) for attack in self.attacks)
        caption = (
            "In how many seeds the judge upholds the owner's claim, and in parentheses by how many points the accuracy "
            f"changed. Of forgeries: V's and the judge's answers to the forger. {ABSENT}: nothing to act on."
        )
        return Table(("Attack", *self.schemes), rows, f"Each attack: {self.title}", caption)

    def cost_table(self) -> Table:
        """What each attack needs of a thief and took, over all schemes."""
        rows = []
        for attack in self.attacks[1:]:
            done = [cell for one in self.schemes for cell in self.standing(one, attack).done]
            if done:
                spent = [cell.cost for cell in done if cell.cost]
                rows.append((attack, _needs(done[0]), *(spread([getattr(c, n) for c in spent]) for n in COSTS)))
        return Table(("Attack", "Needs", "Seconds", "Samples", "Queries"), tuple(rows), "What attacks cost")

    def failures(self) -> list[str]:
        """The cells that failed, with their reasons."""
        return [
            f"{cell.scheme} under {cell.attack}, seed {cell.seed}: {cell.reason}"
            for cell in self.cells
            if cell.status == "failed"
        ]

    def to_dict(self) -> dict[str, Any]:
        """The leaderboard as JSON."""
        table = self.table()
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        return {"data": self.data, "model": self.model, "leaderboard": rows, "failures": self.failures()}


COSTS = ("seconds", "samples", "queries")


def _needs(cell: Cell) -> str:
    if cell.needs is None:
        return ABSENT
    parts = ["weights" if cell.needs.weights else "", cell.needs.data, cell.needs.queries, cell.needs.more]
    return ", ".join(part for part in parts if part not in ("", "nothing")) or "nothing"


def _upheld(cell: Cell) -> bool:
    return cell.judge is not None and cell.judge.word == "accepted"


def _agreement(cell: Cell) -> float | None:
    found = (cell.fidelity or {}).get("agreement") or {}
    value: float | None = found.get("ood")
    return value


def boards_of(cells: Sequence[Cell]) -> list[Board]:
    """One board for each task and network.

    Raises:
        BadInput: no cell.
    """
    if not cells:
        raise BadInput("there is no cell to show; measure one with `earmark bench`")
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault((cell.data, cell.model), []).append(cell)
    return [Board(*key, tuple(own)) for key, own in grouped.items()]


TIDY = (
    "data", "model", "scheme", "attack", "family", "seed", "status", "accuracy_host", "accuracy_marked",
    "accuracy_suspect", "accuracy_task", "points_given_up", "verify_word", "verify_log10_p", "verify_statistic",
    "verify_n", "null", "judge_word", "judge_log10_p", "judge_step", "needs", "seconds", "samples", "queries",
    "embed_seconds", "host_seconds", "id", "reason",
)  # fmt: skip


def tidy(cells: Iterable[Cell]) -> str:
    """One line a cell, one column a number: CSV for any other program."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(TIDY)
    for cell in cells:
        a, v, j, c = cell.accuracy, cell.verify, cell.judge, cell.cost
        writer.writerow(
            [
                cell.data, cell.model, cell.scheme, cell.attack, cell.family, cell.seed, cell.status,
                *((a.host, a.marked, a.suspect, a.task, round(a.given_up, 6)) if a else [None] * 5),
                *((v.word, v.log10_p, v.statistic, v.n, v.null) if v else [None] * 5),
                *((j.word, j.log10_p, j.step) if j else [None] * 3),
                _needs(cell) if cell.needs else None,
                *((c.seconds, c.samples, c.queries, c.embed_seconds, c.host_seconds) if c else [None] * 5),
                cell.id, cell.reason,
            ]
        )  # fmt: skip
    return written.getvalue()
