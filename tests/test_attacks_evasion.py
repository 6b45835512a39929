"""What every washer owes its caller, row by row, and each filter against an independent one."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import (
    EVASIONS,
    BitDepth,
    Blur,
    Chain,
    Crop,
    Flip,
    Jpeg,
    Median,
    NoiseDenoise,
    Rotate,
    Washer,
    cost,
    query_accuracy,
    washer,
)
from earmark.attacks.evasion import geometry
from earmark.attacks.evasion.geometry import sampled
from earmark.attacks.evasion.washer import Wash
from earmark.core import Data, Evade, Images, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Noise
from earmark.suspects import as_query
from earmark.verify import TriggerTest

# ---------------------------------------------------------------------------------------------------- the table of rows

NOTHING = (Blur(0), Median(1), BitDepth(8), NoiseDenoise(0, Median(1)), Rotate(0), Crop(0))

ROWS: dict[str, tuple[Washer, Washer | None]] = {
    "jpeg": (washer("jpeg", quality=30), None),
    "jpeg with all colour": (washer("jpeg", quality=90, subsampling="4:4:4"), None),
    "blur": (washer("blur"), washer("blur", sigma=0)),
    "blur wider than the image": (washer("blur", sigma=5.5), None),
    "median": (washer("median"), washer("median", size=1)),
    "median wider than the image": (washer("median", size=9), None),
    "bit-depth": (washer("bit-depth"), washer("bit-depth", bits=8)),
    "noise": (washer("noise"), washer("noise", std=0)),
    "flip": (washer("flip"), None),
    "rotate": (washer("rotate"), washer("rotate", degrees=0)),
    "rotate half a turn": (washer("rotate", degrees=180), None),
    "crop": (washer("crop"), washer("crop", share=0)),
    "noise-denoise": (washer("noise-denoise"), washer("noise-denoise", std=0, denoiser=Median(1))),
    "noise-denoise by blur": (washer("noise-denoise", std=0.3, denoiser=Blur(0.8)), None),
    "chain": (washer("chain", washers=(Blur(0.7), NoiseDenoise(0.05), Jpeg(60))), washer("chain", washers=NOTHING)),
    "chain in a chain": (Chain((Chain((Median(), BitDepth())),)), Chain((Chain(NOTHING), BitDepth(8)))),
}
"""The washer, and the same washer at zero strength where it has one: JPEG does not."""

HARMLESS = [name for name, (_, nothing) in ROWS.items() if nothing is not None]
SHAPES = [(1, 8, 8), (3, 8, 8), (3, 7, 13), (1, 1, 9), (3, 6, 1), (1, 1, 1)]
DATA = Data(blobs(6), blobs(6))


def pictures(count: int, shape: tuple[int, int, int] = (3, 8, 8), seed: int = 0) -> Tensor:
    """8-bit images as a suspect gets them."""
    return torch.randint(256, (count, *shape), generator=rng(seed)).float().div_(255)


def washing(by: Washer, seed: int = 1) -> Wash:
    return by.washing(DATA, rng(seed))


# ------------------------------------------------------------------------------------------------------------- the laws


def test_every_named_evasion_has_a_row() -> None:
    """An autoencoder learns from images of one shape, and a guard washes none: their laws have files of their own."""
    assert {name.split(" ")[0] for name in ROWS} == set(EVASIONS) - {"autoencoder", "refuse"}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_washed_images_are_new_images_of_the_same_form_without_gradient(name: str, shape: tuple[int, int, int]) -> None:
    seen: list[Tensor] = []
    images = pictures(5, shape).requires_grad_()
    before = images.detach().clone()
    evade: Evade = ROWS[name][0]

    def model(washed: Tensor) -> Tensor:
        seen.append(washed)
        return washed

    evade(model, DATA, rng(1))(images)
    (washed,) = seen
    assert (washed.shape, washed.dtype, washed.device) == (images.shape, images.dtype, images.device)
    assert 0 <= float(washed.min()) <= float(washed.max()) <= 1
    assert not washed.requires_grad
    assert torch.equal(images.detach(), before)


@pytest.mark.parametrize("name", ROWS)
def test_a_wash_changes_images_and_never_the_given_ones(name: str) -> None:
    for by in filter(None, ROWS[name]):
        images = pictures(5)
        before = images.clone()
        washed = washing(by)(images)
        assert torch.equal(washed, before) == (by is not ROWS[name][0])
        washed.fill_(7)
        assert torch.equal(images, before)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", HARMLESS)
def test_at_zero_strength_every_8_bit_image_stays_bit_for_bit(name: str, shape: tuple[int, int, int]) -> None:
    nothing = ROWS[name][1]
    assert nothing is not None
    images = pictures(256 if shape == (1, 1, 1) else 40, shape)
    if shape == (1, 1, 1):
        images = (torch.arange(256).float() / 255).view(-1, 1, 1, 1)
    assert torch.equal(washing(nothing)(images), images)


@pytest.mark.parametrize("name", HARMLESS)
def test_at_zero_strength_the_verdict_is_the_same_to_the_last_digit(name: str) -> None:
    nothing, net = ROWS[name][1], seeded(TinyNet)
    assert nothing is not None
    mark = Noise(40)(MarkKey(bytes(32)), None, DATA)
    suspect = as_query(net)
    assert TriggerTest()(nothing(suspect, DATA, rng(1)), mark) == TriggerTest()(suspect, mark)


@pytest.mark.parametrize("name", ROWS)
def test_answers_are_a_function_of_the_generator_and_the_global_random_state_has_no_part(name: str) -> None:
    washed = []
    with torch.random.fork_rng():
        for seed in (11, 12):
            torch.manual_seed(seed)
            before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())
            washed.append(washing(ROWS[name][0])(pictures(5)))
            assert torch.equal(torch.get_rng_state(), before)
            assert repr(np.random.get_state()) == numpy_before
    assert torch.equal(washed[0], washed[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ROWS)
def test_neither_the_batch_nor_the_order_nor_earlier_questions_change_a_bit(name: str, dtype: torch.dtype) -> None:
    wash, images = washing(ROWS[name][0]), pictures(11, (3, 7, 13)).to(dtype)
    together, order = wash(images), torch.randperm(11, generator=rng(2))
    assert torch.equal(torch.cat([wash(image) for image in torch.split(images, 1)]), together)
    assert torch.equal(torch.cat([wash(block) for block in torch.split(images, 4)]), together)
    assert torch.equal(wash(images[order]), together[order])
    assert torch.equal(wash(images.transpose(2, 3).contiguous().transpose(2, 3)), together)
    assert wash(images[:0]).shape == (0, 3, 7, 13)


@pytest.mark.parametrize("name", ROWS)
def test_a_query_of_many_images_is_washed_in_blocks_and_asked_once(name: str) -> None:
    asked: list[int] = []

    def model(images: Tensor) -> Tensor:
        asked.append(len(images))
        return images.flatten(1).sum(1, keepdim=True)

    images = pictures(600, (1, 4, 4))
    query = ROWS[name][0](model, DATA, rng(1))
    assert torch.equal(query(images), model(washing(ROWS[name][0])(images)))
    assert asked == [600, 600]
    assert query(images[:0]).shape == (0, 1)


def test_what_the_model_does_to_its_images_does_not_reach_the_callers() -> None:
    images = pictures(3)
    before = images.clone()
    Chain(NOTHING)(lambda washed: washed.zero_().flatten(1), DATA, rng(1))(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ROWS)
def test_a_module_is_asked_as_a_black_box_and_left_alone(name: str) -> None:
    net = seeded(TinyNet, 3).train()
    before, answering = model_digest(net), as_query(copy.deepcopy(net))
    images, by = pictures(5), ROWS[name][0]
    assert torch.equal(by(net, DATA, rng(1))(images), by(answering, DATA, rng(1))(images))
    assert model_digest(net) == before
    assert all(module.training for module in net.modules())


def test_images_that_are_none_are_refused() -> None:
    query = Blur()(as_query(seeded(TinyNet)), DATA, rng(1))
    with pytest.raises(BadInput, match=r"float in \[0, 1\], got torch.uint8 \(5, 1, 8, 8\)"):
        query(blobs(5).pixels)
    with pytest.raises(BadInput, match=r"expected images \(N, C, H, W\).*\(1, 8, 8\)"):
        query(pictures(1, (1, 8, 8))[0])


# ------------------------------------------------------------------------------------------------------------- oracles


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", [0.2, 0.6, 1, 2.5, 9])
def test_blur_is_scipys_gaussian_filter(sigma: float, shape: tuple[int, int, int]) -> None:
    images = pictures(4, shape).double()
    wanted = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=4.0)
    torch.testing.assert_close(washing(Blur(sigma))(images), torch.from_numpy(wanted), rtol=0, atol=1e-13)
    single = washing(Blur(sigma))(images.float())
    torch.testing.assert_close(single.double(), torch.from_numpy(wanted), rtol=0, atol=1e-6)


def test_blur_keeps_the_mean_and_does_not_know_left_from_right() -> None:
    images, wash = pictures(4, (3, 7, 13)).double(), washing(Blur(2))
    torch.testing.assert_close(wash(images).mean((2, 3)), images.mean((2, 3)), rtol=0, atol=1e-13)
    for axis in (2, 3):
        assert torch.equal(wash(images.flip(axis)), wash(images).flip(axis))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("bits", [2, 8])
def test_median_is_scipys_median_filter(size: int, shape: tuple[int, int, int], bits: int) -> None:
    images = washing(BitDepth(bits))(pictures(4, shape))
    wanted = ndimage.median_filter(images.numpy(), size=(1, 1, size, size), mode="reflect")
    assert torch.equal(washing(Median(size))(images), torch.from_numpy(wanted))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7).map(lambda half: 2 * half + 1), st.integers(0, 2**31))
def test_medians_commute_with_rising_maps_and_with_negation(size: int, seed: int) -> None:
    images, wash = pictures(2, (1, 6, 5), seed), washing(Median(size))
    assert torch.equal(wash(images**2), wash(images) ** 2)
    assert torch.equal(wash(-images), -wash(images))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("quality", [5, 75, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_is_what_pillow_writes_and_reads(shape: tuple[int, int, int], quality: int, subsampling: str) -> None:
    images = pictures(4, shape)
    washed = washing(Jpeg(quality, subsampling))(images)  # type: ignore[arg-type]
    for image, came in zip(images, washed, strict=True):
        file, pixels = io.BytesIO(), (image * 255).round().to(torch.uint8).numpy()
        picture = (
            Image.merge("RGB", [Image.fromarray(c) for c in pixels]) if len(pixels) == 3 else Image.fromarray(pixels[0])
        )
        picture.save(file, format="jpeg", quality=quality, subsampling=subsampling)
        planes = [np.asarray(plane) for plane in Image.open(file).split()]
        assert torch.equal(came, torch.from_numpy(np.stack(planes)).float() / 255)


@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (3, 5)])
def test_jpeg_at_quality_100_is_within_rounding_of_the_image(channels: int, levels: int) -> None:
    """A grey pixel moves by at most 2 of 255, and by 0.25 on average; colour, which is converted, by 5 and 1."""
    images = pictures(64, (channels, 16, 16))
    moved = 255 * (washing(Jpeg(100, "4:4:4"))(images) - images).abs()
    assert 0 < float(moved.max()) < levels + 0.5
    assert float(moved.mean()) < (0.25 if channels == 1 else 1)


def test_the_lower_the_quality_the_more_is_lost() -> None:
    images = pictures(16, (1, 16, 16))
    lost = [float((washing(Jpeg(quality))(images) - images).square().mean()) for quality in (100, 90, 60, 20, 5)]
    assert lost == sorted(lost)


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_rounds_to_the_nearest_of_its_levels(bits: int) -> None:
    top = 2**bits - 1
    images = (torch.arange(256).float() / 255).view(1, 1, 16, 16)
    nearest = [Fraction((2 * k * top + 255) // 510, top) for k in range(256)]
    washed = washing(BitDepth(bits))(images)
    assert washed.flatten().tolist() == torch.tensor([float(level) for level in nearest]).tolist()
    assert len(set(washed.flatten().tolist())) == 2**bits
    assert torch.equal(washing(BitDepth(bits))(washed), washed)


def test_noise_is_normal_and_each_image_has_its_own() -> None:
    images = torch.full((50, 1, 32, 32), 0.5) + torch.linspace(0, 1e-3, 50).view(-1, 1, 1, 1)
    noise = (washing(NoiseDenoise(0.05, Median(1)))(images) - images) / 0.05
    n = noise.numel()
    assert abs(float(noise.mean())) < 5 / n**0.5
    assert abs(float(noise.std()) - 1) < 5 / (2 * n) ** 0.5
    assert abs(float((noise.abs() < 1).double().mean()) - 0.6827) < 5 * 0.4654 / n**0.5
    among = torch.corrcoef(noise.flatten(1)) - torch.eye(50)
    assert float(among.abs().max()) < 5.5 / 1024**0.5


def test_another_generator_draws_other_noise_and_a_spent_one_draws_on() -> None:
    images, by = pictures(5), NoiseDenoise(0.1, Median(1))
    generator = rng(1)
    drawn = [by.washing(DATA, generator)(images) for _ in range(2)]
    assert torch.equal(drawn[0], washing(by, 1)(images))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], washing(by, 2)(images))
    assert not torch.equal(*(washing(Chain((by,)), seed)(images) for seed in (1, 2)))


def test_the_denoiser_sees_the_noisy_image_clipped() -> None:
    noisy = washing(NoiseDenoise(0.5, Median(1)))(pictures(5))
    assert torch.equal(washing(NoiseDenoise(0.5, Median(5)))(pictures(5)), washing(Median(5))(noisy))
    assert (float(noisy.min()), float(noisy.max())) == (0, 1)


def test_a_chain_washes_in_the_order_given() -> None:
    images = pictures(5)
    assert torch.equal(washing(Chain((Blur(), BitDepth(2))))(images), washing(BitDepth(2))(washing(Blur())(images)))
    assert not torch.equal(washing(Chain((BitDepth(2), Blur())))(images), washing(Chain((Blur(), BitDepth(2))))(images))


def test_a_flip_is_a_mirror_image() -> None:
    images = pictures(3, (3, 4, 5))
    assert torch.equal(washing(Flip())(images), torch.from_numpy(images.numpy()[..., ::-1].copy()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sampling_is_scipys_linear_interpolation(shape: tuple[int, int, int]) -> None:
    images, generator = pictures(4, shape).double(), rng(1)
    rows, columns = (
        torch.rand(4, *shape[1:], generator=generator, dtype=torch.float64) * (size + 2) - 1 for size in shape[1:]
    )
    wanted = [
        [ndimage.map_coordinates(channel, np.stack([row, column]), order=1, mode="nearest") for channel in image]
        for image, row, column in zip(images.numpy(), rows.numpy(), columns.numpy(), strict=True)
    ]
    torch.testing.assert_close(sampled(images, rows, columns), torch.from_numpy(np.array(wanted)), rtol=0, atol=1e-12)


def test_a_quarter_turn_is_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(3, (3, 6, 6)).double()
    for part, quarters in ((1.0, -1), (0.0, 1), (0.5, 0)):
        monkeypatch.setattr(geometry, "_uniform", lambda given, _, count, part=part: torch.full((len(given), 1), part))
        turned = washing(Rotate(90))(images)
        wanted = torch.from_numpy(np.rot90(images.numpy(), quarters, axes=(2, 3)).copy())
        torch.testing.assert_close(turned, wanted, rtol=0, atol=1e-6)


def test_each_image_has_an_angle_and_a_window_of_its_own() -> None:
    """An image that rises along its columns tells by its slope down the middle column how far it was turned."""
    tilted = torch.linspace(0, 1, 33, dtype=torch.float64).expand(60, 1, 33, 33)
    images = (tilted + torch.linspace(0, 1e-6, 60).view(-1, 1, 1, 1)).contiguous()
    turned = washing(Rotate(20))(images)
    slopes = 32 * (turned[:, 0, 20, 16] - turned[:, 0, 12, 16]) / 8
    angles = slopes.asin().rad2deg()
    assert 15 < float(angles.abs().max()) <= 20 + 1e-6
    assert abs(float(angles.mean())) < 5 * 20 / 180**0.5
    cut = washing(Crop(0.25))(images)
    ends = cut[:, 0, 16, :]
    widths = 32 * (ends[:, 20] - ends[:, 12]) / 8
    torch.testing.assert_close(widths, torch.full_like(widths, 0.75), rtol=0, atol=1e-4)
    starts = 32 * ends[:, 16] - (16.5 * 0.75 - 0.5)
    assert 0 <= float(starts.min()) + 1e-4 < 1
    assert 7 < float(starts.max()) <= 0.25 * 33 + 1e-4


# -------------------------------------------------------------------------------------------------------- bad settings


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Jpeg, (0,), "quality: expected a whole number from 1 to 100, got 0"),
        (Jpeg, (101,), "quality: .* got 101"),
        (Jpeg, (75.0,), "quality: .* got 75.0"),
        (Jpeg, (75, "4:1:1"), "subsampling: expected one of 4:4:4, 4:2:2, 4:2:0, got '4:1:1'"),
        (Blur, (-1,), "sigma: expected a number from 0 to 100, got -1"),
        (Blur, (float("nan"),), "sigma: .* got nan"),
        (Median, (0,), "size: expected a whole number from 1 to 15, got 0"),
        (Median, (4,), "size: expected an odd number.* got 4"),
        (Median, (True,), "size: .* got True"),
        (BitDepth, (0,), "bits: expected a whole number from 1 to 8, got 0"),
        (BitDepth, (9,), "bits: .* got 9"),
        (Rotate, (181,), "degrees: expected a number from 0 to 180, got 181"),
        (Crop, (0.95,), "share: expected a number from 0 to 0.9, got 0.95"),
        (NoiseDenoise, (-0.1,), "std: expected a number from 0 to 10, got -0.1"),
        (NoiseDenoise, (0.1, "median"), "denoiser: expected a washer, such as Median.*, got 'median'"),
        (Chain, ((),), r"washers: expected a tuple of one washer or more, got \(\)"),
        (Chain, (Blur(),), r"washers: .* got Blur\(sigma=1.0\)"),
        (Chain, ((Blur(), Blur),), "washer 2: expected a washer, such as Median.* got <class"),
    ],
)
def test_a_setting_that_no_washer_can_use_is_refused(kind: type[Washer], given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        kind(*given)


def test_jpeg_names_a_number_of_channels_that_it_cannot_hold() -> None:
    with pytest.raises(BadInput, match="expected 1 or 3 channels, got 2"):
        washing(Jpeg())(pictures(1, (2, 8, 8)))


# ---------------------------------------------------------------------------------------------------------------- cost


@dataclass(frozen=True)
class Blank(Washer):
    """Washes everything off."""

    def washing(self, data: Data, rng: torch.Generator) -> Wash:
        return torch.zeros_like


class Brightest(nn.Module):
    """Knows the blobs: the class is the third of the image that is brightest."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images[..., at : at + 2].mean((1, 2, 3)) for at in (0, 2, 5)], 1)


@pytest.mark.parametrize(
    "model",
    [Brightest(), Brightest().forward, lambda images: Brightest()(images).argmax(1)],
    ids=["module", "scores", "labels"],
)
def test_cost_is_the_accuracy_without_and_with_the_washer(model: Callable[[Tensor], Tensor]) -> None:
    data = Data(blobs(6), blobs(40, seed=3))
    free, dear = (cost(by, model, data, rng(1)) for by in (Chain(NOTHING), Blank()))
    assert (free.alone, free.washed, free.points) == (1, 1, 0)
    assert (dear.alone, dear.washed) == (1, 14 / 40), "of classes 0 1 2 0 ... there are 14 zeros among 40"
    assert dear.points == pytest.approx(65)


def test_accuracy_counts_batch_by_batch_and_needs_an_image() -> None:
    images = blobs(40, seed=3)
    wrong = Images(images.pixels, images.labels.roll(1), images.classes)
    for size in (1, 7, 256):
        assert query_accuracy(Brightest(), images, size) == 1
        assert query_accuracy(Brightest(), wrong, size) == float((wrong.labels == images.labels).double().mean())
    with pytest.raises(BadInput, match="no image"):
        query_accuracy(Brightest(), images.subset(torch.arange(0)))
