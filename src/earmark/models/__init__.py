"""Networks of the papers, and how to read any classifier: its mode, its head, its penultimate feature."""

from earmark.models.anatomy import Anatomy, Reader, Reading, dissect, logits_of, require_initialised
from earmark.models.autoencoders import (
    AUTOENCODERS,
    Autoencoder,
    Coded,
    ConvAutoencoder,
    DenoisingAutoencoder,
    MLPAutoencoder,
    Reconstruction,
    VariationalAutoencoder,
    autoencoder,
)
from earmark.models.bank import Bank
from earmark.models.deepipr import AlexNetP, ResNetP
from earmark.models.fitting import Task, require_fit, require_shape
from earmark.models.layout import plainly_laid_out, trains_channels_last
from earmark.models.lenet import LeNet5
from earmark.models.modes import as_input, device_of, dtype_of, evaluating, frozen_batchnorm
from earmark.models.plain import PlainCNN
from earmark.models.resnet import ResNet18
from earmark.models.restart import built, reinitialised
from earmark.models.thin_resnet import ThinResNet18
from earmark.models.vgg import VGG16BN
from earmark.models.wide_resnet import WideResNet
from earmark.models.wrap import Normalised, normalised

__all__ = [
    "AUTOENCODERS",
    "VGG16BN",
    "AlexNetP",
    "Anatomy",
    "Autoencoder",
    "Bank",
    "Coded",
    "ConvAutoencoder",
    "DenoisingAutoencoder",
    "LeNet5",
    "MLPAutoencoder",
    "Normalised",
    "PlainCNN",
    "Reader",
    "Reading",
    "Reconstruction",
    "ResNet18",
    "ResNetP",
    "Task",
    "ThinResNet18",
    "VariationalAutoencoder",
    "WideResNet",
    "as_input",
    "autoencoder",
    "built",
    "device_of",
    "dissect",
    "dtype_of",
    "evaluating",
    "frozen_batchnorm",
    "logits_of",
    "normalised",
    "plainly_laid_out",
    "reinitialised",
    "require_fit",
    "require_initialised",
    "require_shape",
    "trains_channels_last",
]
