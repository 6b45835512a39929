"""`fit`, the only training loop.

All randomness of a run is a function of (seed, epoch, step), with the seed drawn once from the caller's generator.
So a run that was killed goes on from any step exactly as it would have gone, and the global random state is never used.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from earmark.core import Images
from earmark.errors import BadInput, Diverged
from earmark.files import digest, model_digest
from earmark.models import Anatomy, Reading, dissect, evaluating, frozen_batchnorm
from earmark.training.checkpoint import Checkpoint, Position, Saver
from earmark.training.evaluate import read_all
from earmark.training.progress import Meter, meter
from earmark.training.settings import Augment, History, Record, Settings
from earmark.training.terms import Step, Term
from earmark.training.trainable import Trainable, all_layers

__all__ = ["fit"]

FINITE_CHECK_EVERY = 50


def fit(
    model: nn.Module,
    data: Images,
    terms: Sequence[Term],
    settings: Settings,
    rng: torch.Generator,
    *,
    triggers: Images | None = None,
    host: nn.Module | None = None,
    trainable: Trainable = all_layers,
    augment: Augment | None = None,
    head: str | None = None,
    monitor: Callable[[nn.Module], Record] | None = None,
    until: Callable[[Record], bool] | None = None,
    prefer: Callable[[Record], float | tuple[float, ...]] | None = None,
    checkpoint: Checkpoint | None = None,
    fabric: Fabric | None = None,
    title: str = "training",
) -> History:
    """Train `model` in place: each step minimises sum_t weight_t * term_t over B images and m triggers, joined.

    Args:
        model: a classifier; on return it holds the last epoch's state, or the preferred one's.
        data: the training images.
        terms: the summands of the objective.
        settings: see `Settings`.
        rng: a CPU generator; one number is drawn from it.
        triggers: images and labels that join each batch, `settings.triggers_per_batch` at a time.
        host: the reference of the terms that need one. Its outputs are computed once for the whole set where the view
            of an image is always the same (no `augment`), and per step otherwise.
        trainable: which parameters may change.
        augment: a random view of the training images, never of triggers.
        head: the name of the last linear layer, where the search for it cannot tell.
        monitor: measured after each epoch, together with the mean of each term; the records are the history.
        until: the run ends after the first epoch whose record this accepts (early stopping).
        prefer: the model ends as it was after the epoch whose record scores highest (selection), the first of equals.
        checkpoint: where to save; an unfinished run found there goes on, a finished one is loaded.
        fabric: a launched Lightning Fabric, to train on several devices; each takes its share of every batch.
        title: what the progress display calls the run.

    Returns:
        One record per epoch: means of the terms, by name, and what `monitor` measured.

    Raises:
        BadInput: more triggers per batch than triggers, no host, nothing to train, or a checkpoint of another run.
        Diverged: the loss stopped being finite; the last checkpoint is from before.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    _check(data, terms, settings, triggers, host)
    fabric = fabric or Fabric(accelerator=settings.torch_device().type, devices=1, precision=settings.precision)  # type: ignore[arg-type]
    home = _device_of(model)
    anatomy = dissect(model, _example(data, home), head)
    names = trainable(model, anatomy)
    fingerprint = _fingerprint(model, data, terms, settings, triggers, names, seed)
    with _only(model, names, settings):
        run = _Run(model, data, tuple(terms), settings, seed, triggers, host, augment, anatomy, fabric)
        history = _epochs(run, Saver(checkpoint, fingerprint), monitor, until, prefer, title)
    model.to(home)
    return history


# ------------------------------------------------------------------------------------------------------------- a run


