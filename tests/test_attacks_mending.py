"""Attacks that damage the weights or change the lesson, and then train on: each against its formula."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyNet, blobs, projected, seeded
from torch import Tensor, nn

from earmark.attacks import AdversarialTraining, Cleanse, FinePrune, FineTune, ShiftWeights, SmoothLabels, attack
from earmark.attacks.removal.adversarial_training import adversarial
from earmark.attacks.removal.cleanse import Patch, flagged, reversed_patch
from earmark.core import Data, Images, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import ProjectionMint
from earmark.models import evaluating
from earmark.training import CrossEntropy, Settings, Step, accuracy, fit, predict

DATA = Data(blobs(48), blobs(24, seed=1))
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16}


class Patches(nn.Module):
    """A vision transformer at its smallest: patches by a linear layer, attention, a head, and no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.unfold(x, 4, stride=4).transpose(1, 2)
        logits: Tensor = self.head(self.block(self.embed(tokens)).mean(1))
        return logits


@pytest.fixture(scope="module")
def learned() -> nn.Module:
    """A network that knows its task."""
    net = seeded(TinyNet)
    fit(net, DATA.train, (CrossEntropy(),), Settings(epochs=12, lr=1e-2, batch_size=16, batchnorm="train"), rng(0))
    return net.eval()


@pytest.mark.parametrize("name", ["fine-prune", "shift-weights"])
def test_a_network_without_convolutions_is_refused_by_what_needs_them(name: str) -> None:
    with pytest.raises(BadInput, match="is for convolutions, and the model has none"):
        attack(name, **SHORT)(seeded(Patches), DATA, rng(0))


@pytest.mark.parametrize("name", ["smooth-labels", "adversarial-training", "cleanse", "distil"])
def test_a_transformer_is_attacked_by_what_needs_none(name: str) -> None:
    quick: dict[str, dict[str, Any]] = {
        "cleanse": {"steps": 2},
        "distil": {"milestones": ()},
        "adversarial-training": {"iterations": 2},
    }
    attacked = attack(name, **SHORT, **quick.get(name, {}))(seeded(Patches), DATA, rng(0))
    assert model_digest(attacked) != model_digest(seeded(Patches))


# ------------------------------------------------------------------------------------------------------ shifted weights


def test_the_mean_filter_goes_and_nothing_but_convolutions_changes(learned: nn.Module) -> None:
    shifted = ShiftWeights(shift=1, noise=0, epochs=0)(learned, DATA, rng(0))
    for (name, old), new in zip(learned.named_parameters(), shifted.parameters(), strict=True):
        if name in ("conv.weight", "mix.weight"):
            torch.testing.assert_close(new, old - old.mean(0))
            assert float(new.detach().mean(0).abs().max()) < 1e-6
        else:
            assert torch.equal(new, old)


def test_noise_has_the_standard_deviation_of_the_layer(learned: nn.Module) -> None:
    wide = nn.Sequential(nn.Conv2d(1, 400, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(400, 3))
    moved = ShiftWeights(shift=0, noise=2, epochs=0)(wide, DATA, rng(0))
    old, new = (net.get_parameter("0.weight").detach() for net in (wide, moved))
    n = old.numel()
    drawn = (new - old) / old.std()
    assert abs(float(drawn.std()) - 2) < 5 * 2 / (2 * n) ** 0.5
    assert abs(float(drawn.mean())) < 5 * 2 / n**0.5


def test_grouped_and_transposed_convolutions_lose_the_mean_of_each_group() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(1, 1, 8, 8))
    shifted = ShiftWeights(shift=1, noise=0, epochs=0)(net, DATA, rng(0))
    weight = shifted.get_parameter("1.weight").view(2, 2, 3, 3, 3)
    assert float(weight.detach().mean(2).abs().max()) < 1e-6


def test_of_a_projection_that_is_all_in_the_mean_filter_nothing_is_left() -> None:
    net = seeded(TinyNet)
    mark = ProjectionMint(bits=20)(MarkKey(bytes(32)), net, DATA)
    marked = copy.deepcopy(net)
    weight = marked.get_submodule(mark.layer.name).get_parameter("weight")
    with torch.no_grad():
        weight.copy_(projected(mark).get_parameter("layer.weight").expand_as(weight))
    assert torch.equal(mark.read(weight), mark.bits)
    gone = ShiftWeights(shift=1, noise=0, epochs=0)(marked, DATA, rng(0)).get_submodule(mark.layer.name)
    assert float(gone.get_parameter("weight").detach().abs().max()) < 1e-6


# ------------------------------------------------------------------------------------------------------- smooth labels


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
def test_the_term_is_pytorchs_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    (term,) = SmoothLabels(smoothing=smoothing).terms(DATA.train)
    logits, labels = torch.randn(9, 3, generator=rng(0)), torch.arange(9) % 3
    step = Step(torch.empty(9, 1, 8, 8), torch.empty(9, 4), logits, labels, 9, 9, None, nn.Identity(), {})
    torch.testing.assert_close(term(step), F.cross_entropy(logits, labels, label_smoothing=smoothing))


