"""A guard that answers odd images at random: what it refuses, what it leaves alone, and what it needs."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from scipy import stats
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import Needs, Refuse, measured, needs_of
from earmark.attacks.evasion.oddness import Distance, Seen, energy, looking_into, threshold
from earmark.core import Data, Images, Query, rng
from earmark.errors import BadInput
from earmark.files import model_digest
from earmark.keys import MarkKey
from earmark.marks import Noise
from earmark.models import logits_of
from earmark.suspects import as_query
from earmark.training import CrossEntropy, Settings, accuracy, fit
from earmark.verify import TriggerTest

DATA = Data(blobs(400), blobs(600, seed=1))
MARK = Noise(60)(MarkKey(bytes(32)), None, DATA)


@pytest.fixture(scope="module")
def marked() -> nn.Module:
    """A network that knows its task and noise triggers."""
    net = seeded(TinyNet, features=16)
    both = Images(torch.cat([DATA.train.pixels, MARK.images]), torch.cat([DATA.train.labels, MARK.labels]), 3)
    settings = Settings(epochs=40, lr=1e-2, batch_size=32, batchnorm="train", milestones=(30,))
    fit(net, both, (CrossEntropy(),), settings, rng(0))
    assert accuracy(net, DATA.test) == 1
    return net.eval()


def floats(images: Images) -> Tensor:
    return images.pixels.float() / 255


def refused(guard: Query, model: nn.Module, images: Tensor) -> float:
    """The share of images that are not answered as the model answers them, to the last digit."""
    return float((guard(images) != as_query(model)(images)).any(1).double().mean())


@pytest.mark.parametrize("score", ["mahalanobis", "energy"])
@pytest.mark.parametrize("refusals", [0.02, 0.1, 0.3])
def test_honest_images_are_refused_as_often_as_the_thief_said(refusals: float, score: Any, marked: nn.Module) -> None:
    """The r-th smallest of 200 scores is passed by a share of all images that is a Beta(201 - r, r) variable."""
    shares = [refused(Refuse(refusals, score)(marked, DATA, rng(seed)), marked, floats(DATA.test)) for seed in range(3)]
    rank = math.ceil(201 * (1 - refusals))
    most = stats.beta.ppf(1 - 1e-5, 201 - rank, rank) + 5 * (refusals / 600) ** 0.5
    assert max(shares) <= most
    assert sum(shares) > 0


def test_triggers_that_no_honest_image_looks_like_are_answered_at_random(marked: nn.Module) -> None:
    test = TriggerTest(alpha=1e-3)
    assert test(as_query(marked), MARK).accepted
    guard = Refuse(0.05)(marked, DATA, rng(0))
    assert refused(guard, marked, MARK.images.float() / 255) > 0.9
    assert not test(guard, MARK).accepted
    assert float((guard(floats(DATA.test)).argmax(1) == DATA.test.labels).double().mean()) > 0.9


def test_a_refused_image_gets_the_answer_of_an_honest_one(marked: nn.Module) -> None:
    answers = Refuse(0.05)(marked, DATA, rng(0))(MARK.images.float() / 255)
    honest = as_query(marked)(floats(DATA.train))
    near = (answers.unsqueeze(1) - honest).abs().amax(2).amin(1)
    assert float((near < 1e-4).double().mean()) > 0.9
    assert len(answers.argmax(1).unique()) == 3  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("score", ["mahalanobis", "energy"])
def test_a_guard_that_refuses_nothing_changes_no_answer_and_no_verdict(score: Any, marked: nn.Module) -> None:
    guard, model = Refuse(0.0, score)(marked, DATA, rng(0)), as_query(marked)
    assert torch.equal(guard(floats(DATA.test)), model(floats(DATA.test)))
    assert TriggerTest()(guard, MARK) == TriggerTest()(model, MARK)


def test_answers_are_a_function_of_the_image_and_the_generator(marked: nn.Module) -> None:
    images = torch.cat([MARK.images[:20].float() / 255, floats(DATA.test)[:20]])
    with torch.random.fork_rng():
        torch.manual_seed(5)
        before = torch.get_rng_state()
        one, again, other = (Refuse(0.1)(marked, DATA, rng(seed)) for seed in (0, 0, 1))
        together = one(images)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again(images), together)
    assert not torch.equal(other(images), together)
    torch.testing.assert_close(torch.cat([one(image) for image in torch.split(images, 1)]), together)
    assert one(images[:0]).shape == (0, 3)


def test_the_model_is_left_alone(marked: nn.Module) -> None:
    net = copy.deepcopy(marked).train()
    before = model_digest(net)
    guard, spent = measured(Refuse(images=40), net, DATA, rng(0))
    guard(floats(DATA.test)[:5])
    assert model_digest(net) == before
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert (spent.samples, spent.queries, spent.weights) == (40, 43, True)  # three tell which layers write a row each


def test_a_model_that_can_only_be_asked_is_guarded_by_its_scores(marked: nn.Module) -> None:
    query = as_query(marked)
    guard = Refuse(0.1, "energy")(query, DATA, rng(0))
    assert torch.equal(guard(floats(DATA.test)), Refuse(0.1, "energy")(marked, DATA, rng(0))(floats(DATA.test)))
    with pytest.raises(BadInput, match="give the module, or score='energy'"):
        Refuse()(query, DATA, rng(0))
    with pytest.raises(BadInput, match="answers scores, and this one answers classes"):
        Refuse(score="energy")(lambda images: query(images).argmax(1), DATA, rng(0))


class Classes(nn.Module):
    """A network that answers classes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self.net(x)).argmax(1)


