"""The one loop: what it minimises, what it leaves alone, and that a killed run ends like an unbroken one."""

from __future__ import annotations

import copy
import itertools
import math
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark.core import Data, Images, rng
from earmark.data import CropFlip
from earmark.errors import BadInput, Diverged
from earmark.files import load_tensors, model_digest, save_tensors
from earmark.models import Reading, dissect, reinitialised, trains_channels_last
from earmark.training import (
    Augment,
    Checkpoint,
    CrossEntropy,
    Distillation,
    History,
    LogitLoss,
    PenultimateFeatureLoss,
    Settings,
    SoftmaxLoss,
    Step,
    Term,
    TotalWeightLoss,
    TriggerMargin,
    accuracy,
    fit,
    head_only,
    predict,
    read_all,
    train_host,
    trunk_only,
)
from earmark.training.run import Run

FAST = Settings(epochs=2, batch_size=16, lr=1e-2, triggers_per_batch=4)


def triggers() -> Images:
    return Images(torch.randint(0, 256, (12, 1, 8, 8), generator=rng(9), dtype=torch.uint8), torch.arange(12) % 3, 3)


def test_one_step_of_plain_sgd_is_the_gradient_step() -> None:
    """Slow reference: autograd on the written-out objective of FixLL+PFL, one step by hand."""
    data, host, net = blobs(16), seeded(TinyNet, seed=1), seeded(TinyNet, seed=2)
    settings = Settings(epochs=1, batch_size=16, triggers_per_batch=12, optimizer="sgd", momentum=0.0, lr=0.1)
    by_hand = copy.deepcopy(net).eval()
    fit(net, data, (CrossEntropy("triggers"), PenultimateFeatureLoss(0.01)), settings, rng(0),
        triggers=triggers(), host=host, trainable=trunk_only)  # fmt: skip
    features: dict[str, Tensor] = {}
    for name, model in (("ours", by_hand), ("host", host.eval())):
        model.get_submodule("fc").register_forward_hook(lambda _m, _a, out, name=name: features.update({name: out}))
    joined = torch.cat([data.pixels, triggers().pixels]).float() / 255
    host(joined)
    loss = F.cross_entropy(by_hand(joined)[16:], triggers().labels)
    loss = loss + 0.01 * (features["ours"][:16] - features["host"][:16].detach()).square().sum() / 16
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in by_hand.named_parameters():
        moves = not name.startswith(("head", "bn"))
        expected = parameter - 0.1 * parameter.grad if moves and parameter.grad is not None else parameter
        torch.testing.assert_close(net.get_parameter(name), expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_a_long_gradient_is_scaled_down_to_the_limit_and_a_short_one_is_left(clip: float) -> None:
    """Oracle: one step of plain SGD moves all parameters together by lr * min(norm of the gradient, clip)."""
    settings = Settings(epochs=1, batch_size=16, triggers_per_batch=0, optimizer="sgd", momentum=0.0, lr=0.1)
    moved = {}
    for limit in (None, clip):
        net = seeded(TinyNet, seed=2)
        before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        fit(net, blobs(16), (CrossEntropy(),), settings.but(clip=limit), rng(0))
        moved[limit] = torch.cat([(p.detach() - before[name]).flatten() for name, p in net.named_parameters()])
    free = float(moved[None].norm()) / settings.lr
    assert free > 0.05
    torch.testing.assert_close(moved[clip], moved[None] * min(1.0, clip / free), rtol=1e-4, atol=1e-7)


TERMS: list[Term] = [
    *(CrossEntropy("clean"), CrossEntropy("triggers"), TotalWeightLoss(5.0)),
    *(PenultimateFeatureLoss(0.5), SoftmaxLoss(2.0), Distillation(), LogitLoss()),
]


@pytest.mark.parametrize("term", TERMS)
def test_every_term_changes_what_is_learned(term: Term) -> None:
    outcomes = []
    for terms in ((CrossEntropy(),), (CrossEntropy(), term)):
        net = seeded(TinyNet)
        fit(net, blobs(48), terms, FAST, rng(0), triggers=triggers(), host=seeded(TinyNet, seed=5))
        outcomes.append(model_digest(net))
    assert outcomes[0] != outcomes[1]


def test_a_term_of_weight_zero_changes_nothing() -> None:
    outcomes = []
    for terms in ((CrossEntropy(),), (CrossEntropy(), PenultimateFeatureLoss(0.0))):
        net = seeded(TinyNet)
        fit(net, blobs(48), terms, FAST, rng(0), host=seeded(TinyNet, seed=5))
        outcomes.append(model_digest(net))
    assert outcomes[0] == outcomes[1]


def test_the_host_looked_up_is_the_host_asked_again() -> None:
    """With an augmentation that changes nothing the host is asked per step; without, its outputs are a table."""
    outcomes = []
    for augment in (None, lambda batch, generator: batch):
        net = seeded(TinyNet)
        fit(net, blobs(40), (PenultimateFeatureLoss(1.0),), FAST, rng(0), host=seeded(TinyNet, seed=5), augment=augment)
        outcomes.append(torch.cat([p.flatten() for p in net.parameters()]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-4, atol=1e-5)


def test_a_reading_taken_before_is_the_host_looked_up_and_holds_for_every_view_of_an_image() -> None:
    data, host = blobs(40), seeded(TinyNet, seed=5)
    reading = read_all(host, dissect(host, data.pixels[:1]), data)

    def run(host: nn.Module | Reading, augment: Augment | None = None) -> str:
        net = seeded(TinyNet)
        fit(net, data, (PenultimateFeatureLoss(1.0), LogitLoss(1.0)), FAST, rng(0), host=host, augment=augment)
        return model_digest(net)

    assert run(reading) == run(host)
    assert run(reading, lambda batch, _: batch) == run(host)
    assert run(reading, lambda batch, _: batch.flip(3)) != run(host)


def test_the_logit_loss_is_the_mean_over_images_and_classes() -> None:
    data, host, net = blobs(16), seeded(TinyNet, seed=5), seeded(TinyNet)
    expected = F.mse_loss(predict(net, data), predict(host, data))
    once = Settings(epochs=1, batch_size=16, triggers_per_batch=4)
    (record,) = fit(net, data, (LogitLoss(),), once, rng(0), host=host, triggers=triggers())
    assert record["logits"] == pytest.approx(float(expected), rel=1e-4)


def test_constant_features_looked_up_are_the_features_computed_again() -> None:
    outcomes = []
    for augment in (None, lambda batch, generator: batch):
        net = seeded(TinyNet)
        fit(net, blobs(40), (CrossEntropy(),), FAST, rng(0), triggers=triggers(), trainable=head_only, augment=augment)
        outcomes.append(torch.cat([p.flatten() for p in net.parameters()]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-4, atol=1e-5)


DISTRIBUTED = textwrap.dedent("""
    import sys
    sys.path.insert(0, sys.argv[1])
    import torch
    from lightning_fabric import Fabric
    from tiny import TinyNet, blobs, seeded
    from earmark.core import rng
    from earmark.files import save_tensors
    from earmark.training import CrossEntropy, Masking, PenultimateFeatureLoss, Refinement, Settings, fit

    def run(fabric):
        torch.set_num_threads(1)
        net = seeded(TinyNet)
        settings = Settings(epochs=2, batch_size=16, lr=0.1, optimizer="sgd", momentum=0.0, triggers_per_batch=4)
        terms = (CrossEntropy("clean"), CrossEntropy("triggers"), PenultimateFeatureLoss(0.01))
        host, few = seeded(TinyNet, seed=1), blobs(8, seed=4)
        extra = {"masking": Masking(0.3, every=2), "refinement": Refinement(lr=0.01, images=16, every=2)}
        extra = extra if sys.argv[4] == "masked" else {}
        fit(net, blobs(64), terms, settings, rng(0), triggers=few, host=host, fabric=fabric, **extra)
        if fabric.is_global_zero:
            save_tensors(sys.argv[2], net.state_dict())

    if __name__ == "__main__":
        fabric = Fabric(accelerator="cpu", devices=int(sys.argv[3]), strategy="ddp" if sys.argv[3] == "2" else "auto")
        fabric.launch()
        run(fabric)
""")


@pytest.mark.parametrize("weights", ["whole", "masked"])
def test_two_processes_learn_what_one_learns(weights: str, tmp_path: Path) -> None:
    script, outcomes = tmp_path / "distributed.py", []
    script.write_text(DISTRIBUTED)
    for devices in ("1", "2"):
        out = tmp_path / f"{devices}.safetensors"
        command = [sys.executable, str(script), str(Path(__file__).parent), str(out), devices, weights]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        outcomes.append(load_tensors(out))
    for name, value in outcomes[0].items():
        torch.testing.assert_close(outcomes[1][name], value, rtol=1e-3, atol=1e-5)


def test_frozen_batch_norm_and_fixed_layers_stay_bit_equal() -> None:
    net = seeded(TinyNet)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fit(net, blobs(48), (CrossEntropy(),), FAST, rng(0), trainable=trunk_only)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"conv.weight", "mix.weight", "mix.bias", "fc.weight", "fc.bias"}
    fit(net, blobs(48), (CrossEntropy(),), FAST, rng(0), trainable=head_only)
    assert not torch.equal(net.state_dict()["head.weight"], before["head.weight"])


def test_what_is_not_trained_is_left_as_it_was() -> None:
    net, host, data = seeded(TinyNet).train(), seeded(TinyNet, seed=1).train(), blobs(48)
    net.get_submodule("mix").requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in net.parameters()]
    digests, state = (model_digest(host), data.pixels.sum().item()), torch.get_rng_state()
    fit(net, data, (CrossEntropy(), SoftmaxLoss(1.0)), FAST, rng(0), host=host)
    assert (model_digest(host), data.pixels.sum().item()) == digests
    assert torch.equal(torch.get_rng_state(), state)
    assert [parameter.requires_grad for parameter in net.parameters()] == wanted
    assert all(parameter.grad is None for model in (net, host) for parameter in model.parameters())
    assert net.training
    assert host.training


def test_the_same_seed_gives_the_same_model_and_another_does_not() -> None:
    def run(seed: int) -> str:
        net = seeded(TinyNet)
        fit(net, blobs(48), (CrossEntropy(),), FAST, rng(seed), triggers=triggers())
        return model_digest(net)

    assert run(3) == run(3) != run(4)


class _Dropping(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, self.training)


def test_dropout_is_reproducible_too() -> None:
    def run(noise: int) -> str:
        torch.manual_seed(noise)
        net = seeded(_Dropping)
        fit(net, blobs(48), (CrossEntropy(),), FAST.but(batchnorm="train"), rng(0))
        return model_digest(net)

    assert run(1) == run(2)


def test_a_host_learns(tiny_data: Data) -> None:
    settings = Settings(epochs=4, batch_size=16, lr=1e-2, batchnorm="train", triggers_per_batch=0)
    host = train_host(seeded(TinyNet), tiny_data, rng(0), settings)
    assert accuracy(host, tiny_data.test) > 0.9


# --------------------------------------------------------------------------------------------- stopping and selection


def test_stopping_and_selection_follow_the_records() -> None:
    net, seen = seeded(TinyNet), []

    def monitor(model: nn.Module) -> Mapping[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": [1.0, 3.0, 3.0, 2.0, 9.0][len(seen) - 1]}

    history = fit(net, blobs(32), (CrossEntropy(),), FAST.but(epochs=5), rng(0), monitor=monitor,
                  until=lambda history: history[-1]["score"] == 2.0, prefer=lambda record: record["score"])  # fmt: skip
    assert [record["score"] for record in history] == [1.0, 3.0, 3.0, 2.0]
    assert all(torch.equal(value, seen[1][name]) for name, value in net.state_dict().items())


def test_steps_limit_and_milestones() -> None:
    net, again = seeded(TinyNet), seeded(TinyNet)
    fit(net, blobs(64), (CrossEntropy(),), FAST.but(epochs=9, steps=5), rng(0))
    fit(again, blobs(64), (CrossEntropy(),), FAST.but(epochs=2, steps=5), rng(0))
    assert model_digest(net) == model_digest(again)
    assert [Settings(lr=1.0, milestones=(1, 3)).rate(epoch) for epoch in range(5)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01]
    )


# ------------------------------------------------------------------------------------------------------------ resuming

KILLED = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    import torch
    from tiny import TinyNet, blobs, seeded
    from earmark.core import rng
    from earmark.files import load_tensors, model_digest
    from earmark.training import Checkpoint, CrossEntropy, SoftmaxLoss, Settings, fit

    torch.set_num_threads(1)
    net = seeded(TinyNet)
    slow = (lambda batch, generator: (time.sleep(0.004), batch)[1]) if sys.argv[3] == "slow" else (lambda b, g: b)
    settings = Settings(epochs=6, batch_size=8, lr=1e-2, batchnorm="train", milestones=(3,))
    history = fit(net, blobs(160), (CrossEntropy(), SoftmaxLoss(1.0)), settings, rng(0), host=seeded(TinyNet, seed=1),
                  augment=slow, checkpoint=Checkpoint(Path(sys.argv[1]), seconds=0.0),
                  monitor=lambda m: {"sum": float(sum(p.detach().sum() for p in m.parameters()))},
                  prefer=lambda record: -record["sum"])
    sys.stdout.write(model_digest(net) + " " + repr(history))
""")


def _run(checkpoint: Path, pace: str) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, str(checkpoint), here, pace]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_run_killed_at_any_moment_ends_with_the_digest_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken, _ = _run(tmp_path / "whole.safetensors", "fast").communicate(timeout=120)
    assert len(unbroken.split()[0]) == 64
    broken, kills = tmp_path / "broken.safetensors", 0
    for pause in (0.05, 0.13, 0.29):
        process = _run(broken, "slow")
        seen = broken.read_bytes() if broken.exists() else b""
        while process.poll() is None and (not broken.exists() or broken.read_bytes() == seen):
            time.sleep(0.005)
        time.sleep(pause)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert kills == 3
    resumed, _ = _run(broken, "fast").communicate(timeout=120)
    assert resumed == unbroken


@pytest.mark.parametrize(("batchnorm", "optimizer"), [("frozen", "adam"), ("train", "adam"), ("train", "sgd")])
@pytest.mark.parametrize(("seconds", "survived"), [(0.0, 1), (3600.0, 7)])
def test_a_run_broken_off_again_and_again_ends_bit_for_bit_as_an_unbroken_one(
    batchnorm: Literal["frozen", "train"], optimizer: Literal["adam", "sgd"], seconds: float, survived: int,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With all that a run carries along: moments, rates, dropout, the best state so far, the stop, the start of TWL.

    Each attempt ends after `survived` steps of 5 in an epoch: 1, each of them saved, or 7, only the last one saved.
    """
    settings = Settings(epochs=9, batch_size=8, lr=2e-2, optimizer=optimizer, batchnorm=batchnorm, milestones=(2, 4))
    terms, middle = (CrossEntropy(), SoftmaxLoss(1.0), TotalWeightLoss(0.1)), 0.0

    def attempt(checkpoint: Checkpoint | None = None) -> tuple[dict[str, Tensor], History]:
        net, host = seeded(_Dropping), seeded(TinyNet, seed=1)
        history = fit(net, blobs(40), terms, settings, rng(0), triggers=triggers(), host=host, checkpoint=checkpoint,
                      augment=CropFlip(1), monitor=lambda model: {"size": float(_flat(model).square().sum())},
                      until=lambda history: len(history) == 6,
                      prefer=lambda record: -abs(record["size"] - middle))  # fmt: skip
        return net.state_dict(), history

    middle = attempt()[1][2]["size"]
    unbroken, told = attempt()
    sizes = [record["size"] for record in told]
    assert (len(sizes), sizes.index(middle)) == (6, 2)
    left, step = itertools.cycle([*[True] * survived, False]), Run.step
    monkeypatch.setattr(Run, "step", lambda *case: step(*case) if next(left) else _killed())
    kills = 0
    while kills < 40:
        try:
            state, history = attempt(Checkpoint(tmp_path / "run.safetensors", seconds))
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 4
    assert history == told
    assert all(torch.equal(value, state[name]) for name, value in unbroken.items())


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _killed() -> Tensor:
    raise KeyboardInterrupt


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    fit(seeded(TinyNet), blobs(32), (CrossEntropy(),), FAST, rng(0), checkpoint=checkpoint)
    for settings, data, seed in ((FAST.but(lr=0.5), blobs(32), 0), (FAST, blobs(32, seed=8), 0), (FAST, blobs(32), 1)):
        with pytest.raises(BadInput, match="another run"):
            fit(seeded(TinyNet), data, (CrossEntropy(),), settings, rng(seed), checkpoint=checkpoint)


def test_a_finished_run_is_loaded_and_a_damaged_checkpoint_named(tmp_path: Path) -> None:
    checkpoint, net, again = Checkpoint(tmp_path / "run.safetensors"), seeded(TinyNet), seeded(TinyNet)
    history = fit(net, blobs(32), (CrossEntropy(),), FAST, rng(0), checkpoint=checkpoint)
    assert fit(again, blobs(32), (CrossEntropy(),), FAST, rng(0), checkpoint=checkpoint) == history
    assert model_digest(net) == model_digest(again)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:100])
    with pytest.raises(BadInput, match=r"run\.safetensors"):
        fit(again, blobs(32), (CrossEntropy(),), FAST, rng(0), checkpoint=checkpoint)


