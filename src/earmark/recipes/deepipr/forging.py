"""What forged passports are worth: whether they pass as published, what they cost, and whether a judge is deceived."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from earmark.attacks import (
    CERB,
    PassportForger,
    PassportForgery,
    RandomPassports,
    RetrainedPassports,
    ReverseScales,
    SolvedPassports,
)
from earmark.core import rng
from earmark.evidence.judge import minting_fault
from earmark.recipes.deepipr.bench import Bench, Protection
from earmark.recipes.rows import Point
from earmark.verify import PublishedPassportTest

__all__ = ["FORGERS", "by_share", "forged"]

Maker = Callable[[Bench, Protection, float], PassportForger]
"""From a protected network of a bench and a share of signs to be changed to the forger."""


def _insider(bench: Bench, one: Protection, share: float) -> PassportForger:
    return RetrainedPassports(bench.setting.layers, mark=bench.mark(one), share=share, settings=bench.effort.insider)


FORGERS: Mapping[str, Maker] = {
    "fake1": lambda bench, one, share: RandomPassports(bench.setting.layers),
    "fake2": lambda bench, one, share: ReverseScales(bench.setting.layers, share=share, settings=bench.effort.forger),
    "fake3": _insider,
    "CERB": lambda bench, one, share: CERB(bench.setting.layers, settings=bench.effort.forger),
    "solved": lambda bench, one, share: SolvedPassports(bench.setting.layers),
}
"""The three modes of Table 8, and two that were published or noticed since."""


def _forge(bench: Bench, one: Protection, name: str, share: float) -> PassportForgery:
    forger = FORGERS[name](bench, one, share)
    return forger.forge(bench.network(one), bench.data, rng(bench.seed))


def _accuracies(bench: Bench, one: Protection, made: PassportForgery) -> Point:
    """Under the forged passports, and how far that is from the owner's, in points."""
    own, forged = bench.measured(one)["private_acc"], bench.accuracy_with(made.model, made.mark)
    return {"forged_acc": forged, "forged_drop": forged - (own or 0.0)}


def forged(bench: Bench, one: Protection, name: str) -> Point:
    """One forgery with half of the signs changed (Table 8): what it costs, and whom it deceives."""

    def measure() -> Point:
        made = _forge(bench, one, name, 0.5)
        own = bench.mark(one)
        shown = own.read(made.mark.weights_in(made.model))
        return {
            **_accuracies(bench, one, made),
            "unlike_owner": 100 * float((made.mark.bits != own.bits).float().mean()),
            "owner_detected": 100 * float((shown == own.bits).float().mean()),
            "published": 100.0 * bool(PublishedPassportTest()(made.model, made.mark).accepted),
            "judged": 100.0 * (minting_fault(made.mark, made.key) is None),
        }

    return bench.store.value(f"{one.slug}.{name}", measure)


def by_share(bench: Bench, one: Protection, name: str) -> list[Point]:
    """The accuracy under passports forged with rising shares of the signs changed (Figures 16 and 17)."""

    def measure() -> list[Point]:
        return [
            {"changed": share, "val_acc": _accuracies(bench, one, _forge(bench, one, name, share))["forged_acc"]}
            for share in bench.effort.changed
        ]

    return bench.store.value(f"{one.slug}.{name}-by-share", measure)
