"""Figures: the same bytes every time, no trace of the moment, no name that breaks them, and what they say is right."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from earmark.core import rng
from earmark.errors import BadInput
from earmark.files import save_tensors
from earmark.reports import Ruling
from earmark.reports.figures import (
    Panel,
    SweepPoint,
    contact_sheet,
    convergence,
    distributions,
    evidence_plot,
    feature_clouds,
    of_reproduction,
    robustness_curves,
    save,
    to_png,
    to_svg,
    training_curves,
    weight_sweep,
)

HOSTILE = '<script>$\\frac{</script> a&b "q" --> \x00\x1b[31m \u202e 漢字 𝔘'


def cloud(dimensions: int, classes: int = 10, seed: int = 0, title: str = "Host") -> Panel:
    generator = rng(seed)
    prototypes = torch.randn(classes, dimensions, generator=generator)
    labels = torch.arange(60) % classes
    features = 40 * prototypes[labels] + torch.randn(60, dimensions, generator=generator)
    return Panel(title, features, labels, prototypes)


def ruling(suspect: str = "copy", log10_p: float | None = -40.0, accepted: bool | None = True) -> Ruling:
    return Ruling(suspect, "owner", accepted, log10_p, 1e-6, "because", 96.0, 100)


def history(rate: float) -> list[dict[str, float | None]]:
    return [{"epoch": e, "val_acc": 0.99, "trig_acc": e / 5, "twl": rate * e, "ave_pfl": None} for e in range(6)]


def sweep() -> list[SweepPoint]:
    return [SweepPoint("FixLL+PFL", "β", 10.0**-e, 0.99, 1 / (e + 1), 4.0 / (e + 1)) for e in range(4)]


FIGURES: dict[str, Callable[[], Any]] = {
    "clouds in the plane": lambda: feature_clouds([cloud(2), cloud(2, seed=1, title=HOSTILE)]),
    "clouds in space": lambda: feature_clouds([cloud(3), cloud(3, seed=1)]),
    "clouds projected": lambda: feature_clouds([cloud(5, 30), cloud(5, 30, seed=1)], columns=1),
    "curves": lambda: training_curves({"FixLL+PFL": history(1.0), HOSTILE: history(20.0)}),
    "sweep": lambda: weight_sweep(sweep()),
    "triggers": lambda: contact_sheet(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.arange(3), HOSTILE),
    "evidence": lambda: evidence_plot([ruling(), ruling(HOSTILE, -0.2, False), ruling("odd", None, None)]),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
def test_the_same_figure_has_the_same_bytes_and_is_valid(draw: Callable[[], Any]) -> None:
    before, figure = dict(mpl.rcParams), draw()
    svg, png = to_svg(figure), to_png(figure, dpi=40)
    assert dict(mpl.rcParams) == before, "drawing changed the caller's settings"
    again = draw()
    assert (png, svg) == (to_png(again, dpi=40), to_svg(again))
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert b"<dc:date>" not in svg
    with Image.open(io.BytesIO(png)) as image:
        assert np.asarray(image.convert("L")).std() > 1, "an empty picture"
        assert set(image.info) <= {"dpi"}


def test_drawing_opens_no_global_figure() -> None:
    evidence_plot([ruling()])
    assert plt.get_fignums() == []


def test_save_writes_png_and_svg(tmp_path: Path) -> None:
    paths = save(weight_sweep(sweep()), tmp_path / "fig.7")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert [path.name for path in paths] == ["fig.7.png", "fig.7.svg"]
    with pytest.raises(BadInput, match="cannot write"):
        save(weight_sweep(sweep()), tmp_path / "nowhere" / "figure")


def test_projection_is_on_the_hosts_principal_directions_and_says_so() -> None:
    flat = torch.zeros(200, 6)
    flat[:, 4] = 9 * torch.linspace(-1, 1, 200)
    flat[:, 1] = 3 * torch.linspace(-1, 1, 200).square()
    host = Panel("Host", flat, torch.zeros(200, dtype=torch.int64), torch.eye(6)[:2])
    figure = feature_clouds([host, Panel("Marked", flat.roll(1, dims=1), host.labels)])
    first, second = figure.axes[:2]
    assert "host's PC 1" in second.get_xlabel()
    spots = np.sort(np.asarray(first.collections[0].get_offsets())[:, 0])
    assert np.allclose(spots, np.sort(flat[:, 4].numpy()), atol=1e-6)
    assert np.abs(np.asarray(second.collections[0].get_offsets())).max() < 9


def test_all_panels_share_one_scale() -> None:
    near, far = cloud(2), cloud(2, seed=3)
    far = Panel("far", 10 * far.features, far.labels)
    first, second = feature_clouds([near, far]).axes[:2]
    assert first.get_xlim() == second.get_xlim() == first.get_ylim()
    assert first.get_xlim()[1] >= float(far.features.abs().max())


def test_hosts_prototypes_are_dashed_everywhere_and_a_models_own_solid() -> None:
    figure = feature_clouds([cloud(2), cloud(2, seed=1)])
    styles = [[line.get_linestyle() for line in axes.lines] for axes in figure.axes[:2]]
    assert styles[0] == ["--"] * 10
    assert sorted(styles[1]) == ["-"] * 10 + ["--"] * 10


def test_drawing_changes_no_tensor_and_uses_no_global_randomness() -> None:
    panel, state = cloud(2), torch.random.get_rng_state()
    before = panel.features.clone()
    feature_clouds([panel], points=10)
    assert torch.equal(panel.features, before)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("features", "labels", "prototypes"),
    [
        (torch.zeros(4, 1), torch.zeros(4), None),
        (torch.zeros(0, 2), torch.zeros(0), None),
        (torch.zeros(4, 2), torch.zeros(3), None),
        (torch.zeros(4, 2), torch.zeros(4), torch.zeros(3, 5)),
        (torch.full((4, 2), math.nan), torch.zeros(4), None),
    ],
)
def test_a_panel_that_does_not_fit_is_refused(features: Tensor, labels: Tensor, prototypes: Tensor | None) -> None:
    with pytest.raises(BadInput):
        Panel("bad", features, labels.long(), prototypes)


def test_nothing_to_draw_is_an_error_and_no_empty_picture() -> None:
    for draw in (
        lambda: feature_clouds([]),
        lambda: feature_clouds([cloud(2), cloud(3)]),
        lambda: training_curves({"a": []}),
        lambda: weight_sweep([]),
        lambda: weight_sweep([SweepPoint("m", "α", 0.0, 1, 1, 1)]),
        lambda: evidence_plot([]),
        lambda: contact_sheet(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)),
    ):
        with pytest.raises(BadInput):
            draw()  # type: ignore[no-untyped-call]


def test_contact_sheet_shows_the_pixels_and_the_labels() -> None:
    images = torch.randint(0, 256, (12, 3, 5, 5), generator=rng(0), dtype=torch.uint8)
    figure = contact_sheet(images, torch.arange(12), "sheet", columns=4, limit=7)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [str(label) for label in range(7)]
    assert np.array_equal(np.asarray(shown[6].images[0].get_array()), images[6].permute(1, 2, 0).numpy())
    assert "(7 of 12)" in figure.get_suptitle()


def reproduced(table: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    metrics = {"val_acc": {"ours": [99.0, 97.0]}, "trig_acc": {"ours": [100.0, None]}, "ave_pfl": {"ours": [4.0]}}
    return {"table": table, "rows": [{"metrics": metrics, **row} for row in rows]}


def test_a_table_is_drawn_from_its_cloud_files_of_the_hosts_dimension(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"method": "FTAL, never measured", "cloud": str(tmp_path / "gone.safetensors")}]
    for panel in (cloud(2), cloud(2, seed=1, title="FTAL"), cloud(5, title="Fixed polytope")):
        path = tmp_path / f"{panel.title}.safetensors"
        assert panel.prototypes is not None
        save_tensors(path, {"features": panel.features, "labels": panel.labels, "prototypes": panel.prototypes})
        rows.append({"method": panel.title, "cloud": str(path)})
    drawn = of_reproduction(reproduced("table4", [*rows[1:], rows[0]]))["clouds"]
    titles = [axes.get_title() for axes in drawn.axes]
    assert [title.partition("\n")[0] for title in titles] == ["Host", "FTAL"]
    assert "val 99 %, triggers 100 %" in titles[1]
    assert of_reproduction(reproduced("table4", rows)) == {}, "no host to compare with"


def test_figures_6_and_7_are_drawn_from_histories_and_weights() -> None:
    rows: list[dict[str, Any]] = [
        {"method": "FixLL+PFL", "history": [{"trig_acc": 0.1}, {"trig_acc": 1.0}]},
        {"method": "x", "history": []},
    ]
    (curve,) = of_reproduction(reproduced("figure6", rows))["curves"].axes[0].lines
    assert np.array_equal(np.asarray(curve.get_xydata()), [[1, 10], [2, 100]])
    weights = [{"method": f"FixLL+PFL, beta = {b:g}", "weights": {"beta": b}} for b in (0.1, 1.0)]
    above, below = of_reproduction(reproduced("figure7", weights))["sweep"].axes
    assert (above.get_title(), below.get_xlabel()) == ("FixLL+PFL", "β")
    assert np.array_equal(np.asarray(above.lines[0].get_xydata()), [[0.1, 98], [1.0, 98]])
    assert of_reproduction(reproduced("figure6", [])) == of_reproduction(reproduced("figure7", [])) == {}


def trials(accuracy: float, log10_p: float | None, asr: float = 90.0) -> list[dict[str, float | None]]:
    return [{"trial": at, "val_acc": accuracy - at, "asr": asr, "won": asr, "log10_p": log10_p} for at in (0.0, 1.0)]


def test_attacks_of_another_paper_are_drawn_as_the_mean_and_the_range_of_the_seeds() -> None:
    row = {"method": "Direct", "curves": [trials(90.0, -20.0), trials(94.0, -10.0)], "metrics": {}}
    found = {"paper": "function-coupled", "table": "figure6", "over": "trial", "rows": [row]}
    (axes,) = of_reproduction(found)["curves"].axes
    assert np.array_equal(np.asarray(axes.lines[0].get_xydata()), [[0, 92], [1, 91]])
    assert len(axes.lines) == 2, "groups won are not drawn where they are the triggers"
    bounds = axes.collections[0].get_paths()[0].get_extents()
    assert (bounds.y0, bounds.y1) == (89, 94)
    assert axes.get_title() == "Direct\nlog10 p -15 to -15"
    assert of_reproduction({**found, "rows": [{"method": "Host", "curves": [[]], "metrics": {}}]}) == {}


def test_evidence_without_a_null_has_no_number() -> None:
    (axes,) = robustness_curves({"Direct": [trials(90.0, None)]}, "trial").axes
    assert axes.get_title() == "Direct\nno null"


def test_seeds_of_other_strengths_and_rows_without_points_are_refused() -> None:
    with pytest.raises(BadInput, match="nothing to draw"):
        robustness_curves({"Direct": []}, "trial")
    with pytest.raises(BadInput, match="different values of trial"):
        robustness_curves({"Direct": [trials(90.0, None), trials(90.0, None)[1:]]}, "trial")


def test_a_line_ends_where_the_first_model_is_ruined() -> None:
    ruined: list[dict[str, float | None]] = [*trials(90.0, -9.0), {"trial": 2.0, "val_acc": None, "asr": None}]
    whole: list[dict[str, float | None]] = [*trials(92.0, -9.0), {**trials(92.0, -9.0)[1], "trial": 2.0}]
    for seeds in ([ruined, whole], [ruined[:2], whole]):
        (axes,) = robustness_curves({"Direct": seeds}, "trial").axes
        assert np.array_equal(np.asarray(axes.lines[0].get_xydata()), [[0, 91], [1, 90]])


def test_a_file_that_holds_no_cloud_is_refused() -> None:
    with pytest.raises(BadInput, match="features and labels"):
        Panel.of("Host", {"weights": torch.zeros(2)})


def test_stronger_evidence_stands_further_right_of_the_line() -> None:
    axes = evidence_plot([ruling(log10_p=-40), ruling("weak", -1.0, False)]).axes[0]
    left, right = axes.get_xlim()
    assert left > 0 > -6 > -40 > right


def test_attacks_without_evidence_say_nothing_of_it_and_name_their_strength() -> None:
    points: list[dict[str, float | None]] = [{"flipped": 0.0, "val_acc": 90.0}, {"flipped": 1.0, "val_acc": 10.0}]
    (axes,) = robustness_curves({"V1": [points]}, "flipped").axes
    assert (axes.get_title(), axes.get_xlabel()) == ("V1", "Share of scales negated (%)")
    assert np.array_equal(np.asarray(axes.lines[0].get_xydata()), [[0, 90], [100, 10]])


def test_a_layer_that_settles_is_drawn_with_one_line_a_channel() -> None:
    points: list[dict[str, float | None]] = [
        {"epoch": at, "val_acc": 10 * at, "moved": 1 / at, "gamma 0": 0.1, "gamma 1": -0.1, "beta 0": None, "bits": 1}
        for at in (1.0, 2.0)
    ]
    found = {"paper": "deepipr", "table": "figure18", "over": "epoch", "rows": [{"method": "V1", "curves": [points]}]}
    panels = of_reproduction(found)["convergence"].axes
    assert [len(ax.lines) for ax in panels[:2]] == [1, 1]
    assert np.array_equal(np.asarray(panels[0].lines[0].get_xydata()), [[1, 10], [2, 20]])
    assert len(panels) == 4
    assert [line.get_ydata()[0] for line in panels[2].lines[:2]] == [0.1, -0.1]  # type: ignore[index]
    with pytest.raises(BadInput, match="nothing to draw"):
        convergence([{"epoch": 1.0}])


def test_distributions_lie_over_each_other_in_the_same_bins(tmp_path: Path) -> None:
    rows = []
    for label, shift in (("real", 0.0), ("forged", 3.0)):
        save_tensors(tmp_path / f"{label}.safetensors", {"weights": torch.randn(500, generator=rng(0)) + shift})
        rows.append({"method": label, "samples": f"{label}.safetensors", "metrics": {}})
    found = {"paper": "deepipr", "table": "figure19", "over": None, "rows": rows}
    (axes,) = of_reproduction(found, tmp_path)["distributions"].axes
    outlines = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    assert [outlines[0].x0, outlines[0].x1] == pytest.approx([outlines[1].x0, outlines[1].x1])
    assert axes.get_title() == "weights"


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ({}, "same quantities"),
        ({"a": {}}, "same quantities"),
        ({"a": {"x": torch.ones(2)}, "b": {"y": torch.ones(2)}}, "same quantities"),
        ({"a": {"x": torch.ones(0)}}, "not finite"),
        ({"a": {"x": torch.tensor([1.0, float("nan")])}}, "not finite"),
    ],
)
def test_distributions_that_cannot_be_drawn_are_refused(rows: dict[str, dict[str, Tensor]], wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        distributions(rows)
