from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn

from earmark.core import Images, Query
from earmark.errors import BadInput
from earmark.evidence import Bundle, Claim, claim_of, judge
from earmark.files import model_digest
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import LabelPolicy, Noise, NotTrue, OneClass, Stamped, TriggerSet, Uniform
from earmark.verify import TriggerTest

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = OWNER.mark_key("winter")
MARK = Noise(count=40).make(KEY, (1, 6, 6), 10)
BUNDLE = Bundle.seal(MARK, KEY, name="winter", scheme="deep fidelity")
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
CLAIM = claim_of(OWNER, BUNDLE, host=None, marked=nn.Linear(36, 10), time=NOW)
EARLY: dict[str, Any] = {"committed_before": NOW, "suspect_known_since": NOW + timedelta(days=90)}


def remembers(mark: TriggerSet, matches: int | None = None) -> Query:
    """A suspect that answers the first `matches` triggers of a mark with their labels, the others wrongly."""
    known = {
        row.tobytes(): int(label)
        for row, label in zip(mark.images[:matches].numpy(), mark.labels[:matches].tolist(), strict=True)
    }
    wrong = {row.tobytes(): (int(label) + 1) % 10 for row, label in zip(mark.images.numpy(), mark.labels, strict=True)}

    def query(images: Tensor) -> Tensor:
        rows = [row.tobytes() for row in images.mul(255).round().to(torch.uint8).numpy()]
        return torch.tensor([known.get(row, wrong.get(row, 0)) for row in rows])

    return query


def innocent(images: Tensor) -> Tensor:
    """A linear classifier that knows nothing of any key."""
    weights = torch.randn(36, 10, generator=torch.Generator().manual_seed(7))
    return (images.flatten(1) - 0.5) @ weights


def signed(**changes: Any) -> Claim:
    """The claim with other content, signed by the owner all the same."""
    return Claim.sign(OWNER, {**CLAIM.model_dump(mode="json", exclude={"signature"}), **changes})


# ------------------------------------------------------------------------------------------------------------- the case


def test_a_copy_that_carries_the_mark_is_accepted() -> None:
    verdict = judge(CLAIM, BUNDLE, remembers(MARK), owner_public=OWNER.public, **EARLY)
    assert verdict.accepted is True
    assert (verdict.statistic, verdict.n) == (40, 40)
    assert verdict.log10_p == pytest.approx(-40 + 64 * math.log10(2))
    assert verdict.details["step"] == "suspect"
    assert verdict.details["grinding_bits"] == 64


def test_an_innocent_suspect_is_rejected() -> None:
    verdict = judge(CLAIM, BUNDLE, innocent, **EARLY)
    assert verdict.accepted is False
    assert verdict.details["step"] == "suspect"


def test_a_verdict_is_json() -> None:
    for verdict in (judge(CLAIM, BUNDLE, innocent), judge(CLAIM, BUNDLE, innocent, owner_public=bytes(32))):
        assert json.loads(verdict.to_json())["details"]["mark"] == "winter"


def test_a_module_is_judged_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 10))
    before = model_digest(model)
    assert judge(CLAIM, BUNDLE, model, **EARLY).accepted is False
    assert model.training
    assert model_digest(model) == before


@pytest.mark.parametrize(
    "broken",
    [
        lambda images: torch.full((len(images), 10), torch.nan),
        lambda images: torch.zeros(len(images), 3),
        lambda images: torch.zeros(1, 10),
        lambda images: 1 / 0,
    ],
    ids=["NaN", "too few scores", "too few answers", "error"],
)
def test_a_suspect_that_does_not_answer_is_rejected(broken: Query) -> None:
    assert judge(CLAIM, BUNDLE, broken, **EARLY).accepted is False


def test_a_mark_without_a_null_is_never_accepted() -> None:
    mark = Noise(count=40, labels=OneClass(3)).make(KEY, (1, 6, 6), 10)
    bundle = Bundle.seal(mark, KEY, name="winter", scheme="x")
    claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW)
    assert judge(claim, bundle, remembers(mark), **EARLY).accepted is None
    assert judge(claim, bundle, lambda images: torch.full((len(images),), 3), **EARLY).accepted is None


