"""One setting at one scale with one seed: its host, its marked models, and what each attack leaves of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from earmark.attacks import Extract, FineTune, Overwrite, PruneGlobal, Transfer
from earmark.bench.sources import Source, open_images, reduced
from earmark.bench.store import Store
from earmark.core import Data, Images, rng
from earmark.errors import Diverged
from earmark.keys import MarkKey
from earmark.marks import TriggerSet
from earmark.models import built
from earmark.models.modes import is_batchnorm
from earmark.recipes.function_coupled.baselines import Copied
from earmark.recipes.function_coupled.marking import AnyMarking
from earmark.recipes.function_coupled.scales import SCALES
from earmark.recipes.function_coupled.settings import SETTINGS
from earmark.recipes.rows import Point
from earmark.suspects import as_query
from earmark.training import Settings, accuracy, train_host
from earmark.verify import TriggerTest

__all__ = ["EXTRACTIONS", "Bench"]


class Bench:
    """What the tables of one setting share. Every model and every measurement is made once and kept."""

    def __init__(self, setting: str, scale: str, seed: int, data: Path | None, out: Path) -> None:
        self.name, self.scale, self.seed, self.root = setting, scale, seed, data
        self.setting, self.effort = SETTINGS[setting], SCALES[scale][setting]
        self.thief = self.effort.thief
        effort = {name: value for name, value in vars(self.effort).items() if name not in ("notes", "seeds")}
        read, self.images, self.notes = open_images(self.effort.data or self.setting.data, data)
        whole = reduced(read, self.effort.images, self.effort.test, self._size, seed)
        self.data, self.aside = _set_aside(whole, self.effort.aside, seed)
        about = {"effort": repr(effort), "seed": seed}
        self.store = Store(out / scale / setting / f"seed{seed}", about, self.data)
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
        """The epoch is chosen on training images, so that neither a test image nor one set aside has a say."""
        return train_host(
            self._fresh(),
            Data(self.data.train, self.data.train.sample(2_000)),
            rng(self.seed),
            self.effort.host,
            augment=self.augment,
            checkpoint=checkpoint,
        )

    def _fresh(self) -> nn.Module:
        build = partial(self.setting.build, self.data.shape, self.data.classes, self.effort.width)
        return built(build, rng(self.seed)).to(Settings().torch_device())

    def mark(self, marking: AnyMarking, other: bool = False) -> TriggerSet:
        """The trigger set, from a key that the seed makes: a throw-away owner, or thief. It is kept.

        Adversarial triggers follow from the host's gradients, whose last bits are not alike on all machines.
        """
        mint = marking.mint(self.effort, self.data.classes, other)
        slug = f"{marking.slug}{'.other' if other else ''}.mark"
        return self.store.mark(slug, lambda: mint(self._key(other), self.host, self.data))

    def _key(self, other: bool) -> MarkKey:
        return MarkKey((self.seed + 1_000 * other).to_bytes(32, "big"))

    def marked(self, marking: AnyMarking) -> nn.Module:
        """The marked model, or the network that a thief has copied it into, trained once."""

        def train(checkpoint: Path) -> nn.Module:
            if isinstance(marking, Copied):
                return self._student(self.marked(marking.victim), marking.answers)(checkpoint)
            embed = marking.embed(self.effort).but(augment=self.augment, checkpoint=checkpoint)
            return embed(self.host, self.mark(marking), self.data, rng(self.seed))

        return self.store.model(marking.slug, self._fresh, train)

    @property
    def has_batchnorm(self) -> bool:
        """Whether a thief has statistics to recalibrate."""
        return any(map(is_batchnorm, self.host.modules()))

    # -- measurements

    def look(self, model: nn.Module, mark: TriggerSet) -> Point:
        """Accuracy kept and evidence left, by which every attack is judged; `asr` is of triggers, `won` of trials."""
        verdict = TriggerTest()(as_query(model), mark)
        return {
            "val_acc": 100 * accuracy(model, self.data.test),
            "asr": 100 * accuracy(model, mark.as_images()),
            "won": 100 * verdict.statistic / verdict.n,
            "log10_p": verdict.log10_p,
        }

    def unmarked(self) -> Point:
        """The host's own accuracy (Table 1)."""
        return self.store.value("host", lambda: {"val_acc": 100 * accuracy(self.host, self.data.test)})

    def embedded(self, marking: AnyMarking) -> Point:
        """Effectiveness and fidelity (Table 2), and how the unmarked host answers the same triggers."""

        def measure() -> Point:
            mark = self.mark(marking)
            model, asked = self.marked(marking), self.look(self.host, mark)
            return {
                **self.look(model, mark),
                "taught": 100 * accuracy(model, mark.lessons),
                "host_asr": asked["asr"],
                "host_val_acc": asked["val_acc"],
            }

        return self.store.value(marking.slug, measure)

    def fine_tuned(self, marking: AnyMarking, rate: float, seen: bool) -> list[Point]:
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

    def target(self, name: str) -> Source:
        """The task that a thief transfers the model to, in the size of the owner's images."""
        read, name, notes = open_images(self.effort.data or name, self.root)
        return Source(reduced(read, None, None, self._size, self.seed), name, notes)

    def transferred(self, marking: AnyMarking, name: str) -> list[Point]:
        """Transfer learning: the accuracy is the one on the owner's task, `new_acc` the one on the thief's."""
        data, name, _ = self.target(name)
        attack = Transfer(
            data=data,
            epochs=self.thief.transfer_epochs,
            images=self.thief.transfer_images,
            optimizer="sgd",
            trials=self.thief.trials,
        )
        return self._curve(f"{marking.slug}.transferred-{name}", marking, attack, self.data)

    def _curve(self, slug: str, marking: AnyMarking, attack: FineTune | Transfer, data: Data) -> list[Point]:
        """The state before, then after each trial. The thief is shown no trigger and chooses nothing by one.

        A trial that diverges is the last, and leaves no model.
        """
        attack = replace(attack, checkpoint=self.store.checkpoint(slug))

        def measure() -> list[Point]:
            mark, model = self.mark(marking), self.marked(marking)
            target = attack.target(data, rng(self.seed)).test if isinstance(attack, Transfer) else None
            points: list[Point] = []
            try:
                for stage in chain([model], attack.stages(model, data, rng(self.seed))):
                    new = {} if target is None else {"new_acc": 100 * accuracy(stage, target)}
                    points.append({"trial": float(len(points)), **self.look(stage, mark), **new})
            except Diverged:
                points.append({**dict.fromkeys(points[-1]), "trial": float(len(points))})
            return points

        return self.store.value(slug, measure)

    def pruned(self, marking: AnyMarking, recalibrate: bool) -> list[Point]:
        """Global L1 pruning at rising shares, with batch norm recalibrated on the thief's images or left as it is."""

        def measure() -> list[Point]:
            mark, model = self.mark(marking), self.marked(marking)
            thief = self._of_thief(seen=False)
            images = min(self.thief.images, len(thief.train)) if recalibrate else 0
            return [
                {
                    "share": share,
                    **self.look(PruneGlobal(share, recalibrate=images)(model, thief, rng(self.seed)), mark),
                }
                for share in (0.0, *self.thief.shares)
            ]

        return self.store.value(f"{marking.slug}.pruned{'-recalibrated' if recalibrate else ''}", measure)

    def overwritten(self, marking: AnyMarking) -> Point:
        """The same scheme once more, with the thief's key, sources and target (Table 3)."""

        def measure() -> Point:
            mint = marking.mint(self.effort, self.data.classes, other=True)
            embed = marking.embed(self.effort)
            run = self.thief.overwrite.but(triggers_per_batch=embed.settings.triggers_per_batch)
            embed = embed.but(settings=run)
            attack = Overwrite(mint, embed, self._key(other=True))
            mark, model = self.mark(marking), self.marked(marking)
            attacked, other = attack(model, self.data, rng(self.seed)), attack.mark(model, self.data)
            return {**self.look(attacked, mark), "new_asr": 100 * accuracy(attacked, other.as_images())}

        return self.store.value(f"{marking.slug}.overwritten", measure)

    def extracted(self, marking: AnyMarking, attack: str) -> Point:
        """A fresh network that learns from the marked one's answers; `innocent_asr` is of one that asked the host."""
        slug = f"{marking.slug}.extracted-{attack}"

        def measure() -> Point:
            mark = self.mark(marking)
            innocent = self.store.model(f"host.extracted-{attack}", self._fresh, self._student(self.host, attack))
            answered = {"innocent_asr": self.look(innocent, mark)["asr"]}
            try:
                student = self._student(self.marked(marking), attack)(self.store.checkpoint(slug))
            except Diverged:
                return {**dict.fromkeys(("val_acc", "asr", "won", "log10_p")), **answered}
            return {**self.look(student, mark), **answered}

        return self.store.value(slug, measure)

    def _student(self, model: nn.Module, attack: str) -> Callable[[Path], nn.Module]:
        """What learns from the answers of `model`, given a checkpoint."""
        run = self.thief.extract
        thief = replace(
            EXTRACTIONS[attack],
            epochs=run.epochs,
            lr=run.lr,
            milestones=run.milestones,
            batch_size=run.batch_size,
            weight_decay=run.weight_decay,
            augment=self.augment,
        )
        return lambda checkpoint: replace(thief, checkpoint=checkpoint)(model, self.data, rng(self.seed))

    def _of_thief(self, seen: bool) -> Data:
        """The thief's images: some of those that the owner trained on, or as many others."""
        return self.data if seen else Data(self.aside, self.data.test)


EXTRACTIONS = {
    "soft": Extract(answers="soft", loss="mse"),
    "hard": Extract(answers="hard"),
    "noise": Extract(answers="soft", loss="mse", noise=0.1),
}


def _set_aside(data: Data, count: int, seed: int) -> tuple[Data, Images]:
    """The owner's data, and `count` training images that the owner never sees."""
    order = torch.randperm(len(data.train), generator=rng(seed + 1))
    return Data(data.train.subset(order[count:]), data.test), data.train.subset(order[:count])
