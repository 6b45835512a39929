"""Masked training: weights are dropped for a while, so that what is learnt does not hang on any few of them.

Wen et al. 2023, Section 4.2.2: y = f(((W . M) / (1 - p)) x + b). Here p is the share that is *dropped*; the paper's
text calls it the share preserved, which its 1 / (1 - p) contradicts. The layer computes with W_eff = W . M / (1 - p),
so the gradient of W is (dL/dW_eff . M) / (1 - p), as autograd has it, with the factor once.

Perturbed weights are masks, too: M / (1 - p) has mean 1 and variance p / (1 - p), and a normal factor of that mean and
variance (Srivastava et al. 2014, Section 10) moves every weight a little where a mask takes some away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from earmark.errors import BadInput, number, whole
from earmark.training.feed import mix

__all__ = ["Masking", "Masks"]

LAYERS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
SPARSE = 1 / 64
"""Below this share the dropped weights are drawn by index, above it each weight draws for itself."""
MASKS = 1 << 62
"""A step number that no step has: masks draw from a stream of their own."""


@dataclass(frozen=True)
class Masking:
    """How weights are masked during training.

    Attributes:
        drop: p, the share of weights dropped, 0 to below 1; for "normal" the p of their variance.
        every: draw a new mask after this many steps; None for once an epoch (Algorithm 1).
        by: "random", or "magnitude": the smallest weights, as the released code of February 2023 had it, or "normal":
            none is dropped, each is multiplied with a factor of its own, normal with mean 1 and variance p / (1 - p).
        scope: "global" ranks the weights of all layers together, "layer" each layer's own; only magnitudes know ranks.
        rescale: compute with the kept weights times 1 / (1 - p); False leaves them as they are (released code).
        lasting: write the zeros into the weights when a mask is drawn, and then mask nothing: the released code, where
            the very same step may grow them again.
        layers: the kinds of layers whose weights are masked, never their biases, and no buffers.

    Raises:
        BadInput: a share outside [0, 1), an interval below 1, an unknown word, or normal factors that are to last.
    """

    drop: float = 0.2
    every: int | None = None
    by: Literal["random", "magnitude", "normal"] = "random"
    scope: Literal["global", "layer"] = "global"
    rescale: bool = True
    lasting: bool = False
    layers: tuple[type[nn.Module], ...] = LAYERS

    def __post_init__(self) -> None:
        number("drop", self.drop, 0, 1)
        if self.drop == 1:
            raise BadInput("drop: expected a share of weights below 1, got 1, which leaves none")
        if self.every is not None:
            whole("every", self.every, low=1)
        for what, word, known in (
            ("by", self.by, ("random", "magnitude", "normal")),
            ("scope", self.scope, ("global", "layer")),
        ):
            if word not in known:
                raise BadInput(f"{what}: expected {' or '.join(known)}, got {word!r}")
        if self.by == "normal" and self.lasting:
            raise BadInput("lasting masks write zeros into the weights, and normal factors are none; leave one out")

    def to_dict(self) -> dict[str, Any]:
        """All settings, as JSON types."""
        return {**vars(self), "layers": sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in self.layers)}


class Masks:
    """The masks of one run: for each weight 0 where it is dropped, and 1 where it stays, or its normal factor.

    A drawn mask is a function of (seed, epoch, which mask of the epoch), so a resumed run draws it again. One by
    magnitude is a function of the weights at its time, so it is a part of the run's state.
    """

    def __init__(self, masking: Masking, model: nn.Module, seed: int) -> None:
        self._how, self._seed = masking, seed
        self._weights = _weights(model, masking.layers)
        if not self._weights:
            kinds = ", ".join(kind.__name__ for kind in masking.layers)
            raise BadInput(f"masking: no layer of the kinds {kinds} has weights that train; name other kinds")
        drops = masking.by != "normal"
        self._scale = 1 / (1 - masking.drop) if drops and masking.rescale and not masking.lasting else 1.0
        weights = list(self._weights.values())
        size, first = sum(weight.numel() for weight in weights), weights[0]
        self._flat, self._kept, at = torch.ones(size, dtype=first.dtype, device=first.device), list[Tensor](), 0
        for weight in weights:  # laid out as the weights are, whatever their memory format
            self._kept.append(self._flat.as_strided(weight.shape, _strides(weight), at))
            at += weight.numel()
        self._dropped = torch.empty(0, dtype=torch.int64, device=first.device)
        self._drawn: tuple[int, int] | None = None
        self._own = {name: weight.detach().requires_grad_() for name, weight in self._weights.items()}
        self._room = [_alike(weight) for weight in weights] if self.live else []
        self._zero = self._flat.new_zeros(())

    @property
    def live(self) -> bool:
        """Whether a step computes with other weights than the model's own."""
        return not self._how.lasting and self._how.drop > 0

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """What each weight is multiplied with: 0, or 1 / (1 - p), or a normal factor."""
        return {name: kept * self._scale for name, kept in zip(self._weights, self._kept, strict=True)}

    def draw(self, epoch: int, step: int) -> None:
        """Draw the mask of this step, if it is not the last step's still."""
        which = (epoch, 0 if self._how.every is None else step // self._how.every)
        if which == self._drawn:
            return
        self._drawn = which
        if self._how.lasting and not self._begins(step):
            return
        seed = mix(self._seed, which[0], MASKS + which[1])
        if self._how.by == "random":
            self._draw_at_random(seed)
        elif self._how.by == "normal":
            self._draw_factors(seed)
        else:
            self._drop_smallest()
        if self._how.lasting:
            with torch.no_grad():
                for weight, kept in zip(self._weights.values(), self._kept, strict=True):
                    weight.mul_(kept)
            self._flat.fill_(1.0)

    def _begins(self, step: int) -> bool:
        """Whether a mask's time begins with this step of an epoch."""
        return step % self._how.every == 0 if self._how.every is not None else step == 0

    def _draw_at_random(self, seed: int) -> None:
        """Counted in passes over the weights, which is what it costs: none for a small share, three for a large one."""
        share, size = self._how.drop, len(self._flat)
        if share <= SPARSE:
            self._flat.index_fill_(0, self._dropped, 1.0)
            # with replacement; so many draws hit the wanted share of different weights on average
            draws = round(math.log1p(-share) / math.log1p(-1 / size)) if size > 1 else round(share)
            drawn = torch.randint(size, (draws,), generator=torch.Generator().manual_seed(seed))
            self._dropped = drawn.to(self._flat.device)
            self._flat.index_fill_(0, self._dropped, 0.0)
        else:
            words = np.random.SFC64(seed).random_raw(-(-size // 4)).view(np.uint16)[:size]
            self._flat.copy_(torch.from_numpy((words >= round(share * 2**16)).view(np.uint8)))  # bool is copied slowly

    def _draw_factors(self, seed: int) -> None:
        """Drawn on the CPU, so that every device has the same."""
        spread = math.sqrt(self._how.drop / (1 - self._how.drop))
        drawn = torch.randn(len(self._flat), generator=torch.Generator().manual_seed(seed))
        self._flat.copy_(drawn.mul_(spread).add_(1))

    def _drop_smallest(self) -> None:
        sizes = [weight.detach().abs().flatten() for weight in self._weights.values()]
        ranked = [torch.cat(sizes)] if self._how.scope == "global" else sizes
        limits = [_smallest(values, self._how.drop) for values in ranked] * (len(sizes) // len(ranked))
        for weight, kept, limit in zip(self._weights.values(), self._kept, limits, strict=True):
            kept.copy_(weight.detach().abs() > limit)

    @contextmanager
    def applied(self) -> Iterator[Mapping[str, Tensor]]:
        """Within, layers compute with masked weights; given are the weights themselves, by name, as leaves.

        On leaving, gradients are those of the weights themselves: the layers' times M / (1 - p), which is the chain
        rule through W . M / (1 - p), and what a term sent to the leaves.
        """
        for name, weight in self._weights.items():
            if self._own[name].data_ptr() != weight.data_ptr():  # the model was moved
                self._own[name] = weight.detach().requires_grad_()
        masked = list(zip(self._weights.values(), self._own.values(), self._kept, self._room, strict=True))
        try:
            for weight, _, kept, room in masked:
                weight.data = self._product(weight.data, kept, room)
            yield self._own
        finally:
            for weight, own, kept, _ in masked:
                weight.data = own.data
                if weight.grad is not None:
                    self._product(weight.grad, kept, weight.grad)
                if own.grad is not None:
                    weight.grad = own.grad if weight.grad is None else weight.grad.add_(own.grad)
                    own.grad = None

    def _product(self, values: Tensor, kept: Tensor, into: Tensor) -> Tensor:
        """Values or gradients . M / (1 - p), in one pass."""
        return torch.addcmul(self._zero, values, kept, value=self._scale, out=into)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Within, an optimizer may step; on leaving, dropped weights are what they were.

        Momentum and weight decay move them, although the step has no gradient for them. Normal factors drop none.
        """
        if self._how.by == "normal":
            yield
            return
        for weight, room in zip(self._weights.values(), self._room, strict=True):
            room.copy_(weight.data)
        yield
        for weight, room, kept in zip(self._weights.values(), self._room, self._kept, strict=True):
            torch.lerp(room, weight.data, kept.to(weight.dtype), out=weight.data)

    def state(self) -> Tensor | None:
        """The mask that stands, where it cannot be drawn again: bool (all weights,)."""
        return None if self._how.by != "magnitude" or self._drawn is None else self._flat != 0

    def restore(self, state: Tensor | None, epoch: int, step: int) -> None:
        """Go on with a saved mask in the middle of its time."""
        if state is None or self._begins(step):
            return
        self._drawn = (epoch, 0 if self._how.every is None else step // self._how.every)
        self._flat.copy_(state)


def _weights(model: nn.Module, layers: tuple[type[nn.Module], ...]) -> dict[str, nn.Parameter]:
    """The weights that train, of layers of these kinds, by their names in the model."""
    found: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, layers) and isinstance(weight, nn.Parameter) and weight.requires_grad:
            if any(weight is other for other in found.values()):
                raise BadInput(f"masking: {name} shares its weight with another layer; name other kinds of layers")
            found[f"{name}.weight" if name else "weight"] = weight
    return found


def _alike(weight: Tensor) -> Tensor:
    """Room for a tensor in the same memory order: in another one, convolutions turn every gradient around."""
    return torch.empty_strided(weight.shape, _strides(weight), dtype=weight.dtype, device=weight.device)


def _strides(weight: Tensor) -> tuple[int, ...]:
    """The weight's own, or plain ones for a slice of another tensor, which does not fill the memory that it spans."""
    spanned = 1 + sum((size - 1) * stride for size, stride in zip(weight.shape, weight.stride(), strict=True))
    return weight.stride() if weight.numel() == spanned else torch.empty(weight.shape, device="meta").stride()


def _smallest(values: Tensor, share: float) -> Tensor:
    """The size up to which `share` of the values lie; below all of them for none."""
    count = round(share * values.numel())
    return values.new_tensor(-1.0) if count == 0 else values.kthvalue(count).values
