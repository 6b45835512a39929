"""JSON that somebody may have edited, as the dataclass that wrote it: the fields that it has, each of its own type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from earmark.errors import BadInput

__all__ = ["record"]

T = TypeVar("T")

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def record(kind: type[T], value: Mapping[str, Any], what: str, command: str) -> T:
    """An instance of the dataclass `kind`; what `value` holds beyond its fields is left aside.

    Args:
        kind: a dataclass whose fields are numbers, text, or mappings of them.
        value: a JSON object.
        what: what the object is said to be, "a verdict".
        command: what writes such objects.

    Raises:
        BadInput: fields are missing, of another type or not finite; or what the dataclass itself refuses.
    """
    hints = get_type_hints(kind)
    fields = dataclasses.fields(cast(Any, kind))
    lacking = [f.name for f in fields if f.name not in value and f.default is f.default_factory is dataclasses.MISSING]
    if lacking:
        raise BadInput(f"{what} lacks {', '.join(map(repr, lacking))}; write it with `{command}`")
    return kind(**{f.name: _typed(hints[f.name], f.name, value, what, command) for f in fields if f.name in value})


def _typed(hint: Any, name: str, value: Mapping[str, Any], what: str, command: str) -> Any:
    try:
        return TypeAdapter(hint, config=STRICT).validate_python(value[name])
    except ValidationError as error:
        said = str(error.errors(include_url=False, include_input=False)[0]["msg"])
        fault = f"{name}: {said[:1].lower()}{said[1:]}"
        raise BadInput(f"{what} is malformed ({fault}); write it with `{command}`") from error
