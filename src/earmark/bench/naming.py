"""Settings as JSON: what a scheme or an attack is set to, and the digest by which a measurement is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from earmark.core import Data, Images
from earmark.files import canonical_json, digest, model_digest

__all__ = ["described", "identity", "images_digest", "seed_of"]

IDENTITY = 16
"""Hexadecimal digits of an identity: 64 bits tell the cells of any grid apart."""


def described(value: Any, whole: bool = False) -> Any:
    """A value as JSON: dataclasses by their name and the settings that are not their defaults, all of them if `whole`.

    Functions stand under the name by which they are imported, tensors, images and networks under their digest, anything
    else under its type. Fields that a dataclass keeps out of its `repr` are left out, unless they hold images or
    tensors: so no secret of a key comes into a file of results.

    >>> from earmark.attacks import attack
    >>> described(attack("prune-global", share=0.5))
    {'is': 'PruneGlobal', 'share': 0.5}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Tensor):
        return digest({"tensor": value})
    if isinstance(value, nn.Module):
        return {"is": type(value).__name__, "digest": model_digest(value)}
    if isinstance(value, Images | Data):
        return {"is": type(value).__name__, "digest": images_digest(value)}
    if isinstance(value, Mapping):
        return {str(name): described(part, whole) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [described(part, whole) for part in value]
    if isinstance(value, partial):
        given = [described(part, whole) for part in value.args]
        return {"is": described(value.func), **({"given": given} if given else {}), **described(value.keywords, whole)}
    if is_dataclass(value) and not isinstance(value, type):
        shown = {field.name: getattr(value, field.name) for field in fields(value) if _told(field, value, whole)}
        return {"is": type(value).__name__, **{name: described(part, whole) for name, part in shown.items()}}
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _told(field: Field[Any], owner: Any, whole: bool) -> bool:
    value = getattr(owner, field.name)
    if field.name == "checkpoint" or not (field.repr or isinstance(value, Tensor | Images | Data | nn.Module)):
        return False
    if whole:
        return True
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return default is MISSING or described(value, whole=True) != described(default, whole=True)


def images_digest(images: Images | Data) -> str:
    """Hex SHA-256 of the pixels and labels."""
    parts = {"images": images} if isinstance(images, Images) else {"train": images.train, "test": images.test}
    return digest(
        {f"{part} {name}": getattr(one, name) for part, one in parts.items() for name in ("pixels", "labels")}
    )


def identity(*parts: Any) -> str:
    """Hexadecimal digits that differ where any part does, defaults included.

    >>> identity("a", 1) == identity("a", 1) != identity("a", 2)
    True
    """
    return hashlib.sha256(canonical_json(described(list(parts), whole=True))).hexdigest()[:IDENTITY]


def seed_of(*parts: Any) -> int:
    """A seed of 62 bits that depends on every part, so that no measurement's randomness depends on another's.

    >>> 0 <= seed_of("host", 0) < 2**62
    True
    """
    return int.from_bytes(hashlib.sha256(canonical_json(list(parts))).digest()[:8], "big") >> 2
