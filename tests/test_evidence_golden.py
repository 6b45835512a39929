"""Files of every released format, opened for ever. They were written once; a test that fails here is never answered
by writing them again, but by a reader that still opens them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny import convolutions, projected, written
from torch import nn

from earmark.core import Mark, Query
from earmark.errors import EarmarkError, Tampered
from earmark.evidence import Bundle, Claim, Slice, judge
from earmark.keys import OwnerKey
from earmark.marks import AnyMark, Passports, Projection, TriggerSet

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("v*/*/claim.json"))
EXPECTED: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text())
OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
EARLY: dict[str, Any] = {
    "committed_before": datetime(2026, 12, 1, tzinfo=UTC),
    "suspect_known_since": datetime(2027, 1, 1, tzinfo=UTC),
}

pytestmark = pytest.mark.parametrize("case", CASES, ids=[f"{path.parent.name}-{path.name}" for path in CASES])


RATES = {"noise": 1 / 10, "stamped": 1 / 9, "passports": 1 / 2, "projection": 1 / 2, "sliced": 1 / 10, "named": 1 / 10}


def fitted(mark: Mark) -> nn.Module:
    """A model that carries the mark."""
    if isinstance(mark, Projection):
        return projected(mark)
    return written(convolutions(mark), mark) if isinstance(mark, Passports) else taught(mark)


def taught(mark: Mark) -> nn.Module:
    """A linear classifier that has learnt the triggers: the least weights that fit them, X' (X X')^-1 Y."""
    assert isinstance(mark, TriggerSet)
    pixels = mark.images.flatten(1).double() / 255
    inputs = torch.cat([pixels, torch.ones(len(mark), 1)], 1)
    wanted = nn.functional.one_hot(mark.labels, mark.classes).double()
    weights = inputs.T @ torch.linalg.solve(inputs @ inputs.T, wanted)
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels.shape[1], mark.classes))
    model.load_state_dict({"1.weight": weights[:-1].T.float(), "1.bias": weights[-1].float()})
    return model


def always(favourite: int) -> Query:
    return lambda images: torch.full((len(images),), favourite)


def innocent(mark: Mark, favourite: int) -> Query | nn.Module:
    """For marks in weights, weights that stand elsewhere: they show another's bits."""
    if isinstance(mark, Projection):
        layer = projected(mark)
        for weight in layer.parameters():
            weight.data = weight.data.flatten().roll(favourite + 1).view_as(weight)
        return layer
    if not isinstance(mark, Passports):
        return always(favourite)
    model = written(convolutions(mark), mark)
    for conv in model.children():
        assert isinstance(conv, nn.Conv2d)
        conv.weight.data = conv.weight.data.roll(favourite + 1, 0)
    return model


def opened(case: Path) -> tuple[Claim, Bundle, AnyMark]:
    bundle = Bundle.read(case / "evidence")
    assert isinstance(bundle.mark, Passports | Projection | TriggerSet)
    return Claim.read(case / "claim.json"), bundle, bundle.mark


def test_the_files_say_what_they_said_when_they_were_written(case: Path) -> None:
    claim, bundle, mark = opened(case)
    opens = (
        {}
        if claim.slice_root is None
        else {"slice_root": claim.slice_root, "slice_digest": Slice.read(case / "slice").digest}
    )
    names = {} if claim.class_names is None else {"class_names": list(claim.class_names)}
    assert EXPECTED[f"{case.parent.name}/{case.name}"] == opens | names | {
        "owner": claim.owner,
        "public_key": OWNER.public.hex(),
        "mark_key": OWNER.mark_key(claim.mark).secret.hex(),
        "mark_key_commitment": claim.mark_key_commitment,
        "mark_digest": claim.mark_digest,
        "evidence_digest": bundle.digest,
        "mark": mark.digest(),
        "signature": claim.signature,
    }
    assert claim.to_bytes() == (case / "claim.json").read_bytes()
    assert bundle.secret == OWNER.mark_key(claim.mark).secret


def test_a_copy_is_accepted_as_it_was_when_they_were_written(case: Path) -> None:
    claim, bundle, mark = opened(case)
    verdict = judge(claim, bundle, fitted(mark), owner_public=OWNER.public, **EARLY)
    assert verdict.accepted is True
    assert verdict.statistic == verdict.n == len(mark)
    assert verdict.log10_p == pytest.approx(len(mark) * math.log10(RATES[case.name]) + 64 * math.log10(2))


def test_an_innocent_model_is_rejected_as_it_was(case: Path) -> None:
    claim, bundle, mark = opened(case)
    for favourite in range(10):
        verdict = judge(claim, bundle, innocent(mark, favourite), **EARLY)
        assert verdict.accepted is False
        assert verdict.details["step"] == "suspect"


def test_a_changed_byte_is_noticed_in_old_files_too(case: Path) -> None:
    raw = (case / "claim.json").read_bytes()
    evidence, tensors = ((case / "evidence" / name).read_bytes() for name in ("evidence.json", "mark.safetensors"))
    for at in range(0, len(tensors), 97):
        broken = tensors[:at] + bytes([tensors[at] ^ 1]) + tensors[at + 1 :]
        with pytest.raises(Tampered, match=r"mark\.safetensors"):
            Bundle.from_parts(evidence, broken)
    for at in range(0, len(raw), 7):
        with pytest.raises(EarmarkError, match=r"claim\.json"):
            Claim.from_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
