"""What a thief must know and own before an attack can begin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, final, get_args

from earmark.errors import BadInput

__all__ = ["Needs", "needs_of", "together"]

Owned = Literal["nothing", "images", "labelled images"]
Asked = Literal["nothing", "classes", "scores"]


@final
@dataclass(frozen=True)
class Needs:
    """What an attack cannot do without.

    Attributes:
        weights: the stolen model's parameters, not its answers alone.
        data: what the thief has of the model's own task: "nothing", "images" or "labelled images". A few images that
            only show the shape that the model takes are nothing.
        queries: what the model has to answer the thief, where he does not have its parameters: "nothing", "classes" or
            "scores".
        more: what else, in a few words; empty for nothing.
    """

    weights: bool
    data: Owned = "nothing"
    queries: Asked = "nothing"
    more: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        """All of it in a row.

        >>> print(Needs(weights=False, data="images", queries="scores"))
        images, scores
        >>> print(Needs(weights=True, data="labelled images", more="a second data set"))
        weights, labelled images, a second data set
        """
        found = ["weights" if self.weights else "", self.data, self.queries, self.more]
        return ", ".join(part for part in found if part not in ("", "nothing")) or "nothing"


def needs_of(attack: object) -> Needs:
    """What `attack` states in its attribute `needs`.

    Raises:
        BadInput: it states nothing.
    """
    stated = getattr(attack, "needs", None)
    if not isinstance(stated, Needs):
        raise BadInput(f"{type(attack).__name__} does not say what its thief needs; give it needs = Needs(...)")
    return stated


def together(*parts: Needs) -> Needs:
    """What one thief needs for all of several attacks.

    >>> print(together(Needs(True), Needs(False, "images", "scores"), Needs(True, "labelled images")))
    weights, labelled images, scores
    """
    owned: list[Owned] = sorted((part.data for part in parts), key=get_args(Owned).index)
    asked: list[Asked] = sorted((part.queries for part in parts), key=get_args(Asked).index)
    more = dict.fromkeys(part.more for part in parts if part.more)
    return Needs(any(part.weights for part in parts), owned[-1], asked[-1], ", ".join(more))
