"""A paper's tables, run here, with the printed numbers beside ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from earmark.cli import options
from earmark.cli.output import new_folder, show
from earmark.files import write_atomic, write_json
from earmark.recipes import deep_fidelity as df
from earmark.recipes import deepipr as ipr
from earmark.recipes import function_coupled as fc
from earmark.recipes import penetrative as pae
from earmark.reports import Reproduction, figures

__all__ = ["deep_fidelity", "deepipr", "function_coupled", "penetrative"]

DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="EARMARK_DATA", help="Holds mnist/, cifar10/, cifar100/."),
]
Seeds = Annotated[int | None, typer.Option("--seeds", metavar="N", min=1, help="How many seeds, from 0 up.")]


class Recipe(Protocol):
    """What the recipe of a paper has to offer."""

    SCALES: Mapping[str, Any]
    SETTINGS: Mapping[str, Any]
    TABLES: Mapping[str, Any]

    def reproduce(
        self, table: str | None, scale: str, data: Path | None, out: Path, seeds: int | None, settings: Sequence[str]
    ) -> Iterator[dict[str, Any]]: ...


def _command(recipe: Recipe, words: str, out: str) -> Callable[..., None]:
    """The command that runs a recipe; `words` are its help."""

    def run(
        table: Annotated[
            str | None, typer.Argument(metavar="TABLE", help=f"{', '.join(recipe.TABLES)}; all without it.")
        ] = None,
        scale: Annotated[str, typer.Option("--scale", metavar="NAME", help=f"{', '.join(recipe.SCALES)}.")] = "quick",
        data: DataFolder = None,
        out: options.Out = Path(out),
        seeds: Seeds = None,
        setting: Annotated[
            list[str] | None,
            typer.Option(
                "--setting", metavar="NAME", help=f"Of {', '.join(recipe.SETTINGS)}, only this; may be repeated."
            ),
        ] = None,
        as_json: options.Json = False,
    ) -> None:
        new_folder(out)
        found = []
        for value in recipe.reproduce(table, scale, data, out, seeds, setting or ()):
            _write(out, value)
            found.append(value)
        tables = [Reproduction.from_dict(value).to_table().to_rich() for value in found]
        show(as_json, found, *tables, f"written to {out}")

    run.__doc__ = words
    return run


def _write(out: Path, value: Mapping[str, Any]) -> None:
    stem = out / f"{value['table']}-{value['setting']}-{value['scale']}"
    write_json(stem.with_name(f"{stem.name}.json"), value)
    write_atomic(stem.with_name(f"{stem.name}.md"), Reproduction.from_dict(value).to_markdown(level=1).encode())
    for name, figure in figures.of_reproduction(value, out).items():
        figures.save(figure, stem.with_name(f"{stem.name}-{name}"))


deep_fidelity = _command(
    df,
    """Run the tables of Hua & Teoh 2023 and print each of their numbers beside ours.

    quick: digits, seconds, a check of the machinery. cpu: MNIST and CIFAR-10, scaled for two CPU cores. full: the
    paper's own settings. Each row is kept in OUT, so a run that was killed goes on with the row that it was in. For
    each table, OUT gets its numbers as JSON and Markdown, and its figures.
    """,
    "results/deep-fidelity",
)

function_coupled = _command(
    fc,
    """Run the tables and figures of Wen et al. 2023 and print each of their numbers beside ours.

    quick: digits, a check of the machinery. cpu: MNIST at the paper's scale, CIFAR-10 and a many-class set with thin
    networks. full: the paper's networks. Models and measurements are kept in OUT, so a run that was killed goes on.
    For each table, OUT gets its numbers as JSON and Markdown, and its curves.
    """,
    "results/function-coupled",
)

penetrative = _command(
    pae,
    """Run the tables and figures of Li & Wang 2021 and print each of their numbers beside ours.

    quick: digits, a check of the machinery. cpu: the paper's autoencoders and stamps on all images, with a thin
    classifier. full: the paper's classifier, too. Models, marks and measurements are kept in OUT, so a run that was
    killed goes on. For each table, OUT gets its numbers as JSON and Markdown, and its pictures.
    """,
    "results/penetrative",
)

deepipr = _command(
    ipr,
    """Run the tables and figures of Fan et al. 2021 and print each of their numbers beside ours.

    quick: digits, a check of the machinery. cpu: AlexNet_p at a quarter of its width on a part of CIFAR-10. full: the
    paper's networks. Settings ending in -2020 are those of the later code. Models and measurements are kept in OUT, so
    a run that was killed goes on. For each table, OUT gets its numbers as JSON and Markdown, and its curves.
    """,
    "results/deepipr",
)
