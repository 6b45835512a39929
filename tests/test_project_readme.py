"""The README's blocks do what they say: those that follow a line `<!-- run -->` are run here, in order.

Python blocks are one program; shell blocks are one script, of which a `console` block gives the lines that start with
a dollar sign. Each program has a new, empty folder of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^<!-- run -->\n+```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME_LIMIT = 900


def blocks(*languages: str) -> list[str]:
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    return [body for language, body in BLOCK.findall(text) if language in languages]


def commands(body: str) -> str:
    """The commands of a block, without their output where it shows a prompt."""
    lines = body.splitlines()
    typed = [line[2:] for line in lines if line.startswith("$ ")]
    return "\n".join(typed or lines)


def run(argv: list[str], folder: Path) -> None:
    tools = str(Path(sys.executable).parent)
    surroundings = {**os.environ, "PATH": tools + os.pathsep + os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        argv, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_readme_marks_python_and_shell_blocks_to_run() -> None:
    assert blocks("python")
    assert blocks("sh", "bash", "console")


@pytest.mark.skipif(not blocks("python"), reason="the README marks no Python block")
def test_the_readmes_python_runs(tmp_path: Path) -> None:
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks("python")), encoding="utf-8")
    run([sys.executable, "-W", "error", str(program)], tmp_path)


@pytest.mark.skipif(not blocks("sh", "bash", "console"), reason="the README marks no shell block")
def test_the_readmes_commands_run(tmp_path: Path) -> None:
    script = "\n".join(commands(body) for body in blocks("sh", "bash", "console"))
    run(["bash", "-euo", "pipefail", "-c", script], tmp_path)


def test_a_console_block_gives_its_commands_without_their_output() -> None:
    assert commands("$ earmark --help\nUsage: ...\n$ ls\n") == "earmark --help\nls"
    assert commands("earmark --help\nls\n") == "earmark --help\nls"