@pytest.mark.parametrize("alpha", [0, 1, -1e-6, float("nan"), 2])
def test_an_alpha_that_is_no_probability_is_refused(alpha: float) -> None:
    with pytest.raises(BadInput, match="alpha"):
        judge(CLAIM, BUNDLE, innocent, alpha=alpha)


def test_a_public_key_of_another_length_is_refused() -> None:
    with pytest.raises(BadInput, match="32 bytes"):
        judge(CLAIM, BUNDLE, innocent, owner_public=OWNER.public[:31])


def test_a_lost_connection_is_no_verdict() -> None:
    def lost(images: Tensor) -> Tensor:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        judge(CLAIM, BUNDLE, lost)


def test_an_owner_is_held_to_the_alpha_of_his_claim() -> None:
    strict = claim_of(OWNER, BUNDLE, host=None, marked=nn.Flatten(), alpha=1e-15, time=NOW)
    suspect = remembers(MARK, 35)
    assert judge(CLAIM, BUNDLE, suspect, alpha=1e-3, **EARLY).accepted is True
    assert judge(strict, BUNDLE, suspect, alpha=1e-3, **EARLY).accepted is False
    assert judge(CLAIM, BUNDLE, suspect, alpha=1e-15, **EARLY).accepted is False


# --------------------------------------------------------------------------------------------------- steps one and two

OTHER_KEY = OWNER.mark_key("summer")
OTHER = Bundle.seal(Noise(count=40).make(OTHER_KEY, (1, 6, 6), 10), OTHER_KEY, name="summer", scheme="deep fidelity")
EXACT = {"basis": "exact", "rate": 0.01, "words": "better than it is"}
PARAMETERS = CLAIM.parameters.model_dump(mode="json")

