"""Hostile claims and bundles, more than 12,000 of them: no error but earmark's own, and never an accept."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import convolutions, projected, written
from torch import nn

from earmark.core import Images, Mark
from earmark.errors import EarmarkError
from earmark.evidence import Bundle, Claim, claim_of, judge
from earmark.evidence.kinds import Suspect
from earmark.evidence.wire import render
from earmark.files import canonical_json
from earmark.keys import OwnerKey
from earmark.layers import Site
from earmark.marks import Noise, NotTrue, PassportMint, Passports, Projection, ProjectionMint, Stamped, TriggerSet
from earmark.marks.uchida import Layer

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
THIEF = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEY = OWNER.mark_key("winter")
MARK = Noise(count=40).make(KEY, (1, 2, 2), 10)
BUNDLE = Bundle.seal(MARK, KEY, name="winter", scheme="deep fidelity", salt=bytes(32))
CLAIM = claim_of(OWNER, BUNDLE, host=None, marked=nn.Linear(4, 10))
EVIDENCE, TENSORS = BUNDLE.files["evidence.json"], BUNDLE.files["mark.safetensors"]
CARRIERS = Images(Noise(count=40).make(KEY, (1, 8, 8), 10).images, MARK.labels, 10, "carriers")
STAMPS = Stamped(count=40, text="A", labels=NotTrue()).make(KEY, (1, 8, 8), 10, CARRIERS)
STAMPED = Bundle.seal(STAMPS, KEY, name="winter", scheme="deep fidelity", salt=bytes(32))
SITES = (Site("a", "b", (2, 3, 3), 48, (3, 3), padding=(1, 1, 1, 1)), Site("c", "d", (4, 2, 2), 48, (1, 1), groups=2))
PASSPORTS = PassportMint(2, "(c) W").make(KEY, SITES, None, CARRIERS)
PASSPORTED = Bundle.seal(PASSPORTS, KEY, name="winter", scheme="deepipr", salt=bytes(32))
PROJECTION = ProjectionMint("a", 90, "(c) W").make(KEY, Layer("a", (6, 12, 3, 3)), (1, 8, 8), 10)
PROJECTED = Bundle.seal(PROJECTION, KEY, name="winter", scheme="uchida", salt=bytes(32))
BUNDLES = (BUNDLE, PASSPORTED, PROJECTED)
SOUND = [(bundle, claim_of(OWNER, bundle, host=None, marked=nn.Linear(4, 10))) for bundle in BUNDLES]

tried: list[int] = []
read, opened = lru_cache(8)(Claim.from_bytes), lru_cache(8)(Bundle.from_parts)


BATCH = 30
RANDOM = st.randoms(use_true_random=True)
"""One seed per example; the batch that follows from it is drawn without hypothesis, which is 30 times as fast."""


def many(examples: int) -> Callable[[Any], Any]:
    """Settings of one fuzz test: the same inputs in every run, nothing kept on disk."""
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None)


def perfect(bundle: Bundle) -> Suspect:
    """The suspect that suits a forger best: it answers, or shows, whatever the opened evidence wants."""
    mark = bundle.mark
    if isinstance(mark, Passports):
        return written(convolutions(mark), mark)
    if isinstance(mark, Projection):
        return projected(mark)
    assert isinstance(mark, TriggerSet)
    return lambda images: mark.labels[: len(images)]


def files_of(bundle: Bundle) -> tuple[bytes, bytes]:
    return bundle.files["evidence.json"], bundle.files["mark.safetensors"]


def survives(claim: bytes, evidence: bytes, tensors: bytes) -> bool:
    """Run the judge on these bytes; whether it accepts. Any error that is not earmark's own fails the test."""
    tried.append(1)
    try:
        bundle = opened(evidence, tensors)
        verdict = judge(read(claim), bundle, perfect(bundle), owner_public=OWNER.public)
    except EarmarkError:
        return False
    return verdict.accepted is True


@pytest.mark.parametrize(("bundle", "claim"), SOUND, ids=["triggers", "passports", "projection"])
def test_the_sound_evidence_is_accepted_so_that_the_fuzz_has_teeth(bundle: Bundle, claim: Claim) -> None:
    assert survives(claim.to_bytes(), *files_of(bundle))


# ---------------------------------------------------------------------------------------------------------------- bytes


TOKENS = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"null",
    b"true",
    b"[" * 2000,
    b'{"":' * 500,
    b"9" * 4400,
    b'"',
    b"\\ud800",
    b"\x00",
]


