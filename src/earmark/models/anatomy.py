"""Where a classifier's head is, and what goes into it: found by hooks, with no edit of the model.

Hua & Teoh 2023 (Section 4) see a classifier as a feature extractor x -> z in R^d followed by one linear layer
z -> W_P z (+ b): z is the penultimate feature, the rows of W_P are the prototypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from earmark.errors import BadInput
from earmark.models.modes import as_input, evaluating, given

__all__ = ["Anatomy", "Reader", "Reading", "dissect", "logits_of", "require_initialised"]


class Reading(NamedTuple):
    """What a classifier says of a batch: `features` z (N, d) and `logits` (N, K); of other models, see their reader."""

    features: Tensor
    logits: Tensor


def logits_of(output: Any) -> Tensor:
    """The logits (N, K) in a model's output: a tensor, an object with `.logits`, or a tuple or list that ends in one.

    Raises:
        BadInput: none of these.
    """
    found = getattr(output, "logits", output)
    if isinstance(found, (tuple, list)) and found:
        found = found[-1]
    if not isinstance(found, Tensor):
        raise BadInput(
            f"expected logits (a tensor, an object with .logits or a tuple ending in them), got {type(output).__name__}"
        )
    return found


class Reader(Protocol):
    """How training reads a model: what one forward pass tells the loss terms."""

    @property
    def classes(self) -> int | None:
        """K, or None for a model that is no classifier."""

    def head_parameters(self, model: nn.Module) -> set[str]:
        """The names of the last layer's parameters."""

    def read(self, model: nn.Module, images: Tensor, through: Callable[[Tensor], Any] | None = None) -> Reading:
        """One forward pass through `model`, or through a wrapper of it given as `through`."""


@dataclass(frozen=True)
class Anatomy:
    """The head of one architecture, by name: it reads any model of that architecture.

    Attributes:
        head: the name of the last `nn.Linear`, as in `model.named_modules()`.
        features: d, the size of the penultimate feature.
        classes: K, the number of classes.
    """

    head: str
    features: int
    classes: int

    def linear(self, model: nn.Module) -> nn.Linear:
        """The head itself."""
        head = model.get_submodule(self.head)
        if not isinstance(head, nn.Linear):
            raise BadInput(f"expected an nn.Linear at {self.head!r}, got {type(head).__name__}")
        return head

    def head_parameters(self, model: nn.Module) -> set[str]:
        """The names of the head's parameters, as in `model.named_parameters()`."""
        head = {id(parameter) for parameter in self.linear(model).parameters()}
        return {name for name, parameter in model.named_parameters() if id(parameter) in head}

    def read(self, model: nn.Module, images: Tensor, through: Callable[[Tensor], Any] | None = None) -> Reading:
        """One forward pass that keeps z: through `model`, or through a wrapper of it (DDP, say) given as `through`."""
        caught: list[Tensor] = []
        hook = self.linear(model).register_forward_pre_hook(_catch(caught), with_kwargs=True)
        try:
            output = (through or model)(images)
        finally:
            hook.remove()
        if len(caught) != 1:
            raise BadInput(
                f"the head {self.head!r} ran {len(caught)} times in one forward pass, expected once; name another head"
            )
        if caught[0].ndim != 2:
            raise BadInput(
                f"the head {self.head!r} reads features {tuple(caught[0].shape)}, expected one vector "
                "(N, d) an image; name the layer that classifies the whole image"
            )
        return Reading(caught[0], logits_of(output))


def _catch(caught: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    return lambda _, args, named: caught.append(given(args, named))


def require_initialised(model: nn.Module) -> None:
    """Raise `BadInput` for a model with lazy layers that have not seen an image yet: asking it would change it."""
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise BadInput("the model has layers that are not initialised yet; run it once on an image first")


def dissect(model: nn.Module, example: Tensor, head: str | None = None) -> Anatomy:
    """Find the head of a classifier by running it once on `example`.

    The head is the `nn.Linear` whose output is what the model returns; failing that (a scaled output, say) the only one
    with as many outputs as there are classes.

    Args:
        model: any classifier.
        example: images (N, C, H, W) that it takes, uint8 or float in [0, 1], on any device; one is enough.
        head: the name of the layer, to decide where the search cannot.

    Raises:
        BadInput: no layer, or more than one, fits (the message names the candidates), or the model answers
            probabilities.
    """
    require_initialised(model)
    example = as_input(example, model)
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if head is not None and head not in linears:
        raise BadInput(f"no nn.Linear is named {head!r}; the model has {_names(linears)}")
    outputs: dict[str, Tensor] = {}
    hooks = [module.register_forward_hook(_keep(outputs, name)) for name, module in linears.items()]
    try:
        with evaluating(model), torch.no_grad():
            logits = logits_of(model(example))
    except (RuntimeError, TypeError, LookupError, ValueError, AssertionError, AttributeError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"the model cannot take images {tuple(example.shape[1:])}: {said}; check channels and size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if logits.ndim != 2 or len(logits) != len(example):
        raise BadInput(
            f"expected logits (N, K) for {len(example)} images, got {tuple(logits.shape)}: not an image classifier"
        )
    name = head or _choose(linears, outputs, logits)
    if name in outputs and not _same(outputs[name], logits) and _is_softmax(outputs[name], logits):
        raise BadInput(
            "the model answers probabilities, or their logarithms; leave out the softmax at its end, so that it "
            "answers logits"
        )
    return Anatomy(name, linears[name].in_features, int(logits.shape[1]))


def _keep(outputs: dict[str, Tensor], name: str) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        outputs[name] = output

    return hook


def _choose(linears: dict[str, nn.Linear], outputs: dict[str, Tensor], logits: Tensor) -> str:
    exact = [name for name, output in outputs.items() if output is logits or _same(output, logits)]
    fitting = [name for name in outputs if linears[name].out_features == logits.shape[1]]
    for candidates in (exact, fitting):
        if len(candidates) == 1:
            return candidates[0]
    if not outputs:
        raise BadInput("no nn.Linear takes part in what the model answers; earmark marks models that end in one")
    raise BadInput(
        f"cannot tell which nn.Linear is the head: {_names(dict.fromkeys(fitting or outputs or linears))} "
        f"with {logits.shape[1]} classes; give its name as head=..."
    )


def _is_softmax(output: Tensor, answer: Tensor) -> bool:
    if output.shape != answer.shape:
        return False
    return any(torch.allclose(f(output, dim=1), answer, atol=1e-6) for f in (torch.softmax, torch.log_softmax))


def _same(output: Tensor, logits: Tensor) -> bool:
    return output.shape == logits.shape and torch.equal(output, logits)


def _names(named: dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in named) or "none"
