"""What every scheme owes its users, row by row: a new scheme is one more row in `ROWS`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Chain, blobs, seeded
from torch import Tensor, nn

from earmark.attacks import AdversarialTriggers, ForgedProjection, SolvedPassports
from earmark.core import Data, Images, Mark, rng
from earmark.embed import Backdoor, PassportLayers, Uchida, ftal, passport_v1
from earmark.embed import adi as two_to_a_batch
from earmark.embed import entangled as drawn_near
from earmark.embed import exponential_weighting as weighted
from earmark.embed import function_coupled as algorithm_1
from earmark.evidence import Bundle
from earmark.evidence.judge import minting_fault
from earmark.files import digest, model_digest
from earmark.keys import MarkKey
from earmark.marks import (
    Abstract,
    Frontier,
    Fused,
    HashChain,
    Noise,
    Noised,
    OneClass,
    PassportMint,
    Patched,
    Penetrative,
    ProjectionMint,
    Relabelled,
    Stamped,
    TriggerSet,
    Unrelated,
    is_chain,
)
from earmark.models import PlainCNN
from earmark.schemes import SCHEMES, Scheme, scheme_of
from earmark.training import HOST, Settings, train_host
from earmark.verify import TriggerTest

# ---------------------------------------------------------------------------------------------------- the table of rows

CLASSES, SHAPE = 6, (1, 12, 12)
DATA = Data(*(blobs(n, CLASSES, SHAPE, seed) for n, seed in ((420, 1), (120, 2))))
ELSEWHERE = Images(
    torch.randint(256, (60, 3, 9, 10), generator=rng(3), dtype=torch.uint8), torch.arange(60) % 4, 4, "elsewhere"
)
KEY, ANOTHER = MarkKey(bytes(range(32))), MarkKey(bytes(32))
QUICK: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 32,
    "triggers_per_batch": 24,
    "lr": 5e-3,
    "optimizer": "adam",
    "milestones": (),
    "weight_decay": 0.0,
    "enough": 1.0,
    "patience": 4,
    "watch": 0,
}
FORGING: dict[str, Any] = {"epsilon": 200, "steps": 200, "step": 2}
"""The blobs are black and white: noise that turns an answer is seen."""
PASSPORTED = Settings(epochs=8, batch_size=16, lr=1e-2, batchnorm="train", triggers_per_batch=0)
N = 24


@dataclass(frozen=True)
class Row:
    """A scheme with quick settings, and what it declares.

    Attributes:
        name: in `SCHEMES`.
        parts: the mint and the embedding.
        null: the basis of the null that its verdict uses; without one no verdict may accept.
        forged: what V says of the forgery of I on the model that it was made for; a judge refuses it in any case.
    """

    name: str
    parts: Callable[[], dict[str, Any]]
    null: str = "exact"
    forged: bool | None = True


def quickly(mint: Any, embed: Backdoor | None = None, **changes: Any) -> Callable[[], dict[str, Any]]:
    method = (embed or ftal()).but(**{**QUICK, "batchnorm": "train", **changes})
    return lambda: {"mint": mint, "embed": method}


GROUPS: dict[str, Any] = {"count": N, "group": 2, "teaching": 96}
ROWS: dict[str, Row] = {
    "deep fidelity": Row("deep-fidelity", quickly(Noise(N))),
    "adi": Row("adi", quickly(Abstract(N), two_to_a_batch())),
    "adi from scratch": Row("adi", quickly(Abstract(N), two_to_a_batch(fresh=True))),
    "content": Row("zhang-content", quickly(Stamped(N, text="T"))),
    "content, one target": Row(
        "zhang-content", quickly(Stamped(N, OneClass(0), text="T", carrier_class=1)), "none", None
    ),
    "noise": Row("zhang-noise", quickly(Noised(N))),
    "noise, one target": Row("zhang-noise", quickly(Noised(N, OneClass(0), carrier_class=1)), "none", None),
    "unrelated": Row("zhang-unrelated", quickly(Unrelated(N, source=ELSEWHERE))),
    "exponential weighting": Row("exponential-weighting", quickly(Relabelled(N), weighted())),
    "frontier stitching": Row("frontier-stitching", quickly(Frontier(N, epsilon=0.3)), "none", None),
    "entangled": Row("entangled", quickly(Patched(**GROUPS), drawn_near())),
    "entangled, one target": Row(
        "entangled", quickly(Patched(N, OneClass(2), 1, 24, carrier_class=1), drawn_near()), "none", None
    ),
    "null embedding": Row("null-embedding", quickly(Patched(**GROUPS, opposed=48))),
    "one-way chain": Row("one-way-chain", quickly(HashChain(N), two_to_a_batch())),
    "function-coupled": Row("function-coupled", quickly(Fused(30, group=2, teaching=120), algorithm_1())),
    "penetrative": Row("penetrative", quickly(Penetrative(**GROUPS, search=None), ftal())),
    "uchida": Row("uchida", lambda: {"mint": ProjectionMint(bits=40), "embed": Uchida(settings=PASSPORTED, watch=0)}),
    "deepipr": Row(
        "deepipr",
        lambda: {
            "mint": PassportMint(2, witnesses=30),
            "embed": passport_v1().but(settings=PASSPORTED, sign=1.0, watch=0),
        },
    ),
}
every_row = pytest.mark.parametrize("row", ROWS)


# -------------------------------------------------------------------------------------------- models, once for each run


@dataclass(frozen=True)
class Run:
    """A row, embedded."""

    scheme: Scheme[Any]
    host: nn.Module
    mark: Mark
    marked: nn.Module


def network(row: str) -> nn.Module:
    if row == "deepipr":
        return seeded(Chain, classes=CLASSES, width=16)
    return seeded(PlainCNN, SHAPE, CLASSES, width=8, features=24)


@cache
def learnt(row: str, seed: int) -> nn.Module:
    """A model of a row's architecture that has learnt the task, from images of its own."""
    data = Data(blobs(420, CLASSES, SHAPE, 10 + seed), DATA.test)
    settings = HOST.but(epochs=4, batch_size=32, lr=5e-3, milestones=())
    return train_host(network(row), data, rng(seed), settings).train()


