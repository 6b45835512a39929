"""The grid on the command line: names and settings in, results, tables and pictures out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from earmark.bench import read_cells
from earmark.bench.naming import images_digest
from earmark.bench.sources import letters
from earmark.cli import app
from earmark.cli.gridding import Asked, grid_of
from earmark.errors import BadInput
from earmark.marks.triggers.font import GLYPHS

RUNNER = CliRunner()
PLAIN = Asked("uchida", "half", None, None, None, (), (), (), 1, 0, False, 1e-6)


def asked(**changes: object) -> Asked:
    return Asked(**{**vars(PLAIN), **changes})


def test_a_grid_is_run_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "bench"
    command = ["bench", "--schemes", "uchida", "--attacks", "half,projection", "--seeds", "1", "--out", str(out)]
    command += ["--set", "host.epochs=1", "--set", "host.milestones=[]", "--set", "uchida.epochs=1", "--json"]
    first = RUNNER.invoke(app, command)
    assert first.exit_code == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["cells"], told["done"], told["failed"]) == (3, 3, 0)
    assert "3 of 3 cells" in first.stderr
    assert {cell.settings["host"]["epochs"] for cell in read_cells(out / "results.jsonl")} == {1}
    for name in ("README.md", "report.html", "table.csv", "schema.json"):
        assert (out / name).stat().st_size > 300
    page = tmp_path / "page"
    shown = RUNNER.invoke(app, ["leaderboard", str(out / "results.jsonl"), "--out", str(page)])
    assert shown.exit_code == 0, shown.stderr
    assert (page / "README.md").read_bytes() == (out / "README.md").read_bytes()


def test_settings_go_to_what_they_name_and_strengths_to_columns() -> None:
    grid = grid_of(
        asked(
            attacks="half,prune-global,jpeg",
            sets=("uchida.bits=20", "host.epochs=3", "prune-global.exclude_head=true", "jpeg.quality=30"),
            sweeps=("prune-global.share=0.1,0.9",),
        )
    )
    assert grid.schemes["uchida"].mint.bits == 20  # type: ignore[attr-defined]
    assert grid.host.epochs == 3
    assert list(grid.attacks) == ["half", "prune-global share=0.1", "prune-global share=0.9", "jpeg"]
    assert grid.attacks["prune-global share=0.9"].settings == {"exclude_head": True, "share": 0.9}
    assert grid.attacks["jpeg"].settings == {"quality": 30}


def test_triggers_of_another_data_set_are_picked_from_letters_or_what_is_named(tmp_path: Path) -> None:
    out = tmp_path / "bench"
    command = ["bench", "--schemes", "zhang-unrelated", "--attacks", "half", "--seeds", "1", "--out", str(out)]
    command += ["--set", "host.epochs=1", "--set", "host.milestones=[]", "--set", "zhang-unrelated.count=20"]
    ran = RUNNER.invoke(app, [*command, "--set", "zhang-unrelated.epochs=1", "--workers", "1", "--json"])
    assert ran.exit_code == 0, ran.stderr
    first, second = read_cells(out / "results.jsonl")
    assert (first.status, second.status, first.settings["mint"]["is"]) == ("done", "done", "Unrelated")
    assert first.settings["mint"]["source"] == {"is": "Images", "digest": images_digest(letters())}
    named = grid_of(asked(schemes="zhang-unrelated", others="digits"))
    assert named.schemes["zhang-unrelated"].mint.source.name == "digits"  # type: ignore[attr-defined]


def test_the_letters_are_the_font_s_own_and_no_two_alike() -> None:
    images = letters()
    assert images.labels.bincount().tolist() == [24] * 26
    ink = (images.pixels > 0).sum((1, 2, 3)).view(26, 24)
    assert [int(row[0]) for row in ink] == [int(GLYPHS[chr(65 + at)].sum()) for at in range(26)]
    assert bool((ink == ink[:, :1]).all())
    assert len({image.numpy().tobytes() for image in images.pixels}) == len(images)


def test_any_data_and_network_will_do() -> None:
    grid = grid_of(asked(data="digits", model="plain"))
    assert type(grid.build()).__name__ == "PlainCNN"
    assert (grid.task, grid.network) == ("digits", "plain")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schemes": "uchda"}, "unknown scheme 'uchda': did you mean 'uchida'"),
        ({"attacks": "haff"}, "unknown attack 'haff': did you mean 'half'"),
        ({"preset": "digit"}, "unknown preset 'digit': did you mean 'digits'"),
        ({"sets": ("uchida.bitss=3",)}, "unknown setting 'bitss': did you mean 'bits'"),
        ({"sets": ("uchidaa.bits=3",)}, "unknown scheme or attack in --set 'uchidaa': did you mean 'uchida'"),
        ({"sets": ("bits=3",)}, "expected NAME.SETTING=VALUE"),
        ({"sets": ("jpeg.quality=3",)}, "jpeg is set and not run"),
        ({"sweeps": ("half.to=float16,float17",)}, "input should be 'float16' or 'bfloat16', got 'float17'"),
        ({"schemes": "uchida,uchida"}, "each once"),
        ({"schemes": "zhang-unrelated", "data": "digits", "model": "plain"}, "name one with --others"),
        ({"data": "digits", "model": "lenet"}, "unknown network 'lenet'"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        grid_of(asked(**changes))
