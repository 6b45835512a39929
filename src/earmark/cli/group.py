"""What all commands share: one line per error, exit statuses, suggestions for mistyped names."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, cast, final

import torch
import typer
from typer.core import TyperCommand, TyperGroup

from earmark.cli.output import PROGRAM, note, own_output, tidy
from earmark.errors import EarmarkError, unknown_name

__all__ = ["BAD_INPUT", "CRASHED", "INTERRUPTED", "Command", "Commands", "example"]

BAD_INPUT, CRASHED, INTERRUPTED = 2, 70, 130
UsageFault = cast(type[Exception], typer.BadParameter.__mro__[2])
"""The base of all usage errors, reached by the one name that releases of Typer with and without click share."""

Memory = (MemoryError, torch.OutOfMemoryError)
"""What says that the machine is too small for what it was asked."""

log = logging.getLogger(__name__)


@final
class Commands(TyperGroup):
    """A group of commands. Bad input ends in one line on standard error and status 2, never in a traceback.

    An error of earmark's own (a bug) has its traceback and status 70, and what foreign code raises that is no
    `Exception` (`asyncio.CancelledError`, say) is bad input, so that status 1 is always a verdict. What libraries warn
    of is told after the result, and left out where there is none: the error says what is wrong.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run the command in `args`, or the program's own arguments, and leave with its status."""
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        PROGRAM.set(args is None)
        extra["standalone_mode"] = False
        with warnings.catch_warnings(record=True) as warned:
            try:
                status = super().main(arguments, *rest, **extra)
            except (EarmarkError, OSError, *Memory, UsageFault, typer.Abort, KeyboardInterrupt, SystemExit) as error:
                status = _reported(error)
            except Exception:
                log.exception("earmark failed; this is a bug")
                status = CRASHED
            except BaseException as error:  # noqa: BLE001  (foreign code raises anything, and 1 is a verdict)
                status = _reported(error)
        if status == INTERRUPTED:
            typer.echo("earmark: interrupted; a long command goes on where it was when it is started again", err=True)
        for words in dict.fromkeys(" ".join(str(w.message).split()) for w in warned if status != BAD_INPUT):
            note(f"warning: {words}")
        sys.exit(status if isinstance(status, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begin with; an unknown one is an error that names the nearest."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown_name("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


@final
class Command(TyperCommand):
    """A command whose result has standard output to itself, and which leaves no empty folder behind."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with own_output(), tidy():
            return super().invoke(ctx)


def _reported(error: BaseException) -> int:
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        return INTERRUPTED
    typer.echo(f"earmark: error: {' '.join(_sentence(error).split())}", err=True)
    return BAD_INPUT


def _sentence(error: BaseException) -> str:
    if isinstance(error, SystemExit):  # typer's own way out is another exception, so this is foreign code
        return f"the code of the model ended the program (sys.exit({error.code!r:.80})) before there was a result"
    if not isinstance(error, Exception):
        return f"the code of the model raised {type(error).__name__} before there was a result"
    if isinstance(error, Memory):
        return f"the memory of this machine is full ({str(error) or type(error).__name__}); lower the batch size"
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        known = [name for parameter in context.command.params for name in parameter.opts] if context else []
        return str(unknown_name("option", option, [*(name for name in known if name.startswith("-")), "--help"]))
    if not isinstance(error, UsageFault):
        return str(error)
    words = str(cast(Any, error).format_message())
    command = "" if context is None else f"; see {context.command_path} --help"
    return words[:1].lower() + words[1:].rstrip(".") + command


def example(*lines: str) -> str:
    """The end of a command's help: an example to copy."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
