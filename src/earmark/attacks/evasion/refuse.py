"""A guard in front of the stolen model: it tells odd questions from honest ones, and answers the odd ones at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from earmark.attacks.evasion.chance import chances, new_key
from earmark.attacks.evasion.oddness import Distance, Look, Seen, asking, energy, looking_into, threshold
from earmark.attacks.evasion.washer import BLOCK
from earmark.attacks.needs import Needs
from earmark.core import Data, Images, Query
from earmark.data import drawn
from earmark.errors import BadInput, number, whole

__all__ = ["Refuse"]


@final
@dataclass(frozen=True)
class Refuse:
    """Answer odd images as some honest one is answered, and all others as the model answers them.

    An image is refused where its score is above the threshold that at most `refusals` of honest images pass. The thief
    needs some clean images of the task, half to know what is usual, half to set the threshold; labels are not needed.
    Which honest image a refused one is answered as is a function of its pixels and of the generator's state when the
    guard is made (`chances`).

    Attributes:
        refusals: the share of honest images that the thief is willing to answer wrongly; 0 refuses nothing.
        score: "mahalanobis": how far what the model's layers write is from what they write for honest images; "energy":
            how unlikely all classes are, for a model that can only be asked, and answers scores.
        images: how many of the thief's training images it is made from, at most, drawn by the rng; None for all.

    Raises:
        BadInput: a setting out of its range; on the call, fewer than four images, distances of a model that can only be
            asked, or energies of one that answers classes; by the query, images that are not float (N, C, H, W).
    """

    refusals: float = 0.05
    score: Literal["mahalanobis", "energy"] = "mahalanobis"
    images: int | None = None

    def __post_init__(self) -> None:
        number("refusals", self.refusals, 0, 1)
        if self.score not in ("mahalanobis", "energy"):
            raise BadInput(f"score: expected mahalanobis or energy, got {self.score!r:.80}")
        if self.images is not None:
            whole("images", self.images, 4, 10**9)

    @property
    def needs(self) -> Needs:
        """Images, and the weights to look into, or scores."""
        if self.score == "mahalanobis":
            return Needs(weights=True, data="images")
        return Needs(weights=False, data="images", queries="scores")

    def __call__(self, model: Query | nn.Module, data: Data, rng: torch.Generator) -> Query:
        look = looking_into(model) if isinstance(model, nn.Module) else asking(model)
        images = drawn(data.train, None if self.images is None else min(self.images, len(data.train)), rng)
        if len(images) < 4:
            raise BadInput(f"{images.name}: a guard is made from four images or more, got {len(images)}")
        order, key = torch.randperm(len(images), generator=rng), new_key(rng)
        known, honest = (_all(look, images.subset(half)) for half in order.tensor_split(2))
        odd = Distance(known) if self.score == "mahalanobis" else energy
        limit = threshold(odd(honest), self.refusals)

        def answered(block: Tensor) -> Tensor:
            seen = look(block)
            chosen = [int(torch.randint(len(honest.answers), (), generator=one)) for one in chances(block, key)]
            answers = seen.answers.clone()
            refused = (odd(seen) > limit).nonzero().flatten()
            answers[refused] = honest.answers[[chosen[at] for at in refused.tolist()]]
            return answers

        def query(asked: Tensor) -> Tensor:
            if asked.ndim != 4 or not asked.is_floating_point():
                raise BadInput(f"expected images (N, C, H, W), float in [0, 1], got {asked.dtype} {tuple(asked.shape)}")
            return torch.cat([answered(block) for block in torch.split(asked, BLOCK)])

        return query


def _all(look: Look, images: Images) -> Seen:
    """One look at all images, in blocks."""
    parts = [look(pixels) for pixels, _ in images.batches(BLOCK)]
    features = tuple(torch.cat(layer) for layer in zip(*(part.features for part in parts), strict=True))
    return Seen(features, torch.cat([part.answers for part in parts]))
