"""Where the penultimate features of the images lie, and where the prototypes point (Hua & Teoh 2023, Figs. 1, 4, 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from earmark.core import rng
from earmark.errors import BadInput
from earmark.reports.figures.style import INK, MUTED, canvas, class_colours, drawn, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Panel", "feature_clouds"]

MOST_NUMBERS = 20
"""Up to so many classes, each prototype bears its number."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One model's features: (N, d), with int64 labels (N,) and, where it has a linear head, prototypes (K, d).

    Raises:
        BadInput: shapes that do not fit each other, d below 2, or features that are not finite.
    """

    title: str
    features: Tensor
    labels: Tensor
    prototypes: Tensor | None = None
    subtitle: str = ""

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.shape[1] < 2 or not len(self.features):
            raise BadInput(
                f"{self.title}: expected features (N, d) with d of 2 or more, got {tuple(self.features.shape)}"
            )
        if self.labels.shape != self.features.shape[:1]:
            raise BadInput(f"{self.title}: {len(self.features)} features but labels {tuple(self.labels.shape)}")
        if self.prototypes is not None and self.prototypes.shape[1:] != self.features.shape[1:]:
            raise BadInput(f"{self.title}: prototypes {tuple(self.prototypes.shape)} for d = {self.features.shape[1]}")
        if not bool(self.features.isfinite().all()):
            raise BadInput(f"{self.title}: some features are not finite; a cloud of them cannot be drawn")

    @classmethod
    def of(cls, title: str, cloud: Mapping[str, Tensor], subtitle: str = "") -> Panel:
        """The panel of a saved cloud: tensors "features" and "labels", and "prototypes" where there is a linear head.

        Raises:
            BadInput: a tensor is missing, or they do not fit each other.
        """
        if not {"features", "labels"} <= set(cloud):
            raise BadInput(f"{title}: expected tensors features and labels, got {', '.join(sorted(cloud)) or 'none'}")
        return cls(title, cloud["features"], cloud["labels"], cloud.get("prototypes"), subtitle)


@drawn
def feature_clouds(panels: Sequence[Panel], columns: int = 4, points: int = 4000) -> Figure:
    """Feature clouds coloured by class, host first, all on one scale, with prototype vectors.

    The host's prototypes are dashed in every panel, a marked model's own are solid; all are scaled by one factor, so
    that their lengths compare. Two and three dimensions are drawn as they are. More are projected, without centring,
    on the first two principal directions of the *host's* features, which the axes say.

    Args:
        panels: the host, then the marked models; all of one feature dimension.
        columns: panels in a row.
        points: at most so many features a panel, the same images in each where the panels hold the same images.

    Raises:
        BadInput: no panel, or panels of different feature dimensions.
    """
    if len({panel.features.shape[1] for panel in panels}) != 1:
        raise BadInput("feature clouds need at least one panel, and one feature dimension for all of them")
    panels, names = _projected(panels)
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = canvas(2.7 * columns + 0.3, 2.95 * rows + 0.6)
    solid = len(names) == 3
    kind = {"projection": "3d"} if solid else {}
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=kind).ravel()
    scale = _Scale.of(panels)
    for ax, panel in zip(axes, panels, strict=False):
        _cloud(ax, panel, scale, points)
        _prototypes(ax, panel, panels[0], scale)
        _frame(ax, panel, scale, names)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    _legend(figure, panels, scale)
    return figure


@dataclass(frozen=True)
class _Scale:
    """What all panels share: the half-width of the axes, the length of a prototype of norm 1, and the class colours."""

    reach: float
    unit: float
    colours: Sequence[str]

    @classmethod
    def of(cls, panels: Sequence[Panel]) -> _Scale:
        reach = 1.04 * max(float(panel.features.abs().max()) for panel in panels) or 1.0
        longest = max((float(p.prototypes.norm(dim=1).max()) for p in panels if p.prototypes is not None), default=0.0)
        classes = 1 + max(int(panel.labels.max()) for panel in panels)
        return cls(reach, 0.86 * reach / (longest or 1.0), class_colours(classes))


def _projected(panels: Sequence[Panel]) -> tuple[list[Panel], list[str]]:
    """The panels in two or three dimensions, and the names of their axes."""
    size = panels[0].features.shape[1]
    if size <= 3:
        return [_mapped(panel, torch.eye(size)) for panel in panels], ["z₁", "z₂", "z₃"][:size]
    basis, shares = _principal(panels[0].features.detach().double().cpu())
    names = [f"host's PC {at} ({100 * share:.0f} % of variance)" for at, share in enumerate(shares, start=1)]
    return [_mapped(panel, basis) for panel in panels], names


def _mapped(panel: Panel, basis: Tensor) -> Panel:
    def onto(x: Tensor) -> Tensor:
        return x.detach().double().cpu() @ basis.double()

    prototypes = None if panel.prototypes is None else onto(panel.prototypes)
    return replace(panel, features=onto(panel.features), labels=panel.labels.cpu(), prototypes=prototypes)


def _principal(features: Tensor) -> tuple[Tensor, list[float]]:
    """The first two principal directions (d, 2), the largest entry of each made positive, and their variance shares."""
    centred = features - features.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    basis = vectors[:, [-1, -2]]
    largest = basis.abs().argmax(0)
    total = float(values.clamp(min=0).sum()) or 1.0
    return basis * basis[largest, torch.arange(2)].sign(), [float(values[at]) / total for at in (-1, -2)]


def _cloud(ax: Any, panel: Panel, scale: _Scale, points: int) -> None:
    """Points in an order without meaning, so that no class is drawn over all others."""
    some = torch.randperm(len(panel.features), generator=rng(0))[:points]
    spots = panel.features[some].T.numpy()
    shades = [scale.colours[int(label)] for label in panel.labels[some]]
    depth = {"depthshade": False} if len(spots) == 3 else {}
    ax.scatter(*spots, c=shades, s=4, alpha=0.6, linewidths=0, rasterized=True, **depth)


def _prototypes(ax: Any, panel: Panel, host: Panel, scale: _Scale) -> None:
    own = panel.prototypes if panel is not host else None
    if own is not None:
        _rays(ax, own * scale.unit, color=MUTED, linestyle="-", linewidth=2.4, alpha=0.6, zorder=1)
    if host.prototypes is not None:
        _rays(ax, host.prototypes * scale.unit, color=INK, linestyle=(0, (4, 2.5)), linewidth=0.8, zorder=5)
    numbered = host.prototypes if own is None else own
    if numbered is not None and len(numbered) <= MOST_NUMBERS:
        _numbers(ax, numbered * scale.unit, 0.08 * scale.reach)


def _rays(ax: Any, tips: Tensor, **style: Any) -> None:
    for tip in tips.tolist():
        ax.plot(*([0.0, end] for end in tip), **style)


def _numbers(ax: Any, tips: Tensor, gap: float) -> None:
    """The class number just past the tip of each prototype."""
    past = tips * (1 + gap / tips.norm(dim=1, keepdim=True).clamp(min=gap))
    for at, spot in enumerate(past.tolist()):
        ax.text(*spot, str(at), ha="center", va="center", fontsize=8, fontweight="bold", color=INK, zorder=6)


def _frame(ax: Any, panel: Panel, scale: _Scale, names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    below = f"\n{printable(panel.subtitle)}" if panel.subtitle else ""
    ax.set_title(printable(panel.title) + below)
    for axis, name in zip("xyz", names, strict=False):
        getattr(ax, f"set_{axis}lim")(-scale.reach, scale.reach)
        getattr(ax, f"set_{axis}label")(name, labelpad=-12 if len(names) == 3 else None)
        getattr(ax, f"{axis}axis").set_major_locator(MaxNLocator(4, symmetric=True))
    if len(names) == 3:
        ax.tick_params(labelbottom=False, labelleft=False, labelright=False, labeltop=False)
        ax.set_box_aspect((1, 1, 1), zoom=1.15)
    else:
        ax.set_aspect("equal")
        ax.label_outer()


def _legend(figure: Figure, panels: Sequence[Panel], scale: _Scale) -> None:
    """The class colours, where they can be told apart, the two kinds of line, and in 3-D the length of the axes."""
    from matplotlib.lines import Line2D

    few = enumerate(scale.colours) if len(scale.colours) <= MOST_NUMBERS else ()
    handles = [Line2D([], [], color=colour, marker="o", linestyle="", label=str(at)) for at, colour in few]
    if panels[0].prototypes is not None:
        handles.append(Line2D([], [], color=INK, linestyle="--", linewidth=0.8, label="host's prototypes"))
    if any(panel.prototypes is not None for panel in panels[1:]):
        handles.append(Line2D([], [], color=MUTED, alpha=0.6, linewidth=2.4, label="the model's own"))
    if panels[0].features.shape[1] == 3:
        handles.append(Line2D([], [], linestyle="", label=f"every axis: −{scale.reach:.3g} to {scale.reach:.3g}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=7, columnspacing=1.1, handletextpad=0.4)
