"""Training autoencoders: the loss by hand, a bank beside its members, resuming, and nets that learn nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import blobs

from earmark.core import Images, rng
from earmark.errors import BadInput, Diverged
from earmark.files import model_digest
from earmark.models import AUTOENCODERS, Bank, MLPAutoencoder, autoencoder, built
from earmark.training import (
    AUTOENCODING,
    ReconstructionLoss,
    Settings,
    Step,
    reconstruction_errors,
    train_autoencoder,
)

SHAPE = (1, 6, 6)
SOME = AUTOENCODING.but(epochs=30, batch_size=20, milestones=(), lr=3e-3)


def images(count: int = 60) -> Images:
    return blobs(count, shape=SHAPE)


def fresh(seed: int = 0, bottleneck: int = 6) -> MLPAutoencoder:
    made = built(lambda: MLPAutoencoder(SHAPE, bottleneck, (24, 12)), rng(seed))
    assert isinstance(made, MLPAutoencoder)
    return made


def test_the_loss_by_hand() -> None:
    """Eq. (2): ||x - AE(x)||^2 + lambda_1 ||Enc(x)||^2, a mean over the images."""
    net, seen = fresh(), images(3).pixels.float() / 255
    code, made = net(seen)
    step = Step(seen, code, made, torch.zeros(3), 3, 3.0, None, net, {})
    by_hand = sum(((x - y) ** 2).sum() + 0.5 * (c**2).sum() for x, y, c in zip(seen, made, code, strict=True)) / 3
    torch.testing.assert_close(ReconstructionLoss(code=0.5)(step), by_hand)


@pytest.mark.parametrize("family", AUTOENCODERS)
def test_every_family_learns_to_make_images_again(family: str) -> None:
    net = built(lambda: autoencoder(family, SHAPE, bottleneck=6), rng(0))
    before = model_digest(net)
    trained = train_autoencoder(net, images(), rng(1), SOME)  # type: ignore[type-var]
    assert model_digest(net) == before, "the fresh one stays as it is"
    untrained, learned = (float(reconstruction_errors(it, images())) for it in (net, trained))  # type: ignore[arg-type]
    mean = images().pixels.float().div(255).var(0, correction=0).sum()
    assert learned < float(mean) < untrained, "better than the mean image"


def test_a_bank_trains_as_its_members_do_alone() -> None:
    """One optimizer over stacked parameters is an optimizer for each: Adam works number by number."""
    settings = SOME.but(epochs=12)
    together = train_autoencoder(Bank([fresh(seed) for seed in range(3)]), images(), rng(5), settings)
    errors = reconstruction_errors(together, images())
    for seed, member in enumerate(together.members()):
        alone = train_autoencoder(fresh(seed), images(), rng(5), settings)
        torch.testing.assert_close(reconstruction_errors(alone, images())[0], errors[seed], rtol=1e-4, atol=1e-4)
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(member.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", AUTOENCODERS)
def test_a_bank_of_every_family_trains_at_the_default_settings(family: str) -> None:
    """Convolutions too, whose stacked weights know no channels-last order."""
    bank = Bank([built(lambda: autoencoder(family, SHAPE, bottleneck=6), rng(seed)) for seed in range(2)])
    before = reconstruction_errors(bank, images())
    trained = train_autoencoder(bank, images(), rng(0), AUTOENCODING.but(epochs=60, batch_size=20, lr=3e-3))
    assert bool((reconstruction_errors(trained, images()) < before).all())


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    whole = train_autoencoder(fresh(), images(), rng(2), SOME)
    saved = tmp_path / "ae.safetensors"

    class Killed(Exception):
        pass

    steps = 0

    def draw(net: torch.nn.Module, *_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise Killed

    first = fresh()
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda net, *_: draw(net) if isinstance(net, MLPAutoencoder) else None
    )
    try:
        with pytest.raises(Killed):
            train_autoencoder(first, images(), rng(2), SOME, checkpoint=saved)
    finally:
        hook.remove()
    assert saved.exists()
    resumed = train_autoencoder(fresh(), images(), rng(2), SOME, checkpoint=saved)
    assert model_digest(resumed) == model_digest(whole)


def test_one_that_makes_the_same_of_everything_is_no_autoencoder() -> None:
    with pytest.raises(Diverged, match="the autoencoder has collapsed"):
        train_autoencoder(fresh(), images(), rng(0), SOME.but(epochs=2), code=1e4)
    bank = Bank([fresh(seed) for seed in range(2)])
    with pytest.raises(Diverged, match=r"members \[0, 1\]"):
        train_autoencoder(bank, images(), rng(0), SOME.but(epochs=2), code=1e4)


def test_images_of_another_shape_are_refused_before_training() -> None:
    with pytest.raises(BadInput, match="build one for these images"):
        train_autoencoder(fresh(), blobs(8, shape=(3, 6, 6)), rng(0), Settings(epochs=1, batchnorm="train"))
