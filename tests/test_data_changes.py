"""Images changed: augmented, corrupted, shuffled, resized."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earmark.core import Images, rng
from earmark.data import CORRUPTIONS, CropFlip, channels_to, corrupted, digits, ood, resized
from earmark.errors import BadInput


def some(n: int = 20, channels: int = 3, height: int = 9, width: int = 7) -> Tensor:
    return torch.randint(256, (n, channels, height, width), generator=rng(0)).to(torch.uint8)


# ------------------------------------------------------------------------------------------------------------- augment


@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_each_augmented_image_is_one_of_the_crops_of_the_padded_one(pad: int, flip: bool) -> None:
    images = some()
    out = CropFlip(pad, flip)(images, rng(3))
    seen = set()
    for old, new in zip(images.numpy(), out.numpy(), strict=True):
        padded = np.pad(old, ((0, 0), (pad, pad), (pad, pad)))
        crops = {
            (top, left, mirror): padded[:, top : top + 9, left : left + 7][..., :: -1 if mirror else 1]
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            for mirror in ((False, True) if flip else (False,))
        }
        found = [place for place, crop in crops.items() if np.array_equal(crop, new)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > (1 if pad or flip else 0)
    assert {mirror for _, _, mirror in seen} == ({False, True} if flip else {False})


def test_augmentation_repeats_with_its_generator_and_leaves_its_input() -> None:
    images = some()
    before = images.clone()
    one, same, other = (CropFlip()(images, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(images, before)
    assert one.dtype == torch.uint8


def test_crops_and_mirrors_are_uniform() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3).repeat(9000, 1, 1, 1)
    centres = CropFlip(pad=1)(image, rng(0))[:, 0, 1, 1].long().bincount(minlength=10)[1:]
    assert centres.sum() == 9000
    assert float(((centres - 1000) ** 2 / 1000).sum()) < 26.1  # chi-squared, 8 degrees of freedom, 0.999


def test_without_crop_and_mirror_nothing_changes() -> None:
    images = some()
    assert torch.equal(CropFlip(0, flip=False)(images, rng(0)), images)
    with pytest.raises(BadInput, match="at least 0"):
        CropFlip(-1)


# -------------------------------------------------------------------------------------------------------------- resize


def slow_resize(image: Tensor, height: int, width: int) -> Tensor:
    """Each old pixel becomes `height` x `width` small ones, then old height x old width small ones make a new pixel."""
    old_height, old_width = image.shape
    fine = image.long().repeat_interleave(height, 0).repeat_interleave(width, 1)
    sums = fine.reshape(height, old_height, width, old_width).sum((1, 3))
    area = old_height * old_width
    return ((2 * sums + area) // (2 * area)).to(torch.uint8)


@given(st.tuples(*[st.integers(1, 12)] * 4), st.integers(0, 2**32))
def test_resizing_is_the_exact_mean_over_areas(sizes: tuple[int, int, int, int], seed: int) -> None:
    old_height, old_width, height, width = sizes
    image = torch.randint(256, (1, 1, old_height, old_width), generator=rng(seed)).to(torch.uint8)
    assert torch.equal(resized(image, height, width)[0, 0], slow_resize(image[0, 0], height, width))


def test_resizing_does_not_depend_on_how_many_images_there_are() -> None:
    images = some(2100, 1, 4, 4)
    assert torch.equal(resized(images, 3, 5)[1500:1501], resized(images[1500:1501], 3, 5))
    assert len(resized(images[:0], 3, 5)) == 0


def test_sizes_and_channel_counts_that_make_no_image_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 1 x 1"):
        resized(some(), 0, 4)
    with pytest.raises(BadInput, match="1 or 3 channels"):
        channels_to(some(), 2)


def test_grey_to_colour_and_back_is_the_identity() -> None:
    grey = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    assert torch.equal(channels_to(channels_to(grey, 3), 1), grey)


def test_conversions_never_hand_out_their_input() -> None:
    images = some()
    for same in (resized(images, 9, 7), channels_to(images, 3)):
        assert torch.equal(same, images)
        assert same.data_ptr() != images.data_ptr()


# ------------------------------------------------------------------------------------------------------------- corrupt


def images(n: int = 200, channels: int = 1) -> Images:
    part = digits().train.subset(torch.arange(n))
    return Images(channels_to(part.pixels, channels), part.labels, part.classes, part.name)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_repeats_and_leaves_its_input(kind: str, channels: int) -> None:
    clean = images(channels=channels)
    before = clean.pixels.clone()
    errors = []
    for severity in range(1, 6):
        out = corrupted(clean, kind, severity, rng(5))
        assert torch.equal(out.pixels, corrupted(clean, kind, severity, rng(5)).pixels)
        assert torch.equal(out.labels, clean.labels)
        assert out.shape == clean.shape
        errors.append(float((out.pixels.float() - clean.pixels.float()).square().mean()))
    assert errors == sorted(errors)
    assert len(set(errors)) == 5 or kind in STEPPED
    assert 0 < errors[0] < errors[-1]
    assert torch.equal(clean.pixels, before)


STEPPED = {"pixelate", "occlusion"}  # whole pixels: neighbouring severities may coincide on 8 x 8 images


def test_noise_has_the_stated_spread() -> None:
    grey = Images(torch.full((50, 1, 32, 32), 128, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64), 2)
    noisy = corrupted(grey, "gaussian-noise", 3, rng(0)).pixels.float() / 255
    assert float(noisy.std()) == pytest.approx(0.12, rel=0.02)
    hit = corrupted(grey, "impulse-noise", 4, rng(0)).pixels != 128
    assert float(hit.float().mean()) == pytest.approx(0.15, abs=0.01)


def test_blur_keeps_a_flat_image_and_the_mean_of_an_inner_dot() -> None:
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    dot = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    dot[..., 14:18, 14:18] = 255
    both = Images(torch.cat([flat, dot]), torch.tensor([0, 1]), 2)
    out = corrupted(both, "blur", 5, rng(0)).pixels.float()
    assert torch.equal(out[0], flat[0].float())
    assert float(out[1].mean()) == pytest.approx(float(dot.float().mean()), rel=0.03)
    assert float(out[1].max()) < 200


def test_unknown_corruptions_and_severities_are_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'blur'"):
        corrupted(images(), "blurr", 1, rng(0))
    for severity in (0, 6):
        with pytest.raises(BadInput, match="from 1 to 5"):
            corrupted(images(), "blur", severity, rng(0))


def test_no_images_stay_no_images() -> None:
    none = images().subset(torch.arange(0))
    assert len(corrupted(none, "contrast", 2, rng(0))) == len(ood(none, rng(0))) == 0


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 2), (28, 28, 7), (32, 48, 8), (9, 7, 1), (12, 18, 3)])
def test_shuffled_patches_are_the_same_patches_in_another_order(height: int, width: int, side: int) -> None:
    pixels = some(6, 3, height, width)
    given_images = Images(pixels, torch.zeros(6, dtype=torch.int64), 2)
    out = ood(given_images, rng(1))

    def patches(x: Tensor) -> list[list[bytes]]:
        cut = x.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        return [[patch.contiguous().numpy().tobytes() for patch in image] for image in cut]

    for old, new in zip(patches(pixels), patches(out.pixels), strict=True):
        assert sorted(old) == sorted(new)
        assert old != new
    assert torch.equal(out.pixels, ood(given_images, rng(1)).pixels)
    assert not torch.equal(out.pixels, ood(given_images, rng(2)).pixels)
