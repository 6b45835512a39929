"""The nouns: what they refuse, what they say."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from tiny import blobs

from earmark.core import Data, Images, Null, Verdict, rng
from earmark.errors import BadInput

EXACT = Null("exact", 0.1, "one in ten")


def verdict(accepted: bool | None = True, log10_p: float | None = -9.0, null: Null = EXACT) -> Verdict:
    return Verdict(accepted, 9, 10, null, log10_p, 1e-6, "nine of ten")


@pytest.mark.parametrize(("accepted", "word"), [(True, "accepted"), (False, "rejected"), (None, "inconclusive")])
def test_a_verdict_is_never_true_or_false(accepted: bool | None, word: str) -> None:
    found = verdict(accepted)
    with pytest.raises(TypeError, match=r"ask \.accepted"):
        bool(found)
    assert found.word == word
    assert str(found).startswith(word)
    assert json.loads(found.to_json())["accepted"] is accepted


def test_no_verdict_accepts_without_a_null_or_above_alpha() -> None:
    with pytest.raises(BadInput, match="inconclusive"):
        verdict(null=Null("none", None, "no basis"))
    with pytest.raises(BadInput, match="inconclusive"):
        verdict(log10_p=None)
    with pytest.raises(BadInput, match="alpha"):
        verdict(log10_p=-5.9)
    with pytest.raises(BadInput, match="alpha"):
        verdict(log10_p=math.nan)
    assert verdict(log10_p=math.log10(1e-6)).accepted


@pytest.mark.parametrize("alpha", [0, 0.0, 1, 1.5, -1e-6, math.nan, math.inf, True, None, "1e-6"])
@pytest.mark.parametrize("accepted", [True, False, None])
def test_alpha_is_a_probability_strictly_between_0_and_1(alpha: Any, accepted: bool | None) -> None:
    with pytest.raises(BadInput, match="alpha: expected a probability strictly between 0 and 1, got"):
        Verdict(accepted, 9, 10, EXACT, -9.0, alpha, "nine of ten")


def test_certainty_is_told_without_a_sign() -> None:
    assert "p = 10^0.0," in str(replace(verdict(), accepted=False, log10_p=-0.02))


def test_nobody_changes_the_details_of_a_verdict() -> None:
    given = {"share": 0.9, "interval": [0.5, 1.0], "against": {"Eve": "later"}}
    found = replace(verdict(), details=given)
    with pytest.raises(TypeError):
        found.details["share"] = 0.1  # type: ignore[index]
    with pytest.raises(TypeError):
        found.details["against"]["Eve"] = "earlier"
    with pytest.raises(TypeError):
        found.details["interval"][0] = 0.0
    given["share"] = 0.1
    given["interval"].append(2.0)  # type: ignore[attr-defined]
    told = found.to_dict()["details"]
    assert told == {"share": 0.9, "interval": [0.5, 1.0], "against": {"Eve": "later"}}
    told["share"] = 0.1
    assert found.details["share"] == 0.9


def test_a_verdict_with_details_copies_compares_and_becomes_json() -> None:
    found = replace(verdict(), details={"interval": [0.5, 1.0], "against": {"Eve": "later"}})
    for same in (copy.copy(found), copy.deepcopy(found), replace(found), pickle.loads(pickle.dumps(found))):
        assert same == found
        assert same.to_json() == found.to_json()
    assert asdict(found)["details"] == found.details
    assert found != replace(found, details={**found.details, "interval": [0.5, 0.9]})
    assert json.loads(found.to_json())["details"] == {"interval": [0.5, 1.0], "against": {"Eve": "later"}}


def test_p_values_underflow_to_zero_and_their_logarithms_do_not() -> None:
    found = verdict(log10_p=-3000.0)
    assert found.p_value == 0.0
    assert json.loads(found.to_json())["log10_p"] == -3000.0


def test_a_null_has_a_rate_exactly_where_it_has_a_basis() -> None:
    for basis, rate in (("none", 0.1), ("exact", None), ("exact", 0.0), ("exact", 1.0), ("calibrated", math.nan)):
        with pytest.raises(BadInput):
            Null(basis, rate, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pixels", "labels", "classes", "says"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), 3, "uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), 3, "N, 1 or 3, H, W"),
        (torch.zeros(2, 4, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), 3, "1 or 3"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), 3, "int64 labels"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 3]), 3, "0 to 2"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([-1, 0]), 3, "0 to 2"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0]), 1, "expected 2 to 65536 classes, got 1"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0]), 65537, "expected 2 to 65536 classes"),
    ],
)
def test_images_say_what_is_wrong(pixels: torch.Tensor, labels: torch.Tensor, classes: int, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Images(pixels, labels, classes)


def test_train_and_test_belong_together() -> None:
    with pytest.raises(BadInput, match="classes: 3 and 4"):
        Data(blobs(9), blobs(8, classes=4))
    with pytest.raises(BadInput, match="shape"):
        Data(blobs(9), blobs(9, shape=(3, 8, 8)))


def test_batches_are_the_images_in_order() -> None:
    images = blobs(10)
    parts = list(images.batches(4))
    assert [len(labels) for _, labels in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in parts]).mul(255).round().byte(), images.pixels)
    assert torch.equal(torch.rand(3, generator=rng(1)), torch.rand(3, generator=rng(1)))


def test_a_sample_is_spread_over_a_sorted_set_and_shows_no_content() -> None:
    images = Images(torch.zeros(100, 1, 2, 2, dtype=torch.uint8), torch.arange(100) // 10, 10, "sorted")
    assert images.sample(10).labels.tolist() == list(range(10))
    assert len(images.sample(1000)) == 100
    assert repr(images) == "Images('sorted', 100 of 1x2x2, 10 classes)"
