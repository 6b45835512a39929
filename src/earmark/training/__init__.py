"""The one loop: training a host, embedding, fine-tuning and distilling are calls of `fit` with other terms."""

from earmark.training.autoencoding import (
    AUTOENCODING,
    ShadowTraining,
    autoencoding_run,
    reconstruction_errors,
    train_autoencoder,
)
from earmark.training.checkpoint import Checkpoint
from earmark.training.entangling import Entanglement, Temperatures
from earmark.training.evaluate import accuracy, answers, predict, read_all, readings
from earmark.training.host import HOST, require_every_class, train_host
from earmark.training.loop import fit
from earmark.training.masking import Masking
from earmark.training.paths import BothPaths, PathsCrossEntropy, SignLoss, sign_loss
from earmark.training.projecting import ProjectionLoss
from earmark.training.refinement import Refinement
from earmark.training.settings import Augment, History, Record, Settings
from earmark.training.terms import (
    CrossEntropy,
    Distillation,
    LogitLoss,
    PenultimateFeatureLoss,
    ReconstructionLoss,
    SmoothedCrossEntropy,
    SoftmaxLoss,
    Step,
    Term,
    TotalWeightLoss,
    TriggerMargin,
)
from earmark.training.trainable import Trainable, all_layers, head_only, trunk_only
from earmark.training.weighting import ExponentialWeighting

__all__ = [
    "AUTOENCODING",
    "HOST",
    "Augment",
    "BothPaths",
    "Checkpoint",
    "CrossEntropy",
    "Distillation",
    "Entanglement",
    "ExponentialWeighting",
    "History",
    "LogitLoss",
    "Masking",
    "PathsCrossEntropy",
    "PenultimateFeatureLoss",
    "ProjectionLoss",
    "ReconstructionLoss",
    "Record",
    "Refinement",
    "Settings",
    "ShadowTraining",
    "SignLoss",
    "SmoothedCrossEntropy",
    "SoftmaxLoss",
    "Step",
    "Temperatures",
    "Term",
    "TotalWeightLoss",
    "Trainable",
    "TriggerMargin",
    "accuracy",
    "all_layers",
    "answers",
    "autoencoding_run",
    "fit",
    "head_only",
    "predict",
    "read_all",
    "readings",
    "reconstruction_errors",
    "require_every_class",
    "sign_loss",
    "train_autoencoder",
    "train_host",
    "trunk_only",
]
