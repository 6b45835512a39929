"""Evidence opened in slices: k of n trials for one dispute, chosen by the claim and a nonce, the rest unburnt."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare
from torch import Tensor, nn

from earmark.core import Query
from earmark.errors import BadInput, EarmarkError, Tampered
from earmark.evidence import Bundle, Case, Claim, Draw, Slice, arbitrate, claim_of, commit, judge
from earmark.evidence.bundle import packed
from earmark.evidence.slices import choice_bits, selected
from earmark.evidence.wire import render
from earmark.files import canonical_json
from earmark.keys import MarkKey, OwnerKey
from earmark.marks import Noise, Sliced, TriggerSet, rooted
from earmark.stats import log_binomial_tail

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
THIEF = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEY = OWNER.mark_key("winter")
N, K = 120, 40
MARK = Sliced(of=Noise(count=N)).make(KEY, (1, 6, 6), 10)
BUNDLE = Bundle.seal(MARK, KEY, name="winter", scheme="deep fidelity", salt=bytes(32))
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
CLAIM = claim_of(OWNER, BUNDLE, host=None, marked=nn.Linear(36, 10), time=NOW)
DRAW = Draw(bytes(range(32)), K)
CUT = Slice.cut(CLAIM, BUNDLE, DRAW.nonce, DRAW.count)
GOLDEN = Path(__file__).parent / "golden" / "v2" / "sliced"
FILES = CUT.files["slice.json"], CUT.files["slice.safetensors"]
BODY: dict[str, Any] = json.loads(FILES[0])["slice"]


class Memory:
    """A suspect that answers the triggers of a mark with their labels, all others with class 0, and is counted."""

    def __init__(self, mark: TriggerSet, wrong: int = 0) -> None:
        labels = mark.labels.clone()
        labels[:wrong] = (labels[:wrong] + 1) % mark.classes
        self.known = {row.tobytes(): int(label) for row, label in zip(mark.images.numpy(), labels, strict=True)}
        self.asked: list[bytes] = []

    def __call__(self, images: Tensor) -> Tensor:
        rows = [row.tobytes() for row in images.mul(255).round().to(torch.uint8).numpy()]
        self.asked += rows
        return torch.tensor([self.known.get(row, 0) for row in rows])


def constant(label: int) -> Query:
    return lambda images: torch.full((len(images),), label)


# ------------------------------------------------------------------------------------------------------------- the case


def test_a_slice_convicts_a_copy_and_p_counts_only_what_was_opened() -> None:
    suspect = Memory(MARK)
    verdict = judge(CLAIM, CUT, suspect, draw=DRAW, owner_public=OWNER.public)
    assert verdict.accepted is True
    assert (verdict.statistic, verdict.n) == (K, K)
    assert verdict.log10_p == pytest.approx(-K + 64 * math.log10(2))
    told = {"opened": K, "of": N, "nonce": DRAW.nonce.hex(), "drawn_by": "the judge"}
    assert verdict.details["slice"] == told
    assert verdict.details["grinding_bits"] == 64


def test_matches_that_were_not_opened_help_nobody() -> None:
    opened = {row.tobytes() for row in CUT.mark.images.numpy()}
    suspect = Memory(MARK)
    suspect.known = {row: label for row, label in suspect.known.items() if row not in opened}
    assert judge(CLAIM, CUT, suspect, draw=DRAW).accepted is False
    assert {*suspect.asked} == opened


def test_what_stays_closed_is_neither_asked_nor_in_the_files() -> None:
    suspect = Memory(MARK)
    judge(CLAIM, CUT, suspect, draw=DRAW)
    places = [trial.index for trial in CUT.trials]
    closed = [place for place in range(N) if place not in places]
    assert len(closed) == N - K
    written = b"".join(FILES)
    for place in closed:
        image = MARK.images[place].numpy().tobytes()
        assert image not in suspect.asked
        assert image not in written
        assert KEY.trial_key(place).secret.hex().encode() not in written
    assert KEY.secret.hex().encode() not in written


def test_the_whole_mark_is_judged_by_the_same_claim() -> None:
    verdict = judge(CLAIM, BUNDLE, Memory(MARK))
    assert verdict.accepted is True
    assert verdict.n == N
    assert "slice" not in verdict.details
    with pytest.raises(BadInput, match="the whole mark was opened"):
        judge(CLAIM, BUNDLE, Memory(MARK), draw=DRAW)


def test_a_slice_is_asked_in_turn_too() -> None:
    verdict = judge(CLAIM, CUT, Memory(MARK), draw=DRAW, sequential=True)
    assert verdict.accepted is True
    assert verdict.n < K


def test_a_slice_too_small_for_any_answer_is_inconclusive() -> None:
    draw = Draw(DRAW.nonce, 20)
    verdict = judge(CLAIM, Slice.cut(CLAIM, BUNDLE, draw.nonce, 20), Memory(MARK), draw=draw)
    assert verdict.accepted is None


def test_arbitration_takes_slices(tmp_path: Path) -> None:
    other = Noise(count=60).make(THIEF.mark_key("m"), (1, 6, 6), 10)
    bundle = Bundle.seal(other, THIEF.mark_key("m"), name="m", scheme="x")
    rival = claim_of(THIEF, bundle, host=None, marked=nn.Flatten(), time=NOW)
    cases = [
        Case("Ada", CLAIM, CUT, NOW, draw=DRAW),
        Case("Eve", rival, bundle, NOW + timedelta(days=3)),
    ]
    suspect = Memory(MARK)
    suspect.known |= Memory(other).known
    first, second = arbitrate(cases, suspect)
    assert (first.verdict.accepted, second.verdict.accepted) == (True, False)
    CUT.write(tmp_path / "slice")
    assert arbitrate([replace(cases[0], evidence=tmp_path / "slice")], suspect)[0].verdict.accepted is True


# ---------------------------------------------------------------------------------------------------------- the choice


def test_the_choice_follows_from_root_key_and_nonce_and_from_nothing_else() -> None:
    later = claim_of(OWNER, BUNDLE, host=None, marked=nn.Linear(3, 3), time=NOW + timedelta(days=9), owner_name="Eve")
    assert selected(later, DRAW.nonce, N, K) == selected(CLAIM, DRAW.nonce, N, K)
    other = CLAIM.model_copy(update={"slice_root": "0" * 64})
    stranger = CLAIM.model_copy(update={"public_key": THIEF.public.hex()})
    chosen = [selected(claim, DRAW.nonce, N, K) for claim in (CLAIM, other, stranger)]
    chosen.append(selected(CLAIM, bytes(16), N, K))
    assert len({tuple(each) for each in chosen}) == 4


def test_a_smaller_slice_is_the_beginning_of_a_larger_one() -> None:
    assert selected(CLAIM, DRAW.nonce, N, N)[:K] == selected(CLAIM, DRAW.nonce, N, K)
    assert sorted(selected(CLAIM, DRAW.nonce, N, N)) == [*range(N)]


def test_each_trial_is_chosen_equally_often() -> None:
    counts = torch.zeros(20)
    for nonce in range(600):
        counts[selected(CLAIM, nonce.to_bytes(16, "big"), 20, 5)] += 1
    assert counts.sum() == 3000
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_the_null_is_exact_on_what_a_nonce_opens() -> None:
    """An innocent suspect that answers one class: matches among the opened are Binomial(k, 1/K), nonce by nonce."""
    matches = trials = 0
    for seed in range(40):
        key = OWNER.mark_key(f"mark {seed}")
        mark = Sliced(of=Noise(count=60)).make(key, (1, 2, 2), 10)
        bundle = Bundle.seal(mark, key, name=f"mark {seed}", scheme="x", salt=bytes(32))
        claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW)
        verdict = judge(claim, Slice.cut(claim, bundle, DRAW.nonce, 30), constant(seed % 10), draw=Draw(DRAW.nonce, 30))
        matches, trials = matches + int(verdict.statistic), trials + verdict.n
        assert verdict.accepted is False or verdict.accepted is None
    assert trials == 1200
    assert binomtest(matches, trials, 0.1).pvalue > 1e-3


def test_a_nonce_that_the_judge_did_not_draw_is_paid_for_as_a_choice_by_hand() -> None:
    verdict = judge(CLAIM, CUT, Memory(MARK))
    bits = verdict.details["grinding_bits"] - 64
    assert bits == choice_bits(N, K) == math.ceil(math.log2(N * math.comb(N, K)))
    assert verdict.details["slice"]["drawn_by"].startswith("the claimant")
    assert verdict.log10_p == 0.0
    assert verdict.accepted is None, "nothing that he could open would be enough"


def test_choosing_by_hand_is_never_worth_more_than_is_paid() -> None:
    """The best k of n that a claimant can pick, against an innocent suspect: P(p <= alpha) stays below alpha."""
    n, rate, alpha = 20, 0.1, 0.01
    for k in range(1, n + 1):
        paid = choice_bits(n, k) * math.log(2)
        least = next((m for m in range(k + 1) if log_binomial_tail(m, k, rate) + paid <= math.log(alpha)), None)
        if least is not None:  # he needs `least` matches among all n to show so many among k
            assert math.exp(log_binomial_tail(least, n, rate)) <= alpha


@pytest.mark.parametrize("nonce", [b"", bytes(15), bytes(65)])
def test_a_nonce_of_another_length_is_refused(nonce: bytes) -> None:
    for call in (lambda: Draw(nonce, 3), lambda: Slice.cut(CLAIM, BUNDLE, nonce, 3)):
        with pytest.raises(BadInput, match="16 to 64 bytes"):
            call()


@pytest.mark.parametrize("count", [0, -1, N + 1, 1.5, True])
def test_a_slice_of_no_size_is_refused(count: Any) -> None:
    with pytest.raises(BadInput, match="trials to open"):
        Slice.cut(CLAIM, BUNDLE, DRAW.nonce, count)


# -------------------------------------------------------------------------------------------------------------- forgers


def resealed(body: dict[str, Any], mark: TriggerSet | None = None) -> Slice:
    """A slice with another body, and with other tensors where a mark is given, its hashes made right."""
    tensors = FILES[1] if mark is None else packed(mark)
    files = {"slice.safetensors": {"sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors)}}
    body = {**body, "files": files}
    sealed = hashlib.sha256(b"earmark/slice/1\n" + canonical_json(body)).hexdigest()
    return Slice.from_parts(render({"slice": body, "sha256": sealed}), tensors)


def hand_picked() -> Slice:
    """The trials that suit the claimant, opened as though a nonce had chosen them."""
    other = Slice.cut(CLAIM, BUNDLE, bytes(16), K)
    return resealed({**json.loads(other.files["slice.json"])["slice"], "nonce": DRAW.nonce.hex()}, other.mark)


def left_out() -> Slice:
    """One trial fewer than were chosen: the one that did not match."""
    part = Slice.cut(CLAIM, BUNDLE, DRAW.nonce, K - 1)
    return resealed(json.loads(part.files["slice.json"])["slice"], part.mark)


def relabelled() -> Slice:
    mark = CUT.mark
    return resealed(BODY, TriggerSet(mark.images, (mark.labels + 1) % 10, 10, mark.null, mark.settings))


def repainted() -> Slice:
    mark = CUT.mark
    return resealed(BODY, TriggerSet(mark.images ^ 1, mark.labels, 10, mark.null, mark.settings))


def other_keys() -> Slice:
    body = copy.deepcopy(BODY)
    for trial in body["trials"]:
        trial["key"] = MarkKey(bytes.fromhex(trial["key"])).trial_key(0).secret.hex()
    return resealed(body)


def moved() -> Slice:
    """Each trial at the place of another."""
    body = copy.deepcopy(BODY)
    first, *rest = [(trial["index"], trial["path"]) for trial in body["trials"]]
    for trial, (place, path) in zip(body["trials"], [*rest, first], strict=True):
        trial["index"], trial["path"] = place, path
    return resealed(body)


def respecified() -> Slice:
    """The labels that another policy would have drawn."""
    body = copy.deepcopy(BODY)
    body["spec"]["settings"]["of"]["std"] = 0.5
    return resealed(body)


def longer() -> Slice:
    body = copy.deepcopy(BODY)
    body["spec"]["settings"]["count"] = body["spec"]["settings"]["of"]["count"] = N + 1
    return resealed(body)


def renamed() -> Slice:
    return resealed({**BODY, "name": "summer"})


FORGED: dict[str, tuple[str, Callable[[], Slice]]] = {
    "picked by hand": ("slice", hand_picked),
    "one left out": ("slice", left_out),
    "other labels": ("re-minting", relabelled),
    "other images": ("commitment", repainted),
    "other keys": ("commitment", other_keys),
    "other places": ("commitment", moved),
    "other settings": ("commitment", respecified),
    "another number of trials": ("commitment", longer),
    "another name": ("commitment", renamed),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_slice_that_was_made_to_suit_is_rejected_unasked(case: str) -> None:
    step, forge = FORGED[case]
    forged = forge()
    suspect = Memory(forged.mark)
    verdict = judge(CLAIM, forged, suspect, draw=DRAW)
    assert (verdict.accepted, verdict.details["step"], verdict.log10_p) == (False, step, None), verdict.reason
    assert not suspect.asked


def test_another_draw_than_the_judges_is_rejected() -> None:
    for draw in (Draw(bytes(32), K), Draw(DRAW.nonce, K + 1)):
        verdict = judge(CLAIM, CUT, Memory(MARK), draw=draw)
        assert (verdict.accepted, verdict.details["step"]) == (False, "slice")


def test_who_has_seen_a_slice_cannot_claim_it() -> None:
    stolen = claim_of(OWNER, BUNDLE, host=None, marked=nn.Flatten(), time=NOW).model_dump(
        mode="json", exclude={"signature"}
    )
    verdict = judge(Claim.sign(THIEF, stolen), CUT, Memory(MARK), draw=DRAW)
    assert (verdict.accepted, verdict.details["step"]) == (False, "commitment")


def test_a_claim_without_a_root_commits_to_no_slice() -> None:
    mark = Noise(count=60).make(KEY, (1, 6, 6), 10)
    bundle = Bundle.seal(mark, KEY, name="winter", scheme="deep fidelity")
    claim = claim_of(OWNER, bundle, host=None, marked=nn.Flatten(), time=NOW)
    assert claim.format == 1
    assert judge(claim, CUT, Memory(MARK), draw=DRAW).details["step"] == "commitment"
    with pytest.raises(BadInput, match="opens as a whole"):
        Slice.cut(claim, bundle, DRAW.nonce, 3)
    with pytest.raises(BadInput, match="give both of one commitment"):
        Slice.cut(CLAIM, Bundle.seal(MARK, KEY, name="winter", scheme="deep fidelity"), DRAW.nonce, 3)


def test_a_root_over_other_trials_than_the_evidence_holds_is_rejected() -> None:
    fields = CLAIM.model_dump(mode="json", exclude={"signature"})
    for root in ("0" * 64, None):
        verdict = judge(Claim.sign(OWNER, {**fields, "slice_root": root}), BUNDLE, Memory(MARK))
        assert (verdict.accepted, verdict.details["step"]) == (False, "commitment")


def test_trials_chosen_one_by_one_fail_where_labels_come_after_the_root() -> None:
    """A claimant without a key of his own to keep: for each trial he tries keys until its first label suits class 3."""
    keys = []
    for place in range(N):
        trial = (MarkKey(bytes([place, attempt]) * 16, OWNER.public) for attempt in range(200))
        keys.append(next(key for key in trial if int(key.stream("labels").integers(10, 1)) == 3))
    mint = Sliced(of=Noise(count=N))
    images = torch.cat([Noise(count=1).make(key, (1, 6, 6), 10).images for key in keys])
    unlabelled = TriggerSet(images, torch.zeros(N, dtype=torch.int64), 10, MARK.null, mint.settings())
    root = rooted(unlabelled, keys)
    labels = mint.remake(keys, range(N), root, unlabelled).labels
    assert binomtest(int((labels == 3).sum()), N, 0.1).pvalue > 1e-4


# ---------------------------------------------------------------------------------------------------------- the files


def test_a_slice_goes_through_its_folder_unchanged(tmp_path: Path) -> None:
    CUT.write(tmp_path / "slice")
    again = Slice.read(tmp_path / "slice")
    assert (again.digest, again.trials, again.nonce) == (CUT.digest, CUT.trials, CUT.nonce)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "slice").iterdir()} == {0o600}
    assert judge(CLAIM, tmp_path / "slice", Memory(MARK), draw=DRAW).accepted is True
    assert Slice.cut(CLAIM, BUNDLE, DRAW.nonce, K).files == CUT.files
    (tmp_path / "slice" / "more").write_bytes(b"")
    with pytest.raises(BadInput, match=r"expected only slice\.json and slice\.safetensors"):
        Slice.read(tmp_path / "slice")


def test_the_golden_slice_is_the_one_that_its_nonce_chooses_and_convicts_as_it_did() -> None:
    claim, bundle, part = (
        Claim.read(GOLDEN / "claim.json"),
        Bundle.read(GOLDEN / "evidence"),
        Slice.read(GOLDEN / "slice"),
    )
    assert isinstance(bundle.mark, TriggerSet)
    draw = Draw(bytes(range(32)), 40)
    assert Slice.cut(claim, bundle, draw.nonce, draw.count).files == part.files
    verdict = judge(claim, part, Memory(bundle.mark), draw=draw, owner_public=OWNER.public)
    assert (verdict.accepted, verdict.statistic, verdict.n) == (True, 40, 40)
    assert verdict.log10_p == pytest.approx(-40 + 64 * math.log10(2))
    assert judge(claim, part, constant(3), draw=draw).accepted is False


def test_commit_writes_a_claim_of_format_2(tmp_path: Path) -> None:
    paths = commit(
        OWNER, MARK, name="winter", host=None, marked=nn.Flatten(), scheme="x", out=tmp_path / "c", check=False
    )
    claim = Claim.read(paths[0])
    assert (claim.format, claim.slice_root) == (2, CLAIM.slice_root)
    assert claim.to_bytes() == paths[0].read_bytes()


def test_one_flipped_bit_anywhere_is_an_error_that_names_the_file() -> None:
    described, tensors = FILES
    for at in range(0, len(described), 53):
        with pytest.raises(EarmarkError, match=r"slice\.json"):
            Slice.from_parts(described[:at] + bytes([described[at] ^ 1]) + described[at + 1 :], tensors)
    for at in range(0, len(tensors), 17):
        with pytest.raises(Tampered, match=r"slice\.safetensors"):
            Slice.from_parts(described, tensors[:at] + bytes([tensors[at] ^ 1]) + tensors[at + 1 :])


def test_a_slice_keeps_its_secrets_to_itself() -> None:
    shown = repr(CUT) + repr(CUT.trials)
    assert CUT.trials[0].secret.hex() not in shown
    assert "images" not in shown
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(CUT)


def test_a_claim_with_a_root_has_format_2() -> None:
    fields = CLAIM.model_dump(mode="json", exclude={"signature"})
    for broken in ({**fields, "format": 1}, {**fields, "format": 3}, {**fields, "slice_root": None}):
        with pytest.raises(ValueError, match="the format is not the version"):
            Claim.model_validate({**broken, "signature": "0" * 128})


def test_a_claimant_who_opens_all_where_a_slice_was_asked_for_stops_nobody() -> None:
    stubborn, other = Case("stubborn", CLAIM, BUNDLE, draw=DRAW), Case("other", CLAIM, CUT, draw=DRAW)
    found = {each.claimant: each.verdict for each in arbitrate([stubborn, other], Memory(MARK))}
    assert (found["stubborn"].accepted, found["other"].accepted) == (False, True)
    assert "ask for a slice" in found["stubborn"].reason


# ---------------------------------------------------------------------------------------------------------------- fuzz

ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**64) | st.text(max_size=3) | st.sampled_from(["0" * 64, "00" * 16]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
PLACES: list[tuple[Any, ...]] = [
    *((name,) for name in BODY),
    *(("trials", 0, name) for name in BODY["trials"][0]),
    ("trials", 1, "path", 0),
    *(("spec", name) for name in BODY["spec"]),
    *(("spec", "settings", name) for name in BODY["spec"]["settings"]),
    *(("spec", "settings", "of", name) for name in BODY["spec"]["settings"]["of"]),
]


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(place=st.sampled_from(PLACES), odd=ODD, drawn=st.booleans())
def test_any_value_in_any_place_of_a_slice_is_refused_or_rejected(
    place: tuple[Any, ...], odd: Any, drawn: bool
) -> None:
    body = copy.deepcopy(BODY)
    inner = body
    for step in place[:-1]:
        inner = inner[step]
    same = inner[place[-1]] == odd
    inner[place[-1]] = odd
    try:
        cut = resealed(body)
        verdict = judge(CLAIM, cut, Memory(cut.mark), draw=DRAW if drawn else None)
    except EarmarkError:
        return
    assert not verdict.accepted or same or place == ("files",)


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(FILES[0])), st.integers(0, 20), st.integers(0, 1))
def test_any_bytes_in_a_file_of_a_slice_are_refused(odd: bytes, at: int, cut: int, which: int) -> None:
    files = [*FILES]
    files[which] = files[which][:at] + odd + files[which][at + cut :]
    if files != [*FILES]:
        with pytest.raises(EarmarkError):
            Slice.from_parts(files[0], files[1])


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.sampled_from([*CLAIM.body(), "signature"]), ODD, st.booleans())
def test_any_value_in_any_place_of_a_claim_of_format_2_is_refused_or_rejected(name: str, odd: Any, kept: bool) -> None:
    body = {**CLAIM.body(), name: odd}
    signature = body.pop("signature", CLAIM.signature)
    if not kept:
        body.pop(name, None)
    try:
        raw = render({"claim": body, "signature": signature})
    except ValueError:  # no JSON file holds such a value
        return
    try:
        claim = Claim.from_bytes(raw)
    except EarmarkError:
        return
    assert claim == CLAIM


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.sampled_from([*CLAIM.body()]), ODD)
def test_a_thiefs_own_claim_to_a_slice_is_refused_or_rejected(name: str, odd: Any) -> None:
    try:
        claim = Claim.sign(THIEF, {**CLAIM.body(), name: odd})
        verdict = judge(claim, CUT, Memory(MARK), draw=DRAW)
    except EarmarkError:
        return
    assert not verdict.accepted