def family(row: str) -> str:
    return "deepipr" if row == "deepipr" else "plain"


@cache
def run(row: str) -> Run:
    scheme = SCHEMES[ROWS[row].name](**ROWS[row].parts())
    host = learnt(family(row), 0)
    mark = scheme.mint(KEY, host, DATA)
    return Run(scheme, host, mark, scheme.embed(host, mark, DATA, rng(1)))


# ---------------------------------------------------------------------------------------------------------------- laws


def test_every_scheme_has_a_row_and_its_own_name() -> None:
    assert {row.name for row in ROWS.values()} == set(SCHEMES)


@every_row
def test_a_scheme_is_known_by_its_own_mark(row: str) -> None:
    its = run(row)
    assert its.scheme.name == ROWS[row].name
    shared = ("deep-fidelity", "adi", "zhang-content", "zhang-unrelated")  # their triggers go with any embedding
    assert scheme_of(its.mark) == (ROWS[row].name if ROWS[row].name not in shared else "deep-fidelity")


@every_row
def test_v_accepts_after_e_where_there_is_a_null_and_is_inconclusive_without_one(row: str) -> None:
    its = run(row)
    verdict = its.scheme.verify(its.marked, its.mark)
    assert its.mark.null.basis == verdict.null.basis == ROWS[row].null
    assert verdict.accepted is (True if ROWS[row].null == "exact" else None)
    assert verdict.details["share"] >= 0.85


@every_row
def test_v_accepts_no_innocent_model_and_no_other_key(row: str) -> None:
    its = run(row)
    others = [
        its.scheme.verify(its.host, its.mark),
        its.scheme.verify(learnt(family(row), 1), its.mark),
        its.scheme.verify(its.marked, its.scheme.mint(ANOTHER, its.host, DATA)),
    ]
    if ROWS[row].null == "exact":
        assert [verdict.accepted for verdict in others] == [False] * 3
    else:
        assert True not in [verdict.accepted for verdict in others]


@every_row
def test_f_holds_after_e(row: str) -> None:
    its = run(row)
    report = its.scheme.fidelity(its.marked, its.host, DATA)
    assert report.host_val_acc > 0.95
    assert report.val_acc > report.host_val_acc - 0.05


@every_row
def test_v_on_a_forgery_is_as_declared_and_a_judge_mints_none(row: str) -> None:
    its = run(row)
    stolen, forger = learnt(family(row), 1), its.scheme.invert
    assert isinstance(forger, AdversarialTriggers | SolvedPassports | ForgedProjection)
    if isinstance(forger, AdversarialTriggers):
        forger = replace(forger, **FORGING)
    forged: Any = forger.forge(stolen, DATA, rng(4))
    verdict = its.scheme.verify(getattr(forged, "model", stolen), forged.mark)
    assert verdict.accepted is ROWS[row].forged
    assert verdict.details["share"] > 0.8
    assert minting_fault(its.mark, KEY) is None
    assert minting_fault(forged.mark, forged.owner.mark_key(forged.name)) is not None


