"""One setting at one scale with one seed: its host, its marked models, and what each attack leaves of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from earmark.attacks import Extract, FineTune, Overwrite, PruneGlobal, Transfer
from earmark.core import Data, Images, rng
from earmark.embed import Backdoor, fixll_pfl, function_coupled, function_coupled_2023_02, function_coupled_2023_06
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import Fused, NotSources, OneClass, TriggerSet
from earmark.models import built
from earmark.recipes.function_coupled.scales import SCALES
from earmark.recipes.function_coupled.settings import SETTINGS
from earmark.recipes.sources import open_images, reduced
from earmark.recipes.store import Store
from earmark.suspects import as_query
from earmark.training import Masking, Settings, accuracy, train_host
from earmark.verify import TriggerTest

__all__ = ["Bench", "Marking", "Point"]

Point = dict[str, float | None]
"""What is left after an attack, by name: `val_acc` and `asr` in percent, `trials` matched in percent, `log10_p`."""


@dataclass(frozen=True)
class Marking:
    """One way to mark a host.

    Attributes:
        style, ratio: of the fusion, see `Fused`.
        labels: "target": one class for all (the paper), "groups": keyed groups of pairs with an exact null.
        how: "enhanced": Algorithm 1; "plain": the same run without its two strategies; "fresh": Algorithm 1 from
            scratch; "2023-02" and "2023-06": the released variants; "kept": FixLL+PFL, masked.
    """

    style: str = "direct"
    ratio: float = 0.5
    labels: str = "target"
    how: str = "enhanced"

    @property
    def slug(self) -> str:
        """A file name that carries every parameter."""
        fusion = self.style if self.style == "direct" else f"invisible{self.ratio:g}"
        return f"{fusion}-{self.labels}-{self.how}"

    @property
    def label(self) -> str:
        """What a table calls it; the paper's own rows have one target class and both strategies."""
        parts = ["Direct" if self.style == "direct" else f"Invisible, r = {self.ratio:g}"]
        parts += ["keyed groups"] if self.labels == "groups" else []
        parts += [] if self.how == "enhanced" else [_HOW[self.how]]
        return ", ".join(parts)


_HOW = {
    "plain": "no strategies",
    "fresh": "from scratch",
    "2023-02": "code of 2023-02",
    "2023-06": "code of 2023-06",
    "kept": "FixLL+PFL",
}


