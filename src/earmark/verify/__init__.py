"""The judge's side of a scheme, V: does a suspect carry a mark, and how often would an innocent one seem to?

| test | asks | decides by |
|---|---|---|
| `TriggerTest` | every trigger | the exact binomial tail of the matches |
| `SequentialTriggerTest` | one after the other, until it can decide | an e-process, valid whenever it stops |
| `CalibratedTriggerTest` | every trigger, innocent models too | the same at their worst rate, and how many they are |
| `PassportTest` | the network's weights | the exact binomial tail of the right bits |
| `PublishedPassportTest` | the same | agreement and fidelity, as published: insecure, forgeries pass it |
| `ProjectionTest` | the weights of one layer | the exact binomial tail of the right bits |
"""

from __future__ import annotations

from earmark.verify.calibration import CalibratedTriggerTest, calibrated_null
from earmark.verify.passports import PassportTest, PublishedPassportTest, presented
from earmark.verify.sequential import SequentialTriggerTest
from earmark.verify.triggers import TriggerTest
from earmark.verify.uchida import ProjectionTest

__all__ = [
    "CalibratedTriggerTest",
    "PassportTest",
    "ProjectionTest",
    "PublishedPassportTest",
    "SequentialTriggerTest",
    "TriggerTest",
    "calibrated_null",
    "presented",
]
