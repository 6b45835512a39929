"""Watermarks from before passports, in the face of ambiguity attacks (Fan et al. 2021, Section 3.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from earmark.attacks import AdversarialTriggers, ForgedProjection, Forger, Forgery, ProjectionForgery
from earmark.core import Embed, Mark, Mint, Verdict, rng
from earmark.embed import Backdoor, FromScratch, Uchida
from earmark.evidence.judge import minting_fault
from earmark.files import save_tensors
from earmark.keys import MarkKey
from earmark.marks import Abstract, Projection, ProjectionMint, TriggerSet
from earmark.recipes.deepipr.bench import Bench
from earmark.recipes.deepipr.watching import SAMPLES
from earmark.recipes.rows import Point
from earmark.suspects import as_query
from earmark.training import CrossEntropy
from earmark.verify import ProjectionTest, TriggerTest

__all__ = ["TRIGGERS", "UCHIDA", "Conventional", "compared_with_forged", "images", "projections"]

ETA = 10
"""How far a pixel of a forged trigger may move, of 255: the paper's 0.04. Small images of two tones need more."""


@dataclass(frozen=True)
class Conventional:
    """A watermark, by what it is made of.

    Attributes:
        slug: its name in files.
        mint: the owner's mark.
        embed: the method, from scratch.
        forger: whoever reads a mark of his own into the network.
        test: V, as published: on whatever mark is presented.
    """

    slug: str
    mint: Callable[[Bench], Mint[Any]]
    embed: Callable[[Bench], Backdoor | Uchida]
    forger: Callable[[Bench], Forger | ForgedProjection]
    test: Callable[[nn.Module, Any], Verdict]

    def mark(self, bench: Bench) -> Mark:
        """The owner's mark, for the network as it is before training."""
        key = MarkKey(bench.seed.to_bytes(32, "big"))
        mark: Mark = self.mint(bench)(key, bench.fresh("bn"), bench.data)
        return mark

    def network(self, bench: Bench) -> nn.Module:
        """The marked network, trained from scratch once."""

        def train(checkpoint: Path) -> nn.Module:
            own = {"settings": bench.run, "augment": bench.augment, "watch": 0, "checkpoint": checkpoint}
            embed: Embed[Any] = self.embed(bench).but(**own)
            return embed(bench.fresh("bn"), self.mark(bench), bench.data, rng(bench.seed))

        return bench.store.model(self.slug, lambda: bench.fresh("bn"), train)

    def transferred(self, bench: Bench, target: str) -> nn.Module:
        """The network after all layers have learnt another task with a new head (RTAL)."""
        data, slug = bench.target(target)[0], f"{self.slug}.to-{target}"

        def train(checkpoint: Path) -> nn.Module:
            return bench.transfer(data, checkpoint)(self.network(bench), bench.data, rng(bench.seed))

        return bench.store.model(slug, lambda: bench.fresh("bn", data.classes), train)

    def forge(self, bench: Bench) -> Forgery | ProjectionForgery:
        """The forger's mark for the marked network, whose weights stay."""
        return self.forger(bench).forge(self.network(bench), bench.data, rng(bench.seed))

    def detected(self, model: nn.Module, mark: Mark) -> float:
        """E[V] in percent: the share of bits that are right, or of triggers answered with their label."""
        details = self.test(model, mark).details
        return 100 * float(details["asr" if isinstance(mark, TriggerSet) else "share"])


def _adversary(bench: Bench) -> AdversarialTriggers:
    forger = AdversarialTriggers(count=bench.effort.triggers)
    return forger if bench.effort.data else replace(forger, epsilon=ETA)


UCHIDA = Conventional(
    "uchida",
    mint=lambda bench: ProjectionMint(),
    embed=lambda bench: Uchida(start=FromScratch()),
    forger=lambda bench: ForgedProjection(),
    test=ProjectionTest(),
)
TRIGGERS = Conventional(
    "triggers",
    mint=lambda bench: Abstract(count=bench.effort.triggers),
    embed=lambda bench: Backdoor("triggers", (CrossEntropy(),), start=FromScratch()),
    forger=_adversary,
    test=lambda model, mark: TriggerTest()(as_query(model), mark),
)


def compared_with_forged(bench: Bench, one: Conventional) -> Mapping[str, Point]:
    """Detection of the owner's mark and of the forger's, on the network and on each target that it is tuned to."""

    def measure() -> dict[str, Point]:
        model, owners = one.network(bench), one.mark(bench)
        began = time.perf_counter()
        forgery = one.forge(bench)
        seconds = time.perf_counter() - began
        found: dict[str, Point] = {
            "": {
                "acc": bench.accuracy(model),
                "real": one.detected(model, owners),
                "forged": one.detected(model, forgery.mark),
                "published": 100.0 * bool(one.test(model, forgery.mark).accepted),
                "judged": 100.0 * (minting_fault(forgery.mark, forgery.key) is None),
                "seconds": seconds,
            }
        }
        for name in bench.setting.targets:
            tuned = one.transferred(bench, name)
            read = bench.with_old_head(tuned, model)
            found[name] = {
                "acc": bench.accuracy(tuned, bench.target(name)[0]),
                "real": one.detected(read, owners),
                "forged": one.detected(read, forgery.mark),
            }
        return found

    return bench.store.value(f"{one.slug}.forged", measure)


def projections(bench: Bench) -> dict[str, Path]:
    """Files of X, and of X w before and after transfer to the first target: the owner's and the forger's (Figure 3)."""
    model, tuned = UCHIDA.network(bench), UCHIDA.transferred(bench, bench.setting.targets[0])
    files: dict[str, Path] = {}
    marks = {"owner": ("owner's", UCHIDA.mark(bench)), "forged": ("forged", UCHIDA.forge(bench).mark)}
    for slug, (label, mark) in marks.items():
        assert isinstance(mark, Projection), "both are projections"
        parts = {
            "projection": _some(mark.projection),
            "projected weights": mark.projected(model),
            "projected weights, transferred": mark.projected(tuned),
        }
        files[label] = _saved(bench, f"uchida.{slug}", parts)
    return files


def images(bench: Bench) -> dict[str, Path]:
    """Files of the pixels in [0, 1] of the images that forged triggers start from, and of the triggers (Figure 5)."""
    base = replace(_adversary(bench), steps=0)(TRIGGERS.network(bench), bench.data, rng(bench.seed))
    forged = TRIGGERS.forge(bench).mark
    assert isinstance(forged, TriggerSet), "the forger of triggers forges triggers"
    named = {"base images": base, "forged triggers": forged}
    return {
        label: _saved(bench, f"triggers.{label.split()[0]}", {"pixels": _some(mark.images).float() / 255})
        for label, mark in named.items()
    }


def _some(values: Tensor) -> Tensor:
    """Flat; of many, evenly spaced ones."""
    flat = values.flatten()
    return flat[:: max(1, len(flat) // SAMPLES)].contiguous()


def _saved(bench: Bench, slug: str, parts: Mapping[str, Tensor]) -> Path:
    path = bench.store.path(f"{slug}.samples.safetensors")
    if not path.exists():
        save_tensors(path, parts)
    return path
