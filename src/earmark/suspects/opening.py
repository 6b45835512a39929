"""A suspect by one short text, as the command line takes it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from earmark.errors import BadInput, unknown_name
from earmark.models import Task
from earmark.suspects.answers import ClassNames
from earmark.suspects.forms import CustomJson, Form, HuggingFace, OpenInference
from earmark.suspects.http import Service
from earmark.suspects.manners import Manners
from earmark.suspects.onnx import OnnxModel
from earmark.suspects.reached import Reached
from earmark.suspects.transcript import Transcript, is_transcript
from earmark.suspects.transformers import Checkpoint
from earmark.suspects.wire import checked_address, shown

__all__ = ["FORMS", "GIVEN", "form_of", "kind_of_suspect", "makers", "open_suspect", "spoken"]

FORMS: Final[Mapping[str, Any]] = {"hf": HuggingFace, "json": CustomJson, "v2": OpenInference}
GIVEN: Final = ("self", "url", "names", "classes", "file", "folder")
"""What is no setting: the text, the task and the class names say it."""


def kind_of_suspect(text: str) -> str | None:
    """`onnx`, `transformers`, `http` or `transcript`; None for anything else, which is a file of weights.

    >>> [kind_of_suspect(text) for text in ("onnx:net.onnx", "https://host/v2/models/x", "net.safetensors")]
    ['onnx', 'http', None]
    """
    kind, colon, _ = text.partition(":")
    if kind in ("http", "https") and colon:
        return "http"
    if kind in ("onnx", "transformers", "transcript") and colon:
        return kind
    return "transcript" if is_transcript(Path(text)) else None


def spoken(text: str) -> str:
    """The suspect's name for a report: an address without its query, or the last part of a path."""
    if kind_of_suspect(text) == "http":
        return shown(text)
    kind, colon, path = text.partition(":")
    return f"{kind}:{Path(path).name}" if colon and kind_of_suspect(text) else Path(text).name


def form_of(url: str, form: str | None) -> str:
    """The name of the form that a service speaks: as given, or `v2` where the address says so.

    Raises:
        BadInput: an unknown form, no address, or no form where the address does not tell.
    """
    if form is not None and form not in FORMS:
        raise unknown_name("form", form, FORMS)
    if form is None and "/v2/models/" not in urlsplit(checked_address(url)).path:
        raise BadInput(f"{shown(url)} does not tell what it speaks; say --form v2, hf or json")
    return form or "v2"


def makers(text: str, form: str | None) -> tuple[Any, ...]:
    """Whose parameters the settings of a suspect are; `GIVEN` are not among them."""
    kind = kind_of_suspect(text)
    if kind == "http":
        return FORMS[form_of(text, form)].__init__, Manners
    own: Mapping[str, Any] = {"onnx": OnnxModel, "transformers": Checkpoint}
    return (own[kind].__init__,) if kind is not None and kind in own else ()


def open_suspect(
    text: str, task: Task, *, form: str | None = None, names: ClassNames | None = None, **settings: Any
) -> Reached:
    """The suspect that `text` names, to be asked about a task.

    Args:
        text: `onnx:FILE`, `transformers:DIR`, `http://...`, `https://...`, `transcript:FILE` or a transcript's path.
        task: the images' shape and the number of classes.
        form: what a service speaks: `v2`, `hf` or `json`; an address with `/v2/models/` is `v2`.
        names: the task's classes by what the suspect calls them.
        settings: of the suspect's kind: `OnnxModel`, `Checkpoint`, or the form's and `Manners`.

    Raises:
        BadInput: another kind, an unknown setting, or what the kind raises.
        Unreachable: as `Service`.
    """
    kind = kind_of_suspect(text)
    if kind is None:
        raise unknown_name("kind of suspect", text.partition(":")[0], ["onnx", "transformers", "http", "transcript"])
    if kind != "http" and form is not None:
        raise BadInput(f"{spoken(text)} is no service, so it has no form; leave --form out")
    path = text.partition(":")[2] if text.startswith(f"{kind}:") else text
    if kind == "transcript":
        if settings or names is not None:
            raise BadInput("a transcript holds the answers as they were read, so it takes no settings and no names")
        return Transcript(path, task.classes)
    if kind == "onnx":
        if names is not None:
            raise BadInput("an ONNX file gives its classes by number, so names do not apply; leave them out")
        return OnnxModel(path, task.classes, **_known(OnnxModel, settings))
    if kind == "transformers":
        return Checkpoint(path, task.classes, names=names, **_known(Checkpoint, settings))
    return _service(text, task.classes, form_of(text, form), names or ClassNames(), settings)


def _service(url: str, classes: int, form: str, names: ClassNames, settings: Mapping[str, Any]) -> Service:
    known = Manners.__dataclass_fields__
    manners = Manners(**{name: value for name, value in settings.items() if name in known})
    own = {name: value for name, value in settings.items() if name not in known}
    speech: Form = FORMS[form](url, names, **_known(FORMS[form], own))
    return Service(url, speech, classes, manners)


def _known(maker: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, if the maker takes them all."""
    known = [name for name in inspect.signature(maker).parameters if name not in GIVEN]
    for name in settings:
        if name not in known:
            raise unknown_name("setting of the suspect", name, known)
    return settings
