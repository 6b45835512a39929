"""The laws that every kind of trigger set obeys, and what is peculiar to each."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from earmark.core import Data, Images, Mark, Mint, rng
from earmark.data import channels_to, digits, resized
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import (
    MINTS,
    Abstract,
    Chain,
    HashChain,
    Noise,
    NoiseChain,
    Noised,
    NotTrue,
    OneClass,
    Patched,
    Penetrative,
    Relabelled,
    Stamped,
    TriggerMint,
    TriggerSet,
    Uniform,
    Unrelated,
    from_settings,
    mark_from_parts,
    remint,
)

KEY = MarkKey(bytes(range(32)))


def colour(count: int = 60, classes: int = 5) -> Data:
    pixels = torch.randint(256, (count, 3, 16, 12), generator=rng(1)).to(torch.uint8)
    images = Images(pixels, torch.arange(count) % classes, classes, "colour")
    return Data(images, images)


HOSTS = {"colour": colour(), "digits": digits()}
LOGO = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]], [[7, 7, 7], [1, 2, 3]]]
N = 6
KINDS: dict[str, TriggerMint] = {
    "noise": Noise(N),
    "grey noise": Noise(N, std=0.1, mean=0.3, colour=False),
    "chain": NoiseChain(N, length=3, labels=Chain(3)),
    "labelled chain": NoiseChain(N, length=3, labels=Uniform()),
    "abstract": Abstract(N, OneClass(3)),
    "blocks": Stamped(N),
    "text": Stamped(N, NotTrue(), text="A", opacity=0.5),
    "logo": Stamped(N, logo=LOGO, size=0.5, carrier_class=2),
    "text on art": Stamped(N, text="?", carrier="abstract", opacity=0.7),
    "unrelated": Unrelated(N, source=digits().train),
    "penetrative": Penetrative(N, group=1, teaching=6, bound=4.0, search=None),
    "half-planes": Penetrative(N, group=1, teaching=6, bound=4.0, pattern="half-planes", search=None),
    "noised": Noised(N),
    "noised, each": Noised(N, OneClass(1), std=0.1, shared=False, carrier_class=2),
    "relabelled": Relabelled(N),
    "patched": Patched(N, group=1, teaching=6, opposed=6),
    "patched, one class": Patched(N, OneClass(1), 1, 0, carrier_class=2),
    "patched, not true": Patched(N, NotTrue(), 1, 6, pattern="noise", carrier_class=2),
    "hash chain": HashChain(N),
}
TRIGGERS = {(kind, host): mint(KEY, None, HOSTS[host]) for kind, mint in KINDS.items() for host in HOSTS}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_set = pytest.mark.parametrize(("kind", "host"), TRIGGERS)


# ---------------------------------------------------------------------------------------------------------------- laws


@every_set
def test_triggers_are_images_that_the_host_takes(kind: str, host: str) -> None:
    mark, data = TRIGGERS[kind, host], HOSTS[host]
    assert isinstance(mark, Mark)
    assert (mark.images.dtype, mark.shape, mark.classes, len(mark)) == (torch.uint8, data.shape, data.classes, N)
    assert mark.images.is_contiguous()
    assert 0 <= int(mark.labels.min()) <= int(mark.labels.max()) < data.classes


@every_set
def test_minting_again_with_the_key_gives_the_same_mark_and_with_another_key_not(kind: str, host: str) -> None:
    mark = TRIGGERS[kind, host]
    assert remint(KEY, mark).digest() == mark.digest()
    assert remint(MarkKey(bytes(32)), mark).digest() != mark.digest()


@every_set
def test_a_mark_comes_back_from_its_parts(kind: str, host: str) -> None:
    mark = TRIGGERS[kind, host]
    spec = json.loads(json.dumps(mark.spec()))
    again = mark_from_parts(mark.kind, spec, mark.tensors())
    assert isinstance(again, TriggerSet)
    assert again.digest() == mark.digest()
    assert again.null == mark.null
    assert (again.carriers is None) == (mark.carriers is None)


@every_kind
def test_a_mint_comes_back_from_its_settings(kind: str) -> None:
    mint = KINDS[kind]
    assert from_settings(json.loads(json.dumps(mint.settings()))) == mint
    assert MINTS[mint.name] is type(mint)
    assert mint.settings()["format"] == 1


def judged(mark: TriggerSet, **changed: Any) -> tuple[str, str]:
    """The digest of a changed mark, and the digest of what the key mints from it."""
    other = replace(mark, **changed)
    return other.digest(), remint(KEY, other).digest()


@every_set
def test_one_changed_pixel_or_label_of_a_trigger_is_not_what_the_key_mints(kind: str, host: str) -> None:
    mark = TRIGGERS[kind, host]
    images, labels = mark.images.clone(), mark.labels.clone()
    images[0, 0, 0, 0] ^= 1
    labels[-1] = (labels[-1] + 1) % mark.classes
    for changed in ({"images": images}, {"labels": labels}):
        claimed, minted = judged(mark, **changed)
        assert minted == mark.digest() != claimed


@every_set
def test_labels_follow_the_last_pixel_and_the_true_class_of_carriers(kind: str, host: str) -> None:
    mark = TRIGGERS[kind, host]
    if mark.carriers is None:
        assert mark.settings["mint"] != "unrelated"
        return
    pixels = mark.carriers.pixels.clone()
    pixels[0, 0] = 255 - pixels[0, 0]
    other = replace(mark, carriers=Images(pixels, mark.carriers.labels, mark.carriers.classes, mark.carriers.name))
    again = remint(KEY, other)
    assert again.digest() not in (mark.digest(), other.digest())
    assert torch.equal(again.labels[1:], mark.labels[1:]) is (mark.null.basis == "none")


def test_who_claims_other_true_classes_gets_other_labels_throughout() -> None:
    mark = TRIGGERS["text", "digits"]
    assert mark.carriers is not None
    labels = mark.carriers.labels.clone()
    labels[0] = (labels[0] + 1) % 10
    again = remint(KEY, replace(mark, carriers=Images(mark.carriers.pixels, labels, 10, mark.carriers.name)))
    assert torch.equal(again.images, mark.images)
    assert not torch.equal((again.labels - labels)[1:], (mark.labels - mark.carriers.labels)[1:])


@every_set
def test_minting_leaves_data_and_global_random_state_alone(kind: str, host: str) -> None:
    data = HOSTS[host]
    before, state = data.train.pixels.clone(), torch.get_rng_state()
    mark = KINDS[kind](KEY, None, data)
    mark.images.zero_()
    assert torch.equal(data.train.pixels, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert KINDS[kind](KEY, None, data).digest() == TRIGGERS[kind, host].digest()


@every_set
def test_a_trigger_set_shows_counts_only(kind: str, host: str) -> None:
    mark = TRIGGERS[kind, host]
    assert repr(mark) == f"TriggerSet({N} images {'x'.join(map(str, mark.shape))}, {mark.classes} classes)"


@every_set
def test_the_null_follows_the_labels(kind: str, host: str) -> None:
    mark = TRIGGERS[kind, host]
    policy, k = mark.settings["labels"]["policy"], mark.classes
    rate = {"uniform": 1 / k, "not-true": 1 / (k - 1)}.get(policy)
    assert (mark.null.rate, mark.null.basis) == (rate, "exact" if rate else "none")


def test_a_mint_is_the_verb_of_core() -> None:
    mint: Mint[TriggerSet] = Noise(2)
    assert len(mint(KEY, None, digits())) == 2


def test_settings_taken_from_a_mark_do_not_change_it() -> None:
    mark = TRIGGERS["noise", "digits"]
    digest = mark.digest()
    spec = mark.spec()
    spec["settings"]["labels"]["policy"] = "one-class"
    assert mark.digest() == digest


# ------------------------------------------------------------------------------------------------------------- answers


def test_a_label_matches_where_it_is_the_trigger_s() -> None:
    mark = TRIGGERS["noise", "digits"]
    labels = mark.labels.clone()
    labels[3] = (labels[3] + 1) % 10
    labels[5] = -1
    expected = [at not in (3, 5) for at in range(N)]
    assert mark.matches(labels).tolist() == expected
    assert mark.matches(labels.to(torch.int8)).tolist() == expected


@pytest.mark.parametrize("shape", [(N - 1,), (N, 10), (N, 1), (), (N + 1,)])
def test_answers_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="expected"):
        TRIGGERS["noise", "digits"].matches(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_answers_that_are_no_labels_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(BadInput, match="expected labels"):
        TRIGGERS["noise", "digits"].matches(torch.zeros(N, dtype=dtype))


# --------------------------------------------------------------------------------------------------------------- kinds


def test_noise_has_the_stated_mean_and_spread() -> None:
    data = Data(*[Images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([0]), 10)] * 2)
    pixels = Noise(100, std=0.1, mean=0.4)(KEY, None, data).images.double() / 255
    assert float(pixels.mean()) == pytest.approx(0.4, abs=1e-3)
    assert float(pixels.std()) == pytest.approx(0.1, rel=5e-3)
    flat = pixels.flatten(2) - pixels.mean()
    assert abs(float((flat[:, 0] * flat[:, 1]).mean())) < 1e-4


def test_grey_noise_is_one_plane_in_all_channels() -> None:
    images = TRIGGERS["grey noise", "colour"].images
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])


def test_more_noise_begins_with_the_same_images() -> None:
    few, many = (Noise(n)(KEY, None, digits()).images for n in (5, 9))
    assert torch.equal(few, many[:5])


def test_equal_triggers_are_refused() -> None:
    mark = TRIGGERS["noise", "digits"]
    with pytest.raises(BadInput, match="same image"):
        replace(mark, images=mark.images[[0, *range(N - 1)]])
    with pytest.raises(BadInput, match="same image"):
        Stamped(90, text="M", size=1.0)(KEY, None, digits())


def test_abstract_art_needs_room() -> None:
    with pytest.raises(BadInput, match="at least 8 x 8"):
        Abstract(2).make(KEY, (1, 7, 9), 3)


def test_carriers_are_distinct_training_images_with_their_true_labels() -> None:
    data = digits()
    carriers = Stamped(200).draw(KEY, data)
    assert carriers is not None
    rows = {row.numpy().tobytes(): int(label) for row, label in zip(data.train.pixels, data.train.labels, strict=True)}
    assert [rows[row.numpy().tobytes()] for row in carriers.pixels] == carriers.labels.tolist()
    assert len(Stamped(1438).draw(KEY, data) or ()) == 1438


def test_carriers_of_one_class_are_of_that_class_even_if_it_is_class_zero() -> None:
    for label in (0, 4):
        carriers = Stamped(9, carrier_class=label).draw(KEY, colour())
        assert carriers is not None
        assert carriers.labels.tolist() == [label] * 9


def test_a_stamp_covers_its_place_and_nothing_else() -> None:
    logo = torch.tensor(LOGO, dtype=torch.uint8)
    mark = Stamped(12, logo=logo, size=0.25)(KEY, None, colour())
    assert mark.carriers is not None
    assert mark.shape[1:] == (16, 12)
    stamp = resized(logo.permute(2, 0, 1)[None], 4, 2)[0]
    for image, carrier in zip(mark.images, mark.carriers.pixels, strict=True):
        places = [(y, x) for y in range(13) for x in range(11) if torch.equal(image[:, y : y + 4, x : x + 2], stamp)]
        assert len(places) == 1
        (y, x), expected = places[0], carrier.clone()
        expected[:, y : y + 4, x : x + 2] = stamp
        assert torch.equal(image, expected)


def test_opacity_mixes_stamp_and_carrier() -> None:
    solid, clear = (Stamped(N, size=0.5, opacity=share)(KEY, None, colour()) for share in (1.0, 0.25))
    assert solid.carriers is not None
    old, new = solid.carriers.pixels.double(), solid.images.double()
    assert torch.equal(solid.carriers.pixels, TRIGGERS["blocks", "colour"].carriers.pixels)  # type: ignore[union-attr]
    assert float((clear.images - (old + (new - old) / 4)).abs().max()) <= 1


def test_the_keyed_pattern_is_the_same_on_all_triggers_and_another_for_another_key() -> None:
    levels = torch.arange(100, 140, dtype=torch.uint8).reshape(40, 1, 1, 1).expand(40, 3, 16, 12).contiguous()
    flat = Images(levels, torch.arange(40) % 5, 5)

    def patterns(key: MarkKey) -> set[bytes]:
        images = Stamped(40, size=0.35)(key, None, Data(flat, flat)).images
        inked = ((images == 0) | (images == 255)).all(1)
        assert inked.flatten(1).sum(1).tolist() == [16] * 40
        return {image[:, place].numpy().tobytes() for image, place in zip(images, inked, strict=True)}

    assert len(patterns(KEY)) == 1
    assert patterns(KEY) != patterns(MarkKey(bytes(32)))


def test_text_is_legible_against_its_rim() -> None:
    mark = Stamped(12, text="A", carrier="abstract", size=0.7)(KEY, None, colour())
    extremes = ((mark.images == 0) | (mark.images == 255)).all(1).flatten(1).sum(1)
    assert int(extremes.min()) >= 16 + 20  # the letter's ink and its rim


def test_unrelated_triggers_are_the_source_in_the_shape_of_the_host() -> None:
    mark = TRIGGERS["unrelated", "colour"]
    assert mark.carriers is not None
    assert mark.carriers.shape == (1, 8, 8)
    assert torch.equal(mark.images, resized(channels_to(mark.carriers.pixels, 3), 16, 12))


def test_chains_are_turned_by_one_orthogonal_matrix_and_scaled_as_in_the_papers_code() -> None:
    mark = NoiseChain(40, length=8, labels=Chain(8), std=0.25).make(KEY, (1, 24, 30), 10)
    steps = (mark.images.double() / 255 - 0.5).reshape(5, 8, 24, 30) / 0.25
    assert float(steps.std()) == pytest.approx(24**-0.5, rel=0.01)
    norms = steps.square().sum((2, 3)).sqrt()
    assert float((norms - 30**0.5).abs().max()) < 0.02 * 30**0.5
    before, after = (steps[:, part].permute(2, 0, 1, 3).flatten(1) for part in (slice(0, -1), slice(1, None)))
    turn = torch.linalg.lstsq(before.T, after.T).solution.T
    assert float((turn @ turn.T - torch.eye(24)).abs().max()) < 0.05
    assert float((turn @ before - after).abs().max()) < 0.05
    assert float((turn @ after - before).abs().max()) > 0.2


# --------------------------------------------------------------------------------------------------------- bad input


def wrong(value: Any) -> Any:
    """A value of another type than the setting has."""
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Noise(0), "count of triggers: expected a whole number from 1"),
        (lambda: Noise(True), "count of triggers"),
        (lambda: Noise(wrong("9")), "count of triggers"),
        (lambda: Noise(labels=wrong("uniform")), r"expected a label policy such as Uniform\(\)"),
        (lambda: Noise(std=float("nan")), "noise std: expected a number from 0.01 to 10, got nan"),
        (lambda: Noise(std=0), "noise std"),
        (lambda: Noise(mean=1.5), "noise mean"),
        (lambda: Noise(colour=wrong(1)), "noise colour"),
        (lambda: NoiseChain(15), "no whole number of chains of 10"),
        (lambda: NoiseChain(10, length=5), r"need labels=Chain\(5\)"),
        (lambda: NoiseChain(10, length=1), "chain length"),
        (lambda: Stamped(text="A", logo=LOGO), "both were given"),
        (lambda: Stamped(text=wrong(5)), "text to stamp"),
        (lambda: Stamped(carrier="tain"), "did you mean 'train'"),
        (lambda: Stamped(size=0), "stamp size"),
        (lambda: Stamped(opacity=2), "stamp opacity"),
        (lambda: Stamped(carrier="abstract", carrier_class=1), "has no classes"),
        (lambda: Stamped(carrier_class=-1), "carrier class"),
        (lambda: Stamped(logo=[[1, 2], [3]]), "logo"),
        (lambda: Stamped(logo=[[0.5]]), "logo"),
        (lambda: Stamped(logo=[[256]]), "logo"),
        (lambda: Stamped(logo=torch.zeros(2, 2, 2, dtype=torch.uint8)), "logo"),
        (lambda: Stamped(logo=torch.zeros(300, 2, dtype=torch.uint8)), "logo"),
        (lambda: Stamped(logo={"a": 1}), "logo"),
    ],
)
def test_settings_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize(
    ("mint", "message"),
    [
        (Stamped(61), "61 carriers are needed, but colour has 60 images"),
        (Stamped(13, carrier_class=2), "class 2 of colour has 12 images"),
        (Stamped(2, carrier_class=5), "classes 0 to 4, got carrier class 5"),
        (Unrelated(2), "need source="),
        (Unrelated(61, source=colour().train), "has 60 images"),
        (Noise(2, OneClass(5)), "below 5"),
        (Noise(2, NotTrue()), "show a true class"),
        (Unrelated(2, NotTrue(), source=digits().train), "show a true class"),
        (Stamped(2, NotTrue(), carrier="abstract"), "show a true class"),
        (NoiseChain(10), "as many classes, got 5"),
        (Stamped(2, text="MUCH TOO LONG"), "give a shorter text"),
        (Stamped(2, text="Ä"), "expected letters, digits"),
        (Stamped(2, text=" "), "expected letters, digits"),
    ],
)
def test_what_does_not_fit_the_data_is_named(mint: TriggerMint, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        mint(KEY, None, colour())


def test_an_empty_class_of_carriers_is_named() -> None:
    images = colour().train
    gap = Images(images.pixels, images.labels.clamp(max=3), 5, "gap")
    with pytest.raises(BadInput, match="class 4 of gap has 0 images"):
        Stamped(1, carrier_class=4)(KEY, None, Data(gap, gap))


def test_carriers_that_do_not_fit_are_named() -> None:
    carriers = Stamped(4).draw(KEY, colour())
    assert carriers is not None
    for mint, shape, classes, given, message in (
        (Stamped(4), (3, 16, 12), 5, None, "got none"),
        (Stamped(5), (3, 16, 12), 5, carriers, "got 4"),
        (Stamped(4), (3, 16, 16), 5, carriers, "carriers are"),
        (Stamped(4), (3, 16, 12), 6, carriers, "6 classes and the carriers 5"),
        (Noise(4), (3, 16, 12), 5, carriers, "give no carriers"),
        (Stamped(4, carrier="abstract"), (3, 16, 12), 5, carriers, "give no carriers"),
    ):
        with pytest.raises(BadInput, match=message):
            mint.make(KEY, shape, classes, given)


def test_a_mark_with_fewer_triggers_than_its_settings_say_is_not_minted_again() -> None:
    mark = TRIGGERS["noise", "digits"]
    settings = copy.deepcopy(dict(mark.settings))
    settings["count"] = 1_000_000
    with pytest.raises(BadInput, match="speak of 1000000 triggers and the mark has 6"):
        remint(KEY, replace(mark, settings=settings))