def test_a_module_that_answers_classes_is_guarded_by_distances(marked: nn.Module) -> None:
    guard = Refuse(0.05)(Classes(marked), DATA, rng(0))
    answers = guard(MARK.images.float() / 255)
    assert answers.dtype == torch.int64
    assert float((answers == MARK.labels).double().mean()) < 0.6


# ------------------------------------------------------------------------------------------------------------- oracles


def test_distances_are_mahalanobis_to_the_nearest_class(marked: nn.Module) -> None:
    features = torch.randn(50, 4, generator=rng(0)).double() + 3 * (torch.arange(50) % 2).unsqueeze(1)
    classes = torch.arange(50) % 2
    asked = torch.randn(7, 4, generator=rng(1)).double()
    means = torch.stack([features[classes == k].mean(0) for k in (0, 1)])
    covariance = torch.cov((features - means[classes]).t(), correction=0)
    mixed = 0.9 * covariance + 0.1 * covariance.diagonal().mean() * torch.eye(4).double()
    inverse = torch.linalg.inv(mixed)

    def slow(z: Tensor) -> Tensor:
        return torch.stack([min((one - mean) @ inverse @ (one - mean) for mean in means) for one in z])

    found = Distance(Seen((features, 2 * features), classes))(Seen((asked, 2 * asked), classes[:7]))
    torch.testing.assert_close(found, 2 * slow(asked) / slow(features).mean())


def test_energies_are_minus_the_log_of_the_sum_of_exponentials() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, 1.0]])
    wanted = -torch.log(logits.double().exp().sum(1))
    torch.testing.assert_close(energy(Seen((), logits)), wanted)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5])
def test_another_score_exceeds_the_threshold_with_at_most_the_share(share: float) -> None:
    """Exactly: of n + 1 exchangeable scores without ties, each is the odd one out with the same probability."""
    for n in (4, 19, 20, 99):
        everything = torch.arange(float(n + 1))
        above = [
            float(everything[at]) > threshold(torch.cat([everything[:at], everything[at + 1 :]]), share)
            for at in range(n + 1)
        ]
        assert sum(above) <= share * (n + 1)
        assert sum(above) > share * (n + 1) - 1


def test_a_look_averages_over_places_and_sees_every_layer(marked: nn.Module) -> None:
    seen = looking_into(marked)(floats(DATA.test)[:5])
    assert [features.shape for features in seen.features] == [(5, 8), (5, 16), (5, 16), (5, 3)]
    with torch.no_grad():
        conv = marked.get_submodule("conv")(floats(DATA.test)[:5])
    torch.testing.assert_close(seen.features[0], conv.double().mean((2, 3)))
    assert torch.equal(seen.features[3].float(), seen.answers)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"refusals": -0.1}, "refusals"), ({"score": "softmax"}, "score"), ({"images": 3}, "images")],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        Refuse(**settings)


def test_what_cannot_be_guarded_with_or_asked_is_refused(marked: nn.Module) -> None:
    few = Data(DATA.train.subset(torch.arange(3)), DATA.test)
    with pytest.raises(BadInput, match="four images or more, got 3"):
        Refuse()(marked, few, rng(0))
    with pytest.raises(BadInput, match=r"float in \[0, 1\], got torch.uint8"):
        Refuse()(marked, DATA, rng(0))(DATA.test.pixels)


def test_needs_follow_the_score() -> None:
    assert needs_of(Refuse()) == Needs(True, "images")
    assert needs_of(Refuse(score="energy")) == Needs(False, "images", "scores")


class TokensFirst(nn.Module):
    """A transformer as PyTorch has it by default, tokens (L, N, d): one token to a column of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Linear(1, 8)
        self.token = nn.Linear(3 * 8, 8)
        self.mixer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.token(x.permute(3, 0, 1, 2).flatten(2)) + self.place(x.new_ones(1, 1))
        out: Tensor = self.head(self.mixer(tokens).mean(0))
        return out


@pytest.mark.parametrize("many", [1, 2, 8])
def test_layers_that_write_tokens_first_are_left_out_whatever_the_batch_holds(many: int) -> None:
    """Also where the batch holds as many images as there are tokens, 8, or as the places' layer writes rows, 1."""
    net = seeded(TokensFirst).eval()
    images = torch.rand(many, 3, 8, 8, generator=rng(2))
    data = Data(blobs(16, shape=(3, 8, 8)), blobs(16, shape=(3, 8, 8), seed=1))
    assert [features.shape for features in looking_into(net)(images).features] == [(many, 3)]
    assert Refuse(0.1)(net, data, rng(0))(images).shape == (many, 3)
