"""Hua & Teoh 2023, Tables 4 to 8: every row trained, measured, and set beside the printed number.

Three scales. `full` is the paper's setting as far as the paper and its released code state it. `cpu` is for two CPU
cores: fewer images, saturated noise, more triggers than images in a batch, no augmentation. `quick` runs in seconds on
scikit-learn's digits with a narrow network and shows that the machinery works, nothing else.

A row is measured once and kept as one JSON file under `out`, with its models beside it; a run that is killed goes on
from the last checkpoint of the row that it was in.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earmark.attacks import FineTune, Half, PruneGlobal
from earmark.core import Data, Images, Remove, rng
from earmark.data import corrupted, digits, folder, idx, ood, resized
from earmark.data.augment import CropFlip
from earmark.embed import Backdoor, method
from earmark.errors import BadInput, unknown_name
from earmark.fidelity import DeepFidelity, penultimate_feature_loss, softmax_loss, total_weight_loss
from earmark.files import load_tensors, read_json, save_tensors, write_json
from earmark.keys import MarkKey
from earmark.marks import Abstract, Noise, Stamped, TriggerMint, TriggerSet
from earmark.models import ThinResNet18, WideResNet, dissect, normalised, reinitialised
from earmark.training import HOST, Augment, Checkpoint, Record, Settings, read_all, train_host

__all__ = ["SCALES", "SETTINGS", "TABLES", "Bench", "Row", "Scale", "Setting", "printed_tables", "reproduce"]


# ------------------------------------------------------------------------------------------- the paper's three settings


@dataclass(frozen=True)
class Setting:
    """A host of the paper: its network, behind its normalisation, its data, and the polytope that fits its feature."""

    data: str
    build: Callable[[int, int], nn.Module]
    polytope: str
    augment: Augment | None = None


def _mnist(features: int) -> Callable[[int, int], nn.Module]:
    return lambda classes, width: normalised(
        ThinResNet18(classes, features, width=width), [0.1307], [0.3081], channels=3
    )


def _cifar10(classes: int, width: int) -> nn.Module:
    net = ThinResNet18(classes, 64, width=width)
    return normalised(net, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], channels=3)


def _cifar100(classes: int, width: int) -> nn.Module:
    net = WideResNet(classes, depth=28 if width >= 16 else 10, widen=10 if width >= 16 else 1)
    return normalised(net, [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761], channels=3)


SETTINGS: Mapping[str, Setting] = {
    "mnist_d2": Setting("mnist", _mnist(2), "fan"),
    "mnist_d3": Setting("mnist", _mnist(3), "fan"),
    "cifar10_resnet18_d64": Setting("cifar10", _cifar10, "simplex", CropFlip()),
    "cifar100_wrn28_10_d640": Setting("cifar100", _cifar100, "simplex", CropFlip()),
}


# ----------------------------------------------------------------------------------------------------- the three scales


@dataclass(frozen=True)
class Scale:
    """How much of the paper's effort a run makes.

    Attributes:
        images, test: how many training and test images, drawn once per seed; None for all.
        shrink: by how much height and width are divided, by box averages.
        width: channels of the network's stem, 16 in the paper.
        std: standard deviation of the noise triggers before clipping to [0, 1].
        triggers: how many.
        host, embed, scratch: training settings of hosts, of embedding by fine-tuning, of embedding from scratch.
        m: triggers per batch where a table does not vary it.
        settings: which settings of the paper it covers.
        augment: whether training images are cropped and flipped where the paper does.
        patience: epochs after the trigger accuracy first reached 100 %; None trains on and takes the best epoch.
        attack_epochs: epochs of Table 8's fine-tuning attack.
        watch: test images that early stopping and selection look at after each epoch.
        notes: what a reader has to know beside the numbers.
    """

    images: int | None
    test: int | None
    shrink: int
    width: int
    std: float
    triggers: int
    host: Settings
    embed: Settings
    scratch: Settings
    settings: tuple[str, ...]
    augment: bool
    patience: int | None
    attack_epochs: int
    watch: int
    seeds: int
    notes: tuple[str, ...] = field(default=())


SCALES: Mapping[str, Scale] = {
    "full": Scale(
        images=None,
        test=None,
        shrink=1,
        width=16,
        std=0.25,
        triggers=100,
        host=HOST.but(epochs=50, milestones=(25,)),
        embed=Settings(epochs=50, milestones=(25,)),
        scratch=HOST.but(epochs=50, milestones=(25,), triggers_per_batch=4),
        settings=tuple(SETTINGS),
        augment=True,
        patience=None,
        attack_epochs=50,
        watch=10_000,
        seeds=3,
        notes=("The host is the epoch with the best test accuracy, as in the paper.",),
    ),
    "cpu": Scale(
        images=20_000,
        test=10_000,
        shrink=2,
        width=16,
        std=1.0,
        triggers=100,
        host=HOST.but(epochs=5, milestones=(3, 4)),
        embed=Settings(epochs=20, steps_per_epoch=100, batch_size=16, triggers_per_batch=16),
        scratch=HOST.but(epochs=2, milestones=(1,), triggers_per_batch=8),
        settings=("mnist_d2", "mnist_d3", "cifar10_resnet18_d64"),
        augment=False,
        patience=0,
        attack_epochs=2,
        watch=250,
        seeds=1,
        notes=(
            "Images are box-resized to half their height and width (MNIST 14 x 14, CIFAR-10 16 x 16), which makes a "
            "step four times cheaper; the network is the paper's.",
            "20,000 training images drawn by the seed, no augmentation, so the host's outputs are looked up.",
            "Triggers: normal noise with a standard deviation of 1 on [0, 1] pixels, clipped (the paper's code scales "
            "its noise to about 0.18 after normalisation); 16 triggers and 16 images per step (the paper: 4 and 32).",
            "Embedding by fine-tuning stops at the first 100 % of trigger accuracy, looked at every 100 steps, or "
            "after 2,000 steps; the paper trains 20 to 50 epochs and selects by hand.",
            "From-scratch rows train 2 epochs at the host's rate with 8 triggers per batch.",
        ),
    ),
    "quick": Scale(
        images=400,
        test=200,
        shrink=1,
        width=4,
        std=1.0,
        triggers=20,
        host=HOST.but(epochs=8, milestones=(6,)),
        embed=Settings(epochs=4, batch_size=16, triggers_per_batch=16, lr=1e-3),
        scratch=HOST.but(epochs=4, triggers_per_batch=8),
        settings=tuple(SETTINGS),
        augment=False,
        patience=0,
        attack_epochs=1,
        watch=100,
        seeds=1,
        notes=("scikit-learn's digits and a narrow network: a check of the machinery, not a reproduction.",),
    ),
}


# --------------------------------------------------------------------------------------------------- the paper's tables


@dataclass(frozen=True)
class Row:
    """One row of a table: an embedding method with its weight and m, a kind of trigger, and an attack afterwards.

    `method` None is the host itself. `attack` is a share to prune, "fine-tuned" or "half". `curves` asks for the
    fidelity metrics after each epoch, and for no early stop.
    """

    label: str
    method: str | None
    weights: Mapping[str, float] = field(default_factory=dict)
    m: int | None = None
    mint: str = "noise"
    attack: str | float | None = None
    curves: bool = False

    @property
    def embedding(self) -> Row:
        """The row without its attack: what has to be embedded first."""
        return replace(self, attack=None)

    @property
    def slug(self) -> str:
        """A file name that carries every parameter, so tables share the rows that they have in common."""
        parts = [self.method or "host", *(f"{name}{value:g}" for name, value in self.weights.items())]
        parts += [f"m{self.m}"] if self.m is not None else []
        parts += [self.mint.replace("+", "-")] if self.mint != "noise" else []
        parts += [str(self.attack)] if self.attack is not None else []
        parts += ["curves"] if self.curves else []
        return "_".join(parts).replace("+", "-")


LABELS = {
    "ftll": "FTLL",
    "ftal": "FTAL",
    "ftal+twl": "FTAL+TWL",
    "fixll": "FixLL",
    "fixll+twl": "FixLL+TWL",
    "fixll+pfl": "FixLL+PFL",
    "fixll+spl": "FixLL+SPL",
    "scratch": "Scratch",
    "fixll+scratch": "FixLL+Scratch",
    "polytope": "Fixed polytope",
}
FINE_TUNED = ("ftal", "ftal+twl", "fixll", "fixll+twl", "fixll+pfl", "fixll+spl")
ATTACKED = {"fine-tuned": "fine-tuned", "half": "half precision", 0.2: "pruned 20 %", 0.5: "pruned 50 %"}
HOST_ROW = Row("Host", None)


def _all_methods() -> list[Row]:
    """Every method at the paper's weights, and two that the trade-off of Figure 7 makes worth a row of their own."""
    lighter = Row("FixLL+SPL, gamma = 100", "fixll+spl", {"gamma": 100.0})
    heavier = Row("FixLL+PFL, beta = 0.1", "fixll+pfl", {"beta": 0.1})
    return [HOST_ROW, *(Row(label, name) for name, label in LABELS.items()), lighter, heavier]


