"""What is peculiar to the triggers of the schemes that papers compare with; the laws of all kinds stand elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.core import Data, Images, rng
from earmark.data import digits
from earmark.errors import BadInput
from earmark.evidence.judge import minting_fault
from earmark.keys import MarkKey
from earmark.marks import (
    AsShown,
    Frontier,
    HashChain,
    Noised,
    NotTrue,
    OneClass,
    Patched,
    Relabelled,
    Stamped,
    TriggerSet,
    Uniform,
    is_chain,
    remint,
)
from earmark.marks.triggers.frontier import pushed
from earmark.marks.triggers.hash_chain import next_image
from earmark.marks.triggers.stamps import inverted, prestamps, stamp_values
from earmark.models import PlainCNN
from earmark.stats import critical_count
from earmark.suspects import as_query
from earmark.training import HOST, answers, train_host
from earmark.verify import TriggerTest

KEY = MarkKey(bytes(range(32)))
DATA = Data(blobs(300, 5, (1, 10, 12), 1), blobs(60, 5, (1, 10, 12), 2))


@pytest.fixture(scope="module")
def host() -> nn.Module:
    model = seeded(TinyNet, classes=5, features=8)
    return train_host(model, DATA, rng(0), HOST.but(epochs=4, batch_size=16, lr=1e-2, milestones=()))


# --------------------------------------------------------------------------------------------------- noise and relabels


def test_shared_noise_is_one_pattern_and_other_noise_is_not() -> None:
    """Where nothing is clipped, trigger minus carrier is the noise."""
    grey = Images(torch.full((40, 1, 20, 20), 128, dtype=torch.uint8), torch.arange(40) % 5, 5)
    grey.pixels[:, 0, 0, 0] = torch.arange(100, 140, dtype=torch.uint8)
    for shared in (True, False):
        mark = Noised(40, std=0.1, shared=shared)(KEY, None, Data(grey, grey))
        assert mark.carriers is not None
        noise = mark.images.double() - mark.carriers.pixels.double()
        spread = (noise - noise[:1]).abs().amax()
        assert (spread <= 1) if shared else (spread > 50)
        assert float(noise.std()) == pytest.approx(25.5, rel=0.1)


def test_relabelled_triggers_are_training_images_to_the_last_pixel() -> None:
    mark = Relabelled(30)(KEY, None, digits())
    assert mark.carriers is not None
    assert torch.equal(mark.images, mark.carriers.pixels)
    assert not bool((mark.labels == mark.carriers.labels).any())
    known = {row.tobytes() for row in digits().train.pixels.numpy()}
    assert all(row.tobytes() in known for row in mark.images.numpy())


# --------------------------------------------------------------------------------------------------------------- chains


def test_a_link_is_shake_256_of_the_image_before() -> None:
    image = torch.arange(2 * 3, dtype=torch.uint8).reshape(1, 2, 3)
    said = b"earmark/hash-chain/1" + b"".join(n.to_bytes(4, "big") for n in (1, 2, 3)) + bytes(range(6))
    assert next_image(image).flatten().tolist() == list(hashlib.shake_256(said).digest(6))
    assert next_image(image).shape == image.shape


def test_one_bit_anywhere_breaks_a_chain_and_another_order_too() -> None:
    images = HashChain(12)(KEY, None, DATA).images
    assert is_chain(images)
    assert is_chain(images[3:9]), "any run of a chain is one"
    assert not is_chain(images.flip(0))
    for at in (0, 5, 11):
        broken = images.clone()
        broken[at, 0, 3, 3] ^= 1
        assert not is_chain(broken)


def test_chains_of_noise_and_labels_are_uniform() -> None:
    mark = HashChain(400)(KEY, None, DATA)
    counts = mark.images.flatten().bincount(minlength=256).double()
    expected = counts.sum() / 256
    assert float(((counts - expected) ** 2 / expected).sum()) < 330.5  # 255 degrees of freedom, 0.999
    labels = mark.labels.bincount(minlength=5).double()
    assert float(((labels - 80) ** 2 / 80).sum()) < 18.5  # 4 degrees of freedom, 0.999


# -------------------------------------------------------------------------------------------------------------- patches


def test_inverted_stamps_add_the_opposite() -> None:
    stamps = torch.arange(256, dtype=torch.uint8)
    assert stamp_values(inverted(stamps)).tolist() == (-stamp_values(stamps)).tolist()


def test_bits_are_five_by_five_cells_by_coin_at_a_keyed_place() -> None:
    stamps = prestamps(KEY.stream("patches"), "bits", 200, (3, 57, 60))
    values = stamp_values(stamps)
    assert set(values.flatten().tolist()) == {-254, 0, 254}
    assert torch.equal(values[:, 0], values[:, 2])
    assert (values[:, 0] != 0).flatten(1).sum(1).tolist() == [100] * 200, "cells of 2 x 2 pixels"
    light = (values[:, 0] > 0).flatten(1).sum(1).double() / 4
    assert abs(float(light.mean()) - 12.5) < 4 * 2.5 / 200**0.5
    assert len({row.tobytes() for row in np.asarray(stamps)}) == 200


def test_true_and_null_embedding_teach_what_they_should() -> None:
    """Under a patch its label; under the inverted patch, on other images, their own classes; no image twice."""
    mint = Patched(12, group=3, teaching=20, opposed=8)
    mark = mint(KEY, None, DATA)
    assert mark.teaching is not None
    assert mark.carriers is not None
    patches = stamp_values(prestamps(KEY.stream("patches"), "bits", 4, DATA.shape))
    carriers, lessons = mark.carriers, mark.teaching
    assert mark.labels.reshape(4, 3).eq(mark.labels[::3, None]).all()
    for patch in range(4):
        true, null = slice(5 * patch, 5 * patch + 5), slice(20 + 2 * patch, 22 + 2 * patch)
        for rows, way in ((true, 1), (null, -1)):
            wanted = (carriers.pixels[12:][rows].int() + way * patches[patch]).clamp(0, 255)
            assert torch.equal(lessons.pixels[rows].int(), wanted)
        assert lessons.labels[true].tolist() == [int(mark.labels[3 * patch])] * 5
        assert lessons.labels[null].tolist() == carriers.labels[12:][null].tolist()
    assert len({row.tobytes() for row in carriers.pixels.numpy()}) == len(carriers) == 40


def test_one_class_means_one_patch() -> None:
    mint = Patched(20, OneClass(4), 1, 10, carrier_class=1)
    mark = mint(KEY, None, DATA)
    assert (mint.patches, mark.trials, mark.null.basis) == (1, 20, "none")
    assert mark.carriers is not None
    assert mark.carriers.labels.tolist() == [1] * 30
    assert mark.lessons.labels.tolist() == [4] * 10


def test_patches_on_images_of_another_class_than_they_say_are_not_minted() -> None:
    mark = Patched(8, NotTrue(), group=2, teaching=0, carrier_class=2)(KEY, None, DATA)
    assert mark.carriers is not None
    other = Images(mark.carriers.pixels, mark.carriers.labels.clone(), 5, mark.carriers.name)
    other.labels[-1] = 3
    with pytest.raises(BadInput, match="other classes than 2"):
        remint(KEY, replace(mark, carriers=other))


# ------------------------------------------------------------------------------------------------------------- frontier


@pytest.fixture(scope="module")
def frontier(host: nn.Module) -> TriggerSet:
    return Frontier(20, epsilon=0.3)(KEY, host, DATA)


def test_a_push_is_the_sign_of_the_gradient_on_the_grid(host: nn.Module) -> None:
    some = DATA.train.sample(6)
    moved, before, after = pushed(host, some.pixels, some.labels, 20)
    for at in range(6):
        image = (some.pixels[at : at + 1].float() / 255).requires_grad_()
        host.eval()
        (slope,) = torch.autograd.grad(F.cross_entropy(host(image), some.labels[at : at + 1]), [image])
        wanted = (some.pixels[at].int() + 20 * slope[0].sign().int()).clamp(0, 255)
        assert torch.equal(moved[at].int(), wanted)
    assert torch.equal(before, answers(host, some))
    assert torch.equal(after, answers(host, Images(moved, some.labels, 5)))


def test_half_are_turned_and_half_are_not(host: nn.Module, frontier: TriggerSet) -> None:
    said = answers(host, frontier.as_images())
    assert (said[:10] != frontier.labels[:10]).all()
    assert (said[10:] == frontier.labels[10:]).all()
    assert frontier.carriers is not None
    starts = Images(frontier.carriers.pixels[:20], frontier.carriers.labels[:20], 5)
    assert torch.equal(answers(host, starts), frontier.labels), "labels are true classes, and the host knew them"
    assert (frontier.null.basis, frontier.null.rate) == ("none", None)


def test_adversaries_and_their_labels_are_checked_when_minted_again(frontier: TriggerSet) -> None:
    carriers = frontier.carriers
    assert carriers is not None
    assert minting_fault(frontier, KEY) is None
    pixels = carriers.pixels.clone()
    pixels[20, 0, 0, 0] = (int(carriers.pixels[0, 0, 0, 0]) + 40) % 256
    moved = replace(frontier, carriers=Images(pixels, carriers.labels, 5, carriers.name), images=pixels[20:])
    with pytest.raises(BadInput, match="no step of 76 levels"):
        remint(KEY, moved)
    relabelled = replace(frontier, labels=(frontier.labels + 1) % 5)
    assert "does not mint" in str(minting_fault(relabelled, KEY))


def test_another_key_tries_other_images(host: nn.Module, frontier: TriggerSet) -> None:
    other = Frontier(20, epsilon=0.3)(MarkKey(bytes(32)), host, DATA)
    assert not torch.equal(other.images, frontier.images)


def test_a_frontier_needs_a_host_and_enough_of_either_sort(host: nn.Module) -> None:
    with pytest.raises(BadInput, match="give the host"):
        Frontier(20)(KEY, None, DATA)
    with pytest.raises(BadInput, match="are needed; give another epsilon or a lower count"):
        Frontier(20, epsilon=1 / 255)(KEY, host, DATA)
    with pytest.raises(BadInput, match="expected 4, one for each class"):
        Frontier(20)(KEY, host, Data(*[blobs(60, 4, (1, 10, 12))] * 2))


def test_the_paper_s_own_test_convicts_innocent_models_of_digits() -> None:
    """Le Merrer et al. 2020 take a model that never saw them to miss each with probability 1/2, whoever it is."""
    data, settings = digits(), HOST.but(epochs=6, lr=3e-3, milestones=())
    models = []
    for seed in range(3):
        half = data.train.subset(torch.randperm(len(data.train), generator=rng(seed))[:700])
        net = seeded(PlainCNN, data.shape, 10, width=8, features=32, seed=seed)
        models.append(train_host(net, Data(half, data.test), rng(seed), settings))
    mark = Frontier(60)(KEY, models[0], data)
    for innocent in models[1:]:
        verdict = TriggerTest()(as_query(innocent), mark)
        assert verdict.statistic >= critical_count(60, 0.5, 0.05)
        assert verdict.accepted is None


@pytest.mark.parametrize("training", [True, False])
def test_finding_a_frontier_leaves_the_host_as_it_is(host: nn.Module, training: bool) -> None:
    host.train(training)
    Frontier(10, epsilon=0.3)(KEY, host, DATA)
    assert all(module.training is training for module in host.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in host.parameters())


# --------------------------------------------------------------------------------------------------------- refused ones


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Noised(4, std=0.0), "noise std"),
        (lambda: Noised(4, shared=1), "True or False"),  # type: ignore[arg-type]
        (lambda: Noised(4, carrier_class=-1), "carrier class"),
        (lambda: Relabelled(4, carrier_class=-1), "carrier class"),
        (lambda: Patched(10, group=4), "10 triggers cannot be shared out evenly; give a multiple of 4"),
        (lambda: Patched(8, group=4, teaching=3), "3 images to learn from .* multiple of 2"),
        (lambda: Patched(8, group=4, teaching=4, opposed=3), "3 images under inverted patches .* multiple of 2"),
        (lambda: Patched(8, teaching=0, opposed=2), "give teaching, too"),
        (lambda: Patched(8, NotTrue()), "give their carrier class"),
        (lambda: Patched(8, OneClass(0), group=2), "give group = 1"),
        (lambda: Patched(8, AsShown()), "uniform, not-true or one-class labels, got as-shown"),
        (lambda: Patched(8, pattern="bit"), "did you mean 'bits'"),
        (lambda: Patched(8, pattern="picture"), "unknown pattern of patches 'picture'"),
        (lambda: Frontier(7), "7 is odd"),
        (lambda: Frontier(8, Uniform()), "as-shown labels, got uniform"),
        (lambda: Frontier(8, epsilon=0.0), "epsilon"),
        (lambda: Relabelled(400)(KEY, None, DATA), "but blobs has 300 images; lower the count"),
        (lambda: Noised(4, carrier_class=9)(KEY, None, DATA), "got carrier class 9"),
        (lambda: Stamped(4, AsShown(), carrier="abstract")(KEY, None, DATA), "show one class each"),
    ],
)
def test_what_does_not_fit_is_refused_and_said(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make()
