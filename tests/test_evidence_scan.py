"""Many suspects against many claims: false alarms are held down over all pairs, and nobody stalls anybody."""

from __future__ import annotations

import itertools
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from serving import well_known
from torch import Tensor, nn

from earmark.errors import BadInput
from earmark.evidence import commit, judge, scan
from earmark.evidence.scan import Listed, Pair, Registry, adjusted
from earmark.evidence.scan import scan as scanned
from earmark.keys import OwnerKey
from earmark.marks import Noise, TriggerSet
from earmark.models import Task
from earmark.stats import benjamini_hochberg, holm
from earmark.suspects import Unreachable

OWNERS = 4


def owner(seed: int) -> OwnerKey:
    return OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes([seed + 1]) * 32))


def mark(seed: int) -> TriggerSet:
    return Noise(count=40).make(owner(seed).mark_key("m"), (1, 6, 6), 10)


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    for seed in range(OWNERS):
        how: dict[str, Any] = {"host": None, "scheme": "x", "owner_name": f"owner {seed}", "check": False}
        commit(owner(seed), mark(seed), name="m", marked=nn.Linear(1, 1), out=folder / f"claim{seed}", **how)
    return folder


@pytest.fixture(scope="module")
def registry(claims: Path) -> Registry:
    return Registry(claims)


def knowing(*seeds: int) -> Callable[[Tensor], Tensor]:
    """A copy of the models of these owners."""
    label = well_known(*map(mark, seeds))
    return lambda images: torch.tensor(label(images.mul(255).round().to(torch.uint8)))


def listed(name: str, query: Any, remote: bool = False, opened: list[str] | None = None) -> Listed:
    @contextmanager
    def open_it(tasks: Sequence[Task]) -> Iterator[Callable[[Task], Any]]:
        if opened is not None:
            opened.append(f"+{name}")
        yield lambda _: query
        if opened is not None:
            opened.append(f"-{name}")

    return Listed(name, name, open_it, remote)


def ignore(_: Pair) -> None:
    return


# -------------------------------------------------------------------------------------------------------- false alarms

P = st.lists(st.floats(-30, 0), min_size=1, max_size=7)


def rejected_by_holm(ps: Sequence[float], alpha: float) -> set[int]:
    """Holm's steps as he wrote them: from the smallest p on, while p_(i) <= alpha / (m - i + 1)."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    kept = itertools.takewhile(lambda i: 10 ** ps[order[i]] <= alpha / (len(ps) - i), range(len(ps)))
    return {order[i] for i in kept}


def rejected_by_bh(ps: Sequence[float], alpha: float) -> set[int]:
    """Benjamini and Hochberg's step: all up to the largest i with p_(i) <= i / m alpha."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    last = max((i + 1 for i in range(len(ps)) if 10 ** ps[order[i]] <= (i + 1) / len(ps) * alpha), default=0)
    return set(order[:last])


@given(P, st.sampled_from([0.05, 0.31, 1e-6]))
def test_adjusted_p_values_reject_what_the_published_steps_do(ps: list[float], alpha: float) -> None:
    for adjust, steps in ((holm, rejected_by_holm), (benjamini_hochberg, rejected_by_bh)):
        found = adjust(ps)
        near = [abs(p - math.log10(alpha)) < 1e-9 for p in found]
        if not any(near):
            assert {at for at, p in enumerate(found) if p <= math.log10(alpha)} == steps(ps, alpha)
        assert all(a >= p for a, p in zip(found, ps, strict=True))


def test_one_question_is_not_adjusted_and_p_values_above_one_are_refused() -> None:
    assert holm([-3.0]) == benjamini_hochberg([-3.0]) == [-3.0]
    assert holm([]) == []
    with pytest.raises(BadInput, match="at most 0"):
        holm([0.5])


def test_pairs_without_a_p_value_count_and_come_last() -> None:
    def pair(p: float | None) -> Pair:
        return Pair(suspect="s", identity="i", claimant="c", mark="m", evidence_digest="e", log10_p=p)

    found = adjusted([pair(None), pair(-7.0), pair(-7.5)], 1e-6)
    assert [each.pair.log10_p for each in found] == [-7.5, -7.0, None]
    assert found[0].log10_adjusted == pytest.approx(-7.5 + math.log10(3))
    assert [each.accepted for each in found] == [True, True, None]
    assert adjusted([pair(-6.1), pair(-0.1)], 1e-6)[0].accepted is False
    with pytest.raises(BadInput, match="did you mean 'holm'"):
        adjusted([], 1e-6, "hom")


# ------------------------------------------------------------------------------------------------------------- the scan


@pytest.mark.parametrize("sequential", [False, True])
def test_every_pair_is_what_a_judge_would_say_of_it(registry: Registry, claims: Path, sequential: bool) -> None:
    queries = {"first": knowing(0), "both": knowing(1, 2), "innocent": knowing()}
    suspects = [listed(name, query, remote=sequential) for name, query in queries.items()]
    pairs = scanned(registry, suspects, ignore, sequential=sequential)
    assert len(pairs) == 3 * OWNERS
    found = {(each.pair.suspect, each.pair.claimant): each.accepted for each in adjusted(pairs, 1e-6)}
    assert {pair for pair, accepted in found.items() if accepted} == {
        ("first", "owner 0"),
        ("both", "owner 1"),
        ("both", "owner 2"),
    }
    if not sequential:
        for pair in pairs:
            at = claims / f"claim{pair.claimant[-1]}"
            verdict = judge(at / "claim.json", at / "evidence", queries[pair.suspect])
            assert (verdict.log10_p, verdict.statistic) == (pair.log10_p, pair.statistic)


