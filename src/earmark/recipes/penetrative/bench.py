"""One setting at one scale with one seed: its autoencoders, its marks, its classifiers, and what reaches them."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from earmark.attacks import Autoencode, BitDepth, Blur, Chain, Jpeg, Median, NoiseDenoise, Washer, query_accuracy
from earmark.bench.sources import open_images, reduced
from earmark.bench.store import Store
from earmark.core import Data, Images, Query, rng
from earmark.fidelity import DeepFidelity
from earmark.files import load_tensors, read_json, save_tensors, write_json
from earmark.keys import MarkKey
from earmark.marks import TriggerMint, TriggerSet
from earmark.marks.triggers.stamps import distance, prestamps, stamp_values
from earmark.models import Autoencoder, Bank, MLPAutoencoder, autoencoder, built, device_of, evaluating
from earmark.recipes.penetrative.marking import Marking
from earmark.recipes.penetrative.scales import SCALES
from earmark.recipes.penetrative.settings import SETTINGS
from earmark.recipes.rows import Point
from earmark.stats import chernoff_bound
from earmark.suspects import as_query
from earmark.training import Settings, accuracy, reconstruction_errors, train_autoencoder, train_host
from earmark.verify import TriggerTest

__all__ = ["Bench"]

PAPERS_LAMBDA = 0.998
"""Where the search for the Chernoff bound stopped whose values the paper prints."""
DIRECTIONS = 4
SHOWN = 6


def _washers(epochs: int | None) -> Mapping[str, Washer]:
    """Other things that a thief may put in front, the autoencoders of other families and widths among them."""
    learnt = {
        f"{family} autoencoder, b = {bottleneck}": Autoencode(family, bottleneck, epochs=epochs)
        for family, bottleneck in (("mlp", 64), ("conv", 32), ("conv", 64), ("denoising", 64), ("variational", 32))
    }
    return {
        **{f"JPEG, quality {quality}": Jpeg(quality) for quality in (75, 40, 20)},
        **{f"blur, sigma {sigma:g}": Blur(sigma) for sigma in (0.6, 1.0)},
        "median, 3 x 3": Median(),
        **{f"bit depth {bits}": BitDepth(bits) for bits in (3, 1)},
        **{f"noise {std:g}, then median": NoiseDenoise(std) for std in (0.1, 0.2)},
        "JPEG, blur and bit depth": Chain((Jpeg(50), Blur(0.6), BitDepth(3))),
        **learnt,
    }


class Bench:
    """What the tables of one setting share. Every model, mark and measurement is made once and kept."""

    def __init__(self, setting: str, scale: str, seed: int, data: Path | None, out: Path) -> None:
        self.name, self.scale, self.seed, self.root, self.out = setting, scale, seed, data, out
        self.setting, self.effort = SETTINGS[setting], SCALES[scale][setting]
        effort = {name: value for name, value in vars(self.effort).items() if name not in ("notes", "seeds")}
        read, self.images, self.notes = open_images(self.effort.data or self.setting.data, data)
        self.data = reduced(read, self.effort.images, self.effort.test, None, seed)
        self.owner, self.thief = _divided(self.data, self.effort.owner, seed)
        self.store = Store(out / scale / setting / f"seed{seed}", {"effort": repr(effort), "seed": seed}, self.data)
        self._host: nn.Module | None = None
        self._banks: dict[str, Bank] = {}
        self._marks: dict[str, TriggerSet] = {}

    # -- models

    @property
    def host(self) -> nn.Module:
        """The unmarked classifier, trained once."""
        if self._host is None:
            watched = Data(self.data.train, self.data.train.sample(2_000))
            self._host = self.store.model(
                "host",
                self._fresh,
                lambda checkpoint: train_host(
                    self._fresh(), watched, rng(self.seed), self.effort.host, checkpoint=checkpoint
                ),
            )
        return self._host

    def _fresh(self) -> nn.Module:
        build = partial(self.setting.build, self.data.shape, self.data.classes, self.effort.width)
        return built(build, rng(self.seed)).to(Settings().torch_device())

    def shadows(self, bottleneck: int | None = None, count: int | None = None) -> Bank:
        """The first `count` of the owner's K autoencoders, all trained at once."""
        whole = self._bank("shadows", self.effort.shadows, bottleneck, self.owner.train)
        return whole if count is None else Bank(whole.members()[:count])

    def adversaries(self, bottleneck: int | None = None) -> Bank:
        """Autoencoders of the same form on images that the owner never used."""
        return self._bank("adversaries", self.effort.adversaries, bottleneck, self.thief.train)

    def _bank(self, name: str, count: int, bottleneck: int | None, images: Images) -> Bank:
        width = bottleneck or self.effort.bottleneck
        slug, seed = f"{name}-b{width}", 100 * self.seed + (50 if name == "adversaries" else 0)

        def fresh() -> Bank:
            make = partial(MLPAutoencoder, self.data.shape, width)
            bank = Bank([built(make, rng(seed + at)) for at in range(count)])
            return bank.to(Settings().torch_device())

        def train(checkpoint: Path) -> Bank:
            run = self.effort.autoencoder
            return train_autoencoder(fresh(), images, rng(seed), run, checkpoint=checkpoint, title=slug)

        if slug not in self._banks:
            self._banks[slug] = cast(Bank, self.store.model(slug, fresh, train))
        return self._banks[slug]

    def mark(self, marking: Marking) -> TriggerSet:
        """The trigger set, from a key that the seed makes: a throw-away owner. The stamps are found once and kept."""
        slug = f"{marking.slug}.mark"
        if slug not in self._marks:
            tensors, about = self.store.path(f"{slug}.safetensors"), self.store.path(f"{slug}.spec.json")
            if not about.exists():
                mint = self._mint(marking)
                begun = time.monotonic()
                made = mint(self._key, None, self.owner)
                save_tensors(tensors, made.tensors())
                write_json(about, {"spec": made.spec(), "seconds": time.monotonic() - begun})
            self._marks[slug] = TriggerSet.from_parts(read_json(about)["spec"], load_tensors(tensors))
        return self._marks[slug]

    def _mint(self, marking: Marking) -> TriggerMint:
        outside = self._outside() if marking.kind == "outside" else self.data.train
        shadows = self.shadows(marking.bottleneck, marking.shadows)
        return marking.mint(self.effort, shadows, outside)

    @property
    def _key(self) -> MarkKey:
        return MarkKey(self.seed.to_bytes(32, "big"))

    def _outside(self) -> Images:
        read, _, _ = open_images(self.effort.data or self.setting.outside, self.root)
        return read.train

    def seconds(self, marking: Marking) -> float:
        """What minting the mark took, all of its stamps together; the shadows were trained before."""
        self.mark(marking)
        return float(read_json(self.store.path(f"{marking.slug}.mark.spec.json"))["seconds"])

    def marked(self, marking: Marking) -> nn.Module:
        """The marked classifier, trained once."""

        def train(checkpoint: Path) -> nn.Module:
            shadows = self.shadows(marking.bottleneck, marking.shadows)
            embed = marking.embed(self.effort, shadows).but(checkpoint=checkpoint)
            return embed(self.host, self.mark(marking), self.data, rng(self.seed))

        return self.store.model(marking.slug, self._fresh, train)

    # -- measurements

    def measure(self, marking: Marking) -> Point:
        """Accuracies on triggers and on test images, alone, through shadows, and through adversaries' autoencoders."""

        def measured() -> Point:
            mark, model = self.mark(marking), self.marked(marking)
            alone, shadow, unseen = (
                [self._look(model, mark, wash) for wash in washes]
                for washes in (
                    [None],
                    self.shadows(marking.bottleneck).members()[:1],
                    self.adversaries(marking.bottleneck).members(),
                )
            )
            return {
                "val_acc": _mean(alone, "val_acc"),
                "host_val_acc": 100 * accuracy(self.host, self.data.test),
                "ac": _mean(alone, "ac"),
                "ac_shadow": _mean(shadow, "ac"),
                "ac_unseen": _mean(unseen, "ac"),
                "val_acc_unseen": _mean(unseen, "val_acc"),
                "log10_printed": _mean(alone, "log10_printed"),
                "log10_printed_unseen": _mean(unseen, "log10_printed"),
                "log10_chernoff_unseen": _mean(unseen, "log10_chernoff"),
                "log10_p": _mean(alone, "log10_p"),
                "log10_p_unseen": _mean(unseen, "log10_p"),
                "moved": self._moved(mark),
            }

        return self.store.value(marking.slug, measured)

    def _look(self, model: nn.Module, mark: TriggerSet, wash: nn.Module | None) -> Point:
        query = as_query(model) if wash is None else _behind(cast(Autoencoder, wash), as_query(model))
        share = query_accuracy(query, mark.as_images())
        return {
            "val_acc": 100 * query_accuracy(query, self.data.test),
            "ac": 100 * share,
            "log10_printed": math.log10(chernoff_bound(share, len(mark), 1 / mark.classes, PAPERS_LAMBDA)),
            "log10_chernoff": math.log10(chernoff_bound(share, len(mark), 1 / mark.classes)),
            "log10_p": TriggerTest()(query, mark).log10_p,
        }

    def _moved(self, mark: TriggerSet) -> float | None:
        """The mean over the stamps of l(T, P), eq. (3)."""
        if mark.carriers is None or mark.settings["mint"] != "penetrative":
            return None
        found = mark.carriers.pixels[-mark.trials :]
        starts = prestamps(self._key.stream("prestamps"), str(mark.settings["pattern"]), len(found), mark.shape)
        return float(distance(found, starts).mean())

    def crossed(self, marking: Marking) -> list[float]:
        """The trigger accuracy through each of the shadows, in percent (Figure 3)."""

        def measured() -> list[float]:
            mark, model = self.mark(marking), self.marked(marking)
            each = [self._look(model, mark, member)["ac"] or 0.0 for member in self.shadows().members()[:4]]
            return each

        return self.store.value(f"{marking.slug}.crossed", measured)

    def autoencoders(self, bottleneck: int) -> Point:
        """What shadows and adversaries are worth: errors per image, and how far the shadows' gradients lie apart."""

        def measured() -> Point:
            shadows, adversaries = self.shadows(bottleneck), self.adversaries(bottleneck)
            host = as_query(self.host)
            seen = [query_accuracy(_behind(one, host), self.data.test) for one in _each(adversaries)]
            return {
                "error_shadow": float(reconstruction_errors(shadows, self.owner.train.sample(5_000)).mean()),
                "error_unseen": float(reconstruction_errors(adversaries, self.owner.train.sample(5_000)).mean()),
                "gradient_spread": self._gradient_spread(shadows),
                "host_val_acc_unseen": 100 * sum(seen) / len(seen),
            }

        return self.store.value(f"autoencoders-b{bottleneck}", measured)

    def _gradient_spread(self, shadows: Bank) -> float:
        """Mean over test images, pairs k < l and all entries of (dAE_k(x)/dx - dAE_l(x)/dx)^2.

        For directions u drawn uniformly from the sphere, E ||A^T u||^2 = ||A||_F^2 / n, so that the mean over the n x n
        entries of A is E ||A^T u||^2 / n, with n pixels. The paper's "mean squared loss on the gradient" is not
        defined.
        """
        some = self.data.test.sample(64).pixels.to(device_of(shadows)).float() / 255
        pixels, sums, pairs = math.prod(self.data.shape), 0.0, list(itertools.combinations(range(len(shadows)), 2))
        for at in range(DIRECTIONS):
            drawn = torch.randn(some.shape, generator=rng(at)).to(some.device)
            unit = drawn / drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            with evaluating(shadows):
                leaf = some.clone().requires_grad_()
                seen = (shadows(leaf)[1] * unit).flatten(1).sum(1)
                slopes = [torch.autograd.grad(one, leaf, retain_graph=True)[0] for one in seen]
            apart = torch.stack([(slopes[k] - slopes[m]).square().flatten(1).sum(1).mean() for k, m in pairs])
            sums += float(apart.mean()) / pixels
        return sums / DIRECTIONS

    @property
    def washers(self) -> Mapping[str, Washer]:
        """What the thief tries, by name."""
        return _washers(self.effort.washer)

    def washed(self, marking: Marking) -> list[Point]:
        """One point a washer: what the thief keeps and what the owner still proves, the first without any."""

        def measured() -> list[Point]:
            mark, model = self.mark(marking), self.marked(marking)
            query, points = as_query(model), []
            for at, wash in enumerate([None, *self.washers.values()]):
                seen = query if wash is None else self._washed(wash, query, at)
                verdict = TriggerTest()(seen, mark)
                kept = 100 * query_accuracy(seen, self.data.test)
                points.append({"val_acc": kept, "won": 100 * verdict.statistic / verdict.n, "log10_p": verdict.log10_p})
            return points

        return self.store.value(f"{marking.slug}.washed", measured)

    def _washed(self, wash: Washer, query: Query, at: int) -> Query:
        """The model behind a washer; one that learns is trained once for all marks."""
        if not isinstance(wash, Autoencode):
            return wash(query, self.thief, rng(self.seed + at))
        make = partial(autoencoder, wash.family, self.data.shape, bottleneck=wash.bottleneck)
        one = self.store.model(
            f"washer-{wash.family}-b{wash.bottleneck}",
            lambda: built(make, rng(self.seed)).to(Settings().torch_device()),
            lambda checkpoint: replace(wash, checkpoint=checkpoint).trained(self.thief, rng(self.seed + at)),
        )
        return _behind(cast(Autoencoder, one), query)

    def kept(self, marking: Marking) -> Point:
        """The marked classifier's deep fidelity to its host."""

        def measured() -> Point:
            found = DeepFidelity()(self.marked(marking), self.host, self.data)
            return {"twl": found.twl, "ave_pfl": found.ave_pfl, "ave_spl": found.ave_spl}

        return self.store.value(f"{marking.slug}.fidelity", measured)

    def pictures(self, marking: Marking) -> Path:
        """A file of prestamps, stamps, triggers and what an unseen autoencoder makes of them (Figures 1 and 4)."""
        path = self.store.path(f"{marking.slug}.pictures.safetensors")
        if not path.exists():
            save_tensors(path, self._pictures(marking))
        return path

    def _pictures(self, marking: Marking) -> dict[str, Tensor]:
        mark, one = self.mark(marking), _each(self.adversaries(marking.bottleneck))[0]
        shown = mark.images[:: max(1, len(mark) // SHOWN)][:SHOWN]
        with evaluating(one), torch.no_grad():
            made = (one(shown.to(device_of(one)).float() / 255).images.cpu() * 255).round().to(torch.uint8)
        tensors = {"triggers": shown, "through an autoencoder": made}
        if mark.carriers is not None and mark.settings["mint"] == "penetrative":
            found = mark.carriers.pixels[-mark.trials :][:SHOWN]
            starts = prestamps(self._key.stream("prestamps"), str(mark.settings["pattern"]), mark.trials, mark.shape)
            tensors |= {"prestamps": _visible(starts[:SHOWN]), "stamps": _visible(found)}
        return tensors


def _behind(one: Autoencoder, ask: Query) -> Query:
    """The model with an autoencoder in front."""

    def query(images: Tensor) -> Tensor:
        with evaluating(one), torch.no_grad():
            made = one(images.to(device_of(one))).images.to(images.device)
        return ask(made)

    return query


def _each(bank: Bank) -> Sequence[Autoencoder]:
    return cast(Sequence[Autoencoder], bank.members())


def _visible(stamps: Tensor) -> Tensor:
    """What a stamp adds, brought from -1..1 to the grey levels of an image."""
    return ((stamp_values(stamps) + 255) // 2).to(torch.uint8)


def _mean(points: Sequence[Point], name: str) -> float | None:
    values = [point[name] for point in points]
    return None if None in values else sum(value or 0.0 for value in values) / len(values)


def _divided(data: Data, share: float, seed: int) -> tuple[Data, Data]:
    """The owner's images and the thief's, by chance; both are measured on the same test images."""
    order = torch.randperm(len(data.train), generator=rng(seed + 1))
    cut = round(share * len(data.train))
    return Data(data.train.subset(order[:cut]), data.test), Data(data.train.subset(order[cut:]), data.test)
