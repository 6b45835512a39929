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


def test_whole_votes_go_before_shares_and_shares_break_ties() -> None:
    loud = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [90.0, 0.0, 0.0]])
    assert trial_answers(log_shares(loud, 3)[None]).tolist() == [1], "one sure image does not outvote two"
    tied = torch.tensor([[0.0, 3.0, 2.0, 0.0], [3.0, 0.0, 2.0, 0.0]])
    assert trial_answers(log_shares(tied, 4)[None]).tolist() == [-1]
    assert trial_answers(log_shares(tied + torch.tensor([[0, 0.1, 0, 0]]), 4)[None]).tolist() == [1]
    assert trial_answers(log_shares(tied, 4)[None], torch.tensor([[0]])).tolist() == [2]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_how_sure_a_suspect_sounds_changes_no_majority(scale: float) -> None:
    logits = torch.randn(60, 5, 6, generator=rng(3))
    temperatures = torch.exp(scale * torch.randn(60, 5, 1, generator=rng(4))).clamp(1e-3, 1e3)
    plain, tempered = (
        trial_answers(log_shares(rows.reshape(-1, 6), 6).reshape(60, 5, 6)) for rows in (logits, logits * temperatures)
    )
    most = torch.nn.functional.one_hot(logits.argmax(2), 6).sum(1)
    clear = most.amax(1) > most.topk(2).values[:, 1]
    assert clear.sum() > 20
    assert torch.equal(plain[clear], most.argmax(1)[clear])
    assert torch.equal(tempered[clear], plain[clear])


@pytest.mark.parametrize("offset", [0, 1 << 53, 1 << 62, -(1 << 62)])
def test_large_whole_numbers_are_told_apart(offset: int) -> None:
    scores = torch.nn.functional.one_hot(torch.arange(4), 5) + offset
    assert trial_answers(log_shares(scores, 5)[:, None]).tolist() == [0, 1, 2, 3]


def test_against_a_loop_over_trials_images_and_classes() -> None:
    r, g, k = 200, 4, 7
    logits = 2 * torch.randn(r * g, k, generator=rng(1))
    excluded = torch.stack([torch.randperm(k, generator=rng(at))[:2] for at in range(r)])
    answers = trial_answers(log_shares(logits, k).reshape(r, g, k), excluded)
    for at in range(r):
        left = [label for label in range(k) if label not in excluded[at].tolist()]
        votes, shares = dict.fromkeys(left, 0), dict.fromkeys(left, 0.0)
        for row in logits[at * g : at * g + g].double().tolist():
            total = sum(math.exp(row[label]) for label in left)
            votes[max(left, key=row.__getitem__)] += 1
            for label in left:
                shares[label] += math.exp(row[label]) / total
        assert int(answers[at]) == max(left, key=lambda label: (votes[label], shares[label]))
