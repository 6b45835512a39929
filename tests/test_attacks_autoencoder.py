"""An autoencoder in front of a model: the laws of an evasion, and what it does to images and to noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import blobs

from earmark.attacks import Autoencode, Chain, Median, cost, washer
from earmark.core import Data, rng
from earmark.errors import BadInput, Diverged
from earmark.models import AUTOENCODERS, MLPAutoencoder

SHAPE = (1, 8, 8)
DATA = Data(*(blobs(60, shape=SHAPE, seed=seed) for seed in range(2)))


def some(family: str = "mlp", **settings: float) -> Autoencode:
    made = washer("autoencoder", **{"family": family, "bottleneck": 8, "epochs": 12, "batch_size": 20, **settings})
    assert isinstance(made, Autoencode)
    return made


def learned(family: str) -> Autoencode:
    """Long enough for the slowest of the families."""
    return some(family, epochs=40, lr=3e-3)


def seen(count: int = 5) -> torch.Tensor:
    return DATA.test.pixels[:count].float() / 255


@pytest.mark.parametrize("family", AUTOENCODERS)
def test_every_family_washes_and_obeys_the_laws(family: str) -> None:
    images, before = seen(), torch.get_rng_state()
    wash = learned(family).washing(DATA, rng(3))
    washed = wash(images)
    assert (washed.shape, washed.dtype) == (images.shape, images.dtype)
    assert not washed.requires_grad
    assert 0 <= float(washed.min()) <= float(washed.max()) <= 1
    assert torch.equal(images, seen()), "the given images stay"
    torch.testing.assert_close(wash(images[:2]), washed[:2])
    assert torch.equal(learned(family).washing(DATA, rng(3))(images), washed), "a function of the generator"
    assert not torch.equal(learned(family).washing(DATA, rng(4))(images), washed)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_pass_and_noise_does_not() -> None:
    wash, images = some(epochs=40).washing(DATA, rng(0)), seen(60)
    noise = torch.rand(images.shape, generator=rng(1))
    lost, lost_noise = ((wash(x) - x).square().mean() for x in (images, noise))
    assert 2 * lost < lost_noise


def test_it_learns_from_as_many_images_as_the_thief_has(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def train(model: MLPAutoencoder, images: object, *_: object, **__: object) -> MLPAutoencoder:
        asked.append(len(images))  # type: ignore[arg-type]
        return model

    monkeypatch.setattr("earmark.attacks.evasion.autoencoder.train_autoencoder", train)
    for count in (None, 17, 1_000):
        some().washing(DATA, rng(0)) if count is None else some(images=count).washing(DATA, rng(0))
    assert asked == [60, 17, 60]


def test_its_cost_is_measured_and_it_stands_in_a_chain() -> None:
    def model(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.flatten(1).mean(1), 1 - images.flatten(1).mean(1), images[:, 0, 0, 0]], dim=1)

    alone = cost(some(), model, DATA, rng(0))
    chained = cost(Chain((Median(1), some())), model, DATA, rng(0))
    assert alone.alone == chained.alone
    assert 0 <= chained.washed <= 1


def test_a_training_that_is_done_is_loaded_from_its_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "ae.safetensors"
    first = some().washing(DATA, rng(0))(seen())
    kept = Autoencode(bottleneck=8, epochs=12, batch_size=20, checkpoint=file).washing(DATA, rng(0))(seen())
    assert file.exists()
    again = Autoencode(bottleneck=8, epochs=12, batch_size=20, checkpoint=file).washing(DATA, rng(0))(seen())
    assert torch.equal(first, kept)
    assert torch.equal(kept, again)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"family": "cov"}, "did you mean 'conv'"),
        ({"bottleneck": 0}, "bottleneck"),
        ({"images": 0}, "images"),
        ({"code": -1.0}, "code"),
        ({"lr": 0.0}, "lr"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": "9"}, "batch_size"),
        ({"family": 3}, "autoencoder"),
    ],
)
def test_settings_out_of_range_are_named(given: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        washer("autoencoder", **given)


def test_one_that_collapses_is_no_attack() -> None:
    with pytest.raises(Diverged, match="collapsed"):
        some(code=1e4).washing(DATA, rng(0))


@pytest.mark.parametrize(
    ("family", "widths", "layers"),
    [
        ("mlp", (40, 20), [40, 20, 8, 20, 40]),
        ("variational", (30,), [30, 16, 30]),
        ("conv", (5,), [5]),
        ("mlp", (), [8]),
    ],
)
def test_a_thief_chooses_widths_that_the_owner_has_to_guess(
    family: str, widths: tuple[int, ...], layers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark.attacks.evasion.autoencoder.train_autoencoder", lambda model, *_, **__: model)
    trained = replace(some(family), widths=widths).trained(DATA, rng(0))
    dense = [layer.out_features for layer in trained.modules() if isinstance(layer, torch.nn.Linear)]
    convolutions = [layer.out_channels for layer in trained.modules() if isinstance(layer, torch.nn.Conv2d)]
    found = convolutions if family == "conv" else dense[:-1]
    assert found[: len(layers)] == layers


@pytest.mark.parametrize(("family", "widths"), [("conv", (8, 8)), ("denoising", ()), ("mlp", (0,)), ("mlp", (8.0,))])
def test_widths_that_a_family_cannot_have_are_refused(family: str, widths: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="widths"):
        Autoencode(family, widths=widths)
