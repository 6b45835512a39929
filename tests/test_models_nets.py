"""The networks of Wen et al. 2023: their sizes, what they compute, what they refuse, and that they learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny import blobs
from torch import Tensor, nn

from earmark.cli.networks import NETWORKS, fitting, network
from earmark.core import rng
from earmark.errors import BadInput
from earmark.layers import find_sites
from earmark.models import VGG16BN, AlexNetP, LeNet5, ResNet18, ResNetP, built, dissect, reinitialised
from earmark.training import CrossEntropy, Settings, fit

THIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], str, int]] = {
    "lenet5": (lambda: LeNet5((1, 28, 28), 5, width=3), (1, 28, 28), "head", 42),
    "lenet5 in colour": (lambda: LeNet5((3, 32, 20), 5, width=3), (3, 32, 20), "head", 42),
    "resnet18": (lambda: ResNet18(5, width=4), (3, 16, 16), "out", 32),
    "resnet18 tiny": (lambda: ResNet18(5, 1, width=4, stem="tiny"), (1, 20, 20), "out", 128),
    "vgg16-bn": (lambda: VGG16BN(5, width=4), (3, 32, 32), "head", 32),
}
"""Network, an input, the name of its head, the size of its penultimate feature."""


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: LeNet5(), 61_706),
        (lambda: LeNet5((1, 32, 32)), 61_706),
        (lambda: LeNet5((3, 32, 32)), 62_006),
        (lambda: ResNet18(), 11_173_962),
        (lambda: ResNet18(200, stem="tiny"), 11_586_312),
        (lambda: AlexNetP(), 2_493_386),
        (lambda: AlexNetP(norm="gn"), 2_493_386),
        (lambda: ResNetP(), 11_173_962),
        (lambda: ResNetP(blocks=(1, 1, 1, 1)), 4_903_242),
        (lambda: VGG16BN(10), 14_728_266),
        (lambda: VGG16BN(), 14_774_436),
    ],
)
def test_at_full_width_they_have_the_published_number_of_parameters(build: Callable[[], nn.Module], count: int) -> None:
    assert parameters(built(build, rng(0))) == count


@pytest.mark.parametrize("width", [1, 2, 6, 9])
def test_width_scales_every_layer_of_lenet(width: int) -> None:
    w, v = width, 8 * width // 3
    layers = [(25, w), (25 * w, v), (25 * v, 20 * w), (20 * w, 14 * w), (14 * w, 10)]
    assert parameters(LeNet5(width=width)) == sum((inside + 1) * outside for inside, outside in layers)


@pytest.mark.parametrize("width", [1, 4])
def test_width_scales_every_layer_of_vgg(width: int) -> None:
    channels = [3, *(width * times for times in (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8))]
    convolutions = sum((9 * a + 3) * b for a, b in pairwise(channels))
    assert parameters(VGG16BN(7, width=width)) == convolutions + (8 * width + 1) * 7


@pytest.mark.parametrize("width", [1, 4])
def test_width_scales_every_layer_of_resnet(width: int) -> None:
    stem = 27 * width + 2 * width
    first = 4 * (9 * width + 2) * width
    others = sum(
        (9 * a + 2) * 2 * a + 3 * (18 * a + 2) * 2 * a + (a + 2) * 2 * a for a in (width, 2 * width, 4 * width)
    )
    assert parameters(ResNet18(7, width=width)) == stem + first + others + (8 * width + 1) * 7


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: LeNet5((1, 12, 12), 7), (1, 12, 12)),
        (lambda: LeNet5((3, 31, 13), 7), (3, 31, 13)),
        (lambda: LeNet5((2, 64, 33), 7, width=1), (2, 64, 33)),
        (lambda: ResNet18(7, 1, width=2), (1, 1, 3)),
        (lambda: ResNet18(7, 3, width=2), (3, 28, 40)),
        (lambda: ResNet18(7, 1, width=2, stem="tiny"), (1, 5, 5)),
        (lambda: ResNet18(7, 3, width=2, stem="tiny"), (3, 33, 64)),
        (lambda: VGG16BN(7, 1, width=2), (1, 32, 32)),
        (lambda: VGG16BN(7, 3, width=2), (3, 75, 50)),
    ],
)
def test_grey_and_colour_of_many_sizes_give_one_score_a_class(
    build: Callable[[], nn.Module], shape: tuple[int, int, int]
) -> None:
    assert built(build, rng(0)).eval()(torch.rand(2, *shape, generator=rng(1))).shape == (2, 7)


@pytest.mark.parametrize("name", THIN)
def test_the_head_times_the_feature_is_the_logits(name: str) -> None:
    build, shape, head, features = THIN[name]
    net, images = built(build, rng(0)).eval(), torch.rand(3, *shape, generator=rng(1))
    anatomy = dissect(net, images)
    assert (anatomy.head, anatomy.features, anatomy.classes) == (head, features, 5)
    with torch.no_grad():
        reading = anatomy.read(net, images)
        torch.testing.assert_close(anatomy.linear(net)(reading.features), reading.logits)


def residual_by_hand(state: Mapping[str, Tensor], x: Tensor, padding: int) -> Tensor:
    """The last feature map of a ResNet-18 in eval mode, layer by layer from its state alone."""

    def layer(conv: str, norm: str, x: Tensor, stride: int, padding: int) -> Tensor:
        y = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        scale = state[f"{norm}.weight"] / (variance + 1e-5).sqrt()
        return (y - mean[:, None, None]) * scale[:, None, None] + state[f"{norm}.bias"][:, None, None]

    x = layer("conv1", "bn1", x, 1, padding).relu()
    for stage in range(4):
        for block in range(2):
            at, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            y = layer(f"{at}.conv1", f"{at}.bn1", x, stride, 1).relu()
            y = layer(f"{at}.conv2", f"{at}.bn2", y, 1, 1)
            around = x if stage == 0 or block else layer(f"{at}.shortcut.0", f"{at}.shortcut.1", x, stride, 0)
            x = (y + around).relu()
    return x


def test_resnet_computes_what_its_layers_say() -> None:
    net = built(lambda: ResNet18(5, width=2), rng(0))
    images = torch.rand(4, 3, 32, 32, generator=rng(1))
    net(images)  # moves the running statistics away from 0 and 1
    last = residual_by_hand(net.eval().state_dict(), images, padding=1)
    assert last.shape == (4, 16, 4, 4)
    with torch.no_grad():
        features = dissect(net, images).read(net, images).features
    torch.testing.assert_close(features, last.mean(dim=(2, 3)))


def test_at_64_the_tiny_stem_pools_four_by_four() -> None:
    net = built(lambda: ResNet18(5, width=2, stem="tiny"), rng(0))
    images = torch.rand(2, 3, 64, 64, generator=rng(1))
    net(images)
    last = residual_by_hand(net.eval().state_dict(), images, padding=1)
    assert last.shape == (2, 16, 8, 8)
    with torch.no_grad():
        features = dissect(net, images).read(net, images).features
    torch.testing.assert_close(features, F.avg_pool2d(last, 4).flatten(1))


def test_mnist_is_padded_to_what_the_original_reads() -> None:
    mnist, original = LeNet5((1, 28, 28)), LeNet5((1, 32, 32))
    original.load_state_dict(mnist.state_dict())
    images = torch.rand(3, 1, 28, 28, generator=rng(1))
    torch.testing.assert_close(mnist(images), original(F.pad(images, (2, 2, 2, 2))))


def test_vgg_ends_in_one_vector_for_images_of_32() -> None:
    net = VGG16BN(5, width=2).eval()
    assert net.trunk(torch.rand(2, 3, 32, 32, generator=rng(1))).shape == (2, 16, 1, 1)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: LeNet5((1, 8, 8)), r"LeNet5 reads images of 12 x 12 or more, got 8 x 8"),
        (lambda: LeNet5((1, 28, 11)), r"got 28 x 11"),
        (lambda: LeNet5((1, 28, 28), 10, width=0), r"width, got 0"),
        (lambda: ResNet18(10, stem="tny"), r"unknown stem 'tny': did you mean 'tiny'"),
        (lambda: ResNet18(10, width=0), r"width, got 0"),
        (lambda: VGG16BN(0), r"classes, got 0"),
        (lambda: VGG16BN(width=0.5), r"width, got 0\.5"),  # type: ignore[arg-type]
        (
            lambda: VGG16BN(10, width=1).eval()(torch.rand(1, 3, 28, 32)),
            r"VGG16BN reads .* 32 x 32 or more, got 28 x 32",
        ),
    ],
)
def test_what_they_cannot_do_they_say(build: Callable[[], object], says: str) -> None:
    with torch.random.fork_rng(devices=[]), pytest.raises(BadInput, match=says):
        build()


@pytest.mark.parametrize("name", THIN)
def test_a_fresh_start_depends_on_the_generator_alone_and_reaches_every_weight(name: str) -> None:
    net = built(THIN[name][0], rng(0))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 7.0)
    for buffer in net.buffers():
        buffer.fill_(7)
    before = torch.get_rng_state()
    first, again, other = (reinitialised(net, rng(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any((value == 7).any() for value in first.values())
    drawn = [key for key, value in first.items() if value.is_floating_point() and value.unique().numel() > 1]
    assert drawn
    assert not any(torch.equal(first[key], other[key]) for key in drawn)
    assert all((value == 7).all() for value in net.state_dict().values())


def test_residual_convolutions_start_from_kaiming_by_fan_out() -> None:
    state = built(lambda: ResNet18(width=32), rng(0)).state_dict()
    weight = state["stages.1.0.conv1.weight"]
    assert weight.shape == (64, 32, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("name", THIN)
def test_they_learn(name: str) -> None:
    build, shape, _, _ = THIN[name]
    settings = Settings(epochs=3, batch_size=16, lr=1e-2, batchnorm="train", device="cpu")
    net = built(build, rng(0))
    history = fit(net, blobs(48, 5, shape), [CrossEntropy()], settings, rng(1))
    losses = [record["ce"] for record in history]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_name_on_the_command_line_builds_a_network_that_fits_the_task(name: str) -> None:
    task = SimpleNamespace(shape=(1, 32, 36), classes=7)
    thin = "widen=1" if name == "wide-resnet" else "width=2"
    with torch.random.fork_rng(devices=[]):
        net = network(name, None, [thin], task)
    assert fitting(net, task, "the network") is net


@pytest.mark.parametrize(("build", "layers", "bits"), [(AlexNetP, 3, 896), (ResNetP, "stages.3.*", 2_560)])
@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_the_last_layers_of_the_passport_networks_carry_the_published_number_of_bits(
    build: Callable[..., nn.Module], layers: str | int, bits: int, norm: str
) -> None:
    sites = find_sites(build(norm=norm), torch.zeros(1, 3, 32, 32), layers)
    assert sum(site.outputs for site in sites) == bits


@pytest.mark.parametrize("build", [AlexNetP, ResNetP])
def test_a_passport_network_with_a_norm_or_width_that_does_not_exist_is_refused(
    build: Callable[..., nn.Module],
) -> None:
    with pytest.raises(BadInput, match="unknown norm 'gm'; known: bn, gn"):
        build(norm="gm")
    with pytest.raises(BadInput, match="multiple or divisor as width, got 24"):
        build(norm="gn", width=24)
