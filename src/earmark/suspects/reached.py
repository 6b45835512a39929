"""A suspect that is reached through something: what all ways have in common, and the two ways in which they fail."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Self, TypeAlias

from torch import Tensor

from earmark.errors import BadInput, EarmarkError
from earmark.suspects.answers import Answer, rows

__all__ = ["Heard", "Reached", "Unreachable", "library"]

Heard: TypeAlias = Callable[[int, Answer], None]
"""Called with an image's position in the batch and what was said of it, as soon as it is known."""


class Unreachable(EarmarkError, ConnectionError):
    """A suspect that could not be asked: no verdict follows, and a transcript keeps what it had said."""


class Reached(ABC):
    """A `Query` that also tells image by image what came back, how it was reached, and how to let go of it.

    Called with images (N, C, H, W) in [0, 1] it gives scores (N, K or more), or labels (N,) where that is all there is;
    see `answers.rows` for what lists and faults become.

    Attributes:
        classes: K, the classes of the task that it is asked about.
    """

    classes: int

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """How the suspect was reached and what was done to images and answers on the way, as JSON without secrets."""

    @abstractmethod
    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        """What the suspect says of each image.

        Raises:
            Unreachable: it could not be asked; `heard` has had the answers that came before.
        """

    def close(self) -> None:
        """Let go of connections and files; asking afterwards is an error."""
        return

    def __call__(self, images: Tensor) -> Tensor:
        if images.ndim != 4:
            raise BadInput(f"expected images (N, C, H, W), got shape {tuple(images.shape)}; add the batch dimension")
        return rows(self.ask(images), self.classes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def library(name: str, extra: str) -> ModuleType:
    """A library that only some suspects need.

    Raises:
        BadInput: it is not installed; the message says what installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"this suspect needs {name}; install it with pip install 'earmark[{extra}]'") from error
