"""False accepts, measured: innocent models against marks of all schemes with an exact null, and claims that must lose.

python benchmarks/soundness.py [--models 200] [--keys 100] [--out results/soundness]
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earmark.attacks import AdversarialTriggers
from earmark.attacks.ambiguity.forgery import draw_owner
from earmark.bench import bare_schemes, named_scheme
from earmark.bench.hardware import hardware
from earmark.bench.provenance import code_commit, versions
from earmark.bench.soundness import Soundness, innocent_matches, soundness_of
from earmark.core import Data, Verdict, rng
from earmark.data import digits, ood
from earmark.embed import fixll_pfl
from earmark.errors import BadInput
from earmark.evidence import Bundle, Case, Claim, arbitrate, claim_of, judge
from earmark.files import write_atomic, write_json
from earmark.keys import OwnerKey
from earmark.marks import Noise, TriggerSet, Unrelated
from earmark.models import PlainCNN, built
from earmark.reports import Table, figures
from earmark.stats import GRINDING_BITS, grind_log10_p
from earmark.suspects import as_query
from earmark.training import HOST, accuracy, train_host
from earmark.verify import TriggerTest

ALPHA = 1e-6
SAMPLE = 300
"""Pairs of a model and a key that are also put to the whole judge, as a check of the count."""
FORGERS = 10
SIBLINGS = 5
"""Networks that the false claimant trains, to find triggers that a stranger's network answers, too."""
DAY = timedelta(days=1)


class Dense(nn.Module):
    """A network of linear layers."""

    def __init__(self, shape: tuple[int, int, int], classes: int, *widths: int) -> None:
        super().__init__()
        sizes = (math.prod(shape), *widths)
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.trunk, self.head = nn.Sequential(nn.Flatten(), *layers), nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.head(self.trunk(x))
        return logits


class Strided(nn.Module):
    """One convolution of stride 2 and a linear layer."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], width, 3, stride=2, padding=1)
        self.head = nn.Linear(width * ((shape[1] + 1) // 2) * ((shape[2] + 1) // 2), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.head(torch.relu(self.conv(x)).flatten(1))
        return logits


def networks(data: Data, count: int) -> list[nn.Module]:
    """Small networks, trained independently: other kinds, initial weights, images, and lengths of training."""
    kinds = (partial(Dense, data.shape, data.classes, 32), partial(Dense, data.shape, data.classes, 48, 24))
    builds = (*kinds, partial(Strided, data.shape, data.classes))
    made = []
    for at in range(count):
        draw, epochs = rng(at), (1, 3, 5, 8)[at % 4]
        chosen = torch.randperm(len(data.train), generator=draw)[: len(data.train) // (1 + at % 2)]
        own = Data(data.train.subset(chosen), data.train.sample(200))
        run = HOST.but(epochs=epochs, lr=5e-3, milestones=())
        made.append(train_host(built(builds[at % 3], draw), own, draw, run))
    return made


def minted(data: Data, keys: int) -> dict[str, list[TriggerSet]]:
    """Marks by scheme, one a key, of the schemes whose triggers have an exact null."""
    mints = {name: named_scheme(name).mint for name in bare_schemes()}
    mints["unrelated images"] = Unrelated(source=ood(data.train, rng(0)))
    found = {}
    for name, mint in mints.items():
        try:
            first = mint(draw_owner(rng(0)).mark_key(name), None, data)
        except BadInput:
            continue
        if isinstance(first, TriggerSet) and first.null.basis == "exact":
            found[name] = [mint(owner_of(key).mark_key(name), None, data) for key in range(keys)]
    return found


def owner_of(key: int) -> OwnerKey:
    """The owner of that number."""
    return draw_owner(rng(10**6 + key))


def checked(models: Sequence[nn.Module], marks: Mapping[str, list[TriggerSet]], found: Mapping[str, Tensor]) -> int:
    """Put some pairs to V and to the judge with all of his steps, and count those; none may differ from the batch."""
    pick, agreed = random.Random(0), 0
    for _ in range(SAMPLE):
        name = pick.choice(sorted(marks))
        row, column = pick.randrange(len(models)), pick.randrange(len(marks[name]))
        mark, owner, model = marks[name][column], owner_of(column), models[row]
        bundle = Bundle.seal(mark, owner.mark_key(name), name=name, scheme=name)
        claim = claim_of(owner, bundle, host=None, marked=model)
        verdict, plain = judge(claim, bundle, model), TriggerTest()(as_query(model), mark)
        if not verdict.statistic == plain.statistic == int(found[name][row, column]):
            raise BadInput(f"{name}: the batch found {found[name][row, column]}, the judge {verdict.statistic}")
        wanted = grind_log10_p(plain.log10_p or 0.0, GRINDING_BITS)
        if verdict.accepted or abs((verdict.log10_p or 0.0) - wanted) > 1e-9 or verdict.details["step"] != "suspect":
            raise BadInput(f"{name}: the judge ruled {verdict}")
        agreed += 1
    return agreed


class Together(nn.Module):
    """The mean of the logits of several networks."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        return torch.stack([member(x) for member in self.members]).mean(0)