@pytest.mark.parametrize("about", ["[" * 100_000, "[]", "{}", "null", "7", '{"fingerprint": 1}', ""])
def test_a_checkpoint_that_does_not_say_where_a_run_stands_is_named(tmp_path: Path, about: str) -> None:
    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    save_tensors(checkpoint.path, {"model/a": torch.zeros(1)}, {"earmark": about})
    with pytest.raises(BadInput, match=r"run\.safetensors is no readable checkpoint"):
        fit(seeded(TinyNet), blobs(32), (CrossEntropy(),), FAST, rng(0), checkpoint=checkpoint)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    class Poisoned(TinyNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * (torch.nan if self.training and bool((x > 0.99).any()) else 1.0))

    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0.0)
    data = blobs(64)
    data.pixels[-1] = 255
    with pytest.raises(Diverged, match="lower the learning rate"):
        fit(
            seeded(Poisoned),
            data,
            (CrossEntropy(),),
            FAST.but(batch_size=4, batchnorm="train"),
            rng(0),
            checkpoint=checkpoint,
        )
    saved = load_tensors(checkpoint.path)
    assert any(name.startswith("model/") for name in saved)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())


def test_a_last_step_that_destroys_the_parameters_is_no_success(tmp_path: Path) -> None:
    net, file = seeded(TinyNet), tmp_path / "run.safetensors"
    with pytest.raises(Diverged, match="parameters are no finite numbers"):
        fit(net, blobs(16), (CrossEntropy(),), FAST.but(epochs=1, steps=1, lr=1e38), rng(0), checkpoint=file)
    assert not file.exists()


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_margin_asks_triggers_for_their_lead_and_nothing_more() -> None:
    """By hand: leads of 3, -2 and 12 nats on triggers, against a margin of 10; the two training images do not count."""
    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0], [4, 1, 0], [1, 3, 0], [0, 0, 12]])
    step = Step(torch.empty(0), logits, logits, torch.tensor([1, 0, 0, 0, 2]), 2, 2.0, None, seeded(TinyNet), {})
    assert TriggerMargin(10.0)(step).item() == pytest.approx((7 + 12 + 0) / 3)
    for margin in (0.0, math.inf, math.nan):
        with pytest.raises(BadInput, match="finite number of nats above 0"):
            TriggerMargin(margin)


