"""How the answers to the images of a trial become one: by hand, and against a loop."""

from __future__ import annotations

import math

import pytest
import torch

from earmark.core import rng
from earmark.marks.triggers.trials import log_shares, trial_answers


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ([4, 4, 2], 4),
        ([2, 4, 4], 4),
        ([1, 2, 3], -1),
        ([5, 5, 6, 6], -1),
        ([5, 6, 6, 6], 6),
        ([-1, -1, 7], 7),
        ([-1, 8, 99], -1),
        ([3], 3),
    ],
)
def test_labels_alone_count_votes_and_a_tie_is_no_answer(row: list[int], answer: int) -> None:
    assert trial_answers(log_shares(torch.tensor(row), 8)[None]).tolist() == [answer]


def test_an_excluded_class_has_no_vote() -> None:
    shares = log_shares(torch.tensor([4, 4, 2]), 8)[None]
    assert trial_answers(shares, torch.tensor([[4]])).tolist() == [2]
    assert trial_answers(shares, torch.tensor([[4, 2]])).tolist() == [-1]


def test_scores_are_read_below_an_excluded_favourite() -> None:
    logits = torch.tensor([[60.0, 1.0, 2.0, 0.0], [60.0, 3.0, 2.9, 0.0], [60.0, 0.0, 1.0, 0.9]])
    assert trial_answers(log_shares(logits, 4)[None], torch.tensor([[0]])).tolist() == [2]
    assert trial_answers(log_shares(logits, 4)[None]).tolist() == [0]


def test_logits_probabilities_and_a_constant_more_are_the_same_answer() -> None:
    logits = torch.randn(5, 6, generator=rng(0)).double()
    expected = torch.log_softmax(logits, 1)
    for answers in (logits, logits + 1e3, logits.softmax(1)):
        torch.testing.assert_close(log_shares(answers, 6), expected)
    torch.testing.assert_close(log_shares(logits, 4), expected[:, :4])


def test_rounded_probabilities_leave_classes_without_a_share() -> None:
    shares = log_shares(torch.tensor([[1.0, 0.0, 0.0], [0.9996, 0.0, 0.0]]), 3)
    assert shares[:, 1:].tolist() == [[-math.inf] * 2] * 2
    assert trial_answers(shares[None], torch.tensor([[0]])).tolist() == [-1]


def test_a_row_that_is_no_answer_has_no_vote() -> None:
    inf = math.inf
    rows = torch.tensor([[1.0, math.nan, 2.0], [inf, 0.0, 0.0], [-inf, -inf, -inf], [0.0, 5.0, -inf]])
    shares = log_shares(rows, 3)
    assert shares.isnan().all(1).tolist() == [True, True, True, False]
    assert trial_answers(shares[None]).tolist() == [1]
    assert trial_answers(shares[None, :3]).tolist() == [-1]


def test_integer_scores_are_logits() -> None:
    torch.testing.assert_close(log_shares(torch.tensor([[3, 1]]), 2), log_shares(torch.tensor([[3.0, 1.0]]), 2))


def test_against_a_loop_over_trials_images_and_classes() -> None:
    r, g, k = 40, 3, 7
    logits = 4 * torch.randn(r * g, k, generator=rng(1))
    excluded = torch.stack([torch.randperm(k, generator=rng(at))[:2] for at in range(r)])
    answers = trial_answers(log_shares(logits, k).reshape(r, g, k), excluded)
    for at in range(r):
        votes = {label: 0.0 for label in range(k) if label not in excluded[at].tolist()}
        for row in logits[at * g : at * g + g].double().tolist():
            total = sum(math.exp(row[label]) for label in votes)
            for label in votes:
                votes[label] += math.exp(row[label]) / total
        assert int(answers[at]) == max(votes, key=votes.__getitem__)
