"""The grid on a real Ray cluster of this machine. It is started by name:

EARMARK_RAY=1 pytest tests/test_bench_ray.py

with Ray installed (pip install 'earmark[ray]').
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from benched import SCHEMES, Fails, Kills, data, grid, measurements

from earmark.bench import named_attack, run

pytestmark = [
    pytest.mark.skipif("EARMARK_RAY" not in os.environ, reason="starts a Ray cluster; set EARMARK_RAY=1 to run it"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of this and that
]


def test_a_cluster_measures_what_one_process_measures(tmp_path: Path) -> None:
    own = run(grid(data=data()), tmp_path / "own", workers=0)
    found = run(grid(data=data()), tmp_path / "cluster", engine="ray", workers=2)
    assert measurements(found) == measurements(own)
    assert {cell.status for cell in found} == {"done", "unfit"}


def test_a_dead_actor_costs_its_cell_alone_and_the_grid_goes_on(tmp_path: Path) -> None:
    attacks = {"half": named_attack("half"), "kills": Kills(), "fails": Fails()}
    wanted = grid(attacks, schemes={"bits": SCHEMES["bits"]})
    cells = {cell.attack: cell for cell in run(wanted, tmp_path, engine="ray", workers=2)}
    assert {name: cell.status for name, cell in cells.items()} == {
        "none": "done",
        "half": "done",
        "kills": "failed",
        "fails": "failed",
    }
    assert str(cells["kills"].reason).startswith("the Ray actor died")
    assert cells["kills"].tries == 2
    assert measurements(run(wanted, tmp_path, engine="ray")) == measurements(list(cells.values()))