def _table6() -> list[Row]:
    held = ("fixll+twl", "fixll+pfl", "fixll+spl")
    return [HOST_ROW, *(Row(f"{LABELS[name]}, m = {m}", name, m=m) for m in (4, 16, 32) for name in held)]


def _table7() -> list[Row]:
    kinds = ("abstract", "abstract+string")
    return [HOST_ROW, *(Row(f"{LABELS[name]}, {kind}", name, mint=kind) for kind in kinds for name in FINE_TUNED)]


def _table8() -> list[Row]:
    compressed = ("scratch", "fixll", "fixll+pfl", "fixll+spl")
    methods: dict[str | float, tuple[str, ...]] = {
        "fine-tuned": ("scratch", "fixll", "fixll+scratch"),
        "half": compressed,
        0.2: compressed,
        0.5: compressed,
    }
    return [
        Row(f"{LABELS[name]}, {ATTACKED[attack]}", name, attack=attack)
        for attack, names in methods.items()
        for name in names
    ]


def _figure6() -> list[Row]:
    return [Row(LABELS[name], name, curves=True) for name in ("fixll+twl", "fixll+pfl", "fixll+spl")]


def _figure7() -> list[Row]:
    swept = {
        ("fixll+twl", "alpha"): (0.0001, 0.001, 0.01, 0.1, 1.0),
        ("fixll+pfl", "beta"): (0.0001, 0.001, 0.01, 0.1, 1.0),
        ("fixll+spl", "gamma"): (10.0, 100.0, 1000.0, 10_000.0, 100_000.0),
    }
    return [
        Row(f"{LABELS[name]}, {weight} = {value:g}", name, weights={weight: value})
        for (name, weight), values in swept.items()
        for value in values
    ]


