"""JSON that was edited by hand: it is read as what it says, or refused in one sentence, and never breaks a report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from earmark.cli import app
from earmark.core import FidelityReport
from earmark.errors import BadInput
from earmark.files import read_json
from earmark.reports import (
    Report,
    Reproduction,
    Ruling,
    Table,
    fidelity_table,
    figures,
    record,
    render,
    ruling_table,
    write_report,
)

VERDICT: dict[str, Any] = {
    **{"suspect": "copy", "claimant": "Ada", "accepted": True, "log10_p": -9.0, "alpha": 1e-6, "reason": "all matched"},
    **{"statistic": 100, "n": 100, "null": {"basis": "exact", "rate": 0.1, "words": "chance."}, "accuracy": 0.98},
}
FIDELITY: dict[str, Any] = {
    **{"model": "copy", "val_acc": 0.98, "trig_acc": None, "twl": 1.0, "ave_pfl": 2.0, "ave_spl": 0.1},
    **{"prototype_change": 0.0, "relative_pfl": 0.1, "host_val_acc": 0.99, "agreement": {"test": 0.99}},
}
TABLE: dict[str, Any] = {
    **{"table": "table4", "setting": "mnist", "scale": "cpu", "notes": ["a"], "settings": {"epochs": 3}},
    "rows": [{"method": "FTAL", "metrics": {"val_acc": {"paper": 99.0, "ours": [98.0, None]}}}],
}
KINDS = {"verdict": VERDICT, "fidelity": FIDELITY, "table": TABLE}


def verdict(value: Mapping[str, Any]) -> Table:
    ruling = Ruling.from_dict(value)
    render(Report("t", [ruling]))
    figures.to_png(figures.evidence_plot([ruling]), dpi=20)
    return ruling_table([ruling])


SHOWN: dict[str, Callable[[Mapping[str, Any]], Table]] = {
    "verdict": verdict,
    "fidelity": lambda value: fidelity_table({"a": record(FidelityReport, value, "a report", "earmark fidelity")}),
    "table": lambda value: Reproduction.from_dict(value).to_table(),
}
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -(10**19)]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), odd=ODD)
def test_any_value_in_any_place_is_shown_or_refused(kind: str, data: st.DataObject, odd: Any) -> None:
    name = data.draw(st.sampled_from(sorted(KINDS[kind])))
    with suppress(BadInput):
        SHOWN[kind]({**KINDS[kind], name: odd})


@settings(max_examples=40, deadline=None)
@given(data=st.data(), odd=ODD)
def test_any_value_within_a_row_is_shown_or_refused(data: st.DataObject, odd: Any) -> None:
    row = data.draw(st.sampled_from([odd, {"method": odd, "metrics": {}}, {"method": "x", "metrics": odd}]))
    pair = data.draw(st.sampled_from([odd, {"paper": odd, "ours": [1.0]}, {"paper": 1.0, "ours": odd}]))
    with suppress(BadInput):
        SHOWN["table"]({**TABLE, "rows": [row, {"method": "y", "metrics": {"a": pair}}]})


WRONG = [
    ("verdict", "alpha", math.inf),
    ("verdict", "alpha", None),
    ("verdict", "suspect", None),
    ("verdict", "reason", ["x"]),
    ("verdict", "n", 1.5),
    ("verdict", "n", math.inf),
    ("verdict", "statistic", "many"),
    ("verdict", "accuracy", math.nan),
    ("verdict", "null", None),
    ("verdict", "null", {"words": 3}),
    ("fidelity", "val_acc", None),
    ("fidelity", "val_acc", "0.9"),
    ("fidelity", "ave_spl", math.nan),
    ("fidelity", "agreement", None),
    ("fidelity", "agreement", {"test": None}),
    ("fidelity", "twl", [1]),
    ("table", "rows", None),
    ("table", "notes", None),
    ("table", "settings", [1]),
]


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_report_names_the_file_that_was_edited(kind: str, name: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "edited.json").write_text(json.dumps({**KINDS[kind], name: value}))
    found = CliRunner().invoke(app, ["report", str(tmp_path / "edited.json"), "--out", str(tmp_path / "report.html")])
    assert (found.exit_code, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"earmark: error: {tmp_path / 'edited.json'}")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999"])
def test_a_number_that_json_does_not_have_is_no_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadInput, match="no finite number"):
        read_json(tmp_path / "x.json")


def test_half_a_character_is_shown_as_none(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", Report("t", [Ruling.from_dict({**VERDICT, "suspect": "copy \ud800"})]))
    assert "copy ?" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("p", [None, 0, 1e-300, 1])
def test_a_p_value_alone_will_do(p: float | None) -> None:
    value = {**VERDICT, "accepted": False, "p_value": p}
    del value["log10_p"]
    assert Ruling.from_dict(value).p_value == pytest.approx(p)


@pytest.mark.parametrize("p", [-1, 1.5, math.nan, math.inf, True, "0.1", [0.1]])
def test_what_is_no_probability_is_refused(p: Any) -> None:
    value = {**VERDICT, "accepted": False, "p_value": p}
    del value["log10_p"]
    with pytest.raises(BadInput, match="p_value"):
        Ruling.from_dict(value)
