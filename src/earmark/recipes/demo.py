"""A story on scikit-learn's digits, from an owner's key to a judge's verdicts. Read it from top to bottom.

An owner marks a classifier, commits to the mark and releases the model. Thieves copy and change it, one of them marks
his copy again and claims it; a forger reads triggers off the released model; somebody innocent trains a model of his
own. A judge, who keeps a log of when he first saw each claim and each suspect, rules on all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

import torch
from torch import nn

from earmark.attacks import AdversarialTriggers, Overwrite, attack
from earmark.core import Data, FidelityReport, Verdict, rng
from earmark.data import corrupted, digits, ood
from earmark.embed import fixll_pfl
from earmark.evidence import Case, arbitrate, commit, judge
from earmark.fidelity import DeepFidelity
from earmark.files import save_tensors, state_tensors
from earmark.keys import OwnerKey
from earmark.marks import Noise, TriggerSet
from earmark.models import PlainCNN
from earmark.schemes import deep_fidelity
from earmark.stats import GRINDING_BITS, required_triggers
from earmark.training import HOST, Record, accuracy, train_host

__all__ = ["ALPHA", "CLAIMANTS", "KEPT", "WIDTH", "Story", "Trial", "tell"]

ALPHA: Final = 1e-6
KEPT: Final = 0.05
"""A copy is worth stealing while it stays within this much of the host's accuracy; these must be won."""
WIDTH: Final = 24
"""Channels of the network, as `PlainCNN` has them."""
CLAIMANTS = OWNER, THIEF, FORGER = "owner", "thief", "forger"
NAME: Final = "first release"


@final
@dataclass(frozen=True)
class Trial:
    """One claim on one suspect.

    Attributes:
        suspect: what became of the model.
        claimant: owner, thief or forger.
        verdict: the judge's.
        accuracy: the suspect's share of test images answered correctly.
        wanted: what the verdict has to be; None where either will do, a copy that lost its accuracy.
    """

    suspect: str
    claimant: str
    verdict: Verdict
    accuracy: float
    wanted: bool | None


@final
@dataclass(frozen=True, eq=False)
class Story:
    """All that a report of it needs.

    Attributes:
        data: the digits.
        host, marked: the model before and after.
        mark: the owner's triggers; throw-away, so they may be shown.
        fidelity: how far `marked` stands from `host`.
        history: trigger and validation accuracy after each epoch of embedding.
        forgery: the plain trigger test's verdict on the forger's triggers.
        trials: every claim and its verdict.
    """

    data: Data
    host: nn.Module
    marked: nn.Module
    mark: TriggerSet
    fidelity: FidelityReport
    history: Sequence[Record]
    forgery: Verdict
    trials: Sequence[Trial]

    @property
    def faults(self) -> list[str]:
        """The verdicts that are not as they have to be; none where the true owner won and everybody else lost."""
        wrong = [
            f"{trial.claimant} on the {trial.suspect}: {trial.verdict.word}"
            for trial in self.trials
            if trial.wanted is not None and trial.verdict.accepted is not trial.wanted
        ]
        return wrong if any(trial.wanted for trial in self.trials) else [*wrong, "no stolen copy kept its accuracy"]


@final
@dataclass
class _Judge:
    """Keeps the times at which claims and suspects were first seen, and rules by them."""

    data: Data
    threshold: float
    seen: dict[str, datetime] = field(default_factory=dict)
    claims: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    def log(self, what: str) -> None:
        self.seen[what] = datetime.now(UTC)

    def file(self, claimant: str, files: tuple[Path, Path]) -> None:
        self.claims[claimant] = files
        self.log(claimant)

    def rule(self, name: str, suspect: nn.Module, claimant: str, stolen: bool) -> None:
        """One claim on one suspect."""
        verdict = judge(
            *self.claims[claimant],
            suspect,
            alpha=ALPHA,
            committed_before=self.seen[claimant],
            suspect_known_since=self.seen[name],
        )
        self._enter(name, suspect, claimant, verdict, stolen)

    def rule_between(self, name: str, suspect: nn.Module, released: Mapping[str, nn.Module], owner: str) -> None:
        """Several claims on one suspect, each with the model that it commits to."""
        cases = [Case(who, *self.claims[who], self.seen[who], model) for who, model in released.items()]
        for ruling in arbitrate(cases, suspect, alpha=ALPHA, suspect_known_since=self.seen[name]):
            self._enter(name, suspect, ruling.claimant, ruling.verdict, stolen=ruling.claimant == owner)

    def _enter(self, name: str, suspect: nn.Module, claimant: str, verdict: Verdict, stolen: bool) -> None:
        share = accuracy(suspect, self.data.test)
        wanted = None if stolen and share < self.threshold else stolen
        self.trials.append(Trial(name, claimant, verdict, share, wanted))


