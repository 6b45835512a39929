"""The recipe of Li & Wang 2021 at its quick scale: every kind of table runs, resumes, and says what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.attacks import BitDepth, Jpeg
from earmark.core import rng
from earmark.errors import BadInput
from earmark.models import Bank, MLPAutoencoder, built
from earmark.recipes import penetrative as recipe
from earmark.recipes.penetrative import bench as benches
from earmark.recipes.recipe import printed_tables
from earmark.reports import Reproduction
from earmark.reports.figures import of_reproduction, to_png

SETTING = "mnist_resnet18"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("penetrative")


def run(table: str, out: Path) -> dict[str, Any]:
    (found,) = recipe.reproduce(table, "quick", None, out, settings=[SETTING])
    return found


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["method"]: row["metrics"] for row in found["rows"]}


def test_table_2_has_the_papers_numbers_beside_ours_and_is_measured_once(out: Path) -> None:
    found = run("table2", out)
    row = rows(found)["K = 2"]
    assert (row["ac_unseen"]["paper"], row["minutes"]["paper"]) == (47, 4.7)
    assert 0 <= row["ac_unseen"]["ours"][0] <= 100
    assert row["minutes"]["ours"][0] > 0
    models = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert run("table2", out) == found
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == models
    assert not list(out.rglob("*.checkpoint*"))


def test_a_mark_comes_back_from_its_file(out: Path) -> None:
    first, second = (recipe.Bench(SETTING, "quick", 0, None, out) for _ in range(2))
    marking = recipe.Marking(labels="groups")
    assert first.mark(marking).digest() == second.mark(marking).digest()
    assert first.mark(marking).null.basis == "exact"
    assert first.mark(recipe.Marking()).null.basis == "none"


def test_kinds_share_their_labels_and_their_number_of_triggers(out: Path) -> None:
    bench, looks = recipe.Bench(SETTING, "quick", 0, None, out), recipe.SCALES["quick"][SETTING].looks
    for kind in ("random", "stamp", "outside", "wonder"):
        assert bench.mark(recipe.Marking(kind)).labels.tolist() == [0] * looks + [7] * looks


def test_the_spread_of_gradients_is_the_mean_square_over_their_entries(out: Path) -> None:
    """Against whole Jacobians of tiny autoencoders, within the error of a few directions."""
    bench = recipe.Bench(SETTING, "quick", 0, None, out)
    bank = Bank([built(lambda: MLPAutoencoder((1, 8, 8), 4, (8,)), rng(seed)) for seed in range(3)])
    x = bench.data.test.sample(64).pixels[:6].float() / 255
    jacobians = [[_jacobian(member, image) for image in x] for member in bank.members()]
    pairs = [
        (torch.stack(jacobians[k]) - torch.stack(jacobians[m])).square().mean() for k, m in ((0, 1), (0, 2), (1, 2))
    ]
    assert bench._gradient_spread(bank) == pytest.approx(float(torch.stack(pairs).mean()), rel=0.3)


def _jacobian(member: nn.Module, image: Tensor) -> Tensor:
    leaf = image[None].clone().requires_grad_()
    made = member.eval()(leaf).images.flatten()
    return torch.stack([torch.autograd.grad(one, leaf, retain_graph=True)[0].flatten() for one in made])


def test_washers_are_drawn_against_what_they_cost(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "_washers", lambda epochs: {"JPEG": Jpeg(50), "bit depth": BitDepth(2)})
    found = run("beyond", out)
    table = rows(found)
    assert {"Penetrative, keyed groups", "Penetrative, keyed groups: JPEG"} <= set(table)
    for row in found["rows"]:
        assert len(row["curves"][0]) in (0, 3)
    assert table["Penetrative, keyed groups"]["ave_pfl"]["ours"][0] > 0
    assert to_png(of_reproduction(found)["washers"]) == to_png(of_reproduction(found)["washers"])


def test_figure_4_shows_stamps_and_what_an_autoencoder_makes_of_them(out: Path) -> None:
    found = run("figure4", out)
    assert to_png(of_reproduction(found, out)["pictures"])
    assert rows(found)["Stamp"]["moved"]["ours"] == [0]
    assert rows(found)["Penetrative"]["moved"]["ours"][0] > 0
    words = Reproduction.from_dict(found).to_markdown()
    assert "two observations" in words


def test_what_would_measure_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'table1'"):
        recipe.reproduce("tabel1", "quick", None, tmp_path)
    with pytest.raises(BadInput, match="table1 covers fashion_resnet18, mnist_resnet18 at this scale"):
        recipe.reproduce("table1", "quick", None, tmp_path, settings=["cifar10_resnet18"])


def test_the_printed_probabilities_are_the_papers(out: Path) -> None:
    row = printed_tables("penetrative")["table1"]["mnist_resnet18"]["Penetrative"]
    assert (row["ac"], row["ac_unseen"], row["val_acc"]) == (100, 94, 99.4)
    assert row["log10_printed_unseen"] == pytest.approx(-20.33, abs=0.01)