class _Run:
    """One run's model, optimizer and data, on their device, and its step."""

    def __init__(
        self,
        model: nn.Module,
        data: Images,
        terms: tuple[Term, ...],
        settings: Settings,
        seed: int,
        triggers: Images | None,
        host: nn.Module | None,
        augment: Augment | None,
        anatomy: Anatomy,
        fabric: Fabric,
    ) -> None:
        self.settings, self.terms, self.seed, self.anatomy, self.fabric = settings, terms, seed, anatomy, fabric
        self.device = fabric.device
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.optimizer = _optimizer(model, settings)
        self.wrapped, self._wrapped_optimizer = fabric.setup(model, self.optimizer, move_to_device=False)
        self.start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.pixels, self.labels = data.pixels.to(self.device), data.labels.to(self.device)
        self.triggers = triggers
        self.trigger_pixels = None if triggers is None else triggers.pixels.to(self.device)
        self.trigger_labels = None if triggers is None else triggers.labels.to(self.device)
        self.augment = augment
        self.host: nn.Module | None = None
        self.host_table: Reading | None = None
        if host is not None and any(term.needs_host for term in terms):
            self._prepare_host(host, data)

    def _prepare_host(self, host: nn.Module, data: Images) -> None:
        if self.augment is None:
            self.host_table = Reading(*(tensor.to(self.device) for tensor in read_all(host, self.anatomy, data)))
        else:
            self.host = copy.deepcopy(host).to(self.device, memory_format=self.layout)  # type: ignore[call-overload]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.labels) // self.settings.batch_size)

    def order(self, epoch: int) -> Tensor:
        """The order in which epoch `epoch` sees the images."""
        return torch.randperm(len(self.labels), generator=_generator(self.seed, epoch, -1))

    def step(self, index: Tensor, epoch: int, number: int) -> tuple[Tensor, ...]:
        """One forward, backward and update on the images at `index`; the terms' values, detached."""
        generator = _generator(self.seed, epoch, number)
        torch.manual_seed(_mix(self.seed, epoch, number))
        batch, targets, clean = self._join(index, generator)
        reading = self.anatomy.read(self.model, batch, self.wrapped)
        host = self._host_reading(index, batch[:clean])
        seen = Step(
            reading.features, reading.logits, targets, clean, self.settings.batch_size, host, self.model, self.start
        )
        values = tuple(term(seen) for term in self.terms)
        total = torch.stack([term.weight * value for term, value in zip(self.terms, values, strict=True)]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        self._wrapped_optimizer.step()
        return tuple(value.detach() for value in values)

    def _join(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        mine = index[rank::world].to(self.device)
        pixels, targets = self.pixels.index_select(0, mine), self.labels.index_select(0, mine)
        if self.augment is not None:
            pixels = self.augment(pixels, generator)
        if self.trigger_pixels is not None and self.trigger_labels is not None and self.settings.triggers_per_batch:
            drawn = torch.randperm(len(self.trigger_labels), generator=generator)[: self.settings.triggers_per_batch]
            drawn = drawn[rank::world].to(self.device)
            pixels = torch.cat([pixels, self.trigger_pixels.index_select(0, drawn)])
            targets = torch.cat([targets, self.trigger_labels.index_select(0, drawn)])
        batch = pixels.float().div_(255).contiguous(memory_format=self.layout)
        return batch, targets, len(mine)

    def _host_reading(self, index: Tensor, clean: Tensor) -> Reading | None:
        if self.host_table is not None:
            mine = index[self.fabric.global_rank :: self.fabric.world_size].to(self.device)
            return Reading(*(tensor.index_select(0, mine) for tensor in self.host_table))
        if self.host is not None:
            with evaluating(self.host), torch.no_grad():
                return self.anatomy.read(self.host, clean)
        return None


def _epochs(
    run: _Run,
    saver: Saver,
    monitor: Callable[[nn.Module], Record] | None,
    until: Callable[[Record], bool] | None,
    prefer: Callable[[Record], float | tuple[float, ...]] | None,
    title: str,
) -> History:
    position = saver.load(run.model, run.optimizer)
    history = position.history
    with meter(title, _total_steps(run)) as show:
        while not position.done:
            sums = _one_epoch(run, position, saver, show)
            record = {**sums, **(monitor(run.model) if monitor else {})}
            history.append(record)
            show.note(record)
            if prefer is not None:
                _keep_best(position, record, prefer, run.model)
            position.epoch, position.step = position.epoch + 1, 0
            position.done = (
                position.epoch >= run.settings.epochs or _spent(run, position) or bool(until and until(record))
            )
            saver.save(run.model, run.optimizer, position)
    if position.best is not None:
        run.model.load_state_dict(position.best)
    return list(history)


def _one_epoch(run: _Run, position: Position, saver: Saver, show: Meter) -> dict[str, float]:
    for group in run.optimizer.param_groups:
        group["lr"] = run.settings.rate(position.epoch)
    order, size = run.order(position.epoch), run.settings.batch_size
    sums = torch.tensor(position.sums or [0.0] * len(run.terms), device=run.device)
    with _mode(run), torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        while position.step < run.steps_per_epoch and not _spent(run, position):
            index = order[position.step * size : (position.step + 1) * size]
            sums += torch.stack(run.step(index, position.epoch, position.step))
            position.step += 1
            show.advance()
            save = saver.due()
            if save or position.step % FINITE_CHECK_EVERY == 0:
                _finite(sums, position)
            if save:
                position.sums = sums.tolist()
                saver.save(run.model, run.optimizer, position)
    _finite(sums, position)
    steps, position.sums = max(1, position.step), []
    return {term.name: value / steps for term, value in zip(run.terms, sums.tolist(), strict=True)}


@contextmanager
def _mode(run: _Run) -> Iterator[None]:
    with evaluating(run.model):
        if run.settings.batchnorm == "train":
            run.model.train()
        yield


def _total_steps(run: _Run) -> int:
    whole = run.settings.epochs * run.steps_per_epoch
    return whole if run.settings.steps is None else min(whole, run.settings.steps)


def _spent(run: _Run, position: Position) -> bool:
    return position.epoch * run.steps_per_epoch + position.step >= _total_steps(run)


def _finite(sums: Tensor, position: Position) -> None:
    if not bool(torch.isfinite(sums).all()):
        raise Diverged(
            f"the loss is no finite number in epoch {position.epoch + 1}, near step {position.step}; "
            "lower the learning rate or a term's weight. The last checkpoint is from before"
        )


def _keep_best(
    position: Position, record: Record, prefer: Callable[[Record], float | tuple[float, ...]], model: nn.Module
) -> None:
    score = prefer(record)
    ranked = list(score) if isinstance(score, tuple) else [score]
    if position.best_score is None or ranked > position.best_score:
        position.best_score = ranked
        position.best = {name: value.detach().clone() for name, value in model.state_dict().items()}


# ------------------------------------------------------------------------------------------------------------ details


def _check(
    data: Images, terms: Sequence[Term], settings: Settings, triggers: Images | None, host: nn.Module | None
) -> None:
    if not len(data):
        raise BadInput(f"{data.name} holds no image; give at least one")
    if not terms:
        raise BadInput("no loss term was given; give at least one")
    if host is None and any(term.needs_host for term in terms):
        raise BadInput(f"the terms {[t.name for t in terms if t.needs_host]} compare with a host; give host=...")
    if triggers is not None and settings.triggers_per_batch > len(triggers):
        raise BadInput(
            f"{settings.triggers_per_batch} triggers per batch were asked for, but there are {len(triggers)}; "
            "lower triggers_per_batch or mint more"
        )
    if triggers is not None and triggers.shape != data.shape:
        raise BadInput(f"triggers are {triggers.shape} and training images {data.shape}; mint triggers for this data")


@contextmanager
def _only(model: nn.Module, names: set[str], settings: Settings) -> Iterator[None]:
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        with frozen_batchnorm(model) if settings.batchnorm == "frozen" else nullcontext(model):
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise BadInput("nothing is left to train: every parameter is frozen")
            yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])
            parameter.grad = None


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, **common)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **common)


def _mix(seed: int, epoch: int, step: int) -> int:
    hashed = hashlib.blake2b(b"%d/%d/%d" % (seed, epoch, step), digest_size=7).digest()
    return int.from_bytes(hashed, "big")


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mix(seed, epoch, step))


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(iter(model.parameters()), None)
    if parameter is None:
        raise BadInput("the model has no parameters; give a network that can learn")
    return parameter.device


def _example(data: Images, device: torch.device) -> Tensor:
    return data.pixels[:1].to(device).float().div_(255)


def _fingerprint(
    model: nn.Module,
    data: Images,
    terms: Sequence[Term],
    settings: Settings,
    triggers: Images | None,
    names: set[str],
    seed: int,
) -> str:
    """What makes a run the run that it is; the device and the memory layout do not."""
    about = settings.to_dict()
    del about["device"], about["channels_last"]
    parts = {"pixels": data.pixels, "labels": data.labels}
    if triggers is not None:
        parts |= {"trigger_pixels": triggers.pixels, "trigger_labels": triggers.labels}
    named = [[term.name, term.weight] for term in terms]
    return digest(parts, [model_digest(model), about, named, sorted(names), seed])
