"""A small owner of passports: a chain of convolutions, trained to carry them in seconds, and kept for all tests."""

from __future__ import annotations

from functools import cache

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny import blobs
from torch import Tensor, nn

from earmark.core import Data, rng
from earmark.embed.passports import PassportLayers
from earmark.keys import OwnerKey
from earmark.marks import PassportMint, Passports
from earmark.models import ResNet18, built
from earmark.training import HOST, Settings, train_host

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NAME = "winter"
DATA = Data(blobs(240, seed=1), blobs(120, seed=2))
SETTINGS = Settings(epochs=12, batch_size=24, lr=0.02, optimizer="sgd", batchnorm="train", triggers_per_batch=0)


class Chain(nn.Module):
    """Four convolutions with norms, pooling, and two linear layers, the first of which reads a flattened map."""

    def __init__(self, norm: str = "bn", width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for at, (inside, outside) in enumerate([(1, 16), (16, width), (width, width), (width, width)]):
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(outside) if norm == "bn" else nn.GroupNorm(outside // 8, outside)]
            layers += [nn.ReLU()] + ([nn.MaxPool2d(2)] if at == 1 else [])
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.mix, self.head = nn.Linear(4 * width, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.mix(self.trunk(x))))
        return logits


def network(norm: str) -> nn.Module:
    """A fresh network: a chain with batch or group norm, or a thin ResNet-18."""
    return built(lambda: ResNet18(3, channels=1, width=8) if norm == "resnet" else Chain(norm), rng(4))


@cache
def mark_for(norm: str) -> Passports:
    """The owner's mark, 144 bits of a chain and more of a ResNet."""
    mint = PassportMint(layers=5 if norm == "resnet" else 3, signature="(c) A", witnesses=60)
    return mint(OWNER.mark_key(NAME), network(norm), DATA)


@cache
def marked(norm: str, public: bool = True) -> nn.Module:
    """The owner's released network, which every test must leave as it is."""
    method = PassportLayers(public=public, settings=SETTINGS, watch=0)
    return method(network(norm), mark_for(norm), DATA, rng(5)).eval()


@cache
def innocent(norm: str, seed: int) -> nn.Module:
    """A network of the same architecture that somebody else has trained on the same task."""
    fresh = built(lambda: ResNet18(3, channels=1, width=8) if norm == "resnet" else Chain(norm), rng(100 + seed))
    settings = HOST.but(epochs=8, batch_size=24, batchnorm="train", lr=1e-3)
    return train_host(fresh, DATA, rng(200 + seed), settings).eval()
