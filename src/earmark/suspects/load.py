"""A model that the user's own code builds, named in one string, with its weights from a file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from earmark.errors import BadInput, unknown_name
from earmark.files import load_weights

__all__ = ["load_model"]

SHOWN = 3


def load_model(name: str, weights: Path | str | None = None, **arguments: Any) -> nn.Module:
    """Call the function that `name` names and, where given, fill the module it returns from a file of weights.

    The named code is run: name only code that you would run yourself. A weight file is never unpickled.

    Args:
        name: `package.module:function`, looked up from the working folder too, or `file.py:function`.
        weights: a `.safetensors` state dict, or a `.pt`/`.pth`/`.bin` one, which is read with `weights_only=True`. Of
            tensors that share their memory, tied weights say, the file may hold one, as `safetensors.torch.save_model`
            writes it.
        arguments: keyword arguments of the function.

    Raises:
        BadInput: no such file, module or function; a function that has no such argument, fails or returns no
            `nn.Module`; weights that do not fit exactly (names and shapes are compared before anything is copied).
    """
    home, _, attribute = name.rpartition(":")
    if not home or not attribute:
        raise BadInput(f"expected 'package.module:function' or 'file.py:function', got {name!r}")
    code = _from_file(Path(home)) if home.endswith(".py") else _from_package(home)
    function = _function(code, home, attribute)
    _check_arguments(name, function, arguments)
    module = _build(name, function, arguments)
    if weights is not None:
        _fill(module, load_weights(weights), Path(weights).name)
    return module


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadInput(f"{path} is not there; give the Python file whose function builds the model")
    unique = f"_earmark_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} cannot be imported as Python")
    code = importlib.util.module_from_spec(spec)
    with _importing(str(path), path.resolve().parent):
        sys.modules[unique] = code
        spec.loader.exec_module(code)
    return code


def _from_package(name: str) -> ModuleType:
    with _importing(name, Path.cwd()):
        return importlib.import_module(name)


@contextmanager
def _importing(what: str, folder: Path) -> Iterator[None]:
    """Imports find `folder` first, as a script's do; whatever goes wrong in foreign code is named in one sentence."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except (Exception, SystemExit) as error:  # code that exits must not end a judge's program as if all were well
        raise BadInput(f"cannot import {what}: {type(error).__name__}: {error}") from error
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def _function(code: ModuleType, home: str, attribute: str) -> Any:
    functions = [known for known, value in vars(code).items() if callable(value) and not known.startswith("_")]
    if not callable(getattr(code, attribute, None)):
        raise unknown_name(f"function in {home}", attribute, functions)
    return getattr(code, attribute)


def _check_arguments(name: str, function: Any, arguments: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # a function without a readable signature checks its arguments itself
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [parameter.name for parameter in parameters.values() if parameter.kind in by_name]
    for argument in arguments:
        if argument not in known:
            raise unknown_name(f"argument of {name}", argument, known)


def _build(name: str, function: Any, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        module = function(**arguments)
    except (Exception, SystemExit) as error:
        raise BadInput(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"{name} returned {type(module).__name__}, expected an nn.Module")
    return module


def _fill(module: nn.Module, weights: Mapping[str, Tensor], file: str) -> None:
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    shapes = [
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    tied = _tied(own, weights)
    faults = {
        "missing": own.keys() - weights.keys() - tied.keys(),
        "unexpected": weights.keys() - own.keys(),
        "wrong shape": shapes,
    }
    said = "; ".join(f"{fault} {_compact(sorted(names))}" for fault, names in faults.items() if names)
    if said:
        raise BadInput(
            f"{file} does not fit the model: {said}; give the weights of this very architecture, or name theirs"
        )
    try:
        module.load_state_dict({**tied, **weights}, strict=True)
    except RuntimeError as error:
        raise BadInput(f"{file} does not fit the model: {error}") from error


def _tied(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own tensors that the file leaves out and fills all the same, by one whose memory they lie in.

    To copy such a tensor onto itself, which `load_state_dict` then does, changes nothing.
    """
    missing = own.keys() - weights.keys()
    filled = [_memory(own[name]) for name in own.keys() & weights.keys() if missing and _gapless(own[name])]
    spans = {name: _memory(own[name]) for name in missing if own[name].numel()}
    within = {name for name, part in spans.items() if any(a <= part[0] and part[1] <= b for a, b in filled)}
    return {name: own[name] for name in within}


def _memory(tensor: Tensor) -> tuple[int, int]:
    """The addresses of the tensor's first byte and of the one after its last."""
    begin = tensor.data_ptr()
    return begin, begin + tensor.element_size() * _extent(tensor)


def _extent(tensor: Tensor) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _gapless(tensor: Tensor) -> bool:
    return 0 < tensor.numel() == _extent(tensor)


def _compact(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
