"""Models on the command line: what builds the network, the file that fills it, and whether both fit the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from earmark.cli.output import write_new
from earmark.cli.settings import pairs, value_of
from earmark.errors import BadInput, unknown_name
from earmark.files import state_tensors
from earmark.models import Task, require_fit
from earmark.suspects import load_model
from earmark.training import Settings

__all__ = ["NETWORKS", "check_name", "fitting", "network", "save_network"]


def _shaped(task: Task) -> Mapping[str, Any]:
    return {"shape": task.shape, "classes": task.classes}


def _channelled(task: Task) -> Mapping[str, Any]:
    return {"channels": task.shape[0], "classes": task.classes}


def _sized(task: Task) -> Mapping[str, Any]:
    return {**_channelled(task), "size": task.shape[1:]}


def _one_block(task: Task) -> Mapping[str, Any]:
    return {**_channelled(task), "blocks": (1, 1, 1, 1)}


NETWORKS: Mapping[str, tuple[str, Callable[[Task], Mapping[str, Any]]]] = {
    "alexnet-p": ("earmark.models:AlexNetP", _sized),
    "resnet9-p": ("earmark.models:ResNetP", _one_block),
    "resnet18-p": ("earmark.models:ResNetP", _channelled),
    "plain": ("earmark.models:PlainCNN", _shaped),
    "lenet5": ("earmark.models:LeNet5", _shaped),
    "resnet18": ("earmark.models:ResNet18", _channelled),
    "thin-resnet18": ("earmark.models:ThinResNet18", _channelled),
    "vgg16-bn": ("earmark.models:VGG16BN", _channelled),
    "wide-resnet": ("earmark.models:WideResNet", _channelled),
}
"""Networks that come with earmark: the function, and its arguments as far as the task gives them."""


def check_name(name: str) -> None:
    """Raise `BadInput` for a name that builds no network."""
    if ":" not in name and name not in NETWORKS:
        raise unknown_name("network", name, [*NETWORKS, "package.module:function", "file.py:function"])


def network(name: str, weights: Path | None, arguments: Sequence[str] | None, task: Task) -> nn.Module:
    """The model `name` with its `weights`, on the GPU if there is one.

    Raises:
        BadInput: an unknown name, or what `suspects.load_model` refuses.
    """
    check_name(name)
    function, known = NETWORKS.get(name, (name, lambda _: {}))
    given = {argument: value_of(text) for argument, text in pairs(arguments, "--model-set").items()}
    try:
        model = load_model(function, weights, **{**known(task), **given})
    except BadInput as error:
        raise BadInput(f"{error} (--model {name})") from error
    return model.to(Settings().torch_device())


def fitting(model: nn.Module, task: Task, what: str) -> nn.Module:
    """`model`, if it answers images of the task with one score per class.

    Raises:
        BadInput: it fails on such an image, or has another number of classes.
    """
    require_fit(model, task, what)
    return model


def save_network(path: Path, model: nn.Module, force: bool) -> None:
    """The model's state dict as safetensors; raises as `output.write_new` does."""
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in state_tensors(model).items()}
    write_new(path, save(tensors), force)
