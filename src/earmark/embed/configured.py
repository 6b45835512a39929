"""What all methods of embedding share: settings that a copy can change."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Self

from earmark.training import Settings

__all__ = ["Configured"]


class Configured:
    """The base of a method, a frozen dataclass whose `settings` are those of its training run."""

    settings: Settings

    def but(self, **changes: Any) -> Self:
        """A copy with some attributes changed; names of training settings change those."""
        method: Any = self
        known = {field.name for field in fields(method)}
        own = {name: changes.pop(name) for name in list(changes) if name in known}
        settings = own.pop("settings", self.settings)
        copied: Self = replace(method, settings=settings.but(**changes), **own)
        return copied
