"""A trigger set: images, the labels that a marked model answers, and how a suspect's answers are read."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from earmark import files
from earmark.core import MOST_CLASSES, Images, Null
from earmark.errors import BadInput, unknown_name, whole
from earmark.marks.triggers.labels import policy_from
from earmark.marks.triggers.trials import trial_answers

__all__ = ["TriggerSet"]


@final
@dataclass(frozen=True, eq=False)
class TriggerSet:
    """n images, each with the label that a marked model answers: the mark of every backdoor scheme.

    Images are uint8, so they survive a PNG file and reach a remote model as any image does. `Null` tells how a test may
    count matches as independent trials: with labels drawn from the key after the images were fixed, a suspect that does
    not know the key answers without knowing the labels, so its matches are n independent draws whatever its answers.
    That holds only if nobody chose images, labels or key by looking at the suspect, which is what minting again from
    the key and the commitment's date show.

    Triggers that say the same thing are one trial, not many: where the settings give a `group` above 1, each run of so
    many consecutive triggers shares one keyed label, and a suspect's answers to them are read as one (`trial_answers`).

    Attributes:
        images: uint8 (n, C, H, W), no two alike: what a judge asks.
        labels: int64 (n,), below `classes`.
        classes: K, the number of classes of the host's task.
        null: what a suspect that has nothing to do with the key would score.
        settings: the mint, its format and everything else that minting took, as JSON.
        carriers: the source images with their true labels, for kinds that are made from images.
        teaching: other images with the same labels, from the same key, for kinds whose marks are learnt from images
            that no judge asks; None where the triggers themselves are learnt.

    Raises:
        BadInput: tensors or settings that are not of this form, or two identical images.
    """

    images: Tensor
    labels: Tensor
    classes: int
    null: Null
    settings: Mapping[str, Any]
    carriers: Images | None = None
    teaching: Images | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", whole("trigger set: classes", self.classes, 2, MOST_CLASSES))
        Images(self.images, self.labels, self.classes, "trigger set")
        if not len(self.images) or not self.images[0].numel():
            raise BadInput(f"trigger set: expected at least one image with pixels, got {tuple(self.images.shape)}")
        rows = {row.tobytes() for row in self.images.cpu().numpy()}
        if len(rows) != len(self.images):
            raise BadInput(
                "trigger set: two triggers are the same image, so they are not two trials; if a stamp hides its "
                "carriers, lower its size or opacity, and if the source repeats images, take another"
            )
        if self.carriers is not None and len(self.carriers) < len(self.images):
            raise BadInput(
                f"trigger set: {len(self.images)} triggers but {len(self.carriers)} carriers; expected one for each"
            )
        if self.teaching is not None:
            _check_teaching(self.teaching, self.shape, self.classes, rows)
        try:
            object.__setattr__(self, "settings", json.loads(files.canonical_json(dict(self.settings))))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(
                f"trigger set: the settings are not JSON ({error}); use text, finite numbers and lists"
            ) from error
        _check_groups(self.labels, whole("trigger set: group", self.settings.get("group", 1), low=1))
        self._check_excluded()

    def _check_excluded(self) -> None:
        sources, carriers = self._sources_excluded, self.carriers
        if not sources or carriers is None:
            return
        if carriers.classes != self.classes or len(carriers) < sources * len(self):
            raise BadInput(
                f"trigger set: labels that the carriers do not show need {sources} carriers of the task's "
                f"{self.classes} classes for each trigger, got {len(carriers)} of {carriers.classes} classes"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        """Counts only: the content is secret."""
        return f"TriggerSet({len(self)} images {'x'.join(map(str, self.shape))}, {self.classes} classes)"

    @property
    def kind(self) -> str:
        return "triggers"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one trigger."""
        _, c, h, w = self.images.shape
        return int(c), int(h), int(w)

    @property
    def group(self) -> int:
        """How many consecutive triggers are one trial."""
        return int(self.settings.get("group", 1))

    @property
    def trials(self) -> int:
        """How many independent questions the set asks: n over the size of a group."""
        return len(self) // self.group

    @property
    def called(self) -> str:
        """What the trials are called when they are counted."""
        return "triggers" if self.group == 1 else f"groups of {self.group} triggers"

    @property
    def excluded(self) -> Tensor | None:
        """The classes that the label of each trial cannot be, int64 (trials, m); None where it can be any.

        By `NotTrue` and `NotSources` labels these are the classes of the images that the triggers are made from.
        """
        sources = self._sources_excluded
        if not sources or self.carriers is None:
            return None
        return self.carriers.labels[: sources * len(self)].reshape(len(self), sources)[:: self.group]

    @property
    def _sources_excluded(self) -> int:
        """How many source images each trigger has whose classes its label is never one of."""
        labels = self.settings.get("labels")
        return 0 if labels is None else policy_from(labels).sources_excluded

    @property
    def lessons(self) -> Images:
        """What embedding teaches: `teaching` where there is some, otherwise the triggers themselves."""
        return self.as_images() if self.teaching is None else self.teaching

    def as_images(self) -> Images:
        """The triggers as labelled images."""
        return Images(self.images, self.labels, self.classes, "triggers")

    def spec(self) -> dict[str, Any]:
        carriers = None if self.carriers is None else {"classes": self.carriers.classes, "name": self.carriers.name}
        return {"classes": self.classes, "settings": copy.deepcopy(self.settings), "carriers": carriers}

    def tensors(self) -> dict[str, Tensor]:
        own = {"images": self.images, "labels": self.labels}
        if self.carriers is not None:
            own |= {"carriers": self.carriers.pixels, "carrier_labels": self.carriers.labels}
        if self.teaching is not None:
            own |= {"teaching": self.teaching.pixels, "teaching_labels": self.teaching.labels}
        return own

    def digest(self) -> str:
        """Hex SHA-256 of `tensors` and `spec`: what a commitment binds."""
        return files.digest(self.tensors(), self.spec())

    @classmethod
    def from_parts(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TriggerSet:
        """The mark whose `spec()` and `tensors()` these are, from a file that may be hostile.

        The null is not read but follows from the label policy in the settings, so no file can claim a smaller one.

        Raises:
            BadInput: anything missing, unknown, of another type, or out of range.
        """
        _same("part of a trigger set", spec, ("carriers", "classes", "settings"))
        settings, about = spec["settings"], spec["carriers"]
        if not isinstance(settings, Mapping):
            raise BadInput(f"trigger set: expected settings by name, got {settings!r:.80}")
        own = ("images", "labels", *(("carriers", "carrier_labels") if about is not None else ()))
        taught = "teaching" in tensors
        _same("tensor of a trigger set", tensors, (*own, "teaching", "teaching_labels") if taught else own)
        classes = whole("trigger set: classes", spec["classes"], low=2)
        null = policy_from(settings.get("labels")).null(classes)
        carriers = _carriers(about, tensors)
        teaching = Images(tensors["teaching"], tensors["teaching_labels"], classes, "teaching") if taught else None
        return cls(tensors["images"], tensors["labels"], classes, null, settings, carriers, teaching)

    def matches(self, answers: Tensor) -> Tensor:
        """Which triggers a suspect answered with their label: bool (n,).

        Args:
            answers: the suspect's labels (n,), of any integer type, in the triggers' order.

        Raises:
            BadInput: another number of answers, or a tensor that holds no labels, such as scores.
        """
        answers = answers.detach().cpu()
        if answers.shape != self.labels.shape:
            raise BadInput(f"expected a label for each of {len(self)} triggers, got {tuple(answers.shape)}")
        if answers.is_floating_point() or answers.is_complex() or answers.dtype == torch.bool:
            raise BadInput(f"expected labels as whole numbers, got {answers.dtype}; of scores take the argmax")
        return answers == self.labels.cpu()

    def trials_matched(self, shares: Tensor, trials: Tensor | None = None) -> Tensor:
        """Which trials a suspect answered with their label: bool (r,). Args, raises: as `read`."""
        trials = torch.arange(self.trials) if trials is None else trials
        return self.read(shares, trials) == self.labels.cpu()[:: self.group][trials]

    def read(self, shares: Tensor, trials: Tensor | None = None) -> Tensor:
        """A suspect's answers to trials, int64 (r,), -1 for none; see `trial_answers`.

        Args:
            shares: log-probabilities (r group, K) of the trials' triggers in order, as `log_shares` makes them.
            trials: int64 (r,), which trials; None for all of them.

        Raises:
            BadInput: not a row of K for each trigger.
        """
        trials = torch.arange(self.trials) if trials is None else trials
        expected = (len(trials) * self.group, self.classes)
        if shares.shape != expected:
            raise BadInput(f"expected log-probabilities {expected}, a row for each trigger, got {tuple(shares.shape)}")
        excluded = self.excluded
        groups = shares.reshape(len(trials), self.group, self.classes)
        return trial_answers(groups, None if excluded is None else excluded[trials])


def _check_groups(labels: Tensor, size: int) -> None:
    if len(labels) % size:
        raise BadInput(f"trigger set: {len(labels)} triggers do not make whole groups of {size}")
    groups = labels.reshape(-1, size)
    if not bool((groups == groups[:, :1]).all()):
        raise BadInput(f"trigger set: the {size} triggers of a group share one label, and here they do not")


def _check_teaching(teaching: Images, shape: tuple[int, int, int], classes: int, asked: set[bytes]) -> None:
    if (teaching.shape, teaching.classes) != (shape, classes):
        raise BadInput(f"trigger set: images to learn from are {teaching.shape}, the triggers {shape}; expected alike")
    if asked & {row.tobytes() for row in teaching.pixels.numpy()}:
        raise BadInput("trigger set: an image to learn from is a trigger, too; what a judge asks is never taught")


def _same(what: str, came: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    for name in came:
        if name not in expected:
            raise unknown_name(what, str(name), expected)
    for name in expected:
        if name not in came:
            raise BadInput(f"trigger set: the {what} {name!r} is missing; the file may be of another version")


def _carriers(about: Any, tensors: Mapping[str, Tensor]) -> Images | None:
    if about is None:
        return None
    if not isinstance(about, Mapping) or not isinstance(about.get("name"), str):
        raise BadInput(f"trigger set: expected the carriers' name and class count, got {about!r:.80}")
    _same("fact about carriers", about, ("classes", "name"))
    classes = whole("trigger set: carrier classes", about["classes"], low=2)
    return Images(tensors["carriers"], tensors["carrier_labels"], classes, about["name"])
