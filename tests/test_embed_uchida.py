"""Uchida's watermark embedded, tested, removed in vain and forged: the forgery passes the test and no judge."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy.stats import binom
from tiny import Chain, TinyNet, blobs, seeded
from torch import Tensor, nn

from earmark import uchida
from earmark.attacks import FlipSigns, ForgedProjection, Overwrite, PruneGlobal, RescaleChannels, attack
from earmark.core import Data, rng
from earmark.embed import UCHIDA, FromScratch, Uchida
from earmark.errors import BadInput, CannotCarry
from earmark.evidence import Bundle, Case, Claim, arbitrate, commit, judge
from earmark.evidence.judge import minting_fault
from earmark.files import load_tensors, model_digest
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import Noise, Projection, ProjectionMint
from earmark.models import PlainCNN, ResNet18, built, dissect
from earmark.schemes import SCHEMES, scheme_of
from earmark.stats import GRINDING_BITS, critical_count
from earmark.suspects import as_query
from earmark.training import CrossEntropy, PenultimateFeatureLoss, Step, accuracy, head_only
from earmark.training.projecting import ProjectionLoss
from earmark.verify import ProjectionTest

KEY = MarkKey(bytes(range(32)))
DATA = Data(blobs(96, seed=1), blobs(60, seed=2))
SHORT = Uchida(watch=0).but(epochs=25, batch_size=16, strength=0.1)


class Perceptron(nn.Module):
    """Linear layers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.first(x.flatten(1))))
        return logits


NETS: dict[str, tuple[Callable[[], nn.Module], ProjectionMint]] = {
    "chain of batch norm": (lambda: Chain("bn", classes=3, width=16), ProjectionMint(signature="(c) A")),
    "chain of group norm": (lambda: Chain("gn", classes=3, width=16), ProjectionMint()),
    "grouped": (lambda: Chain("gn", groups=4, classes=3, width=16), ProjectionMint("trunk.3", 24)),
    "a convolution without norm": (TinyNet, ProjectionMint("mix")),
    "linear": (Perceptron, ProjectionMint("first", 40)),
    "plain": (lambda: PlainCNN((1, 8, 8), 3, width=16), ProjectionMint()),
    "resnet18": (lambda: ResNet18(3, channels=1, width=8), ProjectionMint("stages.3.1.c*2", 128)),
}


@cache
def case(name: str) -> tuple[nn.Module, Projection]:
    build, mint = NETS[name]
    host = built(build, rng(0))
    return host, mint(KEY, host, DATA)


@cache
def marked(name: str) -> nn.Module:
    """Which every test must leave as it is."""
    host, mark = case(name)
    return SHORT(host, mark, DATA, rng(1)).eval()


# ----------------------------------------------------------------------------------------------------------- embedding


