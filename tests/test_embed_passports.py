"""Embedding passports: every bit is in, the host is left alone, and nothing secret is left in what is written."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Chain, blobs
from torch import Tensor, nn

from earmark.attacks import SolvedPassports
from earmark.core import Data, rng
from earmark.embed import PassportLayers, passport_v1, passport_v2, passport_v3
from earmark.errors import BadInput, CannotCarry
from earmark.evidence.judge import minting_fault
from earmark.files import load_tensors, model_digest
from earmark.keys import MarkKey
from earmark.layers import PassportNorm, on_path, passport_norms
from earmark.marks import Noise, PassportMint, Passports, TriggerSet
from earmark.models import PlainCNN, ResNet18, built, dissect
from earmark.schemes import SCHEMES, deepipr, scheme_of
from earmark.training import BothPaths, CrossEntropy, Settings, Step, accuracy, fit
from earmark.training.run import Run

KEY = MarkKey(bytes(range(32)))
DATA = Data(blobs(96, seed=1), blobs(60, seed=2))
COLOUR = Data(blobs(96, shape=(3, 16, 16), seed=1), blobs(60, shape=(3, 16, 16), seed=2))
SHORT = Settings(epochs=10, batch_size=16, lr=0.02, optimizer="sgd", batchnorm="train", triggers_per_batch=4)


class Odd(nn.Module):
    """Convolutions with strides, dilation, groups, a bias and circular padding, and norms of three kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(1, 8, (5, 3), padding=(2, 1)), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, 2, padding=1, groups=4, bias=False), nn.GroupNorm(2, 8), nn.ReLU()),
            *(nn.Conv2d(8, 12, 3, padding=2, dilation=2, padding_mode="circular"), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.Conv2d(12, 8, (3, 1), padding="same"), nn.InstanceNorm2d(8, affine=True), nn.ReLU()),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(x).mean((2, 3)))
        return logits


def from_transformers() -> nn.Module:
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    net: nn.Module = transformers.ResNetForImageClassification(config)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], Data, str | int]] = {
    "chain of batch norm": (lambda: Chain("bn", classes=3), DATA, 2),
    "chain of group norm": (lambda: Chain("gn", classes=3), DATA, 2),
    "grouped": (lambda: Chain("gn", groups=4, classes=3), DATA, "trunk.[36]"),
    "odd convolutions": (Odd, DATA, 3),
    "plain": (lambda: PlainCNN((1, 8, 8), 3, width=16), DATA, 1),
    "resnet18": (lambda: ResNet18(3, channels=1, width=4), DATA, 5),
    "transformers": (from_transformers, COLOUR, 2),
}


@cache
def case(name: str) -> tuple[nn.Module, Passports, Data]:
    build, data, layers = NETS[name]
    host = built(build, rng(0))
    return host, PassportMint(layers, "ab", witnesses=0)(KEY, host, data), data


def triggers(data: Data = DATA) -> TriggerSet:
    return Noise(count=8).make(MarkKey(bytes(32)), data.shape, data.classes)


def schemes(data: Data) -> dict[str, PassportLayers]:
    made = {"V1": passport_v1(), "V2": passport_v2(), "V3": passport_v3(triggers(data))}
    return {name: scheme.but(settings=SHORT, sign=1.0, watch=0) for name, scheme in made.items()}


# ----------------------------------------------------------------------------------------------------- what comes of it