@every_row
def test_e_leaves_host_mode_device_and_the_world_alone_and_is_repeatable(row: str) -> None:
    its, brief = run(row), brief_embed(row)
    host = copy.deepcopy(its.host)
    about = (
        [(n, m.training) for n, m in host.named_modules()],
        [(n, p.requires_grad) for n, p in host.named_parameters()],
    )
    before, state = model_digest(host), torch.get_rng_state()
    first, again, other = (brief(host, its.mark, DATA, rng(seed)) for seed in (5, 5, 6))
    assert model_digest(host) == before
    assert about == (
        [(n, m.training) for n, m in host.named_modules()],
        [(n, p.requires_grad) for n, p in host.named_parameters()],
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert {p.device for p in first.parameters()} == {p.device for p in host.parameters()}
    assert model_digest(first) == model_digest(again) != model_digest(other)


def about(model: nn.Module) -> tuple[Any, ...]:
    modes = [(name, module.training) for name, module in model.named_modules()]
    return model_digest(model), modes, [(n, p.requires_grad, p.device, p.grad) for n, p in model.named_parameters()]


def brief_embed(row: str, **changes: Any) -> Any:
    embed: Any = run(row).scheme.embed
    return embed.but(epochs=1, **changes)


@every_row
def test_the_same_key_mints_the_same_mark(row: str) -> None:
    its = run(row)
    again, other = (its.scheme.mint(key, its.host, DATA) for key in (KEY, ANOTHER))
    mine, repeated, theirs = (digest(mark.tensors(), mark.spec()) for mark in (its.mark, again, other))
    assert mine == repeated != theirs


@every_row
def test_a_mark_comes_back_from_its_bundle(row: str, tmp_path: Path) -> None:
    its = run(row)
    Bundle.seal(its.mark, KEY, name="spring", scheme=its.scheme.name).write(tmp_path / "evidence")
    again = Bundle.read(tmp_path / "evidence").mark
    assert digest(again.tensors(), again.spec()) == digest(its.mark.tensors(), its.mark.spec())
    assert again.null == its.mark.null
    assert minting_fault(again, KEY) is None


@every_row
def test_nothing_of_the_mark_is_in_the_marked_state_dict(row: str) -> None:
    its = run(row)
    secrets = {content(tensor) for tensor in its.mark.tensors().values() if tensor.numel() > CLASSES}
    state = its.marked.state_dict()
    assert not secrets & {content(tensor) for tensor in state.values()}
    if isinstance(its.mark, TriggerSet):
        assert state.keys() == its.host.state_dict().keys()


def content(tensor: Tensor) -> tuple[float, ...]:
    """The numbers of a tensor, whatever its shape, type and scale."""
    numbers = tensor.detach().double().flatten()
    return tuple((numbers / numbers.abs().max().clamp_min(1e-30)).mul(1e6).round().tolist())


@every_row
def test_each_loss_weight_set_to_zero_changes_the_gradient(row: str) -> None:
    its, embed = run(row), run(row).scheme.embed
    whole = stepped(row, embed)
    assert isinstance(embed, Backdoor | Uchida | PassportLayers)
    if isinstance(embed, Uchida):
        without: list[Any] = [replace(embed, strength=0.0), replace(embed, terms=(zeroed(embed.terms[0]),))]
    elif isinstance(embed, PassportLayers):
        without = [replace(embed, sign=0.0)]
    else:
        terms = embed.terms_for(its.mark)  # type: ignore[arg-type]
        without = [replace(embed, terms=(*terms[:at], zeroed(terms[at]), *terms[at + 1 :])) for at in range(len(terms))]
    digests = [stepped(row, one) for one in without]
    assert whole not in digests
    assert len(set(digests)) == len(digests)


def zeroed(term: Any) -> Any:
    return replace(term, weight=0.0)


def stepped(row: str, embed: Any) -> str:
    """The weights after three plain gradient steps."""
    few = embed.but(epochs=1, steps=3, optimizer="sgd", momentum=0.0, lr=1e-3, watch=0)
    return model_digest(few(run(row).host, run(row).mark, DATA, rng(7)))


# ------------------------------------------------------------------------------------- what is peculiar to some of them


def test_a_forged_chain_is_no_chain() -> None:
    its = run("one-way chain")
    assert isinstance(its.mark, TriggerSet)
    assert is_chain(its.mark.images)
    assert isinstance(its.scheme.invert, AdversarialTriggers)
    assert not is_chain(its.scheme.invert(its.host, DATA, rng(0)).images)


def test_a_host_answers_half_of_its_frontier_and_the_stitched_model_all_of_it() -> None:
    its = run("frontier stitching")
    assert TriggerTest()(its.host, its.mark).statistic == N / 2  # type: ignore[arg-type]
    assert TriggerTest()(its.marked, its.mark).statistic > 0.9 * N  # type: ignore[arg-type]


def test_schemes_take_their_own_defaults() -> None:
    needs = {"zhang-unrelated"}
    assert {make().name for name, make in SCHEMES.items() if name not in needs} == set(SCHEMES) - needs
