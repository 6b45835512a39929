"""A claim on passports, from its commitment to the ruling: what the judge mints again, reads and refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny import Chain, blobs, written
from torch import nn

from earmark.core import Data, rng
from earmark.errors import BadInput, Tampered
from earmark.evidence import Bundle, Case, Claim, arbitrate, claim_of, commit, judge
from earmark.evidence.kinds import KINDS, kind_of
from earmark.keys import OwnerKey
from earmark.layers import affine
from earmark.marks import MARKS, AnyMark, Noise, PassportMint, Passports, ProjectionMint
from earmark.models import built
from earmark.suspects import as_query

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
THIEF = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEY = OWNER.mark_key("winter")
DATA = Data(blobs(60, seed=1), blobs(60, seed=2))
MINT = PassportMint(2, signature="© Z", witnesses=5)


def network(seed: int = 0, width: int = 48) -> nn.Module:
    return built(lambda: Chain(classes=3, width=width), rng(seed))


MARK = MINT(KEY, network(), DATA)
MARKED = written(network(), MARK)
BUNDLE = Bundle.seal(MARK, KEY, name="winter", scheme="deepipr")
CLAIM = claim_of(OWNER, BUNDLE, host=None, marked=MARKED)


def claimed(owner: OwnerKey, mark: Passports, name: str = "winter") -> tuple[Claim, Bundle]:
    """A claim whose signature, commitment and digests are in order, whatever the mark is."""
    bundle = Bundle.seal(mark, owner.mark_key(name), name=name, scheme="deepipr")
    return claim_of(owner, bundle, host=None, marked=MARKED), bundle


def test_what_is_committed_is_judged_from_its_files(tmp_path: Path) -> None:
    claim, evidence = commit(
        OWNER, MARK, name="winter", host=network(), marked=MARKED, scheme="deepipr", out=tmp_path / "out"
    )
    opened = Bundle.read(evidence).mark
    assert isinstance(opened, Passports)
    assert opened.digest() == MARK.digest()
    assert Claim.read(claim).parameters.model_dump(exclude={"null"}) == {
        "n": 120,
        "classes": None,
        "image_shape": None,
        "alpha": 1e-6,
    }
    verdict = judge(claim, evidence, MARKED, owner_public=OWNER.public)
    assert verdict.accepted is True
    assert (verdict.statistic, verdict.n, verdict.details["step"]) == (120, 120, "suspect")
    assert verdict.log10_p == pytest.approx((64 - 120) * math.log10(2))
    assert json.loads(verdict.to_json())["details"]["exact"] is True
    assert judge(claim, evidence, network(3)).accepted is False


@pytest.mark.parametrize("how", ["image", "shuffle", "mix"])
def test_feature_maps_are_judged_as_they_stand(how: Any) -> None:
    class Knows(Chain):
        """Answers the stripe that tells the class of a blob."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 0 + torch.stack([x[..., at].sum((1, 2)) for at in (1, 3, 5)], 1)

    host = built(lambda: Knows(classes=3, width=48), rng(0))
    mark = PassportMint(2, passports=how, images=4, witnesses=0)(KEY, host, DATA)
    claim, bundle = claimed(OWNER, mark)
    assert judge(claim, bundle, written(network(), mark)).accepted is True
    assert judge(claim, bundle, network(3)).accepted is False


def test_a_commitment_that_no_judge_would_accept_is_refused(tmp_path: Path) -> None:
    told = {"name": "winter", "host": None, "scheme": "deepipr", "out": tmp_path / "out"}
    with pytest.raises(BadInput, match="bits are the owner's"):
        commit(OWNER, MARK, marked=network(), **told)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="does not mint this mark"):
        commit(THIEF, MARK, marked=MARKED, **told)  # type: ignore[arg-type]
    few = PassportMint("trunk.3")(KEY, network(), DATA)
    with pytest.raises(BadInput, match="too few"):
        commit(OWNER, few, marked=written(network(), few), **told)  # type: ignore[arg-type]


