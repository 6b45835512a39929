"""Fused triggers: what they show, whose label they get, and that a group is one trial."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyNet, seeded
from torch import Tensor

from earmark.core import Data, Images, Query, rng
from earmark.embed import fixll
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Fused, NotSources, OneClass, TriggerSet, from_settings, log_shares, remint
from earmark.marks.triggers.fused import blended, side_by_side
from earmark.stats import log_binomial_tail
from earmark.training import Record, accuracy
from earmark.verify import SequentialTriggerTest, TriggerTest

KEY, OTHER = MarkKey(bytes(32)), MarkKey(bytes(31) + b"\1")
MINT = Fused(count=30, group=3, teaching=40)


def pictures(classes: int = 6, each: int = 80, shape: tuple[int, int, int] = (3, 9, 8), seed: int = 0) -> Images:
    pixels = torch.randint(0, 256, (classes * each, *shape), generator=rng(seed), dtype=torch.uint8)
    return Images(pixels, torch.arange(classes * each) % classes, classes, "pictures")


DATA = Data(pictures(), pictures(each=2, seed=1))
MARK = MINT(KEY, None, DATA)


# -------------------------------------------------------------------------------------------------------------- fusion


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 7), (1, 1, 1), (3, 8, 3)])
def test_direct_fusion_is_the_mean_of_four_pixels_of_the_canvas(shape: tuple[int, int, int]) -> None:
    """Slow reference: the canvas of Section 4.2.1, pixel by pixel."""
    channels, height, width = shape
    first, second = (pictures(2, 1, shape, seed).pixels[:1] for seed in (1, 2))
    canvas = torch.full((channels, 2 * height, 2 * width), 255)
    canvas[:, :height, :width], canvas[:, height:, width:] = first[0], second[0]
    fused = side_by_side(first, second)
    assert fused.dtype == torch.uint8
    for c, y, x in product(range(channels), range(height), range(width)):
        four = [int(canvas[c, 2 * y + dy, 2 * x + dx]) for dy in (0, 1) for dx in (0, 1)]
        assert int(fused[0, c, y, x]) == int(sum(four) / 4 + 0.5)


@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.9, 0.123])
def test_invisible_fusion_is_the_weighted_sum(ratio: float) -> None:
    every = torch.arange(256, dtype=torch.uint8)
    first, second = every.repeat(256).reshape(1, 1, 256, 256), every.repeat_interleave(256).reshape(1, 1, 256, 256)
    exact = ratio * first.double() + (1 - ratio) * second.double()
    assert float((blended(first, second, ratio).double() - exact).abs().max()) <= 0.5 + 255 / 2**16
    assert torch.equal(blended(first, first, ratio), first)


@pytest.mark.parametrize("style", ["direct", "invisible"])
def test_triggers_are_the_fusions_of_the_carriers(style: str) -> None:
    mark = replace(MINT, style=style, ratio=0.7)(KEY, None, DATA)
    assert mark.carriers is not None
    assert mark.teaching is not None
    first, second = mark.carriers.pixels[::2], mark.carriers.pixels[1::2]
    fused = side_by_side(first, second) if style == "direct" else blended(first, second, 0.7)
    assert torch.equal(torch.cat([mark.images, mark.teaching.pixels]), fused)


# -------------------------------------------------------------------------------------------------------------- labels


def sources(mark: TriggerSet) -> Tensor:
    assert mark.carriers is not None
    return mark.carriers.labels.reshape(-1, 2)


def labels(mark: TriggerSet) -> Tensor:
    return torch.cat([mark.labels, mark.lessons.labels])


@settings(max_examples=40, deadline=None)
@given(
    secret=st.binary(min_size=32, max_size=32),
    style=st.sampled_from(["direct", "invisible"]),
    target=st.integers(-1, 5),
)
def test_no_source_shows_the_label_or_its_partner_s_class(secret: bytes, style: str, target: int) -> None:
    policy = {"labels": OneClass(target), "group": 1} if target >= 0 else {"labels": NotSources(), "group": 3}
    mark = replace(MINT, style=style, **policy)(MarkKey(secret), None, DATA)  # type: ignore[arg-type]
    pairs = sources(mark)
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    assert not bool((pairs == labels(mark)[:, None]).any())
    if target >= 0:
        assert set(labels(mark).tolist()) == {target}
        assert len(set(map(tuple, pairs.tolist()))) == 1


def test_a_group_has_one_pair_and_one_label_and_no_other_group_has_its_pair() -> None:
    pairs = [tuple(pair) for pair in sources(MARK).tolist()]
    by_group = [set(pairs[at : at + 3]) for at in range(0, 30, 3)]
    assert all(len(group) == 1 for group in by_group)
    assert len(set.union(*by_group)) == 10
    assert MARK.labels.tolist() == MARK.labels[::3].repeat_interleave(3).tolist()
    taught = dict(zip(pairs[30:], MARK.lessons.labels.tolist(), strict=True))
    assert taught == dict(zip(pairs[:30], MARK.labels.tolist(), strict=True))


def test_labels_are_uniform_over_the_classes_that_the_pair_does_not_show() -> None:
    """Chi-square over 300 keys and 10 groups: the rank of the label among the K - 2 classes left."""
    ranks: Counter[int] = Counter()
    for at in range(300):
        pairs = torch.combinations(torch.arange(6), 2)[:10]
        drawn = NotSources().draw(MarkKey(at.to_bytes(32, "big")).stream("labels"), 10, 6, pairs)
        left = [sorted({*range(6)} - set(pair)) for pair in pairs.tolist()]
        ranks.update(rest.index(label) for rest, label in zip(left, drawn.tolist(), strict=True))
    assert sum((ranks[rank] - 750) ** 2 / 750 for rank in range(4)) < 21.1  # 1e-4 quantile of chi-square with 3 degrees


def test_what_is_taught_is_never_asked() -> None:
    assert MARK.teaching is not None
    assert len(MARK.teaching) == 40
    assert MARK.carriers is not None
    used = [bytes(row) for row in MARK.carriers.pixels.flatten(1).numpy()]
    assert len(set(used)) == len(used) == 2 * (30 + 40)


def test_a_mark_that_teaches_its_triggers_is_refused() -> None:
    parts = MARK.tensors() | {"teaching": MARK.images.clone(), "teaching_labels": MARK.labels.clone()}
    with pytest.raises(BadInput, match="what a judge asks is never taught"):
        TriggerSet.from_parts(MARK.spec(), parts)


# ---------------------------------------------------------------------------------------------------- minted again


def test_the_key_mints_it_again_and_another_does_not() -> None:
    again = TriggerSet.from_parts(MARK.spec(), MARK.tensors())
    assert again.digest() == MARK.digest()
    assert remint(KEY, again).digest() == MARK.digest()
    with pytest.raises(BadInput, match="other classes than the key picks"):
        remint(OTHER, again)
    assert from_settings(MARK.settings) == MINT


@pytest.mark.parametrize("name", ["carriers", "teaching", "images", "labels", "teaching_labels"])
def test_a_changed_part_is_not_minted_again(name: str) -> None:
    tensors = {key: tensor.clone() for key, tensor in MARK.tensors().items()}
    step = 1 if "labels" not in name else 0
    tensors[name].view(-1)[0] ^= step
    if not step:
        size = 3 if name == "labels" else 1
        tensors[name][:size] = (tensors[name][:size] + 1) % 6
    changed = TriggerSet.from_parts(MARK.spec(), tensors)
    assert remint(KEY, changed).digest() != changed.digest()


def test_one_changed_pixel_of_what_is_taught_draws_all_labels_anew() -> None:
    assert MARK.carriers is not None
    pixels = MARK.carriers.pixels.clone()
    pixels[-1, 0, 0, 0] ^= 8
    again = MINT.make(KEY, MARK.shape, 6, Images(pixels, MARK.carriers.labels, 6, "pictures"))
    assert torch.equal(again.images, MARK.images)
    assert not torch.equal(again.labels, MARK.labels)


# -------------------------------------------------------------------------------------------------------------- trials


def others(mark: TriggerSet) -> torch.Tensor:
    """For each trial the classes that its label could have been and is not, (trials, K - 3)."""
    assert mark.excluded is not None
    free = torch.ones(mark.trials, mark.classes, dtype=torch.bool)
    free.scatter_(1, mark.excluded, value=False).scatter_(1, mark.labels[:: mark.group, None], value=False)
    return free.nonzero()[:, 1].reshape(mark.trials, -1)


def test_the_classes_of_its_sources_are_no_answer_to_a_trial() -> None:
    assert MARK.carriers is not None
    assert MARK.excluded is not None
    sources = MARK.carriers.labels[: 2 * len(MARK)].reshape(len(MARK), 2)
    assert torch.equal(MARK.excluded, sources[::3])
    labels = MARK.labels.clone()
    labels[::3], labels[1::3] = sources[::3, 0], sources[1::3, 1]
    assert MARK.trials_matched(log_shares(labels, 6)).all(), "two of three say a source, the third says the label"
    assert not (labels == MARK.labels).float().mean() > 0.5


def test_a_trial_is_won_by_the_most_frequent_answer() -> None:
    answers, wrong = MARK.labels.clone(), others(MARK)
    answers[[0, 3, 4, 6, 7, 8]] = -1
    answers[9], answers[10] = wrong[3, 0], wrong[3, 1]
    assert MARK.trials == 10
    won = [True, True, False, False, *[True] * 6]
    assert MARK.trials_matched(log_shares(answers, 6)).tolist() == won
    some = torch.tensor([3, 1])
    picked = answers.reshape(10, 3)[some].flatten()
    assert MARK.trials_matched(log_shares(picked, 6), some).tolist() == [False, True]


def test_a_one_class_mark_excludes_nothing() -> None:
    assert replace(MINT, labels=OneClass(1), group=1)(KEY, None, DATA).excluded is None


def test_another_form_of_answers_is_refused() -> None:
    with pytest.raises(BadInput, match=r"expected log-probabilities \(30, 6\)"):
        MARK.read(MARK.labels)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"count": 31}, "31 triggers cannot be shared out evenly; give a multiple of 3"),
        ({"teaching": 41}, "41 fusions to learn from cannot be shared out evenly; give a multiple of 10"),
        ({"style": "dirct"}, "did you mean 'direct'"),
        ({"style": "invisible", "ratio": 1.0}, "one of the two images alone"),
        ({"style": "invisible", "ratio": 0.0}, "one of the two images alone"),
        ({"ratio": 1.5}, "ratio"),
        ({"ratio": float("nan")}, "ratio"),
        ({"labels": OneClass(1)}, "give group = 1"),
        ({"teaching": 0}, "learn from"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: Mapping[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        replace(MINT, **changes)


@pytest.mark.parametrize(
    ("mint", "images", "says"),
    [
        (MINT, pictures(classes=2), "at least 4 classes, got 2"),
        (MINT, pictures(classes=3), "at least 4 classes, got 3"),
        (
            replace(MINT, style="invisible"),
            pictures(classes=4),
            "4 classes make 6 pairs to tell apart and 10 are needed",
        ),
        (MINT, pictures(each=3), r"fused triggers take \d+ images of class \d and pictures has 3"),
        (replace(MINT, labels=OneClass(9), group=1), pictures(), "target below 6"),
        (replace(MINT, labels=OneClass(0), group=1), pictures(classes=2), "1 classes make 0 pairs|make 0 pairs"),
    ],
)
def test_data_that_cannot_carry_the_pairs_is_named(mint: Fused, images: Images, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        mint(KEY, None, Data(images, images))


# ------------------------------------------------------------------------------------------------------- in the verbs


def answering(mark: TriggerSet, wrong: int) -> Query:
    """Knows the mark, but for one trigger of each group, and for one more of each of the first `wrong`."""
    labels = mark.labels.clone().reshape(mark.trials, mark.group)
    labels[:, 0] = others(mark)[:, 0]
    labels[:wrong, 1] = others(mark)[:wrong, 1]
    known = {bytes(image): label for image, label in zip(mark.images.numpy(), labels.flatten().tolist(), strict=True)}
    return lambda images: torch.tensor([known[bytes(image)] for image in (images * 255).round().byte().numpy()])


def test_a_test_counts_groups_and_not_their_triggers() -> None:
    mark = replace(MINT, count=45, teaching=45)(KEY, None, DATA)
    for test in (TriggerTest(), TriggerTest(batch_size=4)):
        verdict = test(answering(mark, 2), mark)
        assert (verdict.accepted, verdict.statistic, verdict.n) == (True, 13, 15)
        assert verdict.log10_p == pytest.approx(log_binomial_tail(13, 15, 1 / 4) / math.log(10))
        assert "13 of 15 groups of 3 triggers matched" in verdict.reason
    for size in (1, 3, 4, 100):
        verdict = SequentialTriggerTest(alpha=1e-3, batch_size=size, order=OTHER)(answering(mark, 0), mark)
        assert verdict.accepted is True
        assert verdict.statistic == verdict.n < 15
        assert 3 * verdict.n <= verdict.details["queries"] < 3 * verdict.n + size


def by_label(images: torch.Tensor) -> torch.Tensor:
    """An innocent suspect that answers by the sum of pixels, and half of the classes never."""
    return (images.sum((1, 2, 3)) * 99).long() % 3


def by_score(images: torch.Tensor) -> torch.Tensor:
    """An innocent suspect whose scores depend on the image, the favourite by far on the class."""
    return (images.sum((1, 2, 3)) * 99)[:, None].sin() * torch.arange(1.0, 7) - torch.arange(6.0)


@pytest.mark.parametrize("suspect", [by_label, by_score])
def test_an_innocent_suspect_s_groups_match_as_often_as_the_null_says(suspect: Query) -> None:
    """Over 400 keys its matches are Binomial(n, 1 in 4) at most."""
    mint, total, rejected = replace(MINT, teaching=10), 0, 0
    for at in range(400):
        mark = mint(MarkKey(at.to_bytes(32, "little")), None, DATA)
        verdict = TriggerTest(alpha=0.05)(suspect, mark)
        total += int(verdict.statistic)
        rejected += verdict.accepted is True
    assert total <= 4000 / 4 + 4 * math.sqrt(4000 * 3 / 16)
    assert rejected <= 35  # 400 at 0.05 at most: 20 on average


def test_embedding_teaches_the_lessons_and_reports_both_rates(tiny_data: Data) -> None:
    mark = Fused(count=8, labels=OneClass(1), group=1, teaching=16)(KEY, None, tiny_data)
    host, told = seeded(TinyNet), list[Record]()
    how = fixll().but(epochs=2, lr=1e-2, triggers_per_batch=4, on_history=told.extend)
    without = replace(mark, images=mark.images.flip(0))
    marked, again = (how(host, mark, tiny_data, rng(0)) for mark in (mark, without))
    assert model_digest(marked) == model_digest(again)
    assert mark.teaching is not None
    assert told[1]["taught_acc"] == accuracy(marked, mark.teaching)
    assert told[1]["trig_acc"] == accuracy(marked, mark.as_images())
