"""One table after the other, each handed on as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from earmark.errors import BadInput
from earmark.recipes.sources import located

__all__ = ["each"]


def each(
    covered: Mapping[str, Sequence[str]],
    table: str | None,
    settings: Sequence[str],
    seeds: int | None,
    measure: Callable[[str, str], dict[str, Any]],
    images: Callable[[str, str], Sequence[str]],
    data: Path | None,
) -> Iterator[dict[str, Any]]:
    """What `measure(table, setting)` finds, for every table and setting that is wanted.

    Args:
        covered: by table, the settings that it has.
        table: the one table wanted; None for all.
        settings: only these; empty for all that are covered.
        seeds: how many runs were asked for, to check it.
        measure: from a table and a setting to the JSON value.
        images: from a table and a setting to the data sets that they read.
        data: the folder that holds them, see `sources.located`.

    Raises:
        BadInput: at once, where nothing would be measured or a data set is not there.
    """
    if seeds is not None and seeds < 1:
        raise BadInput(f"seeds: expected at least one run, got {seeds}")
    tables = [table] if table else list(covered)
    wanted = [(name, setting) for name in tables for setting in covered[name] if not settings or setting in settings]
    if not wanted:
        known = sorted({setting for name in tables for setting in covered[name]})
        raise BadInput(
            f"{table or 'no table'} covers {', '.join(known) or 'no setting'} at this scale, not {', '.join(settings)}"
        )
    for name in sorted({name for at in wanted for name in images(*at)} - {"digits"}):
        located(name, data)
    return (measure(name, setting) for name, setting in wanted)
