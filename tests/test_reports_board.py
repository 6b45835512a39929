"""What a grid found, in tables and figures: every number is that of the cells."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from earmark.bench import Cell
from earmark.errors import BadInput
from earmark.reports import Board, boards_of, figures, tidy, write_board
from earmark.reports.board import board_figures
from earmark.reports.figures import Met, Survivor, evidence_survival, heat_map, survival_curve

SEEDS = (0, 1)


def evidence(log10_p: float | None, word: str, step: str | None = None) -> dict[str, Any]:
    null = "none" if log10_p is None else "exact"
    found = {"word": word, "log10_p": log10_p, "statistic": 40.0, "n": 50, "alpha": 1e-6, "null": null, "step": step}
    return {**found, "reason": "so it is"}


def cell(scheme: str, attack: str, seed: int, family: str = "removal", **changes: Any) -> Cell:
    """A cell that was measured: 90 % right when released, 88 % after the attack."""
    shares = {"host": 0.92, "marked": 0.9, "suspect": 0.9 if family == "none" else changes.pop("suspect", 0.88)}
    p, judged = changes.pop("p", -40.0), changes.pop("judged", "accepted")
    cost = {"seconds": 1.5, "samples": 10, "queries": 0, "embed_seconds": 2.0, "host_seconds": 1.0, "cell_seconds": 2.0}
    whole: dict[str, Any] = {
        "id": f"{abs(hash((scheme, attack, seed))) % 16**16:016x}",
        "scheme": scheme,
        "attack": attack,
        "family": family,
        "status": "done",
        "seed": seed,
        "data": "blobs",
        "model": "tiny",
        "settings": {},
        "accuracy": shares,
        "verify": evidence(p, "accepted" if p is not None else "inconclusive"),
        "judge": evidence(p, judged, "suspect"),
        "fidelity": {"agreement": {"ood": 0.5}} if family == "none" else None,
        "cost": cost,
        "versions": {"earmark": "0"},
        "hardware": "an abacus",
        "commit": "abc+",
        "time": "2026-01-01T00:00:00Z",
    }
    return Cell.model_validate({**whole, **changes})


def board() -> Board:
    cells = []
    for seed in SEEDS:
        cells += [
            cell("weak", "none", seed, "none"),
            cell("weak", "tune", seed, p=-3.0 - seed, judged="rejected"),
            cell("weak", "jpeg", seed, "evasion", suspect=0.5, p=-1.0, judged="rejected"),
            cell("strong", "none", seed, "none", p=-80.0),
            cell("strong", "tune", seed, p=-70.0),
            cell("strong", "jpeg", seed, "evasion", p=-60.0 - seed),
            cell("strong", "read-off", seed, "forgery", judged="rejected", suspect=0.9),
            cell("weak", "read-off", seed, "forgery", status="unfit", reason="nothing there", accuracy=None,
                 verify=None, judge=None, cost=None),
        ]  # fmt: skip
        cells += [cell(one, f"prune share={share}", seed) for one in ("weak", "strong") for share in (0.2, 0.8)]
    (found,) = boards_of(cells)
    return found


def test_the_leaderboard_says_who_survives_what_leaves_the_thief_a_model() -> None:
    table = board().table()
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == ["strong", "weak"]
    assert rows["strong"]["Survived"] == "8 of 8 (100.00 %)"
    assert rows["weak"]["Survived"] == "4 of 6 (66.67 %)", "what cost 40 points is no loot"
    assert rows["weak"]["Weakest there"] == "tune: -3.5"
    assert rows["strong"]["Forgeries, V"] == "2 of 2"
    assert rows["strong"]["Forgeries, judge"] == "0 of 2"
    assert rows["weak"]["Answers as the host, ood (%)"] == "50 ± 0"


def test_each_attack_is_told_with_what_it_changed() -> None:
    table = board().attack_table()
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.columns == ("Attack", "strong", "weak")
    assert next(iter(rows)) == "none"
    assert rows["tune"] == ("2/2 (−2.0)", "0/2 (−2.0)")
    assert rows["jpeg"] == ("2/2 (−2.0)", "0/2 (−40.0)")
    assert rows["read-off"] == ("V 2/2, judge 0/2", "—")


def test_the_tidy_table_has_a_line_for_every_cell_and_reads_back() -> None:
    found = list(csv.DictReader(io.StringIO(tidy(board().cells))))
    assert len(found) == len(board().cells)
    tuned = next(row for row in found if (row["scheme"], row["attack"], row["seed"]) == ("weak", "tune", "1"))
    assert float(tuned["points_given_up"]) == pytest.approx(2.0)
    assert (float(tuned["verify_log10_p"]), tuned["judge_word"], tuned["null"]) == (-4.0, "rejected", "exact")


def test_the_survival_curve_is_the_cheapest_way_down_and_never_rises() -> None:
    found = (("a", 3.0, 20.0), ("b", 1.0, 50.0), ("c", 9.0, 35.0))
    ways = [Survivor(name, "removal", 0, given_up, evidence) for name, given_up, evidence in found]
    places = [0.0, 0.9, 1.0, 2.0, 3.0, 9.0, 20.0]
    curve = survival_curve(ways, 80.0, places)
    assert curve == [80.0, 80.0, 50.0, 50.0, 20.0, 20.0, 20.0]
    slow = [min([80.0] + [way.evidence for way in ways if way.given_up <= place]) for place in places]
    assert curve == slow


def test_a_board_has_its_figures_and_a_scheme_without_a_null_no_curve() -> None:
    drawn = board_figures(board())
    assert set(drawn) == {"survival", "heat", "prune-share"}
    assert figures.to_png(drawn["survival"]) == figures.to_png(board_figures(board())["survival"])
    (bare,) = boards_of([cell("bare", "none", 0, "none", p=None), cell("bare", "tune", 0, p=None)])
    assert set(board_figures(bare)) == {"heat"}
    assert bare.table().rows[0][1] == "none"


def test_the_page_and_the_report_show_everything_and_say_what_failed(tmp_path: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("accuracy", "verify", "judge", "cost"))
    failed = cell("weak", "crash", 0, status="failed", reason="a\nb|c", **nothing)
    write_board(tmp_path, [*board().cells, failed])
    page = (tmp_path / "README.md").read_text()
    for name in ("survival", "heat", "prune-share"):
        assert f"(blobs-tiny-{name}.png)" in page
        assert (tmp_path / f"blobs-tiny-{name}.png").stat().st_size > 5_000
    assert "weak under crash, seed 0: a b|c" in page
    assert "an abacus" in page
    report = (tmp_path / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 3
    assert "Leaderboard: blobs, tiny" in report


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no cell to show"):
        write_board(tmp_path, [])
    with pytest.raises(BadInput, match="same schemes"):
        heat_map({"x": {"a": Met(1, 1)}, "y": {"b": Met(1, 1)}}, {})
    with pytest.raises(BadInput, match="released models"):
        evidence_survival({"a": []}, {})