@pytest.mark.parametrize("sequential", [False, True])
def test_a_black_box_is_rejected_and_told_why(sequential: bool) -> None:
    verdict = judge(CLAIM, BUNDLE, as_query(MARKED), sequential=sequential)
    assert verdict.accepted is False
    assert "only answers queries" in verdict.reason


@pytest.mark.parametrize("suspect", [nn.Linear(4, 3), network(width=24), nn.Sequential()])
def test_a_suspect_without_these_layers_is_rejected(suspect: nn.Module) -> None:
    assert judge(CLAIM, BUNDLE, suspect).accepted is False


def test_bits_read_off_the_suspect_win_where_nothing_is_minted_again_and_lose_before_the_judge() -> None:
    """The forger knows the weights, takes random passports of his own and claims the signs that they give."""
    own = MINT.make(THIEF.mark_key("winter"), MARK.sites)
    forged = Passports(own.sites, own.pairs, own.read(own.weights_in(MARKED)), own.settings)
    assert kind_of(forged).test(MARKED, forged, 1e-6, 64).accepted is True
    verdict = judge(*claimed(THIEF, forged), MARKED)
    assert (verdict.accepted, verdict.details["step"]) == (False, "re-minting")


def test_chosen_feature_maps_cannot_be_fitted_because_the_bits_move_with_them() -> None:
    """Feature maps are the forger's to choose, so he solves for maps that show his key's bits: those bits are gone."""
    mint = PassportMint(2, passports="image", witnesses=0)
    thief = THIEF.mark_key("winter")
    start = mint.make(thief, MARK.sites, MARK.pairs)
    pairs = tuple((scale + 0.5 * torch.sign(scale), shift) for scale, shift in start.pairs)
    chosen = Passports(start.sites, pairs, start.bits, start.settings)
    assert judge(*claimed(THIEF, chosen), MARKED).details["step"] == "re-minting"
    honest = mint.make(thief, MARK.sites, pairs)
    verdict = judge(*claimed(THIEF, honest), MARKED)
    assert (verdict.accepted, verdict.details["step"]) == (False, "suspect")
    assert 30 <= verdict.details["matches"] <= 90


def test_opened_evidence_is_nobody_elses() -> None:
    stolen = Bundle.from_parts(BUNDLE.files["evidence.json"], BUNDLE.files["mark.safetensors"])
    verdict = judge(claim_of(THIEF, stolen, host=None, marked=MARKED), stolen, MARKED)
    assert (verdict.accepted, verdict.details["step"]) == (False, "re-minting")


@pytest.mark.parametrize("changed", [{"signature": "© Y"}, {"layers": 3}, {"tolerance": 100.0}, {"more": 1}])
def test_settings_that_mint_something_else_are_rejected(changed: dict[str, Any]) -> None:
    mark = Passports(MARK.sites, MARK.pairs, MARK.bits, {**MARK.settings, **changed}, MARK.witnesses)
    verdict = judge(*claimed(OWNER, mark), written(network(), MARK))
    if set(changed) <= {"layers", "tolerance"}:  # they say how the mark was made, and not one bit depends on them
        assert verdict.accepted is True
    else:
        assert (verdict.accepted, verdict.details["step"]) == (False, "re-minting")


def test_tampering_with_any_byte_names_the_file() -> None:
    evidence, tensors = BUNDLE.files["evidence.json"], BUNDLE.files["mark.safetensors"]
    for at in range(0, len(tensors), 101):
        with pytest.raises(Tampered, match=r"mark\.safetensors"):
            Bundle.from_parts(evidence, tensors[:at] + bytes([tensors[at] ^ 1]) + tensors[at + 1 :])
    for at in range(len(evidence)):
        with pytest.raises((Tampered, BadInput), match=r"evidence\.json"):
            Bundle.from_parts(evidence[:at] + bytes([evidence[at] ^ 1]) + evidence[at + 1 :], tensors)


