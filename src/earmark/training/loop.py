"""`fit`, the only training loop.

All randomness of a run is a function of (seed, epoch, step), with the seed drawn once from the caller's generator.
So a run that was killed goes on from any step exactly as it would have gone. Dropout draws from the global generators
of CPU and CUDA, which are seeded for each step and afterwards are what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from earmark.core import Images
from earmark.errors import BadInput, Diverged
from earmark.files import state_tensors
from earmark.models import Reader, Reading, device_of, dissect, dtype_of, evaluating, frozen_batchnorm
from earmark.training.case import Case
from earmark.training.case import named as _named
from earmark.training.checkpoint import Checkpoint, Position, Saver
from earmark.training.masking import Masking
from earmark.training.progress import Meter, meter
from earmark.training.refinement import Refinement
from earmark.training.run import Run
from earmark.training.settings import Augment, History, Record, Settings
from earmark.training.terms import Term
from earmark.training.trainable import Trainable, all_layers

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["fit"]

FINITE_CHECK_EVERY = 50
NARROW = "; float16 holds nothing beyond 65504: train as float32 or bfloat16"


def fit(
    model: nn.Module,
    data: Images,
    terms: Sequence[Term],
    settings: Settings,
    rng: torch.Generator,
    *,
    triggers: Images | None = None,
    host: nn.Module | Reading | None = None,
    trainable: Trainable = all_layers,
    augment: Augment | None = None,
    head: str | Reader | None = None,
    masking: Masking | None = None,
    refinement: Refinement | None = None,
    monitor: Callable[[nn.Module], Record] | None = None,
    until: Callable[[History], bool] | None = None,
    prefer: Callable[[Record], float | tuple[float, ...]] | None = None,
    identity: Any = None,
    checkpoint: Checkpoint | Path | None = None,
    fabric: Fabric | None = None,
    title: str = "training",
) -> History:
    """Train `model` in place: each step minimises sum_t weight_t * term_t over B images and m triggers, joined.

    Args:
        model: a classifier, or what `head` can read; on return it holds the last epoch's state, or the preferred one's.
        data: the training images.
        terms: the summands of the objective.
        settings: see `Settings`.
        rng: a CPU generator; one number is drawn from it.
        triggers: images and labels that join each batch, `settings.triggers_per_batch` at a time.
        host: the reference of the terms that need one. Its outputs are computed once for the whole set where the view
            of an image is always the same (no `augment`), and per step otherwise. Where it was asked before, its
            reading of `data`, row by row: it holds for every view of an image.
        trainable: which parameters may change.
        augment: a random view of the training images, never of triggers.
        head: the name of the last linear layer, where the search for it cannot tell; or how to read a model that is no
            classifier.
        masking: weights dropped for a while during training; what is measured, selected and returned is unmasked.
        refinement: gradient steps on in-distribution images in between.
        monitor: measured after each epoch, together with the mean of each term; the records are the history.
        until: the run ends after the first epoch at which this accepts the records so far (early stopping).
        prefer: the model ends as it was after the epoch whose record scores highest (selection), the first of equals.
        identity: JSON that says what `monitor`, `until` and `prefer` were made from, so that a checkpoint of a run with
            other ones is refused.
        checkpoint: where to save, a file or how to; an unfinished run found there goes on, a finished one is loaded.
        fabric: a launched Lightning Fabric, to train on several devices; each takes its share of every batch.
        title: what the progress display calls the run.

    Returns:
        One record per epoch: means of the terms, by name, and what `monitor` measured.

    Raises:
        BadInput: a case that does not fit together (triggers, host, classes), or a checkpoint of another run.
        Diverged: the loss stopped being finite; the last checkpoint is from before.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    case = Case(model, data, tuple(terms), settings, seed, triggers, host, augment, head, masking, refinement)
    case.check()
    fabric = fabric or _fabric(settings)
    home = device_of(model)
    anatomy = dissect(model, data.pixels[:1], head) if head is None or isinstance(head, str) else head
    _fits(case, anatomy, fabric.world_size)
    names = trainable(model, anatomy)
    watched = [*(_named(what) for what in (monitor, until, prefer)), identity]
    fingerprint = case.fingerprint([sorted(names), watched, fabric.world_size])
    with _only(model, names, settings):
        history = _epochs(Run(case, anatomy, fabric), Saver(checkpoint, fingerprint), monitor, until, prefer, title)
    model.to(home, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return history


# ---------------------------------------------------------------------------------------------------------- the epochs


def _epochs(
    run: Run,
    saver: Saver,
    monitor: Callable[[nn.Module], Record] | None,
    until: Callable[[History], bool] | None,
    prefer: Callable[[Record], float | tuple[float, ...]] | None,
    title: str,
) -> History:
    position = saver.load(run.model, run.optimizer)
    history = position.history
    run.restore_mask(position.mask, position.epoch, position.step)
    with meter(title, _total_steps(run)) as show:
        while not position.done and _total_steps(run):
            sums = _one_epoch(run, position, saver, show)
            record = {**sums, **(monitor(run.model) if monitor else {})}
            history.append(record)
            show.note(record)
            if prefer is not None:
                _keep_best(position, record, prefer, run.model)
            position.epoch, position.step = position.epoch + 1, 0
            position.done = (
                position.epoch >= run.settings.epochs or _spent(run, position) or bool(until and until(history))
            )
            _save(run, saver, position)
    if position.best is not None:
        run.model.load_state_dict(position.best, strict=False)
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
                _finite(run, sums, position)
            if save:
                position.sums = sums.tolist()
                _save(run, saver, position)
    _finite(run, sums, position)
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
        position.mask = run.mask_state()
        saver.save(run.model, run.optimizer, position)


def _total_steps(run: Run) -> int:
    whole = run.settings.epochs * run.feed.steps_per_epoch
    return whole if run.settings.steps is None else min(whole, run.settings.steps)


def _spent(run: Run, position: Position) -> bool:
    return position.epoch * run.feed.steps_per_epoch + position.step >= _total_steps(run)


def _finite(run: Run, sums: Tensor, position: Position) -> None:
    """The losses so far, and what the last step made of the parameters: their norms, which overflow first."""
    norms = torch.stack([parameter.detach().float().norm() for parameter in run.model.parameters()])
    if not bool(torch.isfinite(sums).all()) or not bool(torch.isfinite(norms).all()):
        narrow = NARROW if dtype_of(run.model) is torch.float16 else ""
        raise Diverged(
            f"loss or parameters are no finite numbers in epoch {position.epoch + 1}, near step {position.step}; "
            f"lower the learning rate or a term's weight{narrow}. The last checkpoint is from before"
        )


def _keep_best(
    position: Position, record: Record, prefer: Callable[[Record], float | tuple[float, ...]], model: nn.Module
) -> None:
    score = prefer(record)
    ranked = list(score) if isinstance(score, tuple) else [score]
    if position.best_score is None or ranked > position.best_score:
        position.best_score = ranked
        position.best = {name: value.clone() for name, value in state_tensors(model).items()}


# ------------------------------------------------------------------------------------------------------------ details


def _fits(case: Case, anatomy: Reader, world: int) -> None:
    if isinstance(case.host, Reading) and case.host.logits.shape[1] != anatomy.classes:
        raise BadInput(f"the host answers {case.host.logits.shape[1]} classes and the model {anatomy.classes}")
    for images in (case.data, case.triggers):
        if images is not None and anatomy.classes is not None and images.classes > anatomy.classes:
            raise BadInput(
                f"{images.name} has {images.classes} classes and the model answers {anatomy.classes}; give a model "
                "with a score for each class"
            )
    if min(case.settings.batch_size, case.settings.triggers_per_batch if case.triggers else world) < world:
        raise BadInput(f"{world} processes share every batch: give each at least one image and one trigger")


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
    from lightning_fabric import Fabric  # takes longer than all of earmark, so only where something is trained

    device = settings.torch_device()
    devices = [device.index] if ":" in str(device) else 1
    try:
        return Fabric(accelerator=device.type, devices=devices, precision=settings.precision)  # type: ignore[arg-type]
    except (ValueError, ImportError) as error:
        said = str(error).strip().splitlines()[0]
        raise BadInput(f"precision {settings.precision!r} is not to be had here ({said}); give 32-true") from error
