"""Where a measurement comes from: the versions of what computed it, and the commit of the code."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import earmark

__all__ = ["code_commit", "versions"]

PACKAGES = ("earmark", "torch", "numpy")


@cache
def versions() -> dict[str, str]:
    """Versions by name, that of Python among them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def code_commit() -> str | None:
    """The commit of the checkout that the library runs from, "+" behind it if files were changed; None elsewhere."""
    home = Path(earmark.__file__).parent
    commit = _git(home, "rev-parse", "HEAD")
    tracked = _git(home, "ls-files", "--error-unmatch", "__init__.py")
    if commit is None or tracked is None:
        return None
    return commit + ("+" if _git(home, "status", "--porcelain", "--untracked-files=no", ".") else "")


def _git(home: Path, *words: str) -> str | None:
    try:
        told = subprocess.run(["git", *words], cwd=home, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
