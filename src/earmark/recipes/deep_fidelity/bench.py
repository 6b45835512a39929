"""One setting at one scale with one seed: what its rows share, and how a row is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from earmark.attacks import FineTune, Half, PruneGlobal
from earmark.bench.sources import open_images, reduced
from earmark.bench.store import Store
from earmark.core import Data, Remove, rng
from earmark.data import CropFlip, corrupted, ood
from earmark.embed import Backdoor, FromModel, FromScratch, method
from earmark.fidelity import DeepFidelity, penultimate_feature_loss, softmax_loss, total_weight_loss
from earmark.files import load_tensors, save_tensors
from earmark.keys import MarkKey
from earmark.marks import Abstract, Noise, Stamped, TriggerMint, TriggerSet
from earmark.models import built, dissect
from earmark.recipes.deep_fidelity.plans import Plan
from earmark.recipes.deep_fidelity.scales import SCALES, Scale
from earmark.recipes.deep_fidelity.settings import SETTINGS
from earmark.training import Record, Settings, read_all, train_host

__all__ = ["Bench", "images_of"]


def images_of(setting: str, scale: str) -> str:
    """The data set that a setting reads at a scale."""
    return "digits" if scale == "quick" else SETTINGS[setting].data


class Bench:
    """One setting at one scale with one seed: its data, its host, its marks and its rows, made when they are needed."""

    def __init__(self, setting: str, scale: str, seed: int, data: Path | None, out: Path) -> None:
        self.name, self.scale, self.out = setting, scale, out
        self.setting, self.effort, self.seed = SETTINGS[setting], SCALES[scale][setting], seed
        effort = {name: value for name, value in vars(self.effort).items() if name not in ("notes", "seeds")}
        own = {"effort": repr(effort), "setting": repr(self.setting.host), "seed": seed}
        read, _, self.notes = open_images(images_of(setting, scale), data)
        _, height, width = read.shape
        size = (height // self.effort.shrink, width // self.effort.shrink)
        self.data = reduced(read, self.effort.images, self.effort.test, size, seed)
        self.store = Store(out / scale / setting / f"seed{seed}", own, self.data)
        self.augment = self._views()
        self._host: nn.Module | None = None
        self._fidelity: dict[str, DeepFidelity] = {}

    # -- a row

    def measure(self, plan: Plan) -> dict[str, Any]:
        """The row's metrics, from its file if it was measured before."""
        return self.store.value(plan.slug, lambda: self._measure(plan))

    def _measure(self, plan: Plan) -> dict[str, Any]:
        before = self._before(plan)
        if before is not None:
            self.measure(before)
        begun = time.monotonic()
        history: list[Record] = []
        model = self._marked(plan, history)
        self._keep_cloud(plan, model)
        report = self._meter(plan.mint)(model, self.host, self.data).to_dict()
        report |= {f"agreement_{name}": share for name, share in report.pop("agreement").items()}
        return {**report, "history": history, "seconds": time.monotonic() - begun}

    def _marked(self, plan: Plan, history: list[Record]) -> nn.Module:
        if plan.method is None:
            return self.host
        if plan.attack is None:
            marked = self._method(plan, history)(self.host, self.mark(plan.mint), self.data, rng(self.seed))
            save_tensors(self.store.path(f"{plan.slug}.safetensors"), marked.state_dict())
            return marked
        return self._attack(plan.attack)(self._embedded(plan.embedding), self.data, rng(self.seed))

    def _before(self, plan: Plan) -> Plan | None:
        """The row whose marked model this one's embedding begins with, with the same triggers."""
        begun = self.effort.begins.get(plan.method or "") if not plan.weights else None
        return None if begun is None else replace(begun, mint=plan.mint, m=plan.m, curves=plan.curves)

    def _embedded(self, plan: Plan) -> nn.Module:
        """The marked model of a row, which is measured first where it was not."""
        self.measure(plan)
        model = self._fresh()
        model.load_state_dict(load_tensors(self.store.path(f"{plan.slug}.safetensors")))
        return model

    def _method(self, plan: Plan, history: list[Record]) -> Backdoor:
        assert plan.method is not None
        given: dict[str, Any] = dict(plan.weights)
        if plan.method == "polytope":
            given["shape"] = self.setting.polytope
        composed = method(plan.method, **given)
        from_scratch = isinstance(composed.start, FromScratch)
        settings = self.effort.run(plan, from_scratch)
        if plan.m is not None:
            settings = settings.but(triggers_per_batch=min(plan.m, self.effort.triggers))
        before = self._before(plan)
        early = self.effort.patience is not None and not from_scratch and not plan.curves
        return composed.but(
            settings=settings,
            start=composed.start if before is None else FromModel(self._embedded(before)),
            augment=self.augment,
            enough=1.0 if early else None,
            patience=self.effort.patience or 0,
            select=self.effort.select,
            watch=self.effort.watch,
            checkpoint=self.store.checkpoint(plan.slug),
            measures=self._curves() if plan.curves else {},
            on_history=history.extend,
        )

    def _curves(self) -> dict[str, Callable[[nn.Module], float]]:
        """The metrics of Figure 6, on a thousand training images."""
        some = self.data.train.sample(1_000)
        anatomy = dissect(self.host, some.pixels[:1])
        then = read_all(self.host, anatomy, some)
        return {
            "twl": lambda model: total_weight_loss(model, self.host) or 0.0,
            "ave_pfl": lambda model: penultimate_feature_loss(read_all(model, anatomy, some).features, then.features),
            "ave_spl": lambda model: softmax_loss(read_all(model, anatomy, some).logits, then.logits),
        }

    def _views(self) -> CropFlip | None:
        """The random view of training images, its padding shrunk as the images are."""
        views = self.setting.augment if self.effort.augment else None
        return None if views is None else replace(views, pad=views.pad // self.effort.shrink)

    def _attack(self, attack: str | float) -> Remove:
        if attack == "fine-tuned":
            return FineTune(epochs=self.effort.attack_epochs, augment=self.augment)
        return Half() if attack == "half" else PruneGlobal(share=float(attack))

    # -- what rows share

    @property
    def host(self) -> nn.Module:
        """The host, trained once."""
        if self._host is None:
            self._host = self.store.model("host", self._fresh, self._train_host)
        return self._host

    def _train_host(self, checkpoint: Path) -> nn.Module:
        watched = Data(self.data.train, self.data.test.sample(self.effort.watch))
        settings, augment = self.effort.host, self.augment
        return train_host(self._fresh(), watched, rng(self.seed), settings, augment=augment, checkpoint=checkpoint)

    def mark(self, kind: str) -> TriggerSet:
        """The trigger set of this kind, from a key that the seed makes: a throw-away owner."""
        key = MarkKey(self.seed.to_bytes(32, "big"))
        return _mint(kind, self.effort)(key, None, self.data)

    def _meter(self, kind: str) -> DeepFidelity:
        if kind not in self._fidelity:
            some = self.data.test.sample(500)
            others = {
                "corrupted": corrupted(some, "gaussian-noise", 3, rng(self.seed)),
                "ood": ood(some, rng(self.seed)),
            }
            self._fidelity[kind] = DeepFidelity(self.mark(kind), others).against(self.host, self.data)
        return self._fidelity[kind]

    def cloud(self, plan: Plan) -> Path:
        """The file of a row's features."""
        return self.store.path(f"{plan.slug}.cloud.safetensors")

    def _keep_cloud(self, plan: Plan, model: nn.Module) -> None:
        """Features, labels and prototypes of some training images, for the paper's Figures 1, 4 and 5."""
        some = self.data.train.sample(2_000)
        anatomy = dissect(model, some.pixels[:1])
        cloud = {"features": read_all(model, anatomy, some).features, "labels": some.labels}
        save_tensors(self.cloud(plan), {**cloud, "prototypes": anatomy.linear(model).weight})

    def _fresh(self) -> nn.Module:
        build = partial(self.setting.build, self.data.classes, self.effort.width)
        return built(build, rng(self.seed)).to(Settings().torch_device())


def _mint(kind: str, effort: Scale) -> TriggerMint:
    if kind == "noise":
        return Noise(count=effort.triggers, std=effort.std)
    return (
        Abstract(count=effort.triggers)
        if kind == "abstract"
        else Stamped(count=effort.triggers, text=effort.text, carrier="abstract", opacity=0.75)
    )
