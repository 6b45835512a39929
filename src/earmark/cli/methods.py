"""Embedding methods as the command line takes them: a name, settings, and a checkpoint beside the output."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from earmark.cli.settings import Form
from earmark.embed import METHODS, Backdoor, method
from earmark.errors import unknown_name
from earmark.training import Settings

__all__ = ["beside", "embedding"]

OWN = ("enough", "head", "patience", "replace", "select", "watch")
"""What a method takes beside its weights and the settings of its training run."""


def embedding(name: str, **given: Any) -> tuple[Form, Callable[..., Backdoor]]:
    """The form of an embedding method's settings, and the function that they go to."""
    if name not in METHODS:
        raise unknown_name("embedding method", name, METHODS)
    own = inspect.signature(METHODS[name]).parameters
    backdoor = [field for field in inspect.signature(Backdoor).parameters if field not in OWN]

    def build(**values: Any) -> Backdoor:
        weights = {setting: values.pop(setting) for setting in list(values) if setting in own}
        return method(name, **weights).but(**values, **given)

    return Form.of(f"settings of {name}", METHODS[name], Backdoor, Settings, without=backdoor), build


def beside(out: Path) -> Path:
    """The checkpoint of the run that is going to write `out`."""
    return out.with_name(f"{out.name}.checkpoint")
