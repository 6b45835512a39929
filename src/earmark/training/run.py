"""One run's model, host and optimizer on their device, and the step that `fit` repeats."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from earmark.core import Images
from earmark.models import Anatomy, Reader, Reading, as_input, device_of, dtype_of, evaluating, trains_channels_last
from earmark.training.case import Case
from earmark.training.entangling import layers_watched
from earmark.training.evaluate import read_all
from earmark.training.feed import Batch, Feed, mix
from earmark.training.masking import Masks
from earmark.training.refinement import refine
from earmark.training.settings import Settings
from earmark.training.terms import Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Run"]

NONE: Mapping[str, Tensor] = {}


class Run:
    """The state of one training run, and its step.

    A step is one forward and one backward of the joined batch, and nothing that could be looked up.

    The host's outputs are a table where no augmentation changes the view. Where nothing but the head is trained, the
    penultimate features are constants and a table, too.
    """

    def __init__(self, case: Case, anatomy: Reader, fabric: Fabric) -> None:
        model, settings = case.model, case.settings
        if not trains_channels_last(model, fabric.device):
            settings = settings.but(channels_last=False)
        self.settings, self.terms, self.seed, self.augment = settings, case.terms, case.seed, case.augment
        self._anatomy, self._fabric, self.device = anatomy, fabric, fabric.device
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = _optimizer(model, settings)
        self._wrapped, self._stepper = fabric.setup(model, self.optimizer, move_to_device=False)
        self._backward: Callable[..., None] = fabric.backward
        if _passes_through(fabric):
            self._wrapped, self._backward = model, Tensor.backward
        self._start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        share = (fabric.global_rank, fabric.world_size)
        images = case.data, case.triggers
        self.feed = Feed(*images, settings, case.augment, case.seed, self.device, share, dtype_of(model))
        self._weights = torch.tensor([term.weight for term in case.terms], device=self.device)
        self._layers = tuple(sorted({name for term in case.terms for name in getattr(term, "layers", ())}))
        self._masks = None if case.masking is None else Masks(case.masking, model, case.seed)
        self._refinement, self._data = case.refinement, case.data
        self._tables = self._constant_features(case.data, case.triggers)
        self._host, self._host_table = self._prepare_host(case.host, case.data, layout)

    def mask_state(self) -> Tensor | None:
        """The mask that stands, where a resumed run could not draw it again."""
        return None if self._masks is None else self._masks.state()

    def restore_mask(self, state: Tensor | None, epoch: int, step: int) -> None:
        """Go on with a saved mask."""
        if self._masks is not None:
            self._masks.restore(state, epoch, step)

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes files."""
        return self._fabric.is_global_zero

    def step(self, order: Tensor, epoch: int, number: int) -> Tensor:
        """One forward, backward and update; the terms' values (T,), detached."""
        batch = self.feed.batch(order, epoch, number)
        self._reseed(mix(self.seed, epoch, number))
        self.optimizer.zero_grad(set_to_none=True)
        masks = self._masks_of(epoch, number)
        with nullcontext(NONE) if masks is None else masks.applied() as own:
            values = self._values(batch, own)
            self._backward(values, gradient=self._weights.to(values.dtype))  # that of the sum of weight * value
        if self.settings.clip is not None:
            self._fabric.clip_gradients(
                self._wrapped, self._stepper, max_norm=self.settings.clip, error_if_nonfinite=False
            )
        with nullcontext() if masks is None else masks.holding():
            self._stepper.step()
        if self._refinement is not None and self._refinement.due(number, self.feed.steps_per_epoch):
            refine(self._refinement, self.model, self._data, (self.seed, epoch, number), masks)
        return values.detach()

    def _values(self, batch: Batch, unmasked: Mapping[str, Tensor]) -> Tensor:
        """The terms' values (T,) on one batch."""
        with layers_watched(self.model, self._layers) as activations:
            reading = self._read(batch)
        nominal = self.settings.batch_size / self._fabric.world_size
        rows = (batch.images, reading.features, reading.logits, batch.targets, batch.clean, nominal)
        seen = Step(*rows, self._read_host(batch), self.model, self._start, unmasked, activations)
        return torch.stack([term(seen) for term in self.terms])

    def _masks_of(self, epoch: int, number: int) -> Masks | None:
        """The masks that this step computes through, drawn for it."""
        if self._masks is not None:
            self._masks.draw(epoch, number)
        return self._masks if self._masks is not None and self._masks.live else None

    def _reseed(self, seed: int) -> None:
        """Dropout draws from the device's own generator; `fit` puts back the state that it had."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)

    def _read(self, batch: Batch) -> Reading:
        """Features and logits of the joined batch, (clean + m, ...) each."""
        if self._tables is None:
            return self._anatomy.read(self.model, batch.images, self._wrapped)
        data, triggers = self._tables
        features = data.index_select(0, batch.rows)
        if triggers is not None:
            features = torch.cat([features, triggers.index_select(0, batch.drawn)])
        assert isinstance(self._anatomy, Anatomy), "only a classifier has constant features"
        return Reading(features, self._anatomy.linear(self.model)(features))

    def _read_host(self, batch: Batch) -> Reading | None:
        """The host's features and logits of the training images (clean, ...); None where no term asks for them."""
        if self._host_table is not None:
            return Reading(*(tensor.index_select(0, batch.rows) for tensor in self._host_table))
        if self._host is not None:
            with evaluating(self._host), torch.no_grad():
                seen = self._anatomy.read(self._host, as_input(batch.images[: batch.clean], self._host))
            return Reading(*(tensor.float() for tensor in seen))
        return None

    def _prepare_host(
        self, host: nn.Module | Reading | None, data: Images, layout: torch.memory_format
    ) -> tuple[nn.Module | None, Reading | None]:
        """The host to ask at each step, or what it says of every training image, or neither."""
        if host is None or not any(term.needs_host for term in self.terms):
            return None, None
        if isinstance(host, nn.Module) and self.augment is None:
            here = host if device_of(host) == self.device else copy.deepcopy(host).to(self.device)
            host = read_all(here, self._anatomy, data)
        if isinstance(host, Reading):
            return None, Reading(*(tensor.to(self.device) for tensor in host))
        return copy.deepcopy(host).to(self.device, memory_format=layout), None  # type: ignore[call-overload]

    def _constant_features(self, data: Images, triggers: Images | None) -> tuple[Tensor, Tensor | None] | None:
        """Features of all training images (N, d) and triggers (n, d), where no step changes them; otherwise None."""
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        plain = self.augment is None and self._masks is None and self._refinement is None and not self._layers
        still = self.settings.batchnorm == "frozen" and plain and self._fabric.world_size == 1
        if not still or not isinstance(self._anatomy, Anatomy) or trained - self._anatomy.head_parameters(self.model):
            return None
        reading = read_all(self.model, self._anatomy, data)
        head = copy.deepcopy(self._anatomy.linear(self.model)).cpu()
        features = reading.features.to(head.weight.dtype)
        with torch.no_grad():
            if not torch.allclose(head(features).float(), reading.logits, rtol=1e-4, atol=1e-4):
                return None
        others = None if triggers is None else read_all(self.model, self._anatomy, triggers).features
        return features.to(self.device), None if others is None else others.to(self.device, features.dtype)


def _passes_through(fabric: Fabric) -> bool:
    """Whether Fabric around a model would do nothing but take time: on one device, at the model's own precision."""
    from lightning_fabric.plugins import Precision
    from lightning_fabric.strategies.single_device import SingleDeviceStrategy

    strategy = fabric.strategy
    return type(strategy) is SingleDeviceStrategy and type(strategy.precision) is Precision


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, **common)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **common)