def mutated(raw: bytes, random: Random) -> bytes:
    """`raw` with one to four places cut out, doubled, overwritten or filled with what parsers dislike."""
    for _ in range(random.randint(1, 4)):
        at, length = random.randint(0, len(raw)), random.randint(0, 12)
        middle = random.choice(
            [random.randbytes(random.randint(0, 12)), raw[at : at + length] * 2, random.choice(TOKENS)]
        )
        raw = raw[:at] + middle + raw[at + length :]
    return raw


@many(500)
@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def random_bytes(claim: bytes, evidence: bytes, tensors: bytes) -> None:
    assert not survives(claim, EVIDENCE, TENSORS)
    assert not survives(CLAIM.to_bytes(), evidence, TENSORS)
    assert not survives(CLAIM.to_bytes(), EVIDENCE, tensors)


@many(30)
@given(RANDOM)
def mutated_bytes(random: Random) -> None:
    for _ in range(BATCH):
        bundle, sound = random.choice(SOUND)
        parts = [sound.to_bytes(), *files_of(bundle)]
        for at, part in enumerate(parts):
            given = [*parts]
            given[at] = mutated(part, random)
            assert not survives(*given) or given[at] == part


# ------------------------------------------------------------------------------------------------------------ structure

NUMBERS = [0, -1, 1, 2, 10, 40, 100, 1 << 31, (1 << 63) - 1, 1 << 63, -(1 << 70), 10**300, 0.5, -0.0, 1e308, 5e-324]
WORDS = [
    "",
    "noise",
    "uniform",
    "not-true",
    "one-class",
    "chain",
    "stamped",
    "triggers",
    "passports",
    "random",
    "shuffle",
    "reflect",
    "circular",
    "a",
    "exact",
    "none",
    "U8",
    "I64",
    "F16",
]
PATHS = [
    "../../etc/passwd",
    "/dev/zero",
    "mark.safetensors",
    "A" * 5000,
    "0" * 64,
    "f" * 128,
    "\u202e",
    "\x1b[2J",
    "\ud800",
]


def value(random: Random, levels: int = 2) -> Any:
    """A JSON value of any kind, as likely to pass a check as to be absurd."""
    if levels and random.random() < 0.3:
        inner = [value(random, levels - 1) for _ in range(random.randint(0, 4))]
        return inner if random.random() < 0.5 else {random.choice(WORDS + PATHS): item for item in inner}
    return random.choice([None, True, False, random.choice(NUMBERS), random.choice(WORDS), random.choice(PATHS)])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON tree, the root's last."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from places(child, (*path, key))
    if path:
        yield path


def altered(original: dict[str, Any], random: Random) -> dict[str, Any]:
    """`original` with one to three values replaced, removed, renamed or wrapped."""
    tree = copy.deepcopy(original)
    for _ in range(random.randint(1, 3)):
        *above, last = random.choice(list(places(tree)) or [("",)])
        parent: Any = tree
        for key in above:
            parent = parent[key]
        match random.choice(["replace", "replace", "remove", "rename", "wrap"]) if parent else "replace":
            case "remove":
                del parent[last]
            case "rename" if isinstance(parent, dict):
                parent[random.choice(WORDS + PATHS)] = parent.pop(last)
            case "wrap":
                parent[last] = {str(last): parent[last]}
            case _:
                parent[last] = value(random)
    return tree


