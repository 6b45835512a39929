"""Some of the images: of some classes, relabelled by their place in the list, or so many at random."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import blobs

from earmark.core import rng
from earmark.data import drawn, only
from earmark.errors import BadInput


@given(st.permutations(range(6)), st.integers(2, 6))
def test_only_keeps_the_images_of_the_classes_in_their_order_under_the_place_of_their_class(
    order: list[int], count: int
) -> None:
    images, classes = blobs(25, classes=6), order[:count]
    chosen = only(images, classes)
    by_hand = [
        (image, classes.index(int(k))) for image, k in zip(images.pixels, images.labels, strict=True) if k in classes
    ]
    assert torch.equal(chosen.pixels, torch.stack([image for image, _ in by_hand]))
    assert chosen.labels.tolist() == [label for _, label in by_hand]
    assert chosen.classes == count


@pytest.mark.parametrize("classes", [[0], [], [1, 1], [0, 6], [-1, 2]])
def test_only_refuses_what_is_no_choice_of_classes(classes: list[int]) -> None:
    with pytest.raises(BadInput, match="two or more different classes from 0 to 5"):
        only(blobs(25, classes=6), classes)


def test_drawn_images_are_different_ones_with_their_labels_and_follow_from_the_generator() -> None:
    images = blobs(40)
    where = {image.numpy().tobytes(): int(label) for image, label in zip(images.pixels, images.labels, strict=True)}
    some, same, other = (drawn(images, 15, rng(seed)) for seed in (1, 1, 2))
    found = {image.numpy().tobytes(): int(label) for image, label in zip(some.pixels, some.labels, strict=True)}
    assert len(found) == 15
    assert found.items() <= where.items()
    assert torch.equal(some.pixels, same.pixels)
    assert not torch.equal(some.pixels, other.pixels)


def test_all_images_are_not_drawn() -> None:
    images, generator = blobs(4), rng(0)
    assert drawn(images, None, generator) is images
    assert torch.equal(generator.get_state(), rng(0).get_state())
    assert sorted(drawn(images, 4, generator).labels.tolist()) == sorted(images.labels.tolist())


@pytest.mark.parametrize("count", [-1, 5])
def test_more_images_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(BadInput, match=f"{count} images were asked for and there are 4"):
        drawn(blobs(4), count, rng(0))
