"""Fixtures that many tests share."""

from __future__ import annotations

import pytest
from tiny import TinyNet, blobs, seeded
from torch import nn

from earmark.core import Data
from earmark.keys import MarkKey


@pytest.fixture(scope="session")
def tiny_data() -> Data:
    return Data(blobs(96, seed=1), blobs(60, seed=2))


@pytest.fixture
def tiny_net() -> nn.Module:
    return seeded(TinyNet)


@pytest.fixture(scope="session")
def mark_key() -> MarkKey:
    return MarkKey(bytes(range(32)))
