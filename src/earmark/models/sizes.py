"""The sizes that a network is built with, checked before any layer is made."""

from __future__ import annotations

from earmark.errors import BadInput

__all__ = ["require_positive"]


def require_positive(**sizes: object) -> None:
    """Raise `BadInput` for a size that is not a whole number of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise BadInput(f"expected a whole number of at least 1 as {name}, got {size!r}")