@pytest.mark.parametrize("name", NETS)
def test_nearly_all_bits_are_in_a_copy_that_has_learnt_its_task(name: str) -> None:
    host, mark = case(name)
    state, mode, before = copy.deepcopy(host.state_dict()), host.training, torch.get_rng_state()
    model = SHORT(host, mark, DATA, rng(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert host.training == mode
    assert all(torch.equal(value, state[key]) for key, value in host.state_dict().items())
    assert float((mark.shown(model) == mark.bits).float().mean()) > 0.97
    assert accuracy(model, DATA.test) > 0.9
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_from_scratch_with_the_papers_run_the_bits_are_in_as_well() -> None:
    host, mark = case("chain of batch norm")
    run = UCHIDA.but(epochs=20, batch_size=16, milestones=(15,))
    model = SHORT.but(start=FromScratch(), settings=run, strength=0.01)(host, mark, DATA, rng(1))
    assert torch.equal(mark.shown(model), mark.bits)
    assert mark.text(mark.shown(model), KEY) == "(c) A"
    assert accuracy(model, DATA.test) > 0.9


def test_without_the_term_there_are_no_bits_and_the_same_seed_gives_the_same_network() -> None:
    host, mark = case("chain of batch norm")
    embed = SHORT.but(epochs=3)
    bare = embed.but(strength=0.0)(host, mark, DATA, rng(1))
    assert float((mark.shown(bare) == mark.bits).float().mean()) < 0.7
    digests = [model_digest(embed(host, mark, DATA, rng(seed))) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_it_is_embedded_with_other_terms_and_triggers_beside() -> None:
    host, mark = case("chain of batch norm")
    triggers = Noise(count=8).make(MarkKey(bytes(32)), DATA.shape, DATA.classes)
    told: list[Any] = []
    terms = (CrossEntropy(), PenultimateFeatureLoss())
    embed = SHORT.but(triggers=triggers, terms=terms, epochs=40, on_history=told.extend, watch=9)
    model = embed(host, mark, DATA, rng(1))
    assert ProjectionTest()(model, mark).accepted is True
    assert accuracy(model, triggers.as_images()) > 0.8
    assert set(told[-1]) == {"ce", "pfl", "projection", "bits", "trig_acc", "val_acc"}
    assert told[-1]["bits"] == pytest.approx(ProjectionTest()(model, mark).details["share"])


def stepped(model: nn.Module) -> Step:
    images, targets = DATA.train.pixels[:12].float() / 255, DATA.train.labels[:12]
    seen = dissect(model, images).read(model, images)
    return Step(images, seen.features, seen.logits, targets, 12, 12.0, None, model, {})


@pytest.mark.parametrize("name", ["grouped", "linear", "plain"])
def test_the_loss_and_its_gradient_are_those_of_the_formula(name: str) -> None:
    host, mark = case(name)
    weight = host.get_submodule(mark.layer.name).weight
    assert isinstance(weight, Tensor)
    (*_, term) = SHORT.but(strength=0.01).terms_for(mark)
    found = term.weight * term(stepped(host))
    wanted = torch.zeros(())
    for row, bit in zip(mark.projection, mark.bits, strict=True):
        y = torch.sigmoid(row @ weight.flatten(1).mean(0))
        wanted = wanted - 0.01 * torch.log(y if bit > 0 else 1 - y)
    torch.testing.assert_close(found, wanted)
    for a, b in zip(torch.autograd.grad(found, weight), torch.autograd.grad(wanted, weight), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_a_masked_layer_learns_the_bits_with_the_weights_that_will_be_released() -> None:
    host, mark = case("plain")
    (*_, term) = SHORT.terms_for(mark)
    unmasked = torch.randn(mark.layer.weight, generator=rng(3))
    step = stepped(host)
    seen = replace(step, unmasked={f"{mark.layer.name}.weight": unmasked})
    other = copy.deepcopy(host)
    other.load_state_dict({**host.state_dict(), f"{mark.layer.name}.weight": unmasked})
    torch.testing.assert_close(term(seen), term(stepped(other)))


def test_a_checkpoint_holds_neither_projection_nor_bits_and_one_of_another_mark_is_refused(tmp_path: Path) -> None:
    host, mark = case("plain")
    embed = SHORT.but(epochs=2, checkpoint=tmp_path / "run")
    model = embed(host, mark, DATA, rng(1))
    assert model_digest(model) == model_digest(embed(host, mark, DATA, rng(1)))
    raw, held = (tmp_path / "run").read_bytes(), load_tensors(tmp_path / "run").values()
    assert mark.projection.flatten()[:4].numpy().tobytes() not in raw
    assert KEY.secret.hex().encode() not in raw
    assert not any(tensor.shape in (mark.projection.shape, mark.bits.shape) for tensor in held)
    for changed, its in ((embed, ProjectionMint(bits=40)(KEY, host, DATA)), (embed.but(strength=0.2), mark)):
        with pytest.raises(BadInput, match="another run"):
            changed(host, its, DATA, rng(1))


def test_a_host_that_cannot_carry_it_is_refused() -> None:
    _, mark = case("chain of batch norm")
    with pytest.raises(CannotCarry, match="neither by name nor by shape"):
        SHORT(seeded(TinyNet), mark, DATA, rng(1))
    host, _ = case("linear")
    head = ProjectionMint("head", 20)(KEY, host, DATA)
    with pytest.raises(BadInput, match="is the head"):
        SHORT(host, head, DATA, rng(1))
    with pytest.raises(BadInput, match="not among the layers that are trained"):
        SHORT.but(trainable=head_only)(*case("linear"), DATA, rng(1))
    with pytest.raises(CannotCarry, match="5 classes and the host answers 3"):
        SHORT(*case("linear"), Data(blobs(50, 5), blobs(50, 5)), rng(1))
    for wrong in (-1.0, float("nan")):
        with pytest.raises(BadInput, match="strength"):
            Uchida(strength=wrong)
        with pytest.raises(BadInput, match="projection loss"):
            ProjectionLoss("a", mark.projection, mark.bits, wrong)


def test_the_mean_of_a_heads_rows_is_in_no_answer() -> None:
    """Which is why a head is refused: whoever subtracts it keeps every probability."""
    host = copy.deepcopy(case("linear")[0])
    images = DATA.test.pixels.float() / 255
    before = torch.softmax(host(images), 1)
    head = host.get_submodule("head")
    assert isinstance(head, nn.Linear)
    head.weight.data -= head.weight.data.mean(0)
    torch.testing.assert_close(torch.softmax(host(images), 1), before)


# ------------------------------------------------------------------------------------------------------------ the test


def test_the_chance_of_a_false_accept_is_at_most_alpha_by_enumeration() -> None:
    _, mark = case("linear")
    for alpha, grinding in ((0.3, 0), (0.01, 0), (1e-4, 3)):
        chance = 0.0
        for matches in range(41):
            shown = mark.bits.clone()
            shown[matches:] *= -1
            verdict = ProjectionTest(alpha, grinding).judged(shown, mark)
            p = 2**grinding * float(binom.sf(matches - 1, 40, 0.5))
            assert verdict.log10_p == pytest.approx(math.log10(min(1.0, p)), abs=1e-9)
            assert verdict.accepted is (p <= alpha)
            assert (verdict.details["matches"], verdict.details["hamming"]) == (matches, 40 - matches)
            chance += float(binom.pmf(matches, 40, 0.5)) if verdict.accepted else 0
        assert 0 < chance <= alpha / 2**grinding


def test_innocent_networks_and_other_keys_are_rejected() -> None:
    for seed in range(20):
        assert ProjectionTest()(built(NETS["plain"][0], rng(50 + seed)), case("plain")[1]).accepted is False
        other = ProjectionMint()(MarkKey((9 + seed).to_bytes(32, "big")), case("plain")[0], DATA)
        assert ProjectionTest()(marked("plain"), other).accepted is False


def test_too_few_bits_are_inconclusive_whatever_they_show() -> None:
    host, _ = case("plain")
    few = ProjectionMint(bits=12)(KEY, host, DATA)
    verdict = ProjectionTest().judged(few.bits, few)
    assert (verdict.accepted, verdict.details["exact"]) == (None, True)
    assert "mint more bits" in verdict.reason


def broken() -> nn.Module:
    class Secretive(PlainCNN):
        def named_modules(self, *args: Any, **settings: Any) -> Any:
            raise KeyError("no")

    return built(lambda: Secretive((1, 8, 8), 3), rng(0))


def without_numbers() -> nn.Module:
    suspect = copy.deepcopy(marked("plain"))
    for parameter in suspect.parameters():
        parameter.data.fill_(float("nan"))
    return suspect


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        lambda: PlainCNN((1, 8, 8), 3, width=8),
        lambda: nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(16, 32, 3)),
        lambda: copy.deepcopy(marked("plain")).to("meta"),
        without_numbers,
        broken,
        lambda: as_query(marked("plain")),
    ],
)
def test_a_suspect_in_which_no_bit_can_be_read_is_rejected(build: Callable[[], Any]) -> None:
    verdict = ProjectionTest()(build(), case("plain")[1])
    assert (verdict.accepted, verdict.statistic, verdict.log10_p) == (False, 0, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_types_are_read_and_the_suspect_stays_as_it_was(dtype: torch.dtype) -> None:
    suspect = copy.deepcopy(marked("plain")).to(dtype).train()
    before = copy.deepcopy(suspect.state_dict())
    assert ProjectionTest()(suspect, case("plain")[1]).accepted is True
    assert suspect.training
    assert all(torch.equal(value, before[name]) for name, value in suspect.state_dict().items())


# ------------------------------------------------------------------------------------------------- removal and forgery


@pytest.mark.parametrize("name", ["fine-tune-ftal", "prune-global", "half", "int8"])
def test_ordinary_removal_leaves_the_bits(name: str) -> None:
    left = attack(name)(marked("plain"), DATA, rng(3))
    assert ProjectionTest(grinding_bits=GRINDING_BITS)(left, case("plain")[1]).accepted is True


@pytest.mark.parametrize("free", [FlipSigns(layers="*"), RescaleChannels(layers="*", spread=50.0)])
def test_free_changes_of_channels_lose_bits_which_the_documents_say(free: Any) -> None:
    """The answers stay and the mean filter does not: the weakness of the scheme, in one test."""
    model, mark = marked("plain"), case("plain")[1]
    left = free(model, DATA, rng(3))
    assert accuracy(left, DATA.test) == accuracy(model, DATA.test)
    before, after = (ProjectionTest()(one, mark) for one in (model, left))
    assert after.statistic < before.statistic


def test_pruning_away_everything_leaves_no_bit() -> None:
    left = PruneGlobal(1.0)(marked("plain"), DATA, rng(3))
    assert ProjectionTest()(left, case("plain")[1]).statistic == 0


@pytest.mark.parametrize("name", ["plain", "linear", "grouped"])
@pytest.mark.parametrize("victim", ["marked", "host"])
def test_a_forged_projection_passes_the_published_test_and_every_judge_rejects_it(
    name: str, victim: str, tmp_path: Path
) -> None:
    host, mark = case(name)
    model, build = marked(name) if victim == "marked" else host, NETS[name][1]
    before = model_digest(model)
    forger = ForgedProjection(ProjectionMint(mark.layer.name, build.bits))
    forgery = forger.forge(model, DATA, rng(2))
    assert model_digest(model) == before
    verdict = ProjectionTest(alpha=1e-5)(model, forgery.mark)
    assert (verdict.accepted, verdict.details["exact"]) == (True, True)
    assert 0.2 < float((forgery.mark.bits == mark.bits).float().mean()) < 0.8
    honest = forger.mint(forgery.key, model, DATA)
    assert torch.equal(honest.bits, forgery.mark.bits)
    assert float((honest.projection - forgery.mark.projection).abs().max()) <= forger.steps * forger.lr * 1.001
    assert 0.9 < float(forgery.mark.projection.std()) < 1.2
    claim, evidence = commit(
        forgery.owner,
        forgery.mark,
        name=forgery.name,
        host=None,
        marked=model,
        scheme="uchida",
        out=tmp_path / "claim",
        check=False,
    )
    ruled = judge(claim, evidence, model)
    assert (ruled.accepted, ruled.details["step"]) == (False, "re-minting")


def test_without_a_step_the_forger_has_what_chance_gives_him_and_the_same_seed_the_same() -> None:
    model = marked("plain")
    assert ProjectionTest()(model, ForgedProjection(steps=0)(model, DATA, rng(2))).accepted is False
    digests = [ForgedProjection()(model, DATA, rng(seed)).digest() for seed in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(BadInput, match="steps"):
        ForgedProjection(steps=-1)
    with pytest.raises(BadInput, match="lr"):
        ForgedProjection(lr=-1.0)


def test_real_and_forged_bits_stay_under_fine_tuning_alike() -> None:
    """Table 2 of Fan et al. 2021: 100 % and 100 %, before and after."""
    model, mark = marked("plain"), case("plain")[1]
    forged = ForgedProjection()(model, DATA, rng(2))
    tuned = attack("fine-tune-rtal")(model, DATA, rng(3))
    assert [ProjectionTest()(tuned, one).details["share"] > 0.95 for one in (mark, forged)] == [True, True]


def test_an_owners_claim_is_accepted_from_its_files_and_a_thiefs_copy_of_the_evidence_is_not(tmp_path: Path) -> None:
    owner, host = OwnerKey.generate(), case("plain")[0]
    mark = ProjectionMint()(owner.mark_key("winter"), host, DATA)
    model = SHORT(host, mark, DATA, rng(1))
    told: dict[str, Any] = {"name": "winter", "host": host, "scheme": scheme_of(mark)}
    claim, evidence = commit(owner, mark, marked=model, out=tmp_path / "a", **told)
    verdict = judge(claim, evidence, model, owner_public=owner.public)
    assert verdict.accepted is True
    assert verdict.details["critical_count"] == critical_count(len(mark), 0.5, 1e-6, GRINDING_BITS)
    assert judge(claim, evidence, host).accepted is False
    assert judge(claim, evidence, as_query(model)).accepted is False
    with pytest.raises(BadInput, match="does not mint this mark"):
        commit(OwnerKey.generate(), mark, marked=model, out=tmp_path / "b", **told)
    with pytest.raises(BadInput, match="bits are the owner's"):
        commit(owner, mark, marked=host, out=tmp_path / "b", **told)


@pytest.mark.parametrize(("width", "kept"), [(96, True), (48, False)])
def test_a_thief_who_overwrites_loses_to_the_owner_where_the_layer_has_room_for_both(
    width: int, kept: bool, tmp_path: Path
) -> None:
    """144 bits twice are in filters of 864 numbers; in filters of 432 the later ones drive out the earlier."""
    owner, thief = (OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32)) for at in (1, 2))
    host = built(lambda: PlainCNN((1, 8, 8), 3, width=width), rng(0))
    embed, mint = SHORT.but(lr=0.02), ProjectionMint(bits=144)
    mark = mint(owner.mark_key("m"), host, DATA)
    model = embed(host, mark, DATA, rng(1))
    theft = Overwrite(mint, embed, thief.mark_key("m"))
    stolen = theft(model, DATA, rng(2))
    cases = []
    for name, who, its, released in (("owner", owner, mark, model), ("thief", thief, theft.mark(model, DATA), stolen)):
        told: dict[str, Any] = {"name": "m", "host": None, "scheme": "uchida", "out": tmp_path / name}
        claim, evidence = commit(who, its, marked=released, **told)
        cases.append(Case(name, Claim.read(claim), Bundle.read(evidence), released=released))
    outcomes = arbitrate(cases, stolen)
    assert [outcome.alone.accepted for outcome in outcomes] == [kept, True]
    assert outcomes[0].verdict.accepted is kept
    assert outcomes[1].verdict.accepted is not kept


# ----------------------------------------------------------------------------------------------------------- the scheme


def test_the_scheme_accepts_its_own_mark_and_its_forgery_but_no_innocent_network() -> None:
    """V alone is not enough: the forgery of I passes it, and is refused where marks are minted again."""
    scheme = uchida(embed=SHORT)
    host, _ = case("plain")
    mark = scheme.mint(KEY, host, DATA)
    model = scheme.embed(host, mark, DATA, rng(1))
    assert scheme_of(mark) == scheme.name == "uchida"
    assert SCHEMES[scheme.name] is uchida
    assert scheme.verify(model, mark).accepted is True
    assert scheme.verify(host, mark).accepted is False
    assert scheme.verify(model, scheme.mint(MarkKey(bytes(32)), host, DATA)).accepted is False
    assert scheme.fidelity(model, host, DATA).val_acc > 0.9
    assert isinstance(scheme.invert, ForgedProjection)
    forged = scheme.invert.forge(model, DATA, rng(2))
    assert scheme.verify(model, forged.mark).accepted is True
    assert minting_fault(mark, KEY) is None
    assert minting_fault(forged.mark, forged.key) is not None
