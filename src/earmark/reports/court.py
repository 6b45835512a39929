"""A judge's ruling as a page to print: what was asked, what came back, how likely chance is, what could be wrong."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from PIL import Image
from torch import Tensor

from earmark.core import Verdict
from earmark.evidence import Claim
from earmark.files import write_atomic
from earmark.marks import TriggerSet
from earmark.reports.html import Picture
from earmark.reports.reasons import Reasons, reasons

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["CaseFile", "CourtRuling", "Shown", "plain", "render_ruling", "shown_trials", "write_ruling"]

MOST_SHOWN: Final = 120
"""Trials whose pictures fit a page that people still read."""
LARGEST: Final = 96
"""Pixels of a picture's longer side; larger images are shown smaller."""
LONGEST: Final = 2000


@dataclass(frozen=True)
class Shown:
    """One opened trial as the page shows it.

    Attributes:
        pictures: its triggers, PNG.
        foretold: the class that the owner's key gives.
        answered: the suspect's; -1 where it gave none, None where the trial was not asked.
    """

    pictures: tuple[Picture, ...]
    foretold: int
    answered: int | None

    @property
    def matched(self) -> bool:
        """Whether the suspect's answer is the foretold one."""
        return self.answered == self.foretold

    @property
    def answer(self) -> str:
        """The suspect's answer in words."""
        if self.answered is None:
            return "not asked"
        return "no answer" if self.answered < 0 else str(self.answered)


@dataclass(frozen=True)
class CaseFile:
    """One claimant's part of a ruling.

    Attributes:
        claimant: the name to report under.
        verdict: the judge's, against all other claimants.
        claim: the public claim; None where its file could not be read.
        evidence_digest: of what was opened.
        trials: the opened trials that were asked, with the answers.
        opened: how many there are in all, some of which `trials` may leave out.
    """

    claimant: str
    verdict: Verdict
    claim: Claim | None = None
    evidence_digest: str = ""
    trials: Sequence[Shown] = ()
    opened: int = 0

    @property
    def reasons(self) -> Reasons:
        """What the page says of it, in sentences."""
        return reasons(self.claimant, self.verdict, self.claim, self.evidence_digest)


@dataclass(frozen=True)
class CourtRuling:
    """What the page holds. All text is shown as text: no markup in it takes effect.

    Attributes:
        suspect: the model that stands accused.
        cases: one for each claimant.
        facts: what else is known of the suspect and of the hearing, by name.
        judged: when, as the page says it.
    """

    suspect: str
    cases: Sequence[CaseFile]
    facts: Mapping[str, str] = field(default_factory=dict)
    judged: str = ""


def shown_trials(mark: TriggerSet, answers: Sequence[int | None]) -> list[Shown]:
    """The trials that were asked, at most 120, with pictures of at most 96 pixels.

    Args:
        mark: what was opened.
        answers: the suspect's, one for each trial, as `evidence.hearing.Hearing.answers` gives them.
    """
    asked = [trial for trial, answer in enumerate(answers) if answer is not None][:MOST_SHOWN]
    size = mark.group
    return [
        Shown(
            tuple(_picture(mark.images[at], trial) for at in range(trial * size, (trial + 1) * size)),
            int(mark.labels[trial * size]),
            answers[trial],
        )
        for trial in asked
    ]


def _picture(image: Tensor, trial: int) -> Picture:
    plane = image.cpu().permute(1, 2, 0).to(torch.uint8).numpy()
    drawn = Image.fromarray(plane if plane.shape[2] == 3 else plane[:, :, 0])
    drawn.thumbnail((LARGEST, LARGEST))
    with io.BytesIO() as file:
        drawn.save(file, "PNG")
        return Picture(file.getvalue(), f"Trigger of trial {trial + 1}")


def plain(text: object) -> str:
    r"""Text of which nothing acts: what is not printable, or turns the direction of writing, is shown by its number.

    >>> plain("a\u202eb")
    'a[U+202E]b'
    """
    shown = "".join(sign if sign.isprintable() else f"[U+{ord(sign):04X}]" for sign in str(text)[:LONGEST])
    return shown + ("…" if len(str(text)) > LONGEST else "")


def render_ruling(ruling: CourtRuling) -> str:
    """The ruling as one HTML page without scripts that asks for nothing outside itself; the same ruling, same page."""
    return _template().render(ruling=ruling)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("earmark.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    return environment.get_template("ruling.html")


def _shown(value: object) -> object:
    return plain(value) if type(value) is str else value


def write_ruling(path: Path, ruling: CourtRuling) -> None:
    """`render_ruling` to a file, atomically and readable by its owner alone, since it shows the opened triggers.

    Raises:
        BadInput: the folder is missing or not writable.
    """
    write_atomic(path, render_ruling(ruling).encode(errors="replace"), mode=0o600)