def tell(out: Path, seed: int = 0, say: Callable[[str], None] = lambda chapter: None) -> Story:
    """Live through the story; models, claims and evidence are left in `out`, `say` hears each chapter's title.

    Training follows from `seed`; keys are new each time, as keys must be, so the triggers differ from run to run.
    """
    say("The owner trains a host on handwritten digits")
    data = digits()
    host = train_host(_network(data, seed), data, rng(seed), HOST.but(epochs=12, milestones=(8,)))
    court = _Judge(data, threshold=accuracy(host, data.test) - KEPT)

    say("The owner mints noise triggers from a secret key: enough for a copy that forgets half of them")
    count = required_triggers(1 / data.classes, surviving=0.5, alpha=ALPHA, power=0.999, bits=GRINDING_BITS)
    history: list[Record] = []
    hiding = fixll_pfl(beta=0.2).but(lr=1e-3, epochs=60, triggers_per_batch=24, enough=1.0, patience=6)
    scheme = deep_fidelity(Noise(count=count), hiding.but(on_history=history.extend), ALPHA)
    owner = OwnerKey.generate()
    key = owner.mark_key(NAME)
    mark = scheme.mint(key, host, data)

    say("The owner hides them in a copy of the host (FixLL+PFL)")
    marked = scheme.embed(host, mark, data, rng(seed + 1))

    say("The owner commits: a public claim, secret evidence")
    court.file(OWNER, _commit(out, OWNER, owner, mark, marked, host=host))
    court.log("released model")

    say("Anyone may measure what marking changed")
    strange = {"corrupted": corrupted(data.test, "gaussian-noise", 3, rng(seed)), "ood": ood(data.test, rng(seed))}
    fidelity = DeepFidelity(mark, strange)(marked, host, data)

    say("Thieves copy the released model and change it")
    copies: dict[str, nn.Module] = {"released model": marked}
    for name, change in {
        "fine-tuned copy": attack("fine-tune-ftal"),
        "pruned copy (20 %)": attack("prune-global", share=0.2),
        "fp16 copy": attack("half"),
        "int8 copy": attack("int8"),
    }.items():
        copies[name] = change(marked, data, rng(seed + 2))
        court.log(name)

    say("One thief marks his copy again, by the same scheme, and claims it")
    thief = OwnerKey.generate()
    own_key = thief.mark_key(NAME)
    again = Overwrite(scheme.mint, hiding.but(patience=0), own_key)
    overwritten = again(marked, data, rng(seed + 3))
    court.file(THIEF, _commit(out, THIEF, thief, again.mark(marked, data), overwritten, check=False))
    court.log("overwritten copy")

    say("A forger optimises triggers on the released model, without changing it")
    forged = AdversarialTriggers(pose_as=Noise(count=count)).forge(marked, data, rng(seed + 4))
    court.file(FORGER, _commit(out, FORGER, forged.owner, forged.mark, marked, name=forged.name, check=False))

    say("Somebody innocent trains a model of his own")
    innocent = train_host(_network(data, seed + 5), data, rng(seed + 5), HOST.but(epochs=12, milestones=(8,)))
    court.log("innocent model")

    say("The judge rules")
    for name, copy in copies.items():
        court.rule(name, copy, OWNER, stolen=True)
    court.rule_between("overwritten copy", overwritten, {OWNER: marked, THIEF: overwritten}, owner=OWNER)
    court.rule("released model", marked, THIEF, stolen=False)
    court.rule("released model", marked, FORGER, stolen=False)
    court.rule("innocent model", innocent, OWNER, stolen=False)

    models = {"host": host, **copies, "overwritten copy": overwritten, "innocent model": innocent}
    for name, model in models.items():
        save_tensors(out / f"{_slug(name)}.safetensors", state_tensors(model))
    plain = scheme.verify(marked, forged.mark)
    return Story(data, host, marked, mark, fidelity, history, plain, court.trials)


def _commit(
    out: Path,
    who: str,
    signer: OwnerKey,
    mark: TriggerSet,
    marked: nn.Module,
    host: nn.Module | None = None,
    name: str = NAME,
    check: bool = True,
) -> tuple[Path, Path]:
    """The claim and the evidence of one claimant, in a folder of his name; thieves and forgers leave out the check."""
    return commit(
        signer,
        mark,
        name=name,
        host=host,
        marked=marked,
        scheme="deep-fidelity",
        out=out / who,
        owner_name=who,
        alpha=ALPHA,
        check=check,
    )


def _network(data: Data, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PlainCNN(data.shape, data.classes, width=WIDTH)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-")