def sealed(body: Any, tensors: bytes = TENSORS) -> bytes:
    """evidence.json for any body, with right hashes."""
    if isinstance(body.get("files"), dict) and "mark.safetensors" in body["files"]:
        body["files"]["mark.safetensors"] = {"sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors)}
    seal = hashlib.sha256(b"earmark/evidence/1\n" + canonical_json(body)).hexdigest()
    return render({"evidence": body, "sha256": seal})


@many(60)
@given(RANDOM)
def altered_claims_signed_by_a_thief(random: Random) -> None:
    for _ in range(BATCH):
        bundle, sound = random.choice(SOUND)
        body = altered(sound.body(), random)
        if random.random() < 0.5:
            body["public_key"] = THIEF.public.hex()
        signature = THIEF.sign(b"earmark/claim/1\n" + canonical_json(body)).hex()
        assert not survives(render({"claim": body, "signature": signature}), *files_of(bundle))


@many(60)
@given(RANDOM)
def altered_evidence_with_right_hashes(random: Random) -> None:
    for _ in range(BATCH):
        bundle, sound = random.choice(SOUND)
        evidence, tensors = files_of(bundle)
        raw = sealed(altered(json.loads(evidence)["evidence"], random), tensors)
        assert not survives(sound.to_bytes(), raw, tensors) or raw == evidence


@many(60)
@given(RANDOM)
def altered_evidence_that_the_forger_commits_to(random: Random) -> None:
    """Key, settings and carriers as the forger likes, claim and hashes in order: only what the key mints may pass."""
    for _ in range(BATCH):
        sound = random.choice([BUNDLE, STAMPED, PASSPORTED, PASSPORTED, PROJECTED])
        body = altered(json.loads(sound.files["evidence.json"])["evidence"], random)
        assert stolen_or_refused(body, sound.files["mark.safetensors"], sound.mark)


def stolen_or_refused(body: dict[str, Any], tensors: bytes, own: Mark) -> bool:
    """Whether a thief's claim to this evidence is refused, or is to the owner's own triggers under the owner's key."""
    tried.append(1)
    try:
        bundle = Bundle.from_parts(sealed(body, tensors), tensors)
        verdict = judge(claim_of(THIEF, bundle, host=None, marked=nn.Flatten()), bundle, perfect(bundle))
    except EarmarkError:
        return True
    same = all(torch.equal(bundle.mark.tensors()[name], tensor) for name, tensor in own.tensors().items())
    return not verdict.accepted or (bundle.secret == KEY.secret and same)


# ---------------------------------------------------------------------------------------------------------- safetensors

HEADER: dict[str, Any] = json.loads(TENSORS[8 : 8 + int.from_bytes(TENSORS[:8], "little")])
DATA = TENSORS[8 + int.from_bytes(TENSORS[:8], "little") :]
DTYPES = ["U8", "U8", "I64", "I8", "F32", "F64", "F16", "BF16", "BOOL", "U64", "F8_E4M3", "F4", "O", "", None, 3]
SIZES = [0, 1, 2, 4, 40, 160, 320, 480, 1 << 31, 1 << 62, -1]


def entry(random: Random) -> dict[str, Any]:
    """What a safetensors header says of one tensor, mostly false."""
    shape = [random.choice(SIZES) for _ in range(random.randint(0, 5))]
    return {"dtype": random.choice(DTYPES), "shape": shape, "data_offsets": random.choices(SIZES, k=2)}


def hostile_header(random: Random) -> bytes:
    """A safetensors header: a sound one altered, or one made up, with a length that may be wrong."""
    names = ["images", "labels", "carriers", "__metadata__", "../images", ""]
    made_up = {random.choice(names): entry(random) for _ in range(random.randint(0, 4))}
    raw = json.dumps(random.choice([altered(HEADER, random), made_up, value(random)])).encode()
    length = random.choice([len(raw)] * 6 + [0, 1, len(raw) + 1, 1 << 20, 1 << 63, (1 << 64) - 1])
    return length.to_bytes(8, "little") + raw


@many(60)
@given(RANDOM)
def hostile_tensor_files_with_right_hashes(random: Random) -> None:
    for _ in range(BATCH):
        tensors = hostile_header(random) + random.choice([DATA, DATA[:-1], DATA + b"\0", b"", DATA[::-1]])
        raw = sealed(json.loads(EVIDENCE)["evidence"], tensors)
        assert not survives(CLAIM.to_bytes(), raw, tensors) or tensors == TENSORS


@many(30)
@given(RANDOM)
def altered_marks_that_the_forger_commits_to(random: Random) -> None:
    """The forger keeps key and settings and changes a few bytes of the mark, as an optimiser or a solver would."""
    for _ in range(BATCH):
        bundle, _ = random.choice(SOUND)
        evidence, sound = files_of(bundle)
        head = 8 + int.from_bytes(sound[:8], "little")
        data = bytearray(sound[head:])
        for _ in range(random.randint(1, 5)):
            data[random.randrange(len(data))] ^= random.randint(1, 255)
        assert stolen_or_refused(json.loads(evidence)["evidence"], sound[:head] + bytes(data), bundle.mark)


# -------------------------------------------------------------------------------------------------------------- the law

FUZZ: dict[Callable[[], None], int] = {
    random_bytes: 3 * 450,
    mutated_bytes: 3 * BATCH * 30,
    altered_claims_signed_by_a_thief: BATCH * 60,
    altered_evidence_with_right_hashes: BATCH * 60,
    altered_evidence_that_the_forger_commits_to: BATCH * 60,
    hostile_tensor_files_with_right_hashes: BATCH * 60,
    altered_marks_that_the_forger_commits_to: BATCH * 30,
}
"""Each kind of hostile input, and how many of it are tried at least."""


@pytest.mark.parametrize("fuzz", FUZZ, ids=lambda fuzz: fuzz.__name__)
def test_no_hostile_input_crashes_the_judge_or_is_accepted(fuzz: Callable[[], None]) -> None:
    before = len(tried)
    fuzz()
    assert len(tried) - before >= FUZZ[fuzz]


def test_more_than_twelve_thousand_hostile_inputs_are_tried() -> None:
    assert sum(FUZZ.values()) > 12_000