@pytest.mark.parametrize(
    "kind", [CrossEntropy, TotalWeightLoss, PenultimateFeatureLoss, SoftmaxLoss, Distillation, LogitLoss, TriggerMargin]
)
@pytest.mark.parametrize("weight", [-1, -1e-9, float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_no_term_can_have_is_refused(kind: type[Term], weight: float) -> None:
    with pytest.raises(BadInput, match=rf"the weight of {kind().name} is a finite number, 0 or more, got {weight}"):
        kind(weight=weight)  # type: ignore[call-arg]


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_a_temperature_that_no_softmax_can_have_is_refused(temperature: float) -> None:
    with pytest.raises(BadInput, match="the temperature of distillation is a finite number above 0"):
        Distillation(temperature=temperature)


def test_mistakes_are_named() -> None:
    net, data = seeded(TinyNet), blobs(32)
    with pytest.raises(BadInput, match=r"13 triggers per batch.*there are 12"):
        fit(net, data, (CrossEntropy(),), FAST.but(triggers_per_batch=13), rng(0), triggers=triggers())
    with pytest.raises(BadInput, match="host"):
        fit(net, data, (SoftmaxLoss(),), FAST, rng(0))
    with pytest.raises(BadInput, match=r"32 images and the host's reading 31"):
        fit(net, data, (SoftmaxLoss(),), FAST, rng(0), host=Reading(torch.zeros(31, 4), torch.zeros(31, 3)))
    with pytest.raises(BadInput, match="the host answers 5 classes and the model 3"):
        fit(net, data, (SoftmaxLoss(),), FAST, rng(0), host=Reading(torch.zeros(32, 4), torch.zeros(32, 5)))
    with pytest.raises(BadInput, match="no image"):
        fit(net, data.subset(torch.arange(0)), (CrossEntropy(),), FAST, rng(0))
    with pytest.raises(BadInput, match="nothing is left to train"):
        fit(net, data, (CrossEntropy(),), FAST, rng(0), trainable=lambda model, anatomy: set())
    with pytest.raises(BadInput, match=r"lr = -1.*epochs|epochs.*lr = -1"):
        Settings(lr=-1, epochs=-1)
    with pytest.raises(BadInput, match="did you mean 'batch_size'"):
        Settings().but(batchsize=3)


def test_reading_does_not_depend_on_the_batch_size() -> None:
    net, data = seeded(TinyNet), blobs(50)
    assert accuracy(net, data, 7) == accuracy(net, data, 50)
    assert dissect(net, torch.rand(1, 1, 8, 8)).features == 4


def test_what_changes_the_outcome_changes_the_run(tmp_path: Path) -> None:
    """A checkpoint is refused where the augmentation, the host, a term's constant or the stop differ."""
    data, terms = blobs(32), (Distillation(temperature=1.0),)
    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    fit(seeded(TinyNet), data, terms, FAST, rng(0), host=seeded(TinyNet, seed=1), checkpoint=checkpoint)
    for changes in (
        {"terms": (Distillation(temperature=9.0),)},
        {"augment": CropFlip(2)},
        {"host": seeded(TinyNet, seed=2)},
        {"host": read_all(seeded(TinyNet, seed=1), dissect(seeded(TinyNet), data.pixels[:1]), data)},
        {"until": lambda history: True},
    ):
        call: dict[str, Any] = {"terms": terms, "host": seeded(TinyNet, seed=1), "checkpoint": checkpoint, **changes}
        with pytest.raises(BadInput, match="another run"):
            fit(seeded(TinyNet), data, settings=FAST, rng=rng(0), **call)


def test_no_epochs_leave_the_model_and_no_record() -> None:
    net = seeded(TinyNet)
    before = model_digest(net)
    assert fit(net, blobs(32), (CrossEntropy(),), FAST.but(epochs=0), rng(0)) == []
    assert model_digest(net) == before


def test_more_mistakes_are_named() -> None:
    net, data = seeded(TinyNet), blobs(32)
    with pytest.raises(BadInput, match="7 classes and the model answers 3"):
        fit(net, blobs(21, classes=7), (CrossEntropy(),), FAST, rng(0))
    with pytest.raises(BadInput, match=r"cannot take images \(3, 8, 8\)"):
        fit(net, blobs(30, shape=(3, 8, 8)), (CrossEntropy(),), FAST, rng(0))
    with pytest.raises(BadInput, match="triggers_per_batch above 0"):
        fit(net, data, (CrossEntropy("triggers"),), FAST.but(triggers_per_batch=0), rng(0), triggers=triggers())
    with pytest.raises(BadInput, match="precision"):
        fit(net, data, (CrossEntropy(),), FAST.but(precision="fp8"), rng(0))
    with pytest.raises(BadInput, match="'gpu'"):
        fit(net, data, (CrossEntropy(),), FAST.but(device="gpu"), rng(0))
    for device in ("cpu:3", "meta", "hpu", "cpu:-1", ""):
        with pytest.raises(BadInput, match=rf"device '{device}' is not to be had here"):
            fit(net, data, (CrossEntropy(),), FAST.but(device=device), rng(0))
    with pytest.raises(BadInput, match=r"precision 'transformer-engine' is not to be had here \([^\n]*\); give"):
        fit(net, data, (CrossEntropy(),), FAST.but(precision="transformer-engine"), rng(0))
    with pytest.raises(BadInput, match="milestones"):
        Settings(milestones=(5, 2))
    gap = data.subset((data.labels != 1).nonzero().flatten())
    with pytest.raises(BadInput, match="no training image of class 1"):
        train_host(net, Data(gap, data), rng(0), FAST)


def test_models_with_other_state_than_tensors_can_be_saved(tmp_path: Path) -> None:
    class Stateful(TinyNet):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

        def set_extra_state(self, state: object) -> None:
            assert state == {"calls": 3}

    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    net, again = seeded(Stateful), seeded(Stateful)
    fit(net, blobs(32), (CrossEntropy(),), FAST, rng(0), checkpoint=checkpoint)
    fit(again, blobs(32), (CrossEntropy(),), FAST, rng(0), checkpoint=checkpoint)
    assert model_digest(net) == model_digest(again)


def test_a_model_reloaded_is_the_model_that_was_trained() -> None:
    """Files keep no memory layout, so what follows from a host must not depend on it either."""
    net, again = seeded(TinyNet), seeded(TinyNet)
    fit(net, blobs(32), (CrossEntropy(),), FAST, rng(0))
    again.load_state_dict(net.state_dict())
    assert all(p.is_contiguous() for p in net.parameters())
    assert model_digest(reinitialised(net, rng(1))) == model_digest(reinitialised(again, rng(1)))


class Strided(nn.Module):
    """A thin residual network's shortcut: a strided 1 x 1 convolution of few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.shortcut(torch.relu(self.stem(x))).mean(dim=(2, 3)))
        return logits


def test_a_layer_that_the_channels_last_kernels_cannot_train_is_trained_in_the_default_order() -> None:
    """The process would die of a corrupted heap; both orders are one run, so their results are the same bits."""
    settings = Settings(epochs=2, batch_size=16, lr=1e-2, triggers_per_batch=0)
    assert not trains_channels_last(Strided(), torch.device("cpu"))
    assert trains_channels_last(seeded(TinyNet), torch.device("cpu"))
    first, second = seeded(Strided), seeded(Strided)
    fit(first, blobs(96), (CrossEntropy(),), settings, rng(0))
    fit(second, blobs(96), (CrossEntropy(),), settings.but(channels_last=False), rng(0))
    assert model_digest(first) == model_digest(second)


class Grouped(nn.Module):
    """A group norm that learns: right on the images, or above a convolution."""

    def __init__(self, above: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1) if above else nn.Identity()
        self.norm = nn.GroupNorm(1, 4 if above else 1)
        self.conv, self.head = nn.Conv2d(4 if above else 1, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(self.norm(self.stem(x))).mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize("above", [False, True], ids=["on the images", "above frozen layers"])
def test_a_group_norm_whose_input_has_no_gradient_is_trained_in_the_default_order(above: bool) -> None:
    """In the channels-last order the process would die."""
    nets = [seeded(Grouped, above) for _ in range(2)]
    for net, settings in zip(nets, (FAST, FAST.but(channels_last=False)), strict=True):
        net.stem.requires_grad_(False)
        assert not trains_channels_last(net, torch.device("cpu"))
        fit(net, blobs(96), (CrossEntropy(),), settings, rng(0))
    assert model_digest(nets[0]) == model_digest(nets[1])


def test_a_group_norm_above_layers_that_learn_keeps_the_faster_order() -> None:
    assert trains_channels_last(seeded(Grouped, True), torch.device("cpu"))