def false_claims(data: Data, models: Sequence[nn.Module]) -> list[dict[str, Any]]:
    """Adversarial triggers, found on the forger's own networks and claimed on strangers': V and the judge.

    The forger commits before the suspect is known: the dates are on his side, and the commitment holds.
    """
    good = [model for model in models if accuracy(model, data.test) > 0.9]
    own, strangers = good[:SIBLINGS], good[SIBLINGS : SIBLINGS + FORGERS]
    mint, rows = Noise(), []
    before = datetime(2026, 1, 1, tzinfo=UTC)
    for forger, on, suspects in (
        ("adversarial, on the suspect itself", None, strangers),
        ("false claim, on his own networks", Together(own), strangers),
    ):
        for at, suspect in enumerate(suspects):
            pose = mint if on is None else None
            forge = AdversarialTriggers(pose_as=pose, steps=300, margin=5.0, epsilon=96)
            forgery = forge.forge(suspect if on is None else on, data, rng(at))
            bundle = Bundle.seal(forgery.mark, forgery.key, name=forgery.name, scheme="deep-fidelity")
            claim = claim_of(forgery.owner, bundle, host=None, marked=own[0], time=before)
            ruled = judge(claim, bundle, suspect, committed_before=before, suspect_known_since=before + DAY)
            rows.append(told(forger, TriggerTest()(as_query(suspect), forgery.mark), ruled))
    return rows


def other_claims(data: Data) -> list[dict[str, Any]]:
    """Claims that must lose although the mark is in the suspect, and what a pre-dated one is worth."""
    fresh = built(partial(PlainCNN, data.shape, data.classes, width=24), rng(0))
    host = train_host(fresh, Data(data.train, data.train.sample(200)), rng(0), HOST.but(epochs=12, milestones=(8,)))
    mint = Noise(count=200)
    embed = fixll_pfl(beta=0.2).but(lr=1e-3, epochs=60, triggers_per_batch=24, enough=1.0, patience=6)
    owner, thief, now = owner_of(0), owner_of(1), datetime(2026, 6, 1, tzinfo=UTC)
    mark = mint(owner.mark_key("spring"), host, data)
    marked = embed(host, mark, data, rng(0))
    bundle = Bundle.seal(mark, owner.mark_key("spring"), name="spring", scheme="deep-fidelity")
    claim = claim_of(owner, bundle, host=host, marked=marked, time=now)
    plain = TriggerTest()(as_query(marked), mark)
    rows = [told("the owner", plain, judge(claim, bundle, marked))]
    wrong = Bundle.seal(mark, owner.mark_key("autumn"), name="spring", scheme="deep-fidelity")
    rows.append(told("wrong key", plain, judge(claim_of(owner, wrong, host=host, marked=marked), wrong, marked)))
    stolen = Bundle.seal(mark, owner.mark_key("spring"), name="spring", scheme="deep-fidelity")
    theirs = claim_of(thief, stolen, host=host, marked=marked, time=now)
    rows.append(told("another owner, with the owner's opened evidence", plain, judge(theirs, stolen, marked)))
    dated = judge(claim, bundle, marked, committed_before=now - 30 * DAY)
    rows.append(told("a date of another claim", plain, dated))
    again = mint(thief.mark_key("spring"), marked, data)
    overwritten = embed.but(patience=0)(marked, again, data, rng(1))
    own = Bundle.seal(again, thief.mark_key("spring"), name="spring", scheme="deep-fidelity")
    early = claim_of(thief, own, host=marked, marked=overwritten, time=now - 365 * DAY)
    return [*rows, *between(overwritten, (claim, bundle, marked), (early, own, overwritten), again)]


def between(
    suspect: nn.Module,
    owners: tuple[Claim, Bundle, nn.Module],
    thiefs: tuple[Claim, Bundle, nn.Module],
    again: TriggerSet,
) -> list[dict[str, Any]]:
    """Who marked the overwritten copy first, if the thief gives his claim a date of a year before the owner's?"""
    cases = [
        Case(name, claim, bundle, released=released)
        for name, (claim, bundle, released) in (("owner", owners), ("thief", thiefs))
    ]
    first, second = arbitrate(cases, suspect)
    plain = TriggerTest()(as_query(suspect), again)
    return [
        told("the owner, against it", TriggerTest()(as_query(suspect), owners[1].mark), first.verdict),  # type: ignore[arg-type]
        told("a thief's second mark, pre-dated by a year", plain, second.verdict),
    ]