def test_a_sequential_scan_goes_on_until_the_hardest_adjustment_is_passed(registry: Registry) -> None:
    pairs = scanned(
        registry, [listed(str(at), knowing(at % OWNERS), remote=True) for at in range(12)], ignore, sequential=True
    )
    kept = [each for each in adjusted(pairs, 1e-6) if each.accepted]
    assert len(kept) == 12
    assert all(each.pair.n is not None and each.pair.n < 40 for each in kept)


def test_a_claim_that_does_not_hold_is_left_out_with_its_step(claims: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(claims / f"claim{seed}", tmp_path / f"claim{seed}")
    shutil.copy(claims / "claim2" / "claim.json", tmp_path / "claim1" / "claim.json")
    shutil.copytree(claims / "claim2", tmp_path / "claim2")
    (tmp_path / "claim2" / "evidence" / "evidence.json").write_text("{}")
    registry = Registry(tmp_path)
    assert [each.fault is None for each in registry.filed] == [True, False, False]
    assert str(registry.filed[1].fault).startswith("commitment: ")
    assert "evidence.json" in str(registry.filed[2].fault)
    assert len(scanned(registry, [listed("a", knowing(0))], ignore)) == 1


def test_what_goes_wrong_with_one_suspect_costs_its_own_pairs(registry: Registry) -> None:
    def dead(images: Tensor) -> Tensor:
        raise Unreachable("nobody there")

    @contextmanager
    def shut(tasks: Sequence[Task]) -> Iterator[Callable[[Task], Any]]:
        raise BadInput("no such file")
        yield lambda _: None

    @contextmanager
    def strange(tasks: Sequence[Task]) -> Iterator[Callable[[Task], Any]]:
        raise ZeroDivisionError("in a library\nof the suspect's")
        yield lambda _: None

    suspects = [Listed("shut", "shut", shut), Listed("strange", "strange", strange), listed("well", knowing(3))]
    pairs = scanned(registry, [listed("dead", dead, remote=True), *suspects], ignore)
    faults = {pair.suspect: pair.fault for pair in pairs}
    assert (faults["dead"], faults["shut"], faults["well"]) == ("nobody there", "no such file", None)
    assert faults["strange"] == "ZeroDivisionError: in a library of the suspect's"
    assert sum(each.accepted is True for each in adjusted(pairs, 1e-6)) == 1


def test_a_slow_service_stalls_nobody(registry: Registry) -> None:
    released = threading.Event()
    order: list[str] = []

    def slow(images: Tensor) -> Tensor:
        released.wait(10)
        return torch.zeros(len(images), dtype=torch.int64)

    def heard(pair: Pair) -> None:
        order.append(pair.suspect)
        if order.count("well") + order.count("other") == 2 * OWNERS:
            released.set()

    suspects = [listed("slow", slow, remote=True), listed("other", knowing(1), remote=True), listed("well", knowing())]
    began = time.monotonic()
    scanned(registry, suspects, heard, workers=1)
    assert order[-OWNERS:] == ["slow"] * OWNERS
    assert time.monotonic() - began < 8


def test_no_more_suspects_are_open_than_workers(registry: Registry) -> None:
    opened: list[str] = []
    scanned(registry, [listed(str(at), knowing(), opened=opened) for at in range(6)], ignore, workers=1)
    assert opened == [f"{sign}{at}" for at in range(6) for sign in "+-"]


def test_pairs_of_an_earlier_run_are_not_tested_again(registry: Registry) -> None:
    asked: list[int] = []
    query = knowing(0)

    def counted(images: Tensor) -> Tensor:
        asked.append(len(images))
        return query(images)

    first = scanned(registry, [listed("a", counted)], ignore)
    before, heard = len(asked), list[Pair]()
    again = scanned(registry, [listed("a", counted)], heard.append, done={pair.key: pair for pair in first[:3]})
    assert (again, len(asked) - before, len(heard)) == (first, 1, 1)
    with pytest.raises(BadInput, match="listed twice"):
        scanned(registry, [listed("a", query), listed("a", query)], ignore)


def test_the_same_evidence_under_another_alpha_is_another_pair_and_a_copied_claim_is_none(
    claims: Path, tmp_path: Path
) -> None:
    shutil.copytree(claims / "claim0", tmp_path / "first")
    shutil.copytree(claims / "claim0", tmp_path / "copied")
    first = scanned(Registry(tmp_path), [listed("a", knowing(0))], ignore)
    assert len(first) == 1
    how: dict[str, Any] = {"host": None, "scheme": "x", "owner_name": "owner 0", "check": False, "alpha": 1e-9}
    commit(owner(0), mark(0), name="m", marked=nn.Linear(1, 1), out=tmp_path / "stricter", **how)
    heard: list[Pair] = []
    both = scanned(Registry(tmp_path), [listed("a", knowing(0))], heard.append, done={first[0].key: first[0]})
    assert {pair.alpha for pair in both} == {1e-6, 1e-9}
    assert [pair.alpha for pair in heard] == [1e-9]


def test_marks_beyond_the_shelf_are_read_again(claims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SHELF", 1)
    registry = Registry(claims)
    pairs = scanned(registry, [listed("a", knowing(2))], ignore)
    assert [each.pair.claimant for each in adjusted(pairs, 1e-6) if each.accepted] == ["owner 2"]
    with pytest.raises(BadInput, match="holds no claim"):
        Registry(claims / "claim0")