def test_answers_are_less_sure_afterwards(learned: nn.Module) -> None:
    smooth = SmoothLabels(epochs=8, batch_size=16, lr=1e-2, smoothing=0.3)(learned, DATA, rng(0))
    before, after = (predict(net, DATA.test).softmax(1).amax(1).mean() for net in (learned, smooth))
    assert accuracy(smooth, DATA.test) == accuracy(learned, DATA.test) == 1
    assert after < min(0.85, float(before))


# ------------------------------------------------------------------------------------------------ adversarial training


def test_a_linear_model_is_moved_against_as_far_as_it_goes() -> None:
    """Two classes: the loss rises along w_other - w_label alone, so that the corner of the ball is the maximum."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    images, labels = torch.rand(10, 1, 8, 8, generator=rng(0)), torch.arange(10) % 2
    moved = adversarial(net, images, labels, epsilon=0.2, iterations=20, step=0.05)
    weight = net.get_parameter("1.weight").detach()
    away = (weight[1 - labels] - weight[labels]).sign().view_as(images)
    torch.testing.assert_close(moved, (images + 0.2 * away).clamp(0, 1), rtol=0, atol=1e-6)


def test_the_ball_holds_and_nothing_of_the_model_changes(learned: nn.Module) -> None:
    net = copy.deepcopy(learned).train()
    before = model_digest(net)
    images = DATA.train.pixels[:8].float() / 255
    moved = adversarial(net, images, DATA.train.labels[:8], 0.1, 3, 0.08)
    assert model_digest(net) == before
    assert all(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert float((moved - images).abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1


def test_a_model_withstands_what_it_was_trained_against(learned: nn.Module) -> None:
    settings: dict[str, Any] = {"epochs": 20, "lr": 1e-2, "batch_size": 16}
    hardened = AdversarialTraining(epsilon=0.15, iterations=5, **settings)(learned, DATA, rng(0))
    tuned = FineTune(**settings)(learned, DATA, rng(0))

    def withstands(net: nn.Module) -> float:
        images, labels = DATA.test.pixels.float() / 255, DATA.test.labels
        with torch.random.fork_rng(), evaluating(net):
            torch.manual_seed(0)
            moved = adversarial(net, images, labels, 0.15, 20, 0.03)
            return float((net(moved).argmax(1) == labels).double().mean())

    assert accuracy(hardened, DATA.test) == accuracy(tuned, DATA.test) == 1
    assert withstands(hardened) > 0.2 + max(withstands(tuned), withstands(learned))


# -------------------------------------------------------------------------------------------------------- fine-pruning


class Known(nn.Module):
    """Channels whose activity is their bias: the first convolution copies nothing, the second adds more."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 5, 1), norm
        self.head = nn.Linear(5, 3)
        with torch.no_grad():
            self.first.weight.fill_(0.1)
            self.first.bias.copy_(torch.tensor([3.0, 1.0, 2.0]))  # type: ignore[union-attr]
            self.last.weight.fill_(1e-3)
            self.last.bias.copy_(torch.tensor([0.5, -9.0, 0.2, 0.9, -0.5]))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.first(x).relu())
        logits: Tensor = self.head((x if self.norm is None else self.norm(x)).relu().mean((2, 3)))
        return logits


def silent(net: nn.Module, name: str) -> list[int]:
    layer = net.get_submodule(name)
    gone = (layer.get_parameter("weight").flatten(1) == 0).all(1) & (layer.get_parameter("bias") == 0)
    return gone.nonzero().flatten().tolist()


def test_the_least_active_channels_of_the_last_convolution_go() -> None:
    """Channels 1 and 4 are silent on all images, and 2 is the least active of the others."""
    for share, gone in ((0.2, [1]), (0.4, [1, 4]), (0.6, [1, 2, 4])):
        pruned = FinePrune(share=share, epochs=0)(Known(), DATA, rng(0))
        assert (silent(pruned, "last"), silent(pruned, "first")) == (gone, [])
    both = FinePrune(share=0.4, epochs=0, convolutions=2)(Known(), DATA, rng(0))
    assert (silent(both, "last"), silent(both, "first")) == ([1, 4], [1])
    named = FinePrune(share=0.4, epochs=0, convolutions="fir*")(Known(), DATA, rng(0))
    assert (silent(named, "last"), silent(named, "first")) == ([], [1])


def test_activity_is_what_the_norm_behind_writes_and_the_norm_is_silenced_too() -> None:
    norm = nn.GroupNorm(1, 5)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([-50.0, 50, 60, 70, 80]))
    pruned = FinePrune(share=0.2, epochs=0)(Known(norm), DATA, rng(0))
    assert silent(pruned, "last") == [0]
    assert (pruned.get_parameter("norm.weight") == 0).tolist() == [True] + 4 * [False]
    assert (pruned.get_parameter("norm.bias") == 0).tolist() == [True] + 4 * [False]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_does_not_bring_silent_channels_back(optimizer: Any, learned: nn.Module) -> None:
    by = FinePrune(share=0.5, convolutions=2, optimizer=optimizer, weight_decay=0.01, lr=1e-2, trials=2, **SHORT)
    begun, ended = (FinePrune(share=0.5, convolutions=2, epochs=0)(learned, DATA, rng(0)), by(learned, DATA, rng(0)))
    for name, parts in (("conv", ("weight",)), ("mix", ("weight", "bias")), ("bn", ("weight", "bias"))):
        for part in parts:
            before, after = (net.get_submodule(name).get_parameter(part) for net in (begun, ended))
            gone = (before.flatten(1) == 0).all(1) if before.ndim > 1 else before == 0
            assert int(gone.sum()) >= len(before) // 2
            assert bool((after[gone] == 0).all())
            assert not torch.equal(after[~gone], before[~gone])
    assert not any(parameter._backward_hooks for parameter in ended.parameters())


