"""What is timed: nothing that the library embeds by fine-tuning is left out."""

from __future__ import annotations

import runpy
from pathlib import Path

from earmark.embed import FromHost
from earmark.embed.methods import METHODS
from earmark.recipes.deep_fidelity import LABELS

CASES = Path(__file__).parent.parent / "benchmarks" / "cases.py"


def test_every_fine_tuning_method_of_the_paper_is_timed_under_its_name() -> None:
    timed = runpy.run_path(str(CASES))["METHODS"]
    expected = [label for name, label in LABELS.items() if isinstance(METHODS[name]().start, FromHost)]
    assert len(expected) == 7
    assert list(timed) == expected == [method().name for method in timed.values()]
