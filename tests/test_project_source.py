"""Laws that hold for every file of the project, checked on its syntax trees."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
UNPICKLERS = {"load", "loads", "Unpickler"}
NEVER = {"eval", "exec", "print", "breakpoint", "__import__"}
FOREIGN = re.compile(
    r"/wor[k]/|/roo[t]/|\.\./share[d]|DESIG[N]\.md|FACT[S]-|\bthe (?:lea[d]|contrac[t]|issu[e])\b|TOD[O]|FIXM[E]|XX[X]"
)
"""What belongs to somebody's machine or to-do list. Written so that it does not match itself."""


def calls(tree: ast.AST) -> Iterator[tuple[str, str, ast.Call]]:
    """(module, name, call) of every call of a plain or dotted name; the module is empty for a plain one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield "", node.func.id, node
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield node.func.value.id, node.func.attr, node


def is_true(call: ast.Call, keyword: str) -> bool:
    values = [k.value for k in call.keywords if k.arg == keyword]
    return any(isinstance(value, ast.Constant) and value.value is True for value in values)


def fault(module: str, name: str, call: ast.Call) -> str | None:
    """Why this call must not be in the library, or None."""
    if not module and name in NEVER:
        return f"{name}() is not for a library"
    if module in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve") and name in UNPICKLERS:
        return "nothing is ever unpickled"
    if (module, name) == ("torch", "load") and not is_true(call, "weights_only"):
        return "torch.load needs weights_only=True"
    if module in ("np", "numpy") and name == "load" and is_true(call, "allow_pickle"):
        return "nothing is ever unpickled"
    if module in ("np.random", "random") and name == "seed":
        return "randomness is an argument"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src" / "earmark")))
def test_no_source_file_prints_evaluates_or_unpickles(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    faults = [f"line {call.lineno}: {why}" for m, n, call in calls(tree) if (why := fault(m, n, call))]
    faults += [
        f"line {n.lineno}: bare except" for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and not n.type
    ]
    assert faults == []


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "eval('1')",
        "pickle.loads(b)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
    ],
)
def test_the_check_finds_what_it_looks_for(code: str) -> None:
    assert [why for module, name, call in calls(ast.parse(code)) if (why := fault(module, name, call))]


def tracked() -> list[Path]:
    """The project's text files: those that git knows, or all beside the caches where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = listed.stdout.decode().split("\0") if listed.returncode == 0 else [str(p) for p in SOURCES]
    kinds = {".py", ".md", ".toml", ".txt", ".html", ".css", ""}
    return [path for name in names if name and (path := ROOT / name).suffix in kinds and path.is_file()]


def test_no_file_speaks_of_anything_outside_the_project() -> None:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if hit := FOREIGN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {hit.group()}")
    assert found == []


def test_every_folder_with_code_is_a_package() -> None:
    bare = {path.parent for path in SOURCES if not (path.parent / "__init__.py").exists()}
    assert bare <= {ROOT / "src"}, "import-linter does not see into a folder without __init__.py"
