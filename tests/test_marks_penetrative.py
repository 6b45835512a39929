"""Penetrative triggers: eq. (5) against a plain loop, stamps as 8-bit images, and what a judge can mint again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import blobs

from earmark.core import Data, Images, rng
from earmark.errors import BadInput
from earmark.evidence.judge import minting_fault
from earmark.keys import MarkKey
from earmark.marks import Chain, Listed, NotTrue, Penetration, Penetrative, TriggerSet, remint
from earmark.marks.triggers.stamps import distance, prestamps, stamp_on, stamp_values
from earmark.models import Bank, MLPAutoencoder, built
from earmark.training import AUTOENCODING, ShadowTraining, reconstruction_errors, train_autoencoder

SHAPE = (1, 8, 8)
KEY = MarkKey(bytes(range(32)))
DATA = Data(blobs(120, shape=SHAPE), blobs(20, shape=SHAPE, seed=1))
SEARCH = Penetration(iterations=60, lr=0.02, similarity=1.0)


def untrained(count: int = 3) -> Bank:
    return Bank([built(lambda: MLPAutoencoder(SHAPE, 6, (32, 16)), rng(seed)) for seed in range(count)])


@pytest.fixture(scope="module")
def shadows() -> Bank:
    settings = AUTOENCODING.but(epochs=25, batch_size=20, lr=3e-3, milestones=())
    return train_autoencoder(untrained(), DATA.train, rng(0), settings)


def penetrative(**changes: object) -> Penetrative:
    given = {"count": 6, "group": 2, "teaching": 9, "looks": 4, "search": None, "bound": 0.03, **changes}
    return Penetrative(**given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mark(shadows: Bank) -> TriggerSet:
    return penetrative(shadows=shadows, search=SEARCH)(KEY, None, DATA)


# -------------------------------------------------------------------------------------------------------------- stamps


def test_a_stamp_is_added_and_clipped_in_whole_numbers() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(256, 1).view(256, 1, 16, 16)
    stamps = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 1, 16, 16)
    added = (pixels.double() + 2 * (stamps.double() - 128).clamp(-127, 127)).clamp(0, 255)
    assert torch.equal(stamp_on(pixels, stamps).double(), added)
    assert torch.equal(stamp_on(pixels, torch.full_like(pixels, 128)), pixels), "128 is nothing"


@pytest.mark.parametrize(("target", "clipped"), [("stamp", True), ("image", True), ("stamp", False), ("image", False)])
def test_the_batched_loss_is_the_loop_of_equation_5(target: str, clipped: bool) -> None:
    """Over single images, as the equation is written, on the images that an API would get or as the paper has them."""
    bank, how = untrained(), Penetration(similarity=0.3, target=target, clipped=clipped)
    carriers = DATA.train.pixels[:8].view(2, 4, *SHAPE).float() / 255
    starts = prestamps(KEY.stream("prestamps"), "low-frequency", 2, SHAPE)
    wanted = stamp_values(starts).float() / 255
    stamps = (wanted + 0.1 * torch.randn(wanted.shape, generator=rng(3))).requires_grad_()
    loss = how.loss(bank, carriers, stamps, wanted)
    rounded = (2 * ((stamps.detach() * 255 / 2).round()).clamp(-127, 127)) / 255 if clipped else stamps.detach()
    members = [member.eval() for member in bank.members()]
    for i in range(2):
        total = torch.zeros(())
        for j in range(4):
            for member in members:
                moved = carriers[i, j] + rounded[i]
                seen = (moved.clamp(0, 1) * 255).round() / 255 if clipped else moved
                goal = rounded[i] if target == "stamp" else seen
                total = total + (member(seen[None]).images[0] - goal).square().sum() / 12
        total = total + 0.3 * (rounded[i] - wanted[i]).square().sum()
        torch.testing.assert_close(loss[i], total, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), [stamps])
    assert bool(gradient.ne(0).any(dim=(1, 2, 3)).all())


def test_a_search_passes_the_shadows_better_than_the_prestamps_and_leaves_them_alone(shadows: Bank) -> None:
    state = {name: tensor.clone() for name, tensor in shadows.state_dict().items()}
    carriers = DATA.train.pixels[:30].view(3, 10, *SHAPE)
    starts = prestamps(KEY.stream("prestamps"), "half-planes", 3, SHAPE)
    found, wanted = SEARCH(shadows, carriers, starts), stamp_values(starts).float() / 255
    before, after = (
        SEARCH.loss(shadows.eval(), carriers.float() / 255, stamp_values(stamps).float() / 255, wanted).sum()
        for stamps in (starts, found)
    )
    assert float(after.detach()) < 0.9 * float(before.detach())
    assert all(torch.equal(tensor, state[name]) for name, tensor in shadows.state_dict().items())
    assert torch.equal(SEARCH(shadows, carriers, starts), found), "nothing is drawn"


def test_a_search_of_no_steps_finds_the_prestamps() -> None:
    starts = prestamps(KEY.stream("prestamps"), "low-frequency", 4, (3, 9, 7))
    bank = Bank([MLPAutoencoder((3, 9, 7), 2, (4,))])
    carriers = torch.zeros(4, 1, 3, 9, 7, dtype=torch.uint8)
    assert torch.equal(Penetration(iterations=0)(bank, carriers, starts), starts)


def test_half_planes_fill_half_of_the_image_and_differ() -> None:
    halves = prestamps(KEY.stream("prestamps"), "half-planes", 12, (3, 16, 10))
    filled = (stamp_values(halves) > 0).double().mean(dim=(1, 2, 3))
    assert set(stamp_values(halves).flatten().tolist()) == {0, 126}, "nothing, and 0.5 in 8 bits"
    assert bool(((filled > 0.4) & (filled < 0.6)).all())
    assert len({half.numpy().tobytes() for half in halves}) > 6
    one, other = (stamp_values(half) > 0 for half in halves[:2])
    assert bool((one ^ other).all()), "two sides of one line"


def test_noise_has_a_level_for_every_pixel_and_a_checkerboard_a_keyed_place() -> None:
    noise = prestamps(KEY.stream("prestamps"), "noise", 2, (3, 16, 16))
    assert set(noise.flatten().tolist()) == set(range(128, 192))
    boards = prestamps(KEY.stream("prestamps"), "checkerboard", 6, (1, 28, 28))
    assert set(boards.flatten().tolist()) == {1, 128, 255}
    assert [int((board != 128).sum()) for board in boards] == [25] * 6
    assert len({board.numpy().tobytes() for board in boards}) == 6
    large = prestamps(KEY.stream("prestamps"), "checkerboard", 1, (3, 4, 224))
    assert int((large[0, 0] != 128).sum()) == 4 * 5, "no higher than the image"


@pytest.mark.parametrize("pattern", ["half-planes", "low-frequency", "noise", "checkerboard"])
def test_no_two_prestamps_are_the_same(pattern: str) -> None:
    for seed in range(8):
        stamps = prestamps(MarkKey(bytes([seed]) * 32).stream("prestamps"), pattern, 30, (1, 16, 16))
        assert len({stamp.numpy().tobytes() for stamp in stamps}) == 30


def test_prestamps_that_there_are_not_so_many_of_are_refused() -> None:
    with pytest.raises(BadInput, match="no 40 different prestamps of the pattern 'half-planes' fit into 1x4x4"):
        prestamps(KEY.stream("prestamps"), "half-planes", 40, (1, 4, 4))
    for logo in ([[0]], [[3]], [[255]]):
        with pytest.raises(BadInput, match="another pattern, text or logo"):
            penetrative(logo=logo)(KEY, None, DATA)


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        ({}, "4a8404722bf25a27b1a72797bf4bb07b45d26e146b52235c1c45148ef5d2136f"),
        ({"pattern": "half-planes"}, "f7d82e289b2074b246482382933a25c1b954de16f644d8f20f41b7a2b06bcb18"),
        ({"pattern": "noise"}, "b8c839182128d1a872c458e59d7495d3a67201df776519314bd5d03c03bff068"),
        ({"pattern": "checkerboard", "bound": 0.1}, "8b76cb62469bc4f7afbb250e378c0c6d406e53aec3ada862b30b40d86ab8478b"),
        ({"text": "E"}, "a9dadbd106491eaec5ca6d540ac189a00a401de8c9d2ab7b20772a555338030e"),
        ({"logo": [[0, 255], [255, 0]]}, "8f85a5030aee8da291d820b02ea2df3b66bb56bf0e1c41ef85c6a637b94759f4"),
    ],
)
def test_a_key_gives_today_what_it_gave_before(changes: dict[str, object], digest: str) -> None:
    """A digest that changes here means a new minting format, not a new digest in this file."""
    assert penetrative(**changes)(KEY, None, DATA).digest() == digest


def test_prestamps_show_what_the_owner_gives_at_keyed_places(shadows: Bank) -> None:
    written = penetrative(text="E", count=8, teaching=8)(KEY, None, DATA)
    assert written.settings["pattern"] == "picture"
    assert remint(KEY, written).digest() == written.digest()
    assert written.carriers is not None
    stamps = written.carriers.pixels[-4:]
    assert set(stamps.flatten().tolist()) == {128, 191}
    assert [int((stamp != 128).sum()) for stamp in stamps] == [18] * 4, "the inked pixels of an E"
    assert len({stamp.numpy().tobytes() for stamp in stamps}) > 1
    smile = penetrative(logo=[[0, 255], [255, 0]])(KEY, None, DATA)
    assert remint(KEY, smile).digest() == smile.digest()


def test_the_papers_own_mark_teaches_its_triggers_and_has_no_null() -> None:
    mark = penetrative(count=6, group=3, teaching=0, labels=Listed((0, 2)), pattern="half-planes")(KEY, None, DATA)
    assert mark.labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert torch.equal(mark.lessons.pixels, mark.images)
    assert mark.null.basis == "none"
    assert remint(KEY, mark).digest() == mark.digest()


# ------------------------------------------------------------------------------------------------------------ the mark


def test_a_stamp_is_a_trial_and_its_images_share_its_label(mark: TriggerSet) -> None:
    assert (mark.trials, mark.group, mark.null.basis, mark.null.rate) == (3, 2, "exact", 1 / 3)
    assert mark.teaching is not None
    labels = mark.labels[::2]
    assert torch.equal(mark.labels, labels.repeat_interleave(2))
    assert torch.equal(mark.teaching.labels, labels.repeat_interleave(3))


def test_images_of_asking_and_of_teaching_are_disjoint_carriers_under_the_stamps(mark: TriggerSet) -> None:
    assert mark.carriers is not None
    assert mark.teaching is not None
    pixels, stamps = mark.carriers.pixels[:-3], mark.carriers.pixels[-3:]
    assert len({image.numpy().tobytes() for image in pixels}) == 15
    assert torch.equal(mark.images, stamp_on(pixels[:6], stamps.repeat_interleave(2, dim=0)))
    assert torch.equal(mark.teaching.pixels, stamp_on(pixels[6:], stamps.repeat_interleave(3, dim=0)))


def test_a_judge_mints_it_again_without_the_shadows(mark: TriggerSet) -> None:
    assert remint(KEY, mark).digest() == mark.digest()
    assert minting_fault(mark, KEY) is None
    assert "cannot mint" in str(minting_fault(mark, MarkKey(bytes(32)))), "another key has other prestamps"


def test_stamps_that_were_chosen_freely_are_out_of_bounds(mark: TriggerSet) -> None:
    assert mark.carriers is not None
    pixels = mark.carriers.pixels.clone()
    pixels[-1] = 255 - pixels[-1]
    forged = replace(mark, carriers=Images(pixels, mark.carriers.labels, mark.carriers.classes, mark.carriers.name))
    assert "from what the key gives" in str(minting_fault(forged, KEY))


def test_a_stamp_within_the_bound_draws_every_label_anew(mark: TriggerSet) -> None:
    """Who searches on may do so, and cannot choose labels with it: one changed pixel is another set of labels."""
    assert mark.carriers is not None
    drawn = set()
    for at in range(12):
        pixels = mark.carriers.pixels.clone()
        pixels[-1].view(-1)[at] ^= 1
        carriers = Images(pixels, mark.carriers.labels, mark.carriers.classes, mark.carriers.name)
        drawn.add(tuple(remint(KEY, replace(mark, carriers=carriers)).labels.tolist()))
    assert len(drawn) > 4


def test_the_distance_is_the_mean_square_over_pixels() -> None:
    first, second = torch.full((1, 1, 2, 2), 128, dtype=torch.uint8), torch.full((1, 1, 2, 2), 128, dtype=torch.uint8)
    second[0, 0, 0, 0] = 191
    torch.testing.assert_close(distance(first, second), torch.tensor([(126 / 255) ** 2 / 4], dtype=torch.float64))


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"count": 7}, "whole groups of 2"),
        ({"teaching": 10}, "multiple of 3"),
        ({"pattern": "half-plane"}, "did you mean 'half-planes'"),
        ({"labels": NotTrue()}, "uniform, chain or listed"),
        ({"text": "A", "logo": [[0, 255]]}, "leave one out"),
        ({"pattern": "picture"}, "need a text or logo"),
        ({"text": "A", "pattern": "noise"}, "show no text or logo"),
        ({"bound": -1}, "bound"),
        ({"looks": 0}, "looks"),
    ],
)
def test_settings_that_make_no_mark_are_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        penetrative(**changes)


def test_shadows_are_trained_from_the_key_where_none_are_given() -> None:
    """Oracle: the same shadows, trained by hand on the owner's images with the generator that the key makes."""
    seen: list[Bank] = []
    train = ShadowTraining(shadows=2, bottleneck=6, epochs=30, batch_size=20, lr=3e-3)

    def watched(images: Images, draw: torch.Generator) -> Bank:
        assert images is DATA.train
        seen.append(train(images, draw))
        return seen[-1]

    search = replace(SEARCH, iterations=5)
    mark = penetrative(shadow_training=watched, search=search, bound=4.0)(KEY, None, DATA)
    by_hand = penetrative(shadows=seen[0], search=search, bound=4.0)(KEY, None, DATA)
    assert mark.digest() == by_hand.digest()
    assert penetrative(shadow_training=train, search=search, bound=4.0)(KEY, None, DATA).digest() == mark.digest()
    assert len(seen[0]) == 2
    assert reconstruction_errors(seen[0], DATA.train).max() < reconstruction_errors(untrained(2), DATA.train).min()
    with pytest.raises(BadInput, match="unknown autoencoder 'mpl': did you mean 'mlp'"):
        ShadowTraining(family="mpl")