def test_without_a_share_it_is_fine_tuning(learned: nn.Module) -> None:
    pruned, tuned = FinePrune(share=0, **SHORT), FineTune(**SHORT)
    assert model_digest(pruned(learned, DATA, rng(0))) == model_digest(tuned(learned, DATA, rng(0)))


@pytest.mark.parametrize("which", [3, "conv?"])
def test_convolutions_that_are_not_there_are_refused(which: int | str, learned: nn.Module) -> None:
    with pytest.raises(BadInput, match="fits none of 'conv', 'mix'"):
        FinePrune(convolutions=which)(learned, DATA, rng(0))


# ------------------------------------------------------------------------------------------------------ Neural Cleanse


def stamped(images: Images) -> Images:
    """A white square in a corner that no class lights up, under the label 0."""
    pixels = images.pixels.clone()
    pixels[:, :, 6:, 7:] = 255
    return Images(pixels, torch.zeros(len(images), dtype=torch.int64), 3)


def opened(net: nn.Module) -> float:
    """The share of test images of other classes that the square turns into class 0."""
    others = (DATA.test.labels != 0).nonzero().flatten()
    return accuracy(net, stamped(DATA.test.subset(others)))


@pytest.fixture(scope="module")
def backdoored() -> nn.Module:
    """A network that has learnt its task, and class 0 where the square is."""
    net, plain = seeded(TinyNet, seed=1), DATA.train
    both = Images(torch.cat([plain.pixels, stamped(plain).pixels]), torch.cat([plain.labels, stamped(plain).labels]), 3)
    fit(net, both, (CrossEntropy(),), Settings(epochs=30, lr=1e-2, batch_size=16, batchnorm="train"), rng(0))
    assert accuracy(net, DATA.test) == opened(net) == 1
    return net.eval()


def test_the_patch_of_a_backdoor_is_the_smallest_and_in_its_corner(backdoored: nn.Module) -> None:
    patches = [reversed_patch(backdoored, DATA.train, label, 200, 0.1, 0.01, rng(0)) for label in range(3)]
    assert flagged([patch.size for patch in patches], 2.0) == [0]
    assert float(patches[0].mask[0, 0, 4:, 4:].sum()) > 0.9 * patches[0].size
    assert all(
        float(predict(backdoored, with_patch(patch)).argmax(1).eq(label).double().mean()) > 0.9
        for label, patch in enumerate(patches)
    )


def with_patch(patch: Patch) -> Images:
    pixels = patch.on(DATA.test.pixels.float() / 255).mul(255).round().to(torch.uint8)
    return Images(pixels, DATA.test.labels, 3)


def test_a_backdoor_is_unlearnt_and_fine_tuning_alone_leaves_it(backdoored: nn.Module) -> None:
    settings: dict[str, Any] = {"epochs": 20, "lr": 1e-3, "batch_size": 16}
    cleansed, tuned = (by(backdoored, DATA, rng(0)) for by in (Cleanse(**settings), FineTune(**settings)))
    assert opened(tuned) > 0.9
    assert opened(cleansed) < opened(tuned) - 0.3
    assert accuracy(cleansed, DATA.test) > 0.9


def test_a_share_of_the_images_carries_patches_under_their_own_labels(learned: nn.Module) -> None:
    lessons = Cleanse(steps=1, share=0.25).lessons(learned, DATA, rng(0))
    changed = (lessons.pixels != DATA.train.pixels).flatten(1).any(1)
    assert int(changed.sum()) == 12
    assert torch.equal(lessons.labels, DATA.train.labels)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: SmoothLabels(smoothing=1.1), "smoothing"),
        (lambda: ShiftWeights(shift=-1), "shift"),
        (lambda: ShiftWeights(noise=float("nan")), "noise"),
        (lambda: AdversarialTraining(epsilon=2), "epsilon"),
        (lambda: AdversarialTraining(iterations=0), "iterations"),
        (lambda: AdversarialTraining(step=-0.1), "step"),
        (lambda: FinePrune(share=1.5), "share"),
        (lambda: FinePrune(convolutions=0), "convolutions"),
        (lambda: Cleanse(classes="some"), "classes"),  # type: ignore[arg-type]
        (lambda: Cleanse(steps=0), "steps"),
        (lambda: Cleanse(share=-0.1), "share"),
        (lambda: SmoothLabels(labels="soft"), "labels"),  # type: ignore[arg-type]
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(make: Any, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        make()
