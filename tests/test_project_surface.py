"""What the package shows, what it loads, and in which direction its rooms may import each other."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import earmark

ROOT = Path(__file__).parent.parent
HEAVY = ("matplotlib", "jinja2", "lightning_fabric", "sklearn", "transformers", "onnx", "onnxruntime", "httpx")
SURFACE = {
    "Data",
    "DeepFidelity",
    "EarmarkError",
    "Images",
    "MarkKey",
    "OwnerKey",
    "Scheme",
    "Verdict",
    "arbitrate",
    "as_query",
    "commit",
    "deep_fidelity",
    "deepipr",
    "function_coupled",
    "judge",
    "normalised",
    "open_data",
    "penetrative",
    "rng",
    "train_host",
    "uchida",
}
"""`import earmark` shows this and nothing else: a change of it is a change of the interface, to be made on purpose."""


def project() -> dict[str, Any]:
    told: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return told


def modules() -> list[str]:
    walked = pkgutil.walk_packages(earmark.__path__, "earmark.")
    return [info.name for info in walked if not info.name.endswith("__main__")]


def test_the_public_surface_is_this() -> None:
    assert set(earmark.__all__) == SURFACE


@pytest.mark.parametrize("name", modules())
def test_a_module_offers_what_it_says_it_does(name: str) -> None:
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", [])
    assert [missing for missing in offered if not hasattr(module, missing)] == []
    assert len(set(offered)) == len(offered)


def test_importing_earmark_and_its_command_loads_nothing_that_only_some_calls_need() -> None:
    code = f"import sys, earmark, earmark.cli, earmark.reports; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_imports_go_down_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_every_dependency_is_pinned_at_a_version_that_its_floor_allows() -> None:
    told = project()
    wanted = [*told["dependencies"], *(line for extra in told["optional-dependencies"].values() for line in extra)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(r.name): r for line in lines if line and line[0] != "#" for r in [Requirement(line)]}
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name != "earmark":
            (pin,) = pins.pop(name).specifier
            assert pin.operator == "=="
            assert requirement.specifier.contains(pin.version), name
            assert not any(clause.operator in ("==", "<", "<=", "~=") for clause in requirement.specifier), name
    assert pins == {}, "constraints that no dependency needs"


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["test", "demo", "bench"])
def test_each_target_sets_itself_up(target: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    told = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert told.index("-m venv .venv") < told.index("pip install") < told.rindex(".venv/bin/")
    assert "-c constraints.txt -e '.[dev]'" in told
