"""Fine-tuning the stolen model on the thief's data: Adi et al. 2018, Section 5.3, "FTLL, FTAL, RTLL, RTAL".

Wen et al. 2023, Section 5.2, do it ten times in a row on 1,000 to 2,000 images: `FineTune(images=1_000, trials=10)`.
Their released code trains at a rate of 1e-5 and keeps the epoch that answers best; here the rate is the thief's choice
and the last epoch counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

from earmark.attacks.removal.tuning import OwnTask

__all__ = ["FineTune", "ftal", "ftll", "rtal", "rtll"]


@final
@dataclass(frozen=True)
class FineTune(OwnTask):
    """Minimise the cross entropy on `data.train` from where the stolen model stands; settings as `OwnTask`."""


ftll: Callable[..., FineTune] = partial(FineTune, layers="last", batchnorm="frozen")
"""Fine-Tune Last Layer: the rest of the model stays bit for bit."""

ftal: Callable[..., FineTune] = partial(FineTune, layers="all")
"""Fine-Tune All Layers."""

rtll: Callable[..., FineTune] = partial(
    FineTune, layers="last", fresh_head=True, batchnorm="frozen", epochs=10, lr=1e-3
)
"""Re-Train Last Layer: from a new draw of it, hence at the host's first learning rate; the rest stays bit for bit."""

rtal: Callable[..., FineTune] = partial(ftal, fresh_head=True, lr=1e-3)
"""Re-Train All Layers: from a new draw of the last one, hence at the host's first learning rate."""