@pytest.mark.parametrize(
    ("name", "scheme"), [*((name, each) for name in NETS for each in ("V1", "V3")), ("plain", "V2")]
)
def test_all_bits_are_in_a_plain_copy_of_the_users_network(name: str, scheme: str) -> None:
    host, mark, data = case(name)
    state, mode, before = copy.deepcopy(host.state_dict()), host.training, torch.get_rng_state()
    embed = schemes(data)[scheme]
    assert embed.name == scheme
    marked = embed(host, mark, data, rng(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert host.training == mode
    assert all(torch.equal(value, state[key]) for key, value in host.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*host.modules(), *marked.modules()))
    assert torch.equal(mark.read(mark.weights_in(marked)), mark.bits)
    assert mark.text(mark.read(mark.weights_in(marked)), KEY) == "ab"
    assert [type(module) for module in marked.modules()] == [type(module) for module in host.modules()]
    assert {k: v.shape for k, v in marked.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert all(parameter.requires_grad for parameter in marked.parameters())


@pytest.mark.parametrize("scheme", ["V1", "V2", "V3"])
def test_the_network_has_learnt_its_task_beside_the_bits(scheme: str) -> None:
    host, mark, data = case("plain")
    assert accuracy(schemes(data)[scheme](host, mark, data, rng(1)), data.test) > 0.9


def test_the_triggers_of_v3_are_learnt_along_the_public_path() -> None:
    host, mark, data = case("plain")
    scheme = schemes(data)["V3"].but(epochs=30)
    marked = scheme(host, mark, data, rng(1))
    assert accuracy(marked, triggers().as_images()) == 1


def test_v1_has_gamma_and_beta_of_the_passports_in_its_norms() -> None:
    host, mark, data = case("chain of batch norm")
    marked = schemes(data)["V1"](host, mark, data, rng(1))
    for site, pair in mark.layers().items():
        conv, norm = marked.get_submodule(site.conv), marked.get_submodule(site.norm)
        for passport, parameter in zip(pair, (norm.weight, norm.bias), strict=True):
            torch.testing.assert_close(conv(passport).mean((0, 2, 3)), parameter, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", ["V1", "V2", "V3"])
def test_the_same_seed_gives_the_same_network_and_another_does_not(scheme: str) -> None:
    host, mark, data = case("chain of batch norm")
    embed = schemes(data)[scheme].but(epochs=2)
    digests = [model_digest(embed(host, mark, data, rng(seed))) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_what_is_recorded_of_each_epoch_is_measured_along_both_paths() -> None:
    host, mark, data = case("plain")
    told: list[Any] = []
    embed = schemes(data)["V3"].but(on_history=told.extend, watch=60)
    embed(host, mark, data, rng(1))
    assert [set(record) for record in told] == [{"ce", "sign", "bits", "trig_acc", "val_acc", "private_acc"}] * 10
    assert told[-1]["bits"] == 1
    assert min(told[-1]["val_acc"], told[-1]["private_acc"]) > 0.8


# ------------------------------------------------------------------------------------------------------------- the loss


def gradient(embed: PassportLayers, name: str = "chain of batch norm") -> Tensor:
    """Of the weighted loss of one step at the start, with respect to all that is trained."""
    host, mark, data = case(name)
    model = embed.protected(host, mark, data)
    anatomy = dissect(host, data.train.pixels[:1])
    reader = BothPaths(anatomy) if embed.public else anatomy
    images, targets = data.train.pixels[:12].float() / 255, data.train.labels[:12]
    seen = reader.read(model, images)
    step = Step(images, seen.features, seen.logits, targets, 12, 12.0, None, model, {})
    loss = torch.stack([term.weight * term(step) for term in embed.terms_for(mark)]).sum()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, trained)])


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("what", ["sign", "margin", "ridge"])
def test_each_named_weight_of_the_loss_set_to_zero_changes_the_gradient(what: str, public: bool) -> None:
    whole = PassportLayers(public=public)
    assert not torch.equal(gradient(whole), gradient(whole.but(**{what: 0.0})))


def test_the_signs_are_in_the_gradient_as_the_hinge_says() -> None:
    """The oracle is the definition, by the convolution over the passports."""
    host, mark, data = case("chain of batch norm")
    embed = PassportLayers(public=False)
    model = embed.protected(host, mark, data)
    layers = mark.layers().items()
    gamma = torch.cat([model.get_submodule(site.conv)(pair[0]).mean((0, 2, 3)) for site, pair in layers])
    wanted = (0.1 - mark.bits * gamma).clamp(min=0).sum() * 0.1 + 1e-5 * gamma.square().sum()
    (_, term) = embed.terms_for(mark)
    empty = torch.zeros(0)
    found = term.weight * term(Step(empty, empty, empty, empty, 0, 1.0, None, model, {}))
    torch.testing.assert_close(found, wanted)
    weights = mark.weights_in(model)
    for a, b in zip(torch.autograd.grad(found, weights), torch.autograd.grad(wanted, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_cross_entropies_of_both_paths_are_summed_with_the_triggers_among_the_images() -> None:
    host, mark, data = case("chain of group norm")
    embed = PassportLayers()
    model = embed.protected(host, mark, data)
    images, targets = data.train.pixels[:9].float() / 255, data.train.labels[:9]
    seen = BothPaths(dissect(host, data.train.pixels[:1])).read(model, images)
    (term, _) = embed.terms_for(mark)
    found = term(Step(images, seen.features, seen.logits, targets, 7, 7.0, None, model, {}))
    wanted = torch.zeros(())
    for path in ("public", "private"):
        with on_path(model, path):
            wanted = wanted + nn.functional.cross_entropy(model(images), targets)
    torch.testing.assert_close(found, wanted)


DISTRIBUTED = textwrap.dedent("""
    import sys
    sys.path.insert(0, sys.argv[1])
    import torch
    from lightning_fabric import Fabric
    from tiny import Chain, blobs
    from earmark.core import Data, rng
    from earmark.embed import PassportLayers
    from earmark.files import save_tensors
    from earmark.keys import MarkKey
    from earmark.marks import Noise, PassportMint
    from earmark.models import built, dissect
    from earmark.training import BothPaths, Settings, fit

    def run(fabric):
        torch.set_num_threads(1)
        host, data = built(lambda: Chain("gn", classes=3), rng(0)), Data(blobs(64), blobs(16))
        mark = PassportMint(2, witnesses=0)(MarkKey(bytes(32)), host, data)
        embed = PassportLayers()
        model = embed.protected(host, mark, data)
        settings = Settings(epochs=3, batch_size=16, lr=0.05, optimizer="sgd", batchnorm="train", triggers_per_batch=2)
        few = Noise(count=8).make(MarkKey(bytes(32)), data.shape, 3).lessons
        fit(model, data.train, embed.terms_for(mark), settings, rng(0), triggers=few, fabric=fabric,
            head=BothPaths(dissect(host, data.train.pixels[:1])))
        if fabric.is_global_zero:
            save_tensors(sys.argv[2], model.state_dict())

    if __name__ == "__main__":
        fabric = Fabric(accelerator="cpu", devices=int(sys.argv[3]), strategy="ddp" if sys.argv[3] == "2" else "auto")
        fabric.launch()
        run(fabric)
""")


def test_two_processes_learn_what_one_learns_of_the_joined_batch(tmp_path: Path) -> None:
    script, outcomes = tmp_path / "distributed.py", []
    script.write_text(DISTRIBUTED)
    for devices in ("1", "2"):
        out = tmp_path / f"{devices}.safetensors"
        command = [sys.executable, str(script), str(Path(__file__).parent), str(out), devices]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        outcomes.append(load_tensors(out))
    for name, value in outcomes[0].items():
        torch.testing.assert_close(outcomes[1][name], value, rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("scheme", ["V1", "V2", "V3"])
def test_a_run_broken_off_again_and_again_ends_with_the_digest_of_an_unbroken_one(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, mark, data = case("chain of batch norm")
    embed = schemes(data)[scheme].but(epochs=4)
    unbroken = model_digest(embed(host, mark, data, rng(1)))
    left, step = itertools.cycle([*[True] * 7, False]), Run.step
    monkeypatch.setattr(Run, "step", lambda *what: step(*what) if next(left) else _killed())
    kills = 0
    for _ in range(20):
        try:
            ended = embed.but(checkpoint=tmp_path / "run")(host, mark, data, rng(1))
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 3
    assert model_digest(ended) == unbroken


def _killed() -> Tensor:
    raise KeyboardInterrupt


def test_a_checkpoint_holds_neither_passports_nor_bits_nor_key(tmp_path: Path) -> None:
    """Nor S: no run of numbers of a secret tensor is in the file, in single or double precision or as bytes."""
    host, mark, data = case("chain of batch norm")
    embed = schemes(data)["V3"].but(epochs=2, checkpoint=tmp_path / "run")
    embed(host, mark, data, rng(1))
    raw = (tmp_path / "run").read_bytes()
    secrets = [*(passport for pair in mark.pairs for passport in pair), *mark.means(), mark.bits, triggers().images]
    for secret in secrets:
        for kind in (secret.dtype, torch.int8, torch.uint8, torch.float32, torch.float64, torch.int64):
            few = secret.to(kind).contiguous().flatten()[:16]
            assert few.numpy().tobytes() not in raw or not bool(few.any())
    assert not {tuple(tensor.shape) for tensor in load_tensors(tmp_path / "run").values()} & {(20,), (8, 1, 8, 8)}
    assert KEY.secret not in raw
    assert KEY.secret.hex().encode() not in raw


def test_a_checkpoint_of_another_mark_is_refused(tmp_path: Path) -> None:
    host, mark, data = case("chain of batch norm")
    embed = schemes(data)["V2"].but(epochs=1, checkpoint=tmp_path / "run")
    embed(host, mark, data, rng(1))
    other = PassportMint(2, "cd", witnesses=0)(KEY, host, data)
    for changed, its_mark in ((embed, other), (embed.but(sign=0.2), mark)):
        with pytest.raises(BadInput, match="another run"):
            changed(host, its_mark, data, rng(1))


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_a_host_without_the_marks_layers_or_with_other_widths_cannot_carry_it() -> None:
    _, mark, data = case("chain of batch norm")
    for other in (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), built(lambda: Chain(classes=3, width=4), rng(0))):
        with pytest.raises(CannotCarry, match="mint for this network"):
            schemes(data)["V2"](other, mark, data, rng(1))


def test_other_classes_and_other_triggers_are_refused() -> None:
    host, mark, data = case("chain of batch norm")
    with pytest.raises(CannotCarry, match="5 classes and the host answers 3"):
        passport_v2()(host, mark, Data(blobs(50, 5), blobs(50, 5)), rng(1))
    with pytest.raises(BadInput, match="mint triggers for this data"):
        passport_v3(triggers(COLOUR))(host, mark, data, rng(1))


@pytest.mark.parametrize("what", ["margin", "ridge", "sign"])
def test_weights_below_nothing_are_refused(what: str) -> None:
    with pytest.raises(BadInput, match=what):
        PassportLayers(**{what: -1.0})  # type: ignore[arg-type]


def test_a_protected_network_fine_tunes_along_its_public_path_alone() -> None:
    """What fit reads by a head's name is the public path, and the private one is left as it is."""
    host, mark, data = case("chain of batch norm")
    model = PassportLayers().protected(host, mark, data)
    others = {n: copy.deepcopy(m.other.state_dict()) for n, m in passport_norms(model).items() if m.other is not None}
    fit(model, data.train, (CrossEntropy(),), SHORT.but(epochs=1, triggers_per_batch=0), rng(0), head="head")
    assert others
    for name, before in others.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, PassportNorm)
        assert layer.other is not None
        assert all(torch.equal(value, before[key]) for key, value in layer.other.state_dict().items())


# ----------------------------------------------------------------------------------------------------------- the scheme


def test_the_scheme_accepts_its_own_mark_and_its_forgery_but_no_innocent_network() -> None:
    """V alone is not enough: the forgery of I passes it, and is refused where marks are minted again."""
    scheme = deepipr(PassportMint(2, witnesses=30), passport_v1().but(settings=SHORT, sign=1.0, watch=0))
    host = built(lambda: Chain(classes=3, width=16), rng(0))
    mark = scheme.mint(KEY, host, DATA)
    marked = scheme.embed(host, mark, DATA, rng(1))
    assert scheme_of(mark) == scheme.name == "deepipr"
    assert SCHEMES[scheme.name] is deepipr
    assert scheme.verify(marked, mark).accepted is True
    assert scheme.verify(host, mark).accepted is False
    assert scheme.verify(marked, scheme.mint(MarkKey(bytes(32)), host, DATA)).accepted is False
    assert 0 <= scheme.fidelity(marked, host, DATA).val_acc <= 1
    assert isinstance(scheme.invert, SolvedPassports)
    forged = scheme.invert.forge(marked, DATA, rng(2))
    assert scheme.verify(forged.model, forged.mark).accepted is True
    assert minting_fault(mark, KEY) is None
    assert minting_fault(forged.mark, forged.owner.mark_key(forged.name)) is not None
