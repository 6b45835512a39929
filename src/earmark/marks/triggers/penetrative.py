"""Penetrative triggers: images under stamps that an autoencoder does not wash out (Li & Wang 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from earmark.core import Data, Images, rng
from earmark.data import channels_to
from earmark.errors import BadInput, number, unknown_name, whole
from earmark.keys import MarkKey
from earmark.marks.triggers.base import TriggerMint
from earmark.marks.triggers.font import typeset
from earmark.marks.triggers.labels import Chain, LabelPolicy, Listed, Uniform
from earmark.marks.triggers.logos import as_logo, fitted_into
from earmark.marks.triggers.stamps import PRESTAMPS, Penetration, distance, prestamps, stamp_on
from earmark.models import Bank

__all__ = ["Penetrative"]

ROOM = 1e-9

TrainShadows = Callable[[Images, torch.Generator], Bank]


@final
@dataclass(frozen=True)
class Penetrative(TriggerMint):
    """I stamps on training images, found on shadow autoencoders so that they pass one that nobody has seen.

    A trial is a stamp: `group` images under it share one label, drawn from the key, and the suspect's answer to them is
    what counts. Two stamps with one label each, as the paper has them, are two observations and not sixty.

    What the key gives is minted again by a judge: the prestamps P_i, and the labels, which follow from the finished
    images. The stamps T_i were found by gradient descent and lie with the carriers in the mark, as its last I images; a
    judge sees that they keep to l(T_i, P_i) <= `bound` (eq. 3). The carriers of verification, of teaching and of the
    search are disjoint keyed picks.

    A judge needs 26 stamps or more of ten classes, where all of them are answered as marked.

    Attributes:
        group: images to a stamp that are asked; `count` is I * group.
        teaching: images to learn from, a multiple of I, none of which is asked; 0 where the triggers themselves are
            learnt, as in the paper.
        pattern: of the prestamps, see `stamps.prestamps`; "picture" where a text or a logo is given.
        text, logo: what the prestamps show, as `Stamped` takes them; at most one of the two.
        bound: epsilon_1, the mean of (T - P)^2 over the pixels on [0, 1]; the prestamps of two keys lie about 0.04
            (low-frequency) and 0.12 (half-planes) apart, and those of one text as little as 0.01 on large images,
            where the default tells no key from another. What proves the key are the labels.
        looks: J, the images of each stamp that the search looks at; 30 in the paper.
        shadows: K trained autoencoders; only needed to draw, and not at all without a search.
        shadow_training: what trains them on the owner's images when the mark is drawn, such as
            `training.ShadowTraining`, where there are none.
        search: how the stamps are found; None for the prestamps themselves.

    Raises:
        BadInput: numbers that do not divide; when drawing, no shadows, too few images, shadows for other images, or a
            stamp out of bounds.
    """

    name: ClassVar[str] = "penetrative"
    count: int = 120
    labels: LabelPolicy = Uniform()  # noqa: RUF009  (frozen)
    group: int = 3
    teaching: int = 600
    pattern: str = "low-frequency"
    text: str | None = None
    logo: Any = None
    bound: float = 0.03
    looks: int = field(default=30, compare=False, metadata={"setting": False})
    shadows: Bank | None = field(default=None, repr=False, compare=False, metadata={"setting": False})
    shadow_training: TrainShadows | None = field(default=None, compare=False, metadata={"setting": False})
    search: Penetration | None = field(default_factory=Penetration, compare=False, metadata={"setting": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("triggers of a stamp", self.group, low=1)
        whole("images to learn from", self.teaching, low=0)
        whole("looks", self.looks, low=1)
        object.__setattr__(self, "bound", float(number("bound", self.bound, 0, 4)))
        self._check_prestamps()
        if not isinstance(self.labels, Uniform | Chain | Listed):
            raise BadInput(f"penetrative triggers have uniform, chain or listed labels, got {self.labels.name}")
        if self.count % self.group:
            raise BadInput(f"{self.count} triggers do not make whole groups of {self.group}; give a multiple")
        if self.teaching % self.stamps:
            raise BadInput(
                f"{self.teaching} images to learn from cannot be shared out evenly; give a multiple of {self.stamps}"
            )

    def _check_prestamps(self) -> None:
        if self.text is not None and self.logo is not None:
            raise BadInput("prestamps show a text or a logo, but both were given; leave one out")
        if self.text is not None and not isinstance(self.text, str):
            raise BadInput(f"text of the prestamps: expected letters and digits, got {self.text!r:.80}")
        object.__setattr__(self, "logo", None if self.logo is None else as_logo(self.logo))
        shown = self.text is not None or self.logo is not None
        if shown and self.pattern == type(self).pattern:
            object.__setattr__(self, "pattern", "picture")
        if self.pattern not in PRESTAMPS:
            raise unknown_name("prestamp", str(self.pattern), PRESTAMPS)
        if shown != (self.pattern == "picture"):
            raise BadInput(
                f"prestamps of the pattern {self.pattern!r} {'show no' if shown else 'need a'} text or logo; "
                f"{'leave it out, or the pattern' if shown else 'give one'}"
            )

    @property
    def stamps(self) -> int:
        """I, the number of stamps."""
        return self.count // self.group

    @property
    def has_carriers(self) -> bool:
        return True

    @property
    def carriers_needed(self) -> int:
        return self.count + self.teaching + self.stamps

    @property
    def triggers_per_trial(self) -> int:
        return self.group

    @property
    def lesson_count(self) -> int:
        return self.teaching

    def draw(self, key: MarkKey, data: Data) -> Images:
        searched = 0 if self.search is None else self.stamps * self.looks
        kept, wanted = self.count + self.teaching, self.count + self.teaching + searched
        if wanted > len(data.train):
            raise BadInput(
                f"penetrative triggers take {wanted} images and {data.train.name} has {len(data.train)}; lower count, "
                "teaching or looks"
            )
        picked = key.stream("carriers").choice(len(data.train), wanted)
        carriers, found = data.train.subset(picked[:kept]), self._found(key, data, picked[kept:])
        labels = torch.cat([carriers.labels, torch.zeros(self.stamps, dtype=torch.int64)])
        return Images(torch.cat([carriers.pixels, found]), labels, data.classes, carriers.name)

    def _found(self, key: MarkKey, data: Data, picked: Tensor) -> Tensor:
        starts = self._prestamps(key, data.shape)
        if self.search is None:
            return starts
        shadows = self.shadows
        if shadows is None and self.shadow_training is not None:
            shadows = self.shadow_training(data.train, rng(int(key.stream("shadows").integers(2**62, 1))))
        if shadows is None:
            raise BadInput(
                "penetrative triggers need shadows=, a Bank of trained autoencoders to pass, shadow_training= to train "
                "them, or search=None"
            )
        images = data.train.pixels[picked].view(self.stamps, self.looks, *data.shape)
        return self.search(shadows, images, starts)

    def paint(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor:
        return self._stamped(key, shape, carriers, slice(0, self.count))

    def paint_lessons(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None) -> Tensor | None:
        if not self.teaching:
            return None
        return self._stamped(key, shape, carriers, slice(self.count, self.count + self.teaching))

    def _stamped(self, key: MarkKey, shape: tuple[int, int, int], carriers: Images | None, rows: slice) -> Tensor:
        assert carriers is not None, "make has checked that there are carriers"
        if carriers.shape != shape:
            raise BadInput(f"the host takes images {shape} and the carriers are {carriers.shape}; take them from draw")
        stamps, pixels = carriers.pixels[-self.stamps :], carriers.pixels[rows]
        farthest = float(distance(stamps, self._prestamps(key, shape)).max())
        if farthest > self.bound + ROOM:
            raise BadInput(
                f"a stamp lies {farthest:.4f} from what the key gives and the bound is {self.bound}; raise the "
                "similarity of the search, or the bound"
            )
        return stamp_on(pixels, stamps.repeat_interleave(len(pixels) // self.stamps, dim=0))

    def _prestamps(self, key: MarkKey, shape: tuple[int, int, int]) -> Tensor:
        picture = self._picture(shape) if self.pattern == "picture" else None
        return prestamps(key.stream("prestamps"), self.pattern, self.stamps, shape, picture)

    def _picture(self, shape: tuple[int, int, int]) -> Tensor:
        """The text or the logo, as large as an image has room for: uint8 (C, h, w)."""
        channels, height, width = shape
        if self.text is not None:
            return torch.from_numpy(typeset(self.text, height, width)).mul(255).to(torch.uint8)[None]
        pixels = torch.tensor(self.logo, dtype=torch.uint8).movedim(-1, 0)[None]
        return fitted_into(channels_to(pixels, channels), (height, width)).to(torch.uint8)
