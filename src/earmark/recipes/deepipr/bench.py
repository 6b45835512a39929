"""One setting at one scale with one seed: baselines, protected networks, and what each attack leaves of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from earmark.attacks import FlipScales, PruneGlobal, Transfer
from earmark.bench.sources import open_images, reduced
from earmark.bench.store import Store
from earmark.core import Data, rng
from earmark.embed import PassportLayers
from earmark.files import save_tensors
from earmark.keys import MarkKey
from earmark.layers import Site, passport_norms
from earmark.marks import Abstract, PassportMint, Passports, TriggerSet
from earmark.models import built, dissect
from earmark.recipes.deepipr.scales import SCALES
from earmark.recipes.deepipr.settings import SETTINGS
from earmark.recipes.deepipr.watching import parameters_of, watched_layer
from earmark.recipes.rows import Point
from earmark.suspects import as_query
from earmark.training import CrossEntropy, Record, Settings, accuracy, fit
from earmark.verify import PassportTest, TriggerTest, presented

__all__ = ["Bench", "Protection"]

OTHERS = 1_000
"""Keys of forgers are numbered from here."""


@dataclass(frozen=True)
class Protection:
    """A scheme on a network with a norm: "bn" or "gn"; V1 has the paper's batch norm, V2 and V3 its group norm.

    Attributes:
        scheme: V1, V2 or V3, or "baseline" for a network without passports.
        norm: the network's.
    """

    scheme: str
    norm: str

    @property
    def slug(self) -> str:
        """A file name that carries every parameter."""
        return f"{self.scheme.lower()}-{self.norm}"

    @property
    def baseline(self) -> Protection:
        """The unprotected network with this norm."""
        return Protection("baseline", self.norm)


class Bench:
    """What the tables of one setting share. Every model and every measurement is made once and kept."""

    def __init__(self, setting: str, scale: str, seed: int, data: Path | None, out: Path) -> None:
        self.name, self.scale, self.seed, self.root = setting, scale, seed, data
        self.setting, self.effort = SETTINGS[setting], SCALES[scale][setting]
        effort = {name: value for name, value in vars(self.effort).items() if name not in ("notes", "seeds")}
        read, self.images, self.notes = open_images(self.effort.data or self.setting.data, data)
        self.data = reduced(read, self.effort.images, self.effort.test, self._size, seed)
        self.out = out
        self.store = Store(out / scale / setting / f"seed{seed}", {"effort": repr(effort), "seed": seed}, self.data)
        self.augment = self.setting.augment if self.effort.augment else None
        self.run = self.effort.run.but(weight_decay=self.setting.weight_decay)

    @property
    def _size(self) -> tuple[int, int] | None:
        return None if self.effort.side is None else (self.effort.side, self.effort.side)

    # -- networks

    def fresh(self, norm: str, classes: int | None = None) -> nn.Module:
        """The network as it is before training; other classes where they are given."""
        shape, width = self.data.shape, self.effort.width
        build = partial(self.setting.build, shape, classes or self.data.classes, width, norm)
        return built(build, rng(self.seed)).to(Settings().torch_device())

    def network(self, one: Protection) -> nn.Module:
        """The network, trained from scratch once: what is released of a protected one."""
        return self.store.model(one.slug, lambda: self.fresh(one.norm), partial(self.trained, one))

    def trained(self, one: Protection, checkpoint: Path | None = None, steps: int | None = None) -> nn.Module:
        """The network, trained anew; it ends after so many `steps`, where some are given."""
        run = self.run.but(steps=steps)
        if one.scheme != "baseline":
            return self._embed(one).but(settings=run, checkpoint=checkpoint)(
                self.fresh(one.norm), self.mark(one), self.data, rng(self.seed)
            )
        model = self.fresh(one.norm)
        fit(
            model,
            self.data.train,
            (CrossEntropy(),),
            run.but(triggers_per_batch=0),
            rng(self.seed),
            augment=self.augment,
            checkpoint=checkpoint,
            title="baseline",
        )
        return model

    def _embed(self, one: Protection) -> PassportLayers:
        return PassportLayers(
            public=one.scheme != "V1",
            triggers=self.triggers if one.scheme == "V3" else None,
            augment=self.augment,
            watch=0,
        )

    def converging(self, one: Protection) -> list[Point]:
        """The protected network's training once more, watched after each epoch (Figure 18).

        Accuracy, and what `watched_layer` measures of the middle one of the passport layers.
        """

        def measure() -> list[Point]:
            history: list[Record] = []
            site = self.middle(one)
            embed = self._embed(one).but(
                settings=self.run,
                watch=self.effort.watch,
                measures=watched_layer(site),
                on_history=history.extend,
                checkpoint=self.store.checkpoint(f"{one.slug}.converging"),
            )
            embed(self.fresh(one.norm), self.mark(one), self.data, rng(self.seed))
            return [{"epoch": at, **record, "val_acc": 100 * record["val_acc"]} for at, record in enumerate(history, 1)]

        return self.store.value(f"{one.slug}.converging", measure)

    def mark(self, one: Protection, other: int | None = None) -> Passports:
        """The passports of the owner's key, or of a forger's; feature maps are the baseline's."""
        mint = PassportMint(
            layers=self.setting.layers,
            passports=self.effort.passports,  # type: ignore[arg-type]
            images=self.effort.candidates,
            tolerance=self.setting.tolerance,
        )
        number = self.seed if other is None else OTHERS + other
        return mint(MarkKey(number.to_bytes(32, "big")), self.network(one.baseline), self.data)

    def middle(self, one: Protection) -> Site:
        """The middle one of the passport layers, Conv4 of AlexNet_p."""
        sites = self.mark(one).sites
        return sites[len(sites) // 2]

    def samples(self, one: Protection) -> Path:
        """A file of the middle passport layer's parameters in the released network (Figure 19)."""
        path = self.store.path(f"{one.slug}.parameters.safetensors")
        if not path.exists():
            save_tensors(path, parameters_of(self.network(one), self.middle(one)))
        return path

    @property
    def triggers(self) -> TriggerSet:
        """The trigger set of V3."""
        return Abstract(count=self.effort.triggers)(MarkKey(self.seed.to_bytes(32, "big")), None, self.data)

    def relative(self, path: Path) -> str:
        """A file of the store, as seen from the folder of all results."""
        return str(path.relative_to(self.out))

    # -- measurements

    def accuracy(self, model: nn.Module, data: Data | None = None) -> float:
        """On the test images, in percent; on those of another task where it is given."""
        return 100 * accuracy(model, (data or self.data).test)

    def measured(self, one: Protection) -> Point:
        """Accuracy, its distance to the baseline, and what verification finds (Table 7)."""

        def measure() -> Point:
            model = self.network(one)
            found: Point = {"acc": self.accuracy(model)}
            if one.scheme == "baseline":
                return found
            found["kappa"] = (found["acc"] or 0.0) - (self.measured(one.baseline)["acc"] or 0.0)
            found["private_acc"] = self.accuracy_with(model, self.mark(one))
            if one.scheme == "V3":
                found["triggers"] = 100 * accuracy(model, self.triggers.as_images())
            return {**found, **self._verified(model, one)}

        return self.store.value(one.slug, measure)

    def needs(self, one: Protection) -> Point:
        """What verification and use take (Table 12), each 1 or 0, read off the released network.

        A passport at inference, if passport layers are left in it; black-box verification, if its triggers answer.
        """
        model = self.network(one)
        answers = TriggerTest()(as_query(model), self.triggers) if one.scheme == "V3" else None
        return {
            "passport_needed": float(bool(passport_norms(model))),
            "black_box": float(answers is not None and bool(answers.accepted)),
        }

    def _verified(self, model: nn.Module, one: Protection) -> Point:
        verdict = PassportTest()(model, self.mark(one))
        layers = verdict.details["layers"]
        return {"detected": 100 * sum(layers) / len(layers), "log10_p": verdict.log10_p}

    def accuracy_with(self, model: nn.Module, mark: Passports) -> float:
        """The accuracy with these passports presented, with whichever batch norm statistics are better."""
        some = self.data.train.sample(1_000)
        return max(self.accuracy(plain) for plain in presented(model, mark, some))

    def target(self, name: str) -> tuple[Data, str, list[str]]:
        """A task that the network is transferred to, in the size of the owner's images."""
        read, held, notes = open_images(self.effort.data or name, self.root)
        return reduced(read, self.effort.target_images, self.effort.test, self._size, self.seed), held, notes

    def transferred(self, one: Protection, name: str) -> Point:
        """After all layers have learnt another task with a new head (RTAL): accuracy there, and what is left."""

        def measure() -> Point:
            model, (target, _, _) = self.network(one), self.target(name)
            checkpoint = self.store.checkpoint(f"{one.slug}.to-{name}")
            tuned = self.transfer(target, checkpoint)(model, self.data, rng(self.seed))
            found: Point = {"acc": self.accuracy(tuned, target)}
            if one.scheme == "baseline":
                return found
            found["kappa"] = (found["acc"] or 0.0) - (self.transferred(one.baseline, name)["acc"] or 0.0)
            if one.scheme == "V3":
                found["triggers"] = 100 * accuracy(self.with_old_head(tuned, model), self.triggers.as_images())
            return {**found, **self._verified(tuned, one)}

        return self.store.value(f"{one.slug}.to-{name}", measure)

    def transfer(self, target: Data, checkpoint: Path) -> Transfer:
        """RTAL: all layers learn another task, the last one afresh."""
        run = self.effort.tune
        return Transfer(
            data=target,
            fresh_head=True,
            all_classes=True,
            trials=1,
            epochs=run.epochs,
            lr=run.lr,
            milestones=run.milestones,
            batch_size=run.batch_size,
            optimizer="sgd",
            momentum=run.momentum,
            weight_decay=run.weight_decay,
            augment=self.setting.target_augment if self.effort.augment else None,
            checkpoint=checkpoint,
        )

    def with_old_head(self, tuned: nn.Module, model: nn.Module) -> nn.Module:
        """The tuned network under the head that it had before: the only one that answers with the triggers' labels."""
        mixed, anatomy = copy.deepcopy(tuned), dissect(model, self.data.test.pixels[:1])
        mixed.set_submodule(anatomy.head, copy.deepcopy(anatomy.linear(model)))
        return mixed

    def pruned(self, one: Protection) -> list[Point]:
        """Global pruning of the smallest weights at rising shares, without repair (Figure 12)."""

        def measure() -> list[Point]:
            model, points = self.network(one), []
            for share in self.effort.shares:
                left = PruneGlobal(share)(model, self.data, rng(self.seed))
                points.append({"share": share, "val_acc": self.accuracy(left), **self._verified(left, one)})
            return points

        return self.store.value(f"{one.slug}.pruned", measure)

    def flipped(self, one: Protection) -> list[Point]:
        """Rising shares of the scales negated, without repair (Figures 14 and 15)."""

        def measure() -> list[Point]:
            model = self.network(one)
            points: list[Point] = []
            for share in self.effort.shares:
                left = FlipScales(share, self.setting.layers)(model, self.data, rng(self.seed))
                points.append({"flipped": share, "val_acc": self.accuracy(left)})
            return points

        return self.store.value(f"{one.slug}.flipped", measure)

    def guessed(self, one: Protection) -> Point:
        """Passports of other keys presented (fake1, Figure 13): how the network answers, and which bits they show."""

        def measure() -> Point:
            model, forged = self.network(one), [self.mark(one, other) for other in range(self.effort.draws)]
            seen = torch.tensor([self.accuracy_with(model, mark) for mark in forged])
            bits = torch.tensor([float((m.read(m.weights_in(model)) == m.bits).float().mean()) for m in forged])
            own = self.measured(one)
            return {
                "private_acc": own["private_acc"],
                "forged_acc": float(seen.mean()),
                "best_forged_acc": float(seen.max()),
                "forged_detected": 100 * float(bits.mean()),
                "best_forged_detected": 100 * float(bits.max()),
            }

        return self.store.value(f"{one.slug}.guessed", measure)
