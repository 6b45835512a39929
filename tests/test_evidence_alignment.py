"""The judge and channels flipped at no cost: the owner is found by comparison, and false claimants are not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from passported import DATA, NAME, OWNER, mark_for, marked
from torch import nn

from earmark.attacks import FlipSigns, MarkByFlips, Overwrite
from earmark.core import rng
from earmark.errors import BadInput
from earmark.evidence import Bundle, Case, Claim, arbitrate, claim_of, judge
from earmark.keys import OwnerKey
from earmark.marks import PassportMint, Passports
from earmark.training import predict
from earmark.verify import PassportTest

THIEF = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
FIRST = datetime(2024, 5, 1, tzinfo=UTC)
LATER, LAST = FIRST + timedelta(days=100), FIRST + timedelta(days=200)


def claimed(owner: OwnerKey, mark: Passports, released: nn.Module, time: datetime) -> tuple[Claim, Bundle]:
    bundle = Bundle.seal(mark, owner.mark_key(NAME), name=NAME, scheme="deepipr")
    return claim_of(owner, bundle, host=None, marked=released, time=time), bundle


OWNED = marked("bn")
CLAIM, BUNDLE = claimed(OWNER, mark_for("bn"), OWNED, FIRST)
FLIPPED = FlipSigns()(OWNED, DATA, rng(7))
DATED = {"committed_before": FIRST, "suspect_known_since": LATER}

MINT = PassportMint(layers=3, witnesses=60)
STOLEN = Overwrite(MINT, MarkByFlips(), THIEF.mark_key(NAME))(OWNED, DATA, rng(1))
FALSE = MINT(THIEF.mark_key(NAME), OWNED, DATA)


def test_a_flipped_network_is_rejected_as_it_stands_and_accepted_beside_the_release() -> None:
    assert judge(CLAIM, BUNDLE, FLIPPED, **DATED).accepted is False  # type: ignore[arg-type]
    found = judge(CLAIM, BUNDLE, FLIPPED, released=OWNED, **DATED)  # type: ignore[arg-type]
    assert found.accepted
    assert found.null.basis == "calibrated"
    assert (found.details["reading"], found.details["comparison"]) == ("aligned", "with the released model")


@pytest.mark.parametrize(
    "dates", [{}, {"committed_before": FIRST}, {"committed_before": LAST, "suspect_known_since": LATER}]
)
def test_without_an_earlier_date_the_release_is_not_compared_with(dates: dict[str, datetime]) -> None:
    found = judge(CLAIM, BUNDLE, FLIPPED, released=OWNED, **dates)  # type: ignore[arg-type]
    assert found.accepted is False
    assert found.details["comparison"] == "none, for want of an earlier date"


def test_another_model_than_the_committed_one_is_refused() -> None:
    with pytest.raises(BadInput, match="not the one that the claim commits to"):
        judge(CLAIM, BUNDLE, FLIPPED, released=FLIPPED, **DATED)  # type: ignore[arg-type]
    told = judge(CLAIM, BUNDLE, FLIPPED, released=OWNED, released_digest=CLAIM.marked_digest, **DATED)  # type: ignore[arg-type]
    assert told.accepted


def test_whoever_flips_a_found_network_to_his_own_bits_is_not_found_in_the_original() -> None:
    """The copy costs nothing, shows all bits of an honest mint, and aligned it is "in" the original: dates decide."""
    torch.testing.assert_close(predict(STOLEN, DATA.test), predict(OWNED, DATA.test), rtol=1e-4, atol=1e-4)
    assert PassportTest(grinding_bits=64)(STOLEN, FALSE).details["exact"]
    assert PassportTest(grinding_bits=64, released=STOLEN)(OWNED, FALSE).accepted, "alignment alone believes the thief"
    claim, bundle = claimed(THIEF, FALSE, STOLEN, LAST)
    for dates in ({}, {"committed_before": LAST, "suspect_known_since": LATER}):
        assert judge(claim, bundle, OWNED, released=STOLEN, **dates).accepted is False  # type: ignore[arg-type]


def cases() -> list[Case]:
    claim, bundle = claimed(THIEF, FALSE, STOLEN, LATER)
    return [
        Case("owner", CLAIM, BUNDLE, FIRST, OWNED, OWNER.public),
        Case("thief", claim, bundle, LATER, STOLEN, THIEF.public),
    ]


def test_between_the_owner_and_a_thief_who_flipped_to_his_own_bits_the_owner_wins() -> None:
    owner, thief = arbitrate(cases(), STOLEN, suspect_known_since=LAST)
    assert owner.alone.accepted
    assert thief.alone.accepted
    assert owner.verdict.accepted is True
    assert thief.verdict.accepted is False
    assert "already carries owner's mark" in thief.verdict.reason


def test_without_dates_the_flips_leave_the_owner_unproven_and_the_thief_with_what_he_shows() -> None:
    undated = [replace(case, committed_before=None) for case in cases()]
    owner, thief = arbitrate(undated, STOLEN, suspect_known_since=LAST)
    assert owner.verdict.accepted is False
    assert thief.verdict.accepted is True, "which is why a commitment is dated before release"
