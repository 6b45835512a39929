"""What one run is given, whether it fits together, and the digest by which a checkpoint knows it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from earmark.core import Images
from earmark.errors import BadInput
from earmark.files import digest, model_digest
from earmark.models import Reader, Reading, dtype_of
from earmark.training.masking import Masking
from earmark.training.refinement import Refinement
from earmark.training.settings import Augment, Settings
from earmark.training.terms import Term

__all__ = ["Case", "named"]

UNMIXED = (torch.float64, torch.float16)
"""What PyTorch does not mix with float32 in one step."""


@dataclass(frozen=True, eq=False)
class Case:
    """The arguments of one call of `fit`."""

    model: nn.Module
    data: Images
    terms: Sequence[Term]
    settings: Settings
    seed: int
    triggers: Images | None
    host: nn.Module | Reading | None
    augment: Augment | None
    head: str | Reader | None
    masking: Masking | None = None
    refinement: Refinement | None = None

    def check(self) -> None:
        """Raise `BadInput` for what cannot go together."""
        data, triggers, asked = self.data, self.triggers, self.settings.triggers_per_batch
        if not len(data):
            raise BadInput(f"{data.name} holds no image; give at least one")
        if not list(self.model.parameters()):
            raise BadInput("the model has no parameters; give a network that can learn")
        if self.settings.precision.endswith("mixed") and dtype_of(self.model) in UNMIXED:
            raise BadInput(
                f"precision {self.settings.precision!r} mixes with float32 and the model computes in "
                f"{dtype_of(self.model)}; give 32-true, which leaves models as they are, or a float32 model"
            )
        if not self.terms:
            raise BadInput("no loss term was given; give at least one")
        if self.host is None and any(term.needs_host for term in self.terms):
            raise BadInput(
                f"the terms {[t.name for t in self.terms if t.needs_host]} compare with a host; give host=..."
            )
        if isinstance(self.host, Reading) and {len(part) for part in self.host} != {len(data)}:
            raise BadInput(
                f"{data.name} has {len(data)} images and the host's reading {len(self.host.logits)}; give one row each"
            )
        if (triggers is None or not asked) and any(term.needs_triggers for term in self.terms):
            raise BadInput("a term looks at triggers alone and no batch holds any; raise triggers_per_batch above 0")
        if triggers is not None and asked > len(triggers):
            raise BadInput(
                f"{asked} triggers per batch were asked for, but there are {len(triggers)}; "
                "lower triggers_per_batch or mint more"
            )
        if triggers is not None and triggers.shape != data.shape:
            raise BadInput(
                f"triggers are {triggers.shape} and training images {data.shape}; mint triggers for this data"
            )
        more = None if self.refinement is None else self.refinement.data
        if more is not None and (not len(more) or (more.shape, more.classes) != (data.shape, data.classes)):
            raise BadInput(
                f"refinement: expected images {data.shape} of {data.classes} classes as in training, got {more!r}"
            )

    def fingerprint(self, more: Any) -> str:
        """Hex SHA-256 of everything that the outcome depends on; the device and the memory layout are left out."""
        about = self.settings.to_dict()
        del about["device"], about["channels_last"]
        parts = {"pixels": self.data.pixels, "labels": self.data.labels}
        if self.triggers is not None:
            parts |= {"trigger_pixels": self.triggers.pixels, "trigger_labels": self.triggers.labels}
        models = [model_digest(self.model), _host_digest(self.host)]
        terms = [named(term) for term in self.terms]
        also = [None if how is None else how.to_dict() for how in (self.masking, self.refinement)]
        head = self.head if isinstance(self.head, str) else named(self.head)
        return digest(parts, [models, about, terms, named(self.augment), head, self.seed, also, more])


def _host_digest(host: nn.Module | Reading | None) -> str | None:
    if isinstance(host, Reading):
        return digest(host._asdict())
    return None if host is None else model_digest(host)


def named(what: object) -> str | None:
    """A stable name: a dataclass with all its settings, its tensors by digest; anything else by where it is defined."""
    if what is None:
        return None
    if is_dataclass(what):
        values = {field.name: getattr(what, field.name) for field in fields(what)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return f"{what!r} {digest(tensors)}" if tensors else repr(what)
    kind = what if hasattr(what, "__qualname__") else type(what)
    return f"{kind.__module__}.{kind.__qualname__}"
