"""Label policies and their nulls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earmark.data import digits
from earmark.errors import BadInput
from earmark.keys import KeyedStream, MarkKey
from earmark.marks import (
    POLICIES,
    AsShown,
    Chain,
    LabelPolicy,
    Listed,
    NotTrue,
    OneClass,
    Stamped,
    Uniform,
    policy_from,
)


def stream(seed: int = 0) -> KeyedStream:
    return MarkKey(seed.to_bytes(32, "big")).stream("labels")


def chi_squared(counts: torch.Tensor) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_uniform_labels_are_uniform() -> None:
    labels = Uniform().draw(stream(), 50_000, 10, None)
    assert chi_squared(labels.bincount(minlength=10)) < 27.9  # 9 degrees of freedom, 0.999
    assert Uniform().null(10).rate == 0.1


def test_labels_that_are_not_the_true_class_are_uniform_on_the_others() -> None:
    true = torch.arange(40_000) % 5
    labels = NotTrue().draw(stream(), 40_000, 5, true)
    assert not bool((labels == true).any())
    assert chi_squared(((labels - true) % 5).bincount(minlength=5)[1:]) < 16.3  # 3 degrees of freedom, 0.999
    assert NotTrue().null(5).rate == 0.25


@pytest.mark.parametrize("policy", [Uniform(), NotTrue()])
@pytest.mark.parametrize("habit", ["one class", "true class", "skewed"])
def test_no_habit_of_an_innocent_suspect_beats_the_null(policy: LabelPolicy, habit: str) -> None:
    """Over many keys, a fixed suspect's matches have at most the mean n p and the variance n p (1 - p)."""
    n, keys, classes = 40, 600, 4
    true = torch.arange(n) % classes
    answers = {"one class": torch.zeros(n).long(), "true class": true, "skewed": (true * true) % 3}[habit]
    hits = torch.tensor([int((policy.draw(stream(key), n, classes, true) == answers).sum()) for key in range(keys)])
    rate = policy.null(classes).rate
    assert rate is not None
    error = (rate * (1 - rate) * n / keys) ** 0.5
    assert float(hits.double().mean()) < n * rate + 4 * error
    assert float(hits.double().var()) < 1.35 * n * rate * (1 - rate)
    if isinstance(policy, Uniform):
        assert float(hits.double().mean()) > n * rate - 4 * error


def test_labels_that_a_model_may_hit_by_habit_have_no_null() -> None:
    for policy in (Chain(4), OneClass(2), Listed((0, 7)), AsShown()):
        null = policy.null(10)
        assert (null.basis, null.rate) == ("none", None)
        assert "prove" in null.words


def test_chain_labels_count_up_and_one_class_labels_stay() -> None:
    assert Chain(4).draw(stream(), 10, 5, None).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert OneClass(0).draw(stream(), 3, 5, None).tolist() == [0, 0, 0]
    assert Listed((0, 4)).draw(stream(), 3, 5, None).tolist() == [0, 4, 0]
    assert AsShown().draw(stream(), 3, 5, torch.tensor([4, 0, 2])).tolist() == [4, 0, 2]


@pytest.mark.parametrize(
    ("policy", "classes", "message"),
    [
        (Chain(10), 9, "as many classes, got 9"),
        (OneClass(5), 5, "below 5"),
        (Listed((0, 7)), 7, "below 7"),
        (NotTrue(), 2, "at least 3 classes"),
        (NotTrue(), 10, "show a true class"),
        (AsShown(), 10, "show one class each"),
    ],
)
def test_policies_name_the_classes_that_they_need(policy: LabelPolicy, classes: int, message: str) -> None:
    true = torch.tensor([0, 1]) if classes == 2 else None
    with pytest.raises(BadInput, match=message):
        policy.draw(stream(), 2, classes, true)


@pytest.mark.parametrize("policy", [Uniform(), NotTrue(), Chain(3), OneClass(4), Listed((0, 7)), AsShown()])
def test_a_policy_comes_back_from_its_settings(policy: LabelPolicy) -> None:
    assert policy_from(policy.settings()) == policy
    assert POLICIES[policy.name] is type(policy)


def test_unknown_policies_and_settings_get_a_suggestion() -> None:
    with pytest.raises(BadInput, match="did you mean 'uniform'"):
        policy_from({"policy": "uniformly"})
    with pytest.raises(BadInput, match="did you mean 'target'"):
        policy_from({"policy": "one-class", "traget": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.sampled_from([*POLICIES, "x"]), st.sampled_from(["target", "length", "labels", "x"]))
def test_hostile_label_settings_give_a_policy_or_an_error(value: Any, name: str, field: str) -> None:
    for settings in (value, {"policy": value}, {"policy": name, field: value}):
        try:
            assert isinstance(policy_from(settings), LabelPolicy)
        except BadInput:
            continue


def test_stamped_triggers_never_ask_for_what_they_show_unless_told() -> None:
    data, key = digits(), MarkKey(bytes(32))
    mark = Stamped(60)(key, None, data)
    assert mark.carriers is not None
    assert not (mark.labels == mark.carriers.labels).any()
    assert mark.null.rate == 1 / 9
    assert Stamped(60, Uniform())(key, None, data).null.rate == 1 / 10
    assert Stamped(20, text="A", carrier="abstract")(key, None, data).null.rate == 1 / 10
