"""The figures: feature clouds, curves, trigger sheets and evidence, as PNG and SVG with the same bytes every time.

Importing this package does not import matplotlib; drawing does.
"""

from earmark.reports.figures.clouds import Panel, feature_clouds
from earmark.reports.figures.curves import SweepPoint, training_curves, weight_sweep
from earmark.reports.figures.evidence import evidence_plot
from earmark.reports.figures.learning import convergence, distributions
from earmark.reports.figures.queries import evidence_path, query_curves
from earmark.reports.figures.reproduced import of_reproduction
from earmark.reports.figures.robustness import robustness_curves
from earmark.reports.figures.soundness import null_plot
from earmark.reports.figures.style import save, to_png, to_svg
from earmark.reports.figures.survival import Met, Survivor, evidence_survival, heat_map, survival_curve
from earmark.reports.figures.triggers import contact_sheet
from earmark.reports.figures.washers import picture_rows, washer_plot

__all__ = [
    "Met",
    "Panel",
    "Survivor",
    "SweepPoint",
    "contact_sheet",
    "convergence",
    "distributions",
    "evidence_path",
    "evidence_plot",
    "evidence_survival",
    "feature_clouds",
    "heat_map",
    "null_plot",
    "of_reproduction",
    "picture_rows",
    "query_curves",
    "robustness_curves",
    "save",
    "survival_curve",
    "to_png",
    "to_svg",
    "training_curves",
    "washer_plot",
    "weight_sweep",
]