def test_a_bundle_and_its_errors_show_nothing_of_the_passports() -> None:
    shown = repr(BUNDLE) + repr(CLAIM)
    for secret in (KEY.secret.hex(), "© Z", "tensor"):
        assert secret not in shown


def test_many_layers_fit_into_one_bundle_and_too_many_are_refused_when_they_are_minted() -> None:
    chain = nn.Sequential(*(layer for _ in range(120) for layer in (nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))))
    mark = PassportMint(120, witnesses=0)(KEY, chain, DATA)
    opened = Bundle.seal(mark, KEY, name="winter", scheme="deepipr").mark
    assert isinstance(opened, Passports)
    assert opened.digest() == mark.digest()
    with pytest.raises(BadInput, match="at most 500 layers, got 501"):
        MINT.make(KEY, MARK.sites[:1] * 501)


def test_an_overwriting_thief_loses_to_the_owner() -> None:
    """The thief adds passports of his own to the owner's network: hers are in his release, his not in hers."""
    own = MINT(THIEF.mark_key("mine"), network(), DATA)
    both = written(MARKED, own)
    kept = MARK.read(MARK.weights_in(both)) == MARK.bits
    assert float(kept.float().mean()) > 0.95
    theirs, its_bundle = claimed(THIEF, own, "mine")
    cases = [
        Case("owner", CLAIM, BUNDLE, released=MARKED),
        Case("thief", claim_of(THIEF, its_bundle, host=None, marked=both), its_bundle, released=both),
    ]
    assert theirs.kind == "passports"
    assert [outcome.alone.accepted for outcome in arbitrate(cases, both)] == [True, True]
    assert [outcome.verdict.accepted for outcome in arbitrate(cases, both)] == [True, False]


def test_a_claim_on_passports_and_one_on_triggers_of_one_suspect_are_both_ruled_on() -> None:
    triggers = Noise(150).make(THIEF.mark_key("mine"), DATA.shape, 3)
    bundle = Bundle.seal(triggers, THIEF.mark_key("mine"), name="mine", scheme="deep-fidelity")
    cases = [
        Case("owner", CLAIM, BUNDLE, released=MARKED),
        Case("other", claim_of(THIEF, bundle, host=None, marked=MARKED), bundle),
    ]
    assert [outcome.verdict.accepted for outcome in arbitrate(cases, MARKED)] == [True, False]


# --------------------------------------------------------------------------------------------------- laws of every kind

MARKS_OF: dict[str, AnyMark] = {
    "triggers": Noise(150).make(KEY, (1, 8, 8), 3),
    "passports": MARK,
    "projection": ProjectionMint("trunk.6")(KEY, network(), DATA),
}


def test_what_can_be_read_can_be_judged() -> None:
    assert set(KINDS) == set(MARKS) == set(MARKS_OF)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_mints_its_own_marks_again_and_no_other_key_does(kind: str) -> None:
    mark = MARKS_OF[kind]
    assert mark.kind == kind
    assert KINDS[kind].remint(KEY, mark).tensors().keys() == mark.tensors().keys()
    for key, same in ((KEY, True), (THIEF.mark_key("winter"), False)):
        again = KINDS[kind].remint(key, mark).tensors()
        assert all(torch.equal(value, again[name]) for name, value in mark.tensors().items()) is same


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_says_how_much_of_it_got_no_answer(kind: str, sequential: bool) -> None:
    test = KINDS[kind].sequential if sequential else KINDS[kind].test
    verdict = test(nn.Linear(7, 7), MARKS_OF[kind], 1e-6, 64)
    assert verdict.accepted is False
    assert verdict.details["unanswered"] > 0
    assert KINDS[kind].facts(MARKS_OF[kind])["n"] >= verdict.n > 0


def test_gamma_of_the_written_network_is_its_bits() -> None:
    for weight, means, bits in zip(MARK.weights_in(MARKED), MARK.means(), MARK.split(MARK.bits), strict=True):
        torch.testing.assert_close(affine(weight.detach().double(), means)[0], bits.double(), rtol=0, atol=1e-5)