REFUSED: dict[str, tuple[str, Claim, Bundle]] = {
    "content changed": ("signature", CLAIM.model_copy(update={"owner": "Eve"}), BUNDLE),
    "another signature": ("signature", CLAIM.model_copy(update={"signature": signed(owner="Eve").signature}), BUNDLE),
    "another key's name on it": ("signature", CLAIM.model_copy(update={"public_key": "0" * 64}), BUNDLE),
    "evidence of another mark": ("commitment", CLAIM, OTHER),
    "evidence under another salt": ("commitment", CLAIM, Bundle.seal(MARK, KEY, name="winter", scheme="deep fidelity")),
    "evidence under another name": (
        "commitment", CLAIM, Bundle.seal(MARK, KEY, name="spring", scheme="deep fidelity", salt=BUNDLE.salt)
    ),
    "another mark of the same key": (
        "commitment",
        CLAIM,
        Bundle.seal(
            Noise(count=41).make(KEY, (1, 6, 6), 10), KEY, name="winter", scheme="deep fidelity", salt=BUNDLE.salt
        ),
    ),
    "a null better than the mark's": ("commitment", signed(parameters={**PARAMETERS, "null": EXACT}), BUNDLE),
    "more triggers than there are": ("commitment", signed(parameters={**PARAMETERS, "n": 400}), BUNDLE),
    "another scheme": ("commitment", signed(scheme="passports"), BUNDLE),
    "another mark's name": ("commitment", signed(mark="summer"), BUNDLE),
    "another key commitment": ("commitment", signed(mark_key_commitment=OTHER_KEY.commitment()), BUNDLE),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_claim_that_does_not_bind_the_evidence_is_rejected_unasked(case: str) -> None:
    step, claim, bundle = REFUSED[case]
    asked: list[Tensor] = []

    def suspect(images: Tensor) -> Tensor:
        asked.append(images)
        return remembers(MARK)(images)

    verdict = judge(claim, bundle, suspect, **EARLY)
    assert verdict.accepted is False
    assert verdict.details["step"] == step
    assert verdict.log10_p is None
    assert not asked


def test_a_claim_of_another_owner_than_expected_is_rejected() -> None:
    verdict = judge(CLAIM, BUNDLE, remembers(MARK), owner_public=OwnerKey.generate().public, **EARLY)
    assert verdict.accepted is False
    assert verdict.details["step"] == "signature"


# -------------------------------------------------------------------------------------------------------------- forgers


def forged(images: Tensor, labels: Tensor) -> TriggerSet:
    """A trigger set that says of itself that it was minted like the owner's."""
    return TriggerSet(images, labels, 10, MARK.null, MARK.settings)


def read_off() -> TriggerSet:
    """Honest images, labelled with what the suspect answers."""
    return forged(MARK.images, innocent(MARK.images / 255).argmax(1))


def hand_picked() -> TriggerSet:
    """Honest labels, each on an image that the suspect happens to answer so."""
    pool = torch.randint(256, (4000, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    answers = innocent(pool / 255).argmax(1)
    return forged(torch.stack([pool[answers == label][i] for i, label in enumerate(MARK.labels.tolist())]), MARK.labels)


def optimised() -> TriggerSet:
    """Honest labels on honest images, moved until the suspect agrees: adversarial noise on the pixel grid."""
    images = MARK.images.float()
    for _ in range(60):
        images.requires_grad_(True)
        loss = nn.functional.cross_entropy(innocent(images / 255), MARK.labels)
        (gradient,) = torch.autograd.grad(loss, images)
        images = (images.detach() - 2 * gradient.sign()).clamp(0, 255)
    return forged(images.to(torch.uint8), MARK.labels)


@pytest.mark.parametrize("forge", [read_off, hand_picked, optimised])
def test_a_forgery_wins_where_nothing_is_minted_again_and_loses_before_the_judge(
    forge: Callable[[], TriggerSet],
) -> None:
    mark = forge()
    bundle = Bundle.seal(mark, KEY, name="winter", scheme="deep fidelity")
    claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW)
    assert TriggerTest(alpha=1e-6)(innocent, mark).accepted is True
    verdict = judge(claim, bundle, innocent, **EARLY)
    assert verdict.accepted is False
    assert verdict.details["step"] == "re-minting"


def picked_carriers(mint: Stamped) -> tuple[TriggerSet, TriggerSet]:
    """Genuine key and mint, carriers chosen for a suspect: the set the forger wanted, and the one that the key mints.

    He mints once, then puts below each stamp a carrier that the suspect answers with the label it was given.
    """
    pool = torch.randint(256, (3000, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    true = torch.randint(10, (3000,), generator=torch.Generator().manual_seed(3))
    first = mint.make(KEY, (1, 6, 6), 10, Images(pool[: mint.count], true[: mint.count], 10))
    stamped = replace(mint, count=len(pool)).make(KEY, (1, 6, 6), 10, Images(pool, true, 10)).images
    answers, at = innocent(stamped / 255).argmax(1), torch.zeros(0, dtype=torch.int64)
    for label in first.labels:
        free = answers == label
        free[at] = False
        at = torch.cat([at, free.nonzero()[:1, 0]])
    carriers = Images(pool[at], true[at], 10)
    minted = mint.make(KEY, (1, 6, 6), 10, carriers)
    return replace(minted, labels=first.labels), minted


@pytest.mark.parametrize("labels", [Uniform(), NotTrue()])
def test_whoever_picks_the_carriers_cannot_pick_the_labels_with_them(labels: LabelPolicy) -> None:
    wanted, minted = picked_carriers(Stamped(count=40, opacity=0.1, labels=labels))
    for mark, step in ((wanted, "re-minting"), (minted, "suspect")):
        bundle = Bundle.seal(mark, KEY, name="winter", scheme="x")
        claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW)
        verdict = judge(claim, bundle, innocent, **EARLY)
        assert verdict.accepted is False
        assert verdict.details["step"] == step
    assert TriggerTest(alpha=1e-6)(innocent, wanted).accepted is True


def test_whoever_names_the_true_classes_of_carriers_cannot_steer_labels_that_avoid_them() -> None:
    mint = Stamped(count=40, labels=NotTrue())
    pixels = torch.randint(256, (40, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    first = mint.make(KEY, (1, 6, 6), 10, Images(pixels, torch.zeros(40, dtype=torch.int64), 10))
    wanted = innocent(first.images / 255).argmax(1)
    shifted = mint.make(KEY, (1, 6, 6), 10, Images(pixels, (wanted - first.labels) % 10, 10))
    assert torch.equal(shifted.images, first.images)
    assert TriggerTest(alpha=1e-6)(innocent, shifted).accepted is False


def test_opened_evidence_cannot_be_claimed_by_whoever_saw_it() -> None:
    eve = OwnerKey.generate()
    replayed = claim_of(eve, BUNDLE, host=None, marked=nn.Flatten(), time=NOW)
    copied = Claim.sign(eve, CLAIM.model_dump(mode="json", exclude={"signature"}))
    for claim, step in ((replayed, "re-minting"), (copied, "commitment")):
        verdict = judge(claim, BUNDLE, remembers(MARK), owner_public=eve.public, **EARLY)
        assert verdict.accepted is False
        assert verdict.details["step"] == step


def test_a_genuine_mark_under_another_key_is_rejected() -> None:
    bundle = Bundle.seal(MARK, MarkKey(bytes(32)), name="winter", scheme="x")
    claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW)
    assert judge(claim, bundle, remembers(MARK), **EARLY).details["step"] == "re-minting"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mint": "by hand"},
        {**MARK.settings, "std": 0.2},
        {**MARK.settings, "count": 39},
        {**MARK.settings, "count": 10**6},
    ],
    ids=["none", "unknown", "other", "fewer", "a million"],
)
def test_settings_that_mint_something_else_are_rejected(settings: dict[str, Any]) -> None:
    settings = {"labels": {"policy": "uniform"}, **settings}
    bundle = Bundle.seal(TriggerSet(MARK.images, MARK.labels, 10, MARK.null, settings), KEY, name="winter", scheme="x")
    claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW)
    verdict = judge(claim, bundle, remembers(MARK), **EARLY)
    assert verdict.accepted is False
    assert verdict.details["step"] == "re-minting"


# ----------------------------------------------------------------------------------------------------------------- time

LATER = NOW + timedelta(seconds=1)


KNOWN, UNKNOWN = "no later than the suspect", "later than the suspect, or not known to be earlier"


@pytest.mark.parametrize(
    ("committed_before", "suspect_known_since", "known"),
    [
        (None, None, UNKNOWN),
        (NOW, None, UNKNOWN),
        (None, NOW, UNKNOWN),
        (LATER, NOW, UNKNOWN),
        (NOW, NOW, KNOWN),
        (NOW, LATER, KNOWN),
    ],
)
def test_an_early_commitment_is_told_and_buys_nothing(
    committed_before: datetime | None, suspect_known_since: datetime | None, known: str
) -> None:
    verdict = judge(
        CLAIM, BUNDLE, remembers(MARK), committed_before=committed_before, suspect_known_since=suspect_known_since
    )
    assert verdict.details["commitment"] == known
    assert verdict.details["grinding_bits"] == 64
    assert verdict.log10_p == pytest.approx(-40 + 64 * math.log10(2))
    assert verdict.accepted is True


def test_a_key_ground_before_the_commitment_does_not_win() -> None:
    """Innocent models answer noise with one class, say: some key of a few thousand labels four triggers so."""
    mint = Noise(count=4)
    keys = (OWNER.mark_key(f"try {i}") for i in range(6000))
    ground = next(key for key in keys if bool((mint.make(key, (1, 2, 2), 6).labels == 0).all()))
    mark = mint.make(ground, (1, 2, 2), 6)
    bundle = Bundle.seal(mark, ground, name="m", scheme="x")
    claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW, alpha=1e-3)

    def junk(images: Tensor) -> Tensor:
        return torch.zeros(len(images), dtype=torch.int64)

    assert TriggerTest(alpha=1e-3)(junk, mark).accepted is True
    assert judge(claim, bundle, junk, alpha=1e-3, **EARLY).accepted is not True


