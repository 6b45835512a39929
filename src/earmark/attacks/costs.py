"""What an attack took: measured by watching the model that it is given and the images that it takes.

>>> from earmark.attacks import attack, measured
>>> from earmark.core import rng
>>> from earmark.data import digits
>>> from earmark.models import PlainCNN
>>> model, data = PlainCNN((1, 8, 8), 10), digits()
>>> thief = attack("extract-soft", images=100, epochs=1, milestones=())
>>> copy, spent = measured(thief, model, data, rng(0))
>>> spent.samples, spent.queries, spent.weights, round(spent.share, 3)
(100, 100, False, 0.07)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from earmark.attacks.needs import Needs
from earmark.core import Data, Images, Query
from earmark.models.modes import given

__all__ = ["Spent", "measured"]

M = TypeVar("M", nn.Module, Query)
R = TypeVar("R")


@final
@dataclass(frozen=True)
class Spent:
    """What one call of an attack took.

    Attributes:
        seconds: by the clock, on the machine that it ran on.
        samples: different images of the data that it took, of train and test together.
        queries: images that the given model itself was asked about, each time that it was. What is asked of copies
            that the thief made from the weights costs him time alone.
        weights: whether the attack needs the weights; None where it does not say.
        share: of the training images, the share that it took, 0 to 1.
    """

    seconds: float
    samples: int
    queries: int
    weights: bool | None
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return asdict(self)


def measured(
    attack: Callable[[M, Data, torch.Generator], R], model: M, data: Data, rng: torch.Generator
) -> tuple[R, Spent]:
    """Run any attack (a removal, an evasion, a forger) and tell what it took; the result is the same as unwatched.

    Of an evasion it is what preparing it took: each question afterwards costs one query.

    Args:
        attack: what is called with the other three; it, or what it is a method of, states its needs.
        model: a module, or a query.
        data: the thief's.
        rng: the generator that the attack draws from.
    """
    train, test = (torch.zeros(len(images), dtype=torch.bool) for images in (data.train, data.test))
    watched = Data(_Watched.of(data.train, train), _Watched.of(data.test, test))
    asked: list[int] = []
    stated = getattr(attack, "needs", getattr(getattr(attack, "__self__", None), "needs", None))
    start = time.perf_counter()
    if isinstance(model, nn.Module):
        with _counting(model, asked):
            result = attack(model, watched, rng)
    else:
        result = attack(_counted(model, asked), watched, rng)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    weights = stated.weights if isinstance(stated, Needs) else None
    share = int(train.sum()) / max(1, len(train))
    return result, Spent(seconds, int(train.sum() + test.sum()), sum(asked), weights, share)


@contextmanager
def _counting(model: nn.Module, asked: list[int]) -> Iterator[None]:
    """Note how many images `model` is asked about; a hook on all modules, so that no copy of the model carries one."""

    def note(module: nn.Module, args: Any, named: Any, _: Any) -> None:
        if module is model:
            asked.append(len(given(args, named)))

    hook = register_module_forward_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _counted(query: Query, asked: list[int]) -> Query:
    def ask(images: Tensor) -> Tensor:
        asked.append(len(images))
        return query(images)

    return ask


@final
class _Watched(Images):
    """Images that note which of them are taken: some by `subset` and `sample`, all by any other look at the pixels.

    What `replace` makes of them notes nothing: their pixels were all looked at.
    """

    @classmethod
    def of(cls, images: Images, taken: Tensor) -> _Watched:
        """The images, which set `taken` (N,) where one is taken."""
        watched = cls(images.pixels, images.labels, images.classes, images.name)
        watched.__dict__["taken"] = taken
        return watched

    def __getattribute__(self, name: str) -> Any:
        if name == "pixels":
            self._take(slice(None))
        return super().__getattribute__(name)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, without a look at any."""
        return self._plain().shape

    def subset(self, index: Tensor) -> Images:
        """The images at `index`, which are noted."""
        self._take(index)
        return self._plain().subset(index)

    def _take(self, index: Tensor | slice) -> None:
        if "taken" in self.__dict__:
            self.__dict__["taken"][index] = True

    def _plain(self) -> Images:
        held = self.__dict__
        return Images(held["pixels"], held["labels"], held["classes"], held["name"])