class Bench:
    """What the tables of one setting share. Every model and every measurement is made once and kept."""

    def __init__(self, setting: str, scale: str, seed: int, data: Path | None, out: Path) -> None:
        self.name, self.scale, self.seed, self.root = setting, scale, seed, data
        self.setting, self.effort = SETTINGS[setting], SCALES[scale][setting]
        self.thief = self.effort.thief
        effort = {name: value for name, value in vars(self.effort).items() if name not in ("notes", "seeds")}
        self.store = Store(out / scale / setting / f"seed{seed}", {"effort": repr(effort), "seed": seed})
        read, self.notes = open_images(self.effort.data or self.setting.data, data)
        whole = reduced(read, self.effort.images, self.effort.test, self._size, seed)
        self.data, self.aside = _set_aside(whole, self.effort.aside, seed)
        self.augment = self.setting.augment if self.effort.augment else None
        self._host: nn.Module | None = None

    @property
    def _size(self) -> tuple[int, int] | None:
        return None if self.effort.side is None else (self.effort.side, self.effort.side)

    # -- models

    @property
    def host(self) -> nn.Module:
        """The unmarked host of Table 1, trained once."""
        if self._host is None:
            self._host = self.store.model("host", self._fresh, self._train_host)
        return self._host

    def _train_host(self, checkpoint: Path) -> nn.Module:
        """Chosen on the images set aside, so that no test image has a say."""
        return train_host(
            self._fresh(),
            Data(self.data.train, self.aside),
            rng(self.seed),
            self.effort.host,
            augment=self.augment,
            checkpoint=checkpoint,
        )

    def _fresh(self) -> nn.Module:
        build = partial(self.setting.build, self.data.shape, self.data.classes, self.effort.width)
        return built(build, rng(self.seed)).to(Settings().torch_device())

    def mint(self, marking: Marking, other: bool = False) -> Fused:
        """The mint of a marking; the `other` one is a thief's, with another target."""
        effort, fused = self.effort, partial(Fused, style=marking.style, ratio=marking.ratio)
        if marking.labels == "target":
            target = OneClass(5 % self.data.classes if other else 1)
            return fused(count=effort.count, group=1, teaching=effort.teaching, labels=target)
        groups = min(effort.groups, self.data.classes * (self.data.classes - 1) // 2)
        return fused(count=3 * groups, group=3, teaching=effort.each * groups, labels=NotSources())

    def mark(self, marking: Marking, other: bool = False) -> TriggerSet:
        """The trigger set, from a key that the seed makes: a throw-away owner, or thief."""
        key = MarkKey((self.seed + 1_000 * other).to_bytes(32, "big"))
        return self.mint(marking, other)(key, None, self.data)

    def embed(self, marking: Marking) -> Backdoor:
        """The embedding of a marking, with the settings of the scale."""
        return _embedding(marking.how, self).but(
            settings=self.effort.fresh if marking.how == "fresh" else self.effort.embed,
            augment=self.augment,
            watch=0,
        )

    def marked(self, marking: Marking) -> nn.Module:
        """The marked model, trained once."""

        def train(checkpoint: Path) -> nn.Module:
            embed = self.embed(marking).but(checkpoint=checkpoint)
            return embed(self.host, self.mark(marking), self.data, rng(self.seed))

        return self.store.model(marking.slug, self._fresh, train)

    # -- measurements

    def look(self, model: nn.Module, mark: TriggerSet) -> Point:
        """Accuracy kept and evidence left: the pair that every attack is judged by."""
        verdict = TriggerTest()(as_query(model), mark)
        return {
            "val_acc": 100 * accuracy(model, self.data.test),
            "asr": 100 * accuracy(model, mark.as_images()),
            "trials": 100 * verdict.statistic / verdict.n,
            "log10_p": verdict.log10_p,
        }

    def unmarked(self) -> Point:
        """The host's own accuracy (Table 1)."""
        return self.store.value("host", lambda: {"val_acc": 100 * accuracy(self.host, self.data.test)})

    def embedded(self, marking: Marking) -> Point:
        """Effectiveness and fidelity (Table 2), and how the unmarked host answers the same triggers."""

        def measure() -> Point:
            begun, mark, host = time.monotonic(), self.mark(marking), self.host
            model = self.marked(marking)
            spent, asked = time.monotonic() - begun, self.look(host, mark)
            assert mark.teaching is not None, "fused triggers are taught"
            return {
                **self.look(model, mark),
                "taught": 100 * accuracy(model, mark.teaching),
                "host_asr": asked["asr"],
                "host_val_acc": asked["val_acc"],
                "seconds": spent,
            }

        return self.store.value(marking.slug, measure)

    def fine_tuned(self, marking: Marking, rate: float, seen: bool) -> list[Point]:
        """Fine-tuning trials in a row, on images of the owner or on others: the state before, then after each."""
        thief = self.thief
        attack = FineTune(
            epochs=thief.epochs,
            lr=rate,
            batch_size=32,
            optimizer="sgd",
            weight_decay=5e-4,
            images=min(thief.images, len(self._of_thief(seen).train)),
            trials=thief.trials,
        )
        slug = f"{marking.slug}.tuned-{rate:g}-{'seen' if seen else 'unseen'}"
        return self._curve(slug, marking, attack, self._of_thief(seen))

    def transferred(self, marking: Marking, target: str) -> list[Point]:
        """Transfer learning: the accuracy is the one on the owner's task, `new_acc` the one on the thief's."""
        other, _ = open_images(self.effort.data or target, self.root)
        attack = Transfer(
            data=reduced(other, None, None, self._size, self.seed),
            epochs=self.thief.transfer_epochs,
            images=self.thief.transfer_images,
            optimizer="sgd",
            trials=self.thief.trials,
        )
        return self._curve(f"{marking.slug}.transferred-{target}", marking, attack, self.data)

    def _curve(self, slug: str, marking: Marking, attack: FineTune | Transfer, data: Data) -> list[Point]:
        """The state before, then after each trial. The thief is shown no trigger and chooses nothing by one."""

        def measure() -> list[Point]:
            mark, model = self.mark(marking), self.marked(marking)
            target = attack.target(data, rng(self.seed)).test if isinstance(attack, Transfer) else None
            points: list[Point] = []
            for stage in _before_and_after(model, attack.stages(model, data, rng(self.seed))):
                new = {} if target is None else {"new_acc": 100 * accuracy(stage, target)}
                points.append({"trial": float(len(points)), **self.look(stage, mark), **new})
            return points

        return self.store.value(slug, measure)

    def pruned(self, marking: Marking, recalibrate: bool) -> list[Point]:
        """Global L1 pruning at rising shares, with batch norm recalibrated on the thief's images or left as it is."""

        def measure() -> list[Point]:
            mark, model = self.mark(marking), self.marked(marking)
            thief = self._of_thief(seen=False)
            images = len(thief.train) if recalibrate else 0
            return [
                {
                    "share": share,
                    **self.look(PruneGlobal(share, recalibrate=images)(model, thief, rng(self.seed)), mark),
                }
                for share in (0.0, *self.thief.shares)
            ]

        return self.store.value(f"{marking.slug}.pruned{'-recalibrated' if recalibrate else ''}", measure)

    def overwritten(self, marking: Marking) -> Point:
        """The same scheme once more, with the thief's key, sources and target (Table 3)."""

        def measure() -> Point:
            mark, model, other = self.mark(marking), self.marked(marking), self.mark(marking, other=True)
            embed = self.embed(marking).but(settings=self.thief.overwrite)
            attack = Overwrite(lambda *_: other, embed, MarkKey(bytes(32)))
            attacked = attack(model, self.data, rng(self.seed))
            return {**self.look(attacked, mark), "new_asr": 100 * accuracy(attacked, other.as_images())}

        return self.store.value(f"{marking.slug}.overwritten", measure)

    def extracted(self, marking: Marking, attack: str) -> Point:
        """A fresh network that learns from the marked one's answers; an innocent one of the same kind beside it."""
        if attack not in _EXTRACTIONS:
            raise BadInput(f"extraction: expected one of {', '.join(_EXTRACTIONS)}, got {attack!r}")

        def measure() -> Point:
            mark, model, run = self.mark(marking), self.marked(marking), self.thief.extract
            thief = replace(
                _EXTRACTIONS[attack],
                epochs=run.epochs,
                lr=run.lr,
                milestones=run.milestones,
                batch_size=run.batch_size,
                weight_decay=run.weight_decay,
                augment=self.augment,
                checkpoint=self.store.checkpoint(f"{marking.slug}.extracted-{attack}"),
            )
            return self.look(thief(model, self.data, rng(self.seed)), mark)

        return self.store.value(f"{marking.slug}.extracted-{attack}", measure)

    def _of_thief(self, seen: bool) -> Data:
        """The thief's images: some of those that the owner trained on, or as many others."""
        return self.data if seen else Data(self.aside, self.data.test)


_EXTRACTIONS = {
    "soft": Extract(answers="soft", loss="mse"),
    "hard": Extract(answers="hard"),
    "noise": Extract(answers="soft", loss="mse", noise=0.1),
}


def _embedding(how: str, bench: Bench) -> Backdoor:
    effort = bench.effort
    algorithm = partial(
        function_coupled, drop=effort.drop, refine_images=effort.refine_images, refine_lr=effort.refine_lr
    )
    made: Mapping[str, Callable[[], Backdoor]] = {
        "enhanced": algorithm,
        "plain": partial(function_coupled, drop=0.0, refine_images=0),
        "fresh": partial(algorithm, fresh=True),
        "2023-02": function_coupled_2023_02,
        "2023-06": function_coupled_2023_06,
        "kept": lambda: fixll_pfl().but(masking=Masking(effort.drop)),
    }
    return made[how]()


def _set_aside(data: Data, count: int, seed: int) -> tuple[Data, Images]:
    """The owner's data, and `count` training images that the owner never sees."""
    order = torch.randperm(len(data.train), generator=rng(seed + 1))
    return Data(data.train.subset(order[count:]), data.test), data.train.subset(order[:count])


def _before_and_after(model: nn.Module, stages: Iterable[nn.Module]) -> Iterable[nn.Module]:
    yield model
    yield from stages
