"""What is timed: nothing that the library embeds by fine-tuning is left out."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from earmark.embed import FromHost
from earmark.embed.methods import METHODS
from earmark.recipes.deep_fidelity import LABELS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CASES = BENCHMARKS / "cases.py"


def test_every_fine_tuning_method_of_the_paper_is_timed_under_its_name() -> None:
    timed = runpy.run_path(str(CASES))["METHODS"]
    expected = [label for name, label in LABELS.items() if isinstance(METHODS[name]().start, FromHost)]
    assert len(expected) == 7
    assert list(timed) == expected == [method().name for method in timed.values()]


@pytest.mark.parametrize("name", ["queries", "scanning", "soundness", "grid"])
def test_a_benchmark_says_what_it_takes_and_writes_where_it_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(BENCHMARKS / f"{name}.py"))["main"]
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "--out" in capsys.readouterr().out
