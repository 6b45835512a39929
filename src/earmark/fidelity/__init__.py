"""F: how far a marked model stands from its host."""

from earmark.fidelity.deep import DeepFidelity
from earmark.fidelity.formulas import (
    agreement,
    penultimate_feature_loss,
    prototype_change,
    softmax_loss,
    total_weight_loss,
)

__all__ = [
    "DeepFidelity",
    "agreement",
    "penultimate_feature_loss",
    "prototype_change",
    "softmax_loss",
    "total_weight_loss",
]
