"""Embedding methods by name: those of Hua & Teoh 2023 (eqs. 8-14, Sections 4.1 and 5.3.5), each as one composition.

| name          | terms                               | trainable | start                     |
|---------------|-------------------------------------|-----------|---------------------------|
| ftll          | CE(data + triggers)                 | head      | host                      |
| ftal          | CE(data + triggers)                 | all       | host                      |
| ftal+twl      | CE(data + triggers) + alpha TWL     | all       | host                      |
| fixll         | CE(data + triggers)                 | trunk     | host                      |
| fixll+twl     | CE(data + triggers) + alpha TWL     | trunk     | host                      |
| fixll+pfl     | CE(triggers) + beta PFL(data)       | trunk     | host                      |
| fixll+spl     | CE(triggers) + gamma SPL(data)      | trunk     | host                      |
| scratch       | CE(data + triggers)                 | all       | fresh                     |
| fixll+scratch | CE(data + triggers)                 | trunk     | fresh, the host's head    |
| polytope      | CE(data + triggers)                 | trunk     | fresh, a polytope as head |

`METHODS` has those of Wen et al. 2023 and beyond as well, which stand in `function_coupled`, and those that papers
compare with, which stand in `baselines`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from earmark.embed.backdoor import Backdoor
from earmark.embed.baselines import adi, entangled, exponential_weighting
from earmark.embed.function_coupled import (
    function_coupled,
    function_coupled_2023_02,
    function_coupled_2023_06,
    function_coupled_plus,
)
from earmark.embed.prototypes import POLYTOPES
from earmark.embed.start import FromScratch
from earmark.errors import unknown_name
from earmark.training import (
    CrossEntropy,
    PenultimateFeatureLoss,
    Settings,
    SoftmaxLoss,
    TotalWeightLoss,
    head_only,
    trunk_only,
)

__all__ = [
    "METHODS",
    "fixll",
    "fixll_pfl",
    "fixll_scratch",
    "fixll_spl",
    "fixll_twl",
    "ftal",
    "ftal_twl",
    "ftll",
    "method",
    "polytope",
    "scratch",
]

SCRATCH = Settings(epochs=20, lr=1e-3, milestones=(10,), batchnorm="train")
"""A run from scratch uses the host's own settings."""

Build = Callable[[], nn.Module] | None


def ftll() -> Backdoor:
    """Fine-tune the last layer (eq. 8)."""
    return Backdoor("FTLL", (CrossEntropy(),), head_only)


def ftal() -> Backdoor:
    """Fine-tune all layers (eq. 9)."""
    return Backdoor("FTAL", (CrossEntropy(),))


def ftal_twl(alpha: float = 0.01) -> Backdoor:
    """Fine-tune all layers, held by the total weight loss (eq. 10)."""
    return Backdoor("FTAL+TWL", (CrossEntropy(), TotalWeightLoss(alpha)))


def fixll() -> Backdoor:
    """Fix the last layer, fine-tune the rest (eq. 11)."""
    return Backdoor("FixLL", (CrossEntropy(),), trunk_only)


def fixll_twl(alpha: float = 0.01) -> Backdoor:
    """Fix the last layer, the rest held by the total weight loss (eq. 12)."""
    return Backdoor("FixLL+TWL", (CrossEntropy(), TotalWeightLoss(alpha)), trunk_only)


def fixll_pfl(beta: float = 0.01) -> Backdoor:
    """Fix the last layer, learn the triggers, keep the penultimate features (eq. 13). Needs no labels of the data."""
    return Backdoor("FixLL+PFL", (CrossEntropy("triggers"), PenultimateFeatureLoss(beta)), trunk_only)


def fixll_spl(gamma: float = 1000.0) -> Backdoor:
    """Fix the last layer, learn the triggers, keep the softmax outputs (eq. 14). Needs no labels of the data."""
    return Backdoor("FixLL+SPL", (CrossEntropy("triggers"), SoftmaxLoss(gamma)), trunk_only)


def scratch(build: Build = None) -> Backdoor:
    """Train from scratch on data and triggers (Section 4.3.2)."""
    return Backdoor("Scratch", (CrossEntropy(),), start=FromScratch(build=build), settings=SCRATCH)


def fixll_scratch(build: Build = None) -> Backdoor:
    """From scratch under the host's fixed prototypes (Table 8, "FixLL+Scratch")."""
    return Backdoor("FixLL+Scratch", (CrossEntropy(),), trunk_only, FromScratch("host", build), SCRATCH)


def polytope(shape: str = "simplex", build: Build = None) -> Backdoor:
    """From scratch under prototypes fixed at the vertices of a regular polytope (Section 4.1, Figure 3)."""
    if shape not in POLYTOPES:
        raise unknown_name("polytope", shape, POLYTOPES)
    return Backdoor(f"Polytope ({shape})", (CrossEntropy(),), trunk_only, FromScratch(shape, build), SCRATCH)


METHODS: Mapping[str, Callable[..., Backdoor]] = {
    "ftll": ftll,
    "ftal": ftal,
    "ftal+twl": ftal_twl,
    "fixll": fixll,
    "fixll+twl": fixll_twl,
    "fixll+pfl": fixll_pfl,
    "fixll+spl": fixll_spl,
    "scratch": scratch,
    "fixll+scratch": fixll_scratch,
    "polytope": polytope,
    "function-coupled": function_coupled,
    "function-coupled-plus": function_coupled_plus,
    "function-coupled-2023-02": function_coupled_2023_02,
    "function-coupled-2023-06": function_coupled_2023_06,
    "adi": adi,
    "exponential-weighting": exponential_weighting,
    "entangled": entangled,
}


def method(name: str, **settings: Any) -> Backdoor:
    """The embedding method called `name`, with its settings (alpha, beta, gamma, shape, drop, ...)."""
    if name not in METHODS:
        raise unknown_name("embedding method", name, METHODS)
    known = list(inspect.signature(METHODS[name]).parameters)
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    return METHODS[name](**settings)