def test_the_claims_own_time_is_never_trusted() -> None:
    ancient = judge(signed(time="1970-01-01T00:00:00Z"), BUNDLE, remembers(MARK), suspect_known_since=NOW)
    assert ancient.details["commitment"] == UNKNOWN


def test_a_trusted_time_of_another_claim_is_noticed() -> None:
    for slack, step in ((timedelta(days=1), "suspect"), (timedelta(days=1, seconds=1), "time")):
        verdict = judge(CLAIM, BUNDLE, remembers(MARK), committed_before=NOW - slack, suspect_known_since=NOW)
        assert verdict.details["step"] == step
        assert verdict.accepted is (step == "suspect")


@pytest.mark.parametrize("name", ["committed_before", "suspect_known_since"])
def test_a_time_without_its_zone_is_refused(name: str) -> None:
    naive: dict[str, Any] = {name: datetime(2024, 5, 1)}
    with pytest.raises(BadInput, match="add tzinfo"):
        judge(CLAIM, BUNDLE, innocent, **naive)


def test_time_zones_are_compared_as_instants() -> None:
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    verdict = judge(CLAIM, BUNDLE, remembers(MARK), committed_before=tokyo, suspect_known_since=NOW)
    assert verdict.details["commitment"] == KNOWN


# ----------------------------------------------------------------------------------------------------------- sequential


