"""`fit`, the only training loop.

All randomness of a run is a function of (seed, epoch, step), with the seed drawn once from the caller's generator.
So a run that was killed goes on from any step exactly as it would have gone, and the global random state is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from earmark.core import Images
from earmark.errors import BadInput, Diverged
from earmark.files import digest, model_digest
from earmark.models import device_of, dissect, evaluating, frozen_batchnorm
from earmark.training.checkpoint import Checkpoint, Position, Saver
from earmark.training.progress import Meter, meter
from earmark.training.run import Run
from earmark.training.settings import Augment, History, Record, Settings
from earmark.training.terms import Term
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
    _check(model, data, terms, settings, triggers, host)
    fabric = fabric or _fabric(settings)
    home, anatomy = device_of(model), dissect(model, data.pixels[:1], head)
    names = trainable(model, anatomy)
    fingerprint = _fingerprint(model, data, terms, settings, triggers, names, seed)
    with _only(model, names, settings):
        run = Run(model, data, tuple(terms), settings, seed, triggers, host, augment, anatomy, fabric)
        history = _epochs(run, Saver(checkpoint, fingerprint), monitor, until, prefer, title)
    model.to(home)
    return history


# ---------------------------------------------------------------------------------------------------------- the epochs


def _epochs(
    run: Run,
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
            _save(run, saver, position)
    if position.best is not None:
        run.model.load_state_dict(position.best)
    return list(history)


def _one_epoch(run: Run, position: Position, saver: Saver, show: Meter) -> dict[str, float]:
    for group in run.optimizer.param_groups:
        group["lr"] = run.settings.rate(position.epoch)
    order = run.feed.order(position.epoch)
    sums = torch.tensor(position.sums or [0.0] * len(run.terms), device=run.device)
    with _mode(run), torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        while position.step < run.feed.steps_per_epoch and not _spent(run, position):
            sums += run.step(order, position.epoch, position.step)
            position.step += 1
            show.advance()
            save = saver.due()
            if save or position.step % FINITE_CHECK_EVERY == 0:
                _finite(sums, position)
            if save:
                position.sums = sums.tolist()
                _save(run, saver, position)
    _finite(sums, position)
    steps, position.sums = max(1, position.step), []
    return {term.name: value / steps for term, value in zip(run.terms, sums.tolist(), strict=True)}


@contextmanager
def _mode(run: Run) -> Iterator[None]:
    with evaluating(run.model):
        if run.settings.batchnorm == "train":
            run.model.train()
        yield


def _save(run: Run, saver: Saver, position: Position) -> None:
    if run.chief:
        saver.save(run.model, run.optimizer, position)


def _total_steps(run: Run) -> int:
    whole = run.settings.epochs * run.feed.steps_per_epoch
    return whole if run.settings.steps is None else min(whole, run.settings.steps)


def _spent(run: Run, position: Position) -> bool:
    return position.epoch * run.feed.steps_per_epoch + position.step >= _total_steps(run)


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
    model: nn.Module,
    data: Images,
    terms: Sequence[Term],
    settings: Settings,
    triggers: Images | None,
    host: nn.Module | None,
) -> None:
    if not len(data):
        raise BadInput(f"{data.name} holds no image; give at least one")
    if not list(model.parameters()):
        raise BadInput("the model has no parameters; give a network that can learn")
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


def _fabric(settings: Settings) -> Fabric:
    device = settings.torch_device()
    devices = [device.index] if ":" in str(device) else 1
    return Fabric(accelerator=device.type, devices=devices, precision=settings.precision)  # type: ignore[arg-type]


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