def told(who: str, plain: Verdict, ruled: Verdict) -> dict[str, Any]:
    """One claim: what the trigger test says, and the judge."""
    return {
        "claim": who,
        "V": plain.word,
        "V log10 p": plain.log10_p,
        "judge": ruled.word,
        "step": ruled.details["step"],
    }


def page(found: Mapping[str, Soundness], claims: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    rows = tuple(
        (
            name,
            str(one.n),
            f"{one.rate:.4g}",
            f"{one.models * one.keys:,}",
            f"{one.expected:.2g}",
            str(one.false_accepts),
            str(one.judged_accepts),
            f"{one.least_log10_p:.1f}",
            f"{10**one.log10_worst_model:.2g}",
        )
        for name, one in found.items()
    )
    columns = ("Scheme", "n", "Rate", "Tests", "Expected p ≤ 1e-6", "Found, V", "Found, judge", "Least log10 p", "Fit")
    caption = (
        "Expected: how many tests the exact null lets expect at most. Fit: p of the model whose matches over all keys "
        "fit Binomial(keys n, rate) worst, times the number of models; small would speak against the null."
    )
    by_claim: dict[str, list[Mapping[str, Any]]] = {}
    for claim in claims:
        by_claim.setdefault(str(claim["claim"]), []).append(claim)
    ruled = tuple(
        (
            who,
            f"{sum(one['V'] == 'accepted' for one in own)} of {len(own)}",
            f"{sum(one['judge'] == 'accepted' for one in own)} of {len(own)}",
            ", ".join(dict.fromkeys(one["step"] for one in own)),
        )
        for who, own in by_claim.items()
    )
    parts = [
        "# Soundness, measured",
        "Networks that were trained without any key, asked for marks of many keys; and claims that must lose. Made by "
        "`python benchmarks/soundness.py`.",
        Table(columns, rows, "", caption).to_markdown(),
        "![The share of innocent tests with a p so small or smaller, against p](null.png)",
        "## Claims",
        Table(("Claim", "V accepts", "The judge accepts", "Decided at"), ruled).to_markdown(),
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("results/soundness"))
    asked = parser.parse_args()
    begun, data = time.monotonic(), digits()
    models = networks(data, asked.models)
    trained = time.monotonic()
    print(f"{len(models)} networks in {trained - begun:.0f} s")
    marks = minted(data, asked.keys)
    print(f"{asked.keys} keys of {', '.join(marks)} in {time.monotonic() - trained:.0f} s")
    matches = {name: innocent_matches(models, own) for name, own in marks.items()}
    found = {
        name: soundness_of(matches[name], own[0].trials, own[0].null.rate or 0.5, ALPHA) for name, own in marks.items()
    }
    agreed = checked(models, marks, matches)
    claims = [*false_claims(data, models), *other_claims(data)]
    shares = sorted(accuracy(model, data.test) for model in models)
    low, middle, high = (100 * shares[at] for at in (0, len(shares) // 2, -1))
    facts = {
        "networks": f"{len(models)}, {low:.0f} to {high:.0f} % of the test images right, median {middle:.0f} %",
        "pairs put to the judge with all his steps": f"{agreed}, all as counted",
        "seconds": round(time.monotonic() - begun),
        "hardware": hardware(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "code": code_commit(),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    values = {"schemes": {name: one.to_dict() for name, one in found.items()}, "claims": claims, "facts": facts}
    write_json(asked.out / "soundness.json", values)
    write_atomic(asked.out / "null.png", figures.to_png(figures.null_plot(found)))
    write_atomic(asked.out / "README.md", page(found, claims, facts).encode())
    print(page(found, claims, facts))
    if faults := wrong(found, claims):
        raise SystemExit(f"not as it must be: {'; '.join(faults)}")


def wrong(found: Mapping[str, Soundness], claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """What speaks against the judge: a false accept, or a claim that did not end as it must."""
    owners = [claim for claim in claims if claim["claim"].startswith("the owner")]
    said = [f"{name}: false accepts" for name, one in found.items() if one.false_accepts or one.judged_accepts]
    said += [f"{one['claim']}: {one['judge']}" for one in claims if (one["judge"] == "accepted") != (one in owners)]
    forged = [one["V"] for one in claims if one["claim"].startswith(("adversarial", "false"))]
    return said + ([] if "accepted" in forged else ["no forger passed the trigger test, so this shows nothing"])


if __name__ == "__main__":
    main()
