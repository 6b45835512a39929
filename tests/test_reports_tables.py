"""Tables, reproductions and rulings: what is printed is what came in, and nothing in it can break out of its cell."""

from __future__ import annotations

import io
import json
import math
import statistics
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from earmark.core import FidelityReport, Null, Verdict
from earmark.errors import BadInput
from earmark.reports import Reproduction, Ruling, Table, fidelity_table, number, ruling_table, spread, table
from earmark.reports.rulings import bound

FOUND: dict[str, Any] = {
    "table": "table4",
    "setting": "mnist_d2",
    "scale": "cpu",
    "rows": [
        {"method": "Host", "metrics": {"val_acc": {"paper": 99.32, "ours": [99.3]}}},
        {
            "method": "FixLL+PFL",
            "metrics": {
                "val_acc": {"paper": 99.3, "ours": [99.1, 99.3]},
                "ave_pfl": {"paper": 0.4031, "ours": [0.41, None]},
                "prototype_change": {"paper": 0.0, "ours": [0.0, 0.0]},
            },
        },
    ],
    "settings": {"epochs": 20, "noise": {"std": 1.0}, "seeds": [0, 1]},
    "hardware": "2 cores",
    "notes": ["fewer images than the paper"],
}


def accepted(suspect: str = "copy", **changes: Any) -> Ruling:
    fields = {"accepted": True, "log10_p": -40.2, "alpha": 1e-6, "reason": "96 of 100", "statistic": 96.0, "n": 100}
    return Ruling(suspect, "owner", **{**fields, **changes})


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_spread_is_mean_and_sample_deviation(values: list[float]) -> None:
    mean, _, deviation = spread(values).partition(" ± ")
    assert float(mean) == pytest.approx(statistics.fmean(values), rel=1e-3, abs=0.5)
    assert float(deviation) == pytest.approx(statistics.stdev(values), rel=0.06, abs=1e-9)


def test_only_an_exact_zero_prints_as_zero() -> None:
    assert number(0.0) == "0"
    assert float(number(5e-324)) > 0
    assert number(math.inf) == "inf"


@given(st.text(), st.text())
def test_no_cell_breaks_a_markdown_table(first: str, second: str) -> None:
    lines = Table(("a", "b"), ((first, second),)).to_markdown().split("\n")
    assert len(lines) == 3
    assert lines[2].replace("\\\\", "").replace("\\|", "").count("|") == 3
    assert "<" not in lines[2]


def test_rich_shows_markup_as_text() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(Table(("a",), (("[bold red]x[/] :smile:",),), "t", "[link=x]c").to_rich())
    assert "[bold red]x[/] :smile:" in out.getvalue()
    assert "[link=x]c" in out.getvalue()


def test_a_row_with_a_missing_cell_is_refused() -> None:
    with pytest.raises(BadInput, match="1 cells for 2 columns"):
        Table(("a", "b"), (("x",),))


def test_rows_may_be_mappings_or_dataclasses() -> None:
    @dataclass(frozen=True)
    class Row:
        attack: str
        p_value: float

    made = table([{"attack": "prune"}, Row("fp16", 0.5)], title="t")
    assert made.columns == ("Attack", "P value")
    assert made.rows == (("prune", "—"), ("fp16", "0.5"))
    with pytest.raises(BadInput, match="mapping or a dataclass"):
        table([("a", "b")])


def test_fidelity_table_starts_with_the_host_and_shows_every_agreement() -> None:
    report = FidelityReport(0.99, 1.0, 806.9, 0.4, 3e-4, 0.0, 7e-5, 0.995, {"test": 0.999, "ood": 0.8})
    made = fidelity_table({"FixLL+PFL": report})
    assert [row[0] for row in made.rows] == ["Host", "FixLL+PFL"]
    cells = dict(zip(made.columns, made.rows[1], strict=True))
    assert cells["Prototype change"] == "0"
    assert cells["Agreement, ood (%)"] == "80.00"
    assert made.rows[0][1] == "99.50"


def test_reproduction_puts_the_paper_beside_ours() -> None:
    made = Reproduction.from_dict(json.loads(json.dumps(FOUND)))
    cells = dict(zip(made.to_table().columns, made.to_table().rows[1], strict=True))
    assert cells["Val acc (%)"] == "99.3 / 99.2 ± 0.14"
    assert cells["Ave PFL"] == "0.4031 / 0.41 (1 of 2)"
    assert cells["Prototype change"] == "0 / 0 ± 0"
    assert cells["Seeds"] == "2"
    assert made.to_table().rows[0][2:] == ("—", "—", "1")


def test_reproduction_states_settings_hardware_and_notes() -> None:
    text = Reproduction.from_dict(FOUND).to_markdown()
    for fact in ("epochs: 20", "noise: std 1", "seeds: 0, 1", "hardware: 2 cores", "fewer images than the paper"):
        assert f"- {fact}" in text


@pytest.mark.parametrize("part", ["table", "rows", "scale"])
def test_a_reproduction_without_a_part_names_it(part: str) -> None:
    with pytest.raises(BadInput, match=part):
        Reproduction.from_dict({name: value for name, value in FOUND.items() if name != part})


@pytest.mark.parametrize("rows", [3, [4], [{"method": "x", "metrics": {"a": {"paper": 1, "ours": ["many"]}}}]])
def test_a_malformed_reproduction_is_refused(rows: Any) -> None:
    with pytest.raises(BadInput, match="malformed"):
        Reproduction.from_dict({**FOUND, "rows": rows})


def test_a_ruling_survives_json() -> None:
    ruling = accepted(accuracy=0.98, null="Binomial(100, 1/10)")
    assert Ruling.from_dict(json.loads(json.dumps(ruling.to_dict()))) == ruling


def test_a_ruling_says_what_its_verdict_says() -> None:
    verdict = Verdict(None, 40, 100, Null("none", None, "no rate"), None, 1e-6, "no null")
    ruling = Ruling.of("copy", "owner", verdict, accuracy=0.5)
    assert (ruling.word, ruling.p_value, ruling.matches, ruling.null) == ("inconclusive", None, "40 of 100", "no rate")
    assert Ruling.from_dict({"suspect": "copy", "claimant": "owner", **verdict.to_dict(), "accuracy": 0.5}) == ruling


def test_a_ruling_with_only_a_p_value_is_read() -> None:
    value = {**accepted().to_dict(), "p_value": 1e-9}
    del value["log10_p"]
    assert Ruling.from_dict(value).log10_p == pytest.approx(-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"accepted": 1},
        {"accepted": "true"},
        {"log10_p": 0.5},
        {"log10_p": math.nan},
        {"log10_p": None},
        {"log10_p": -5.9},
        {"alpha": 0},
        {"alpha": "x"},
        {"n": []},
    ],
)
def test_a_ruling_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Ruling.from_dict({**accepted().to_dict(), **wrong})


@given(st.floats(-400, 0))
def test_the_printed_bound_is_never_below_p(log10_p: float) -> None:
    shown = bound(log10_p)
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    exponent = int(shown[2:].translate(digits)) if log10_p <= -3 else math.log10(float(shown) * 1.06)
    assert log10_p <= exponent < log10_p + 1


def test_ruling_table_has_a_row_a_ruling() -> None:
    rows = ruling_table([accepted(), accepted("fp16")]).rows
    assert [row[:5] for row in rows] == [(name, "owner", "accepted", "96 of 100", "10⁻⁴⁰") for name in ("copy", "fp16")]
