"""The picture of queries and evidence, and the numbers that it draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import Noise
from earmark.reports.figures import evidence_path, query_curves, to_png
from earmark.stats import GRINDING_BITS
from earmark.verify import SequentialTriggerTest

MARK = Noise(count=40).make(MarkKey(bytes(32)), (1, 4, 4), 10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=40, max_size=40), st.sampled_from([0, GRINDING_BITS]))
def test_the_path_ends_where_the_sequential_test_does(matches: list[bool], bits: int) -> None:
    answers = torch.where(torch.tensor(matches), MARK.labels, (MARK.labels + 1) % 10)
    at = iter(torch.split(answers, 1))
    verdict = SequentialTriggerTest(grinding_bits=bits)(lambda _: next(at), MARK)
    path = evidence_path(matches, 0.1, bits)
    assert verdict.log10_p is not None
    assert path[verdict.n - 1] == pytest.approx(-verdict.log10_p)


def test_an_unattacked_copy_of_ten_classes_takes_seven_queries_and_a_judge_twenty_more() -> None:
    for bits, queries in ((0, 7), (GRINDING_BITS, 27)):
        path = evidence_path([True] * 40, 0.1, bits)
        assert next(at for at, value in enumerate(path, start=1) if value > 6) == queries


def test_the_picture_has_a_curve_for_each_suspect_and_both_lines() -> None:
    figure = query_curves({"copy": [True] * 30, "innocent": [False, True] * 15}, 0.1)
    (axes,) = figure.axes
    assert len(axes.lines) == 4
    assert [text.get_text() for text in axes.texts] == ["enough for the owner: 6.0", "enough for a judge: 25.3"]
    assert to_png(figure).startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="at least one answer"):
        query_curves({"copy": []}, 0.1)