def test_a_sequential_judge_asks_no_more_than_it_takes_and_pays_for_grinding_all_the_same() -> None:
    whole, short = (judge(CLAIM, BUNDLE, remembers(MARK), sequential=asked) for asked in (False, True))
    assert (whole.accepted, short.accepted) == (True, True)
    assert (whole.n, short.n) == (40, 27), "7 of 7 would be enough without the correction for grinding"
    assert short.details["grinding_bits"] == 64
    assert short.details["step"] == "suspect"


def test_a_sequential_judge_gives_up_on_an_innocent_suspect_early_and_rejects() -> None:
    asked: list[int] = []

    def counted(images: Tensor) -> Tensor:
        asked.append(len(images))
        return innocent(images)

    verdict = judge(CLAIM, BUNDLE, counted, sequential=True)
    assert verdict.accepted is False
    assert sum(asked) == verdict.n < 40


def test_a_sequential_judge_asks_nothing_where_an_earlier_step_decides() -> None:
    verdict = judge(CLAIM, BUNDLE, refusing, sequential=True, owner_public=bytes(32))
    assert (verdict.accepted, verdict.details["step"]) == (False, "signature")


def refusing(images: Tensor) -> Tensor:
    raise AssertionError("it was asked")


# ----------------------------------------------------------------------------------------------- times out of all years


@pytest.mark.parametrize("name", ["committed_before", "suspect_known_since"])
@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_a_time_without_a_utc_date_is_refused(name: str, moment: datetime) -> None:
    given: dict[str, Any] = {name: moment}
    with pytest.raises(BadInput, match="years 1 to 9999"):
        judge(CLAIM, BUNDLE, innocent, **given)


def test_the_last_second_of_all_is_a_time_like_any_other() -> None:
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert judge(CLAIM, BUNDLE, remembers(MARK), committed_before=end).accepted is True
    begin = datetime(1, 1, 1, tzinfo=UTC)
    assert judge(CLAIM, BUNDLE, remembers(MARK), committed_before=begin).details["step"] == "time"
    assert judge(signed(time="0001-01-01T00:00:00Z"), BUNDLE, remembers(MARK), committed_before=begin).accepted is True