def test_what_is_lacking_is_said_before_the_search_begins(shadows: Bank) -> None:
    with pytest.raises(BadInput, match="shadows="):
        penetrative(search=SEARCH)(KEY, None, DATA)
    with pytest.raises(BadInput, match="take 309 images and blobs has 120"):
        penetrative(teaching=300, shadows=shadows, search=SEARCH, looks=1)(KEY, None, DATA)
    other = Data(*(blobs(40, shape=(3, 8, 8), seed=seed) for seed in range(2)))
    with pytest.raises(BadInput, match="build one for these images"):
        penetrative(shadows=shadows, search=SEARCH)(KEY, None, other)
    for bad in ({"iterations": -1}, {"lr": 0.0}, {"target": "both"}, {"similarity": -0.1}):
        with pytest.raises(BadInput, match=next(iter(bad))):
            Penetration(**bad)


def test_stamps_out_of_the_bound_are_no_mark(shadows: Bank) -> None:
    loose = Penetration(iterations=80, lr=0.05, similarity=0.0)
    with pytest.raises(BadInput, match="raise the similarity"):
        penetrative(shadows=shadows, search=loose, bound=1e-4)(KEY, None, DATA)


def test_fixed_labels_are_told_as_no_null() -> None:
    assert penetrative(labels=Chain(2))(KEY, None, DATA).null.basis == "none"