TABLES: Mapping[str, tuple[tuple[str, ...], Callable[[], list[Row]]]] = {
    "table4": (("mnist_d2", "mnist_d3"), _all_methods),
    "table5": (("cifar10_resnet18_d64", "cifar100_wrn28_10_d640"), _all_methods),
    "table6": (("mnist_d2",), _table6),
    "table7": (("cifar10_resnet18_d64",), _table7),
    "table8": (("cifar100_wrn28_10_d640", "cifar10_resnet18_d64"), _table8),
    "figure6": (("mnist_d2",), _figure6),
    "figure7": (("mnist_d2",), _figure7),
}
METRICS = ("val_acc", "trig_acc", "twl", "ave_pfl", "ave_spl", "prototype_change", "relative_pfl")
EXTRA = ("agreement_test", "agreement_corrupted", "agreement_ood", "seconds")


# -------------------------------------------------------------------------------------------------------------- running


def reproduce(
    table: str | None, scale: str, data: Path | None, out: Path, seeds: int | None = None, settings: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Measure `table` (all of them for None) at `scale`, keep every row under `out`, and return what was found.

    Args:
        table: table4, table5, table6, table7, table8, figure6 or figure7.
        scale: quick, cpu or full.
        data: the folder with mnist/, cifar10/ and so on; None takes the environment's EARMARK_DATA. `quick` needs none.
        out: rows, hosts, models and checkpoints go here; what is already there is not measured again.
        seeds: how many seeds; None for the scale's own number.
        settings: only these of the table's settings; empty for all that the scale covers.

    Returns:
        One JSON value per table and setting: paper's value and ours, percent for accuracies, and all settings; with
        each row its epochs' history and the file of its features (`features`, `labels`, `prototypes`) for the figures.

    Raises:
        BadInput: an unknown table, scale or setting, or data that is not there.
    """
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    for name in [table] if table else []:
        if name not in TABLES:
            raise unknown_name("table", name, TABLES)
    for name in settings:
        if name not in SETTINGS:
            raise unknown_name("setting", name, SETTINGS)
    effort = SCALES[scale]
    printed = printed_tables()
    found = []
    for name in [table] if table else TABLES:
        covered, rows = TABLES[name]
        for setting in covered:
            if setting in effort.settings and (not settings or setting in settings):
                bench = [Bench(setting, scale, seed, data, out) for seed in range(seeds or effort.seeds)]
                measured = [(row, [b.measure(row) for b in bench]) for row in rows()]
                paper = printed.get(name, {}).get(setting, {})
                found.append(_summary(name, setting, scale, measured, paper, out))
    return found


def printed_tables() -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """What the paper prints: table, setting, row, metric; accuracies in percent."""
    text = resources.files("earmark.recipes").joinpath("deep_fidelity.json").read_text(encoding="utf-8")
    tables: dict[str, dict[str, dict[str, dict[str, float | None]]]] = json.loads(text)["tables"]
    return tables


class Bench:
    """One setting at one scale with one seed: its data, its host, its marks and its rows, made when they are needed."""

    def __init__(self, setting: str, scale: str, seed: int, data: Path | None, out: Path) -> None:
        self.setting, self.effort, self.seed = SETTINGS[setting], SCALES[scale], seed
        self.folder = out / scale / setting / f"seed{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = _draw(_open(self.setting.data, scale, data), self.effort, seed)
        self.augment = self.setting.augment if self.effort.augment else None
        self._host: nn.Module | None = None
        self._fidelity: dict[str, DeepFidelity] = {}

    # -- a row

    def measure(self, row: Row) -> dict[str, Any]:
        """The row's metrics, from its file if it was measured before."""
        path = self.folder / f"{row.slug}.json"
        if not path.exists():
            begun = time.monotonic()
            model, history = self._marked(row)
            self._keep_cloud(row, model)
            report = self._meter(row.mint)(model, self.host, self.data).to_dict()
            report |= {f"agreement_{name}": share for name, share in report.pop("agreement").items()}
            write_json(path, {**report, "history": history, "seconds": time.monotonic() - begun})
        result: dict[str, Any] = read_json(path)
        return result

    def _marked(self, row: Row) -> tuple[nn.Module, list[Record]]:
        if row.method is None:
            return self.host, []
        if row.attack is None:
            return self._embed(row)
        self.measure(row.embedding)
        model = self._load(self.folder / f"{row.embedding.slug}.safetensors")
        return self._attack(row.attack)(model, self.data, rng(self.seed)), []

    def _embed(self, row: Row) -> tuple[nn.Module, list[Record]]:
        history: list[Record] = []
        checkpoint = self.folder / f"{row.slug}.checkpoint.safetensors"
        marked = self._method(row, checkpoint, history)(self.host, self.mark(row.mint), self.data, rng(self.seed))
        save_tensors(self.folder / f"{row.slug}.safetensors", marked.state_dict())
        checkpoint.unlink(missing_ok=True)
        return marked, history

    def _method(self, row: Row, checkpoint: Path, history: list[Record]) -> Backdoor:
        assert row.method is not None
        given: dict[str, Any] = dict(row.weights)
        if row.method == "polytope":
            given["shape"] = self.setting.polytope
        from_scratch = row.method in ("scratch", "fixll+scratch", "polytope")
        settings = self.effort.scratch if from_scratch else self.effort.embed
        if row.m is not None:
            settings = settings.but(triggers_per_batch=min(row.m, self.effort.triggers))
        early = self.effort.patience is not None and not from_scratch and not row.curves
        return method(row.method, **given).but(
            settings=settings,
            augment=self.augment,
            enough=1.0 if early else None,
            patience=self.effort.patience or 0,
            select="best" if self.effort.patience is None else "last",
            watch=self.effort.watch,
            checkpoint=checkpoint,
            measures=self._curves() if row.curves else {},
            on_epoch=history.append,
        )

    def _curves(self) -> dict[str, Callable[[nn.Module], float]]:
        """The metrics of Figure 6, on a thousand training images."""
        some = self.data.train.subset(torch.arange(min(1_000, len(self.data.train))))
        anatomy = dissect(self.host, some.pixels[:1])
        then = read_all(self.host, anatomy, some)
        return {
            "twl": lambda model: total_weight_loss(model, self.host) or 0.0,
            "ave_pfl": lambda model: penultimate_feature_loss(read_all(model, anatomy, some).features, then.features),
            "ave_spl": lambda model: softmax_loss(read_all(model, anatomy, some).logits, then.logits),
        }

    def _attack(self, attack: str | float) -> Remove:
        if attack == "fine-tuned":
            return FineTune(epochs=self.effort.attack_epochs, augment=self.augment)
        return Half() if attack == "half" else PruneGlobal(share=float(attack))

    # -- what rows share

    @property
    def host(self) -> nn.Module:
        """The host, trained once."""
        if self._host is None:
            path = self.folder / "host.safetensors"
            if path.exists():
                self._host = self._load(path)
            else:
                checkpoint = Checkpoint(self.folder / "host.checkpoint.safetensors")
                settings = self.effort.host
                watched = Data(
                    self.data.train, self.data.test.subset(torch.arange(min(self.effort.watch, len(self.data.test))))
                )
                self._host = train_host(
                    self._fresh(), watched, rng(self.seed), settings, augment=self.augment, checkpoint=checkpoint
                )
                save_tensors(path, self._host.state_dict())
                checkpoint.path.unlink(missing_ok=True)
        return self._host

    def mark(self, kind: str) -> TriggerSet:
        """The trigger set of this kind, from a key that the seed makes: a throw-away owner."""
        key = MarkKey(self.seed.to_bytes(32, "big"))
        return _mint(kind, self.effort)(key, None, self.data)

    def _meter(self, kind: str) -> DeepFidelity:
        if kind not in self._fidelity:
            some = self.data.test.subset(torch.arange(min(500, len(self.data.test))))
            others = {
                "corrupted": corrupted(some, "gaussian-noise", 3, rng(self.seed)),
                "ood": ood(some, rng(self.seed)),
            }
            self._fidelity[kind] = DeepFidelity(self.mark(kind), others).against(self.host, self.data)
        return self._fidelity[kind]

    def _keep_cloud(self, row: Row, model: nn.Module) -> None:
        """Features, labels and prototypes of some training images, for the paper's Figures 1, 4 and 5."""
        some = self.data.train.subset(torch.arange(min(2_000, len(self.data.train))))
        anatomy = dissect(model, some.pixels[:1])
        cloud = {"features": read_all(model, anatomy, some).features, "labels": some.labels}
        save_tensors(
            self.folder / f"{row.slug}.cloud.safetensors", {**cloud, "prototypes": anatomy.linear(model).weight}
        )

    def _fresh(self) -> nn.Module:
        net = self.setting.build(self.data.classes, self.effort.width)
        return reinitialised(net, rng(self.seed))

    def _load(self, path: Path) -> nn.Module:
        model = self._fresh()
        model.load_state_dict(load_tensors(path))
        return model


def _mint(kind: str, effort: Scale) -> TriggerMint:
    if kind == "noise":
        return Noise(count=effort.triggers, std=effort.std)
    return (
        Abstract(count=effort.triggers)
        if kind == "abstract"
        else Stamped(count=effort.triggers, text="EARMARK", carrier="abstract")
    )


# ----------------------------------------------------------------------------------------------------------------- data


def _open(name: str, scale: str, data: Path | None) -> Data:
    if scale == "quick":
        return digits()
    root = data or (Path(os.environ["EARMARK_DATA"]) if "EARMARK_DATA" in os.environ else None)
    if root is None:
        raise BadInput(
            f"scale {scale!r} needs real images: give the folder that holds {name}/ as --data or EARMARK_DATA"
        )
    if name == "mnist":
        return idx(root / "mnist")
    if name == "cifar100" and not (root / "cifar100").exists():
        return folder(root / "tinyimagenet100-32")
    return folder(root / name)


def _draw(data: Data, effort: Scale, seed: int) -> Data:
    def some(images: Images, count: int | None) -> Images:
        if count is not None and count < len(images):
            images = images.subset(torch.randperm(len(images), generator=rng(seed))[:count])
        _, height, width = images.shape
        pixels = resized(images.pixels, height // effort.shrink, width // effort.shrink)
        return Images(pixels, images.labels, images.classes, images.name)

    return Data(some(data.train, effort.images), some(data.test, effort.test))


# -------------------------------------------------------------------------------------------------------------- results


def _summary(
    table: str,
    setting: str,
    scale: str,
    measured: list[tuple[Row, list[dict[str, Any]]]],
    paper: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    effort = SCALES[scale]
    rows = [
        {
            "method": row.label,
            "metrics": {name: _pair(name, paper.get(row.label, {}), results) for name in (*METRICS, *EXTRA)},
            "history": results[0]["history"],
            "weights": dict(row.weights),
            "cloud": str(out / scale / setting / "seed0" / f"{row.slug}.cloud.safetensors"),
        }
        for row, results in measured
    ]
    return {
        "table": table,
        "setting": setting,
        "scale": scale,
        "rows": rows,
        "settings": _describe(effort, setting),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, "
        + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
        + f", torch {torch.__version__}",
        "notes": list(effort.notes),
    }


def _pair(name: str, paper: Mapping[str, float | None], results: list[dict[str, Any]]) -> dict[str, Any]:
    scale = 100.0 if name.endswith("_acc") or name.startswith("agreement_") else 1.0
    ours = [None if (value := result.get(name)) is None else value * scale for result in results]
    return {"paper": paper.get(name), "ours": ours}


def _describe(effort: Scale, setting: str) -> dict[str, Any]:
    own = {name: value for name, value in vars(effort).items() if name not in ("settings", "notes")}
    runs = {name: own.pop(name).to_dict() for name in ("host", "embed", "scratch")}
    return {"data": SETTINGS[setting].data, **own, **{f"{name} run": run for name, run in runs.items()}}
