"""The nouns: what they refuse, what they say."""

from __future__ import annotations

import json
import math

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
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0]), 1, "at least 2"),
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
