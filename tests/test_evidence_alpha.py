"""The error probability: wherever one is given, anything not strictly between 0 and 1 is the same error."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from earmark import stats
from earmark.data import digits
from earmark.errors import BadInput, probability
from earmark.evidence import Case, arbitrate, commit, judge
from earmark.keys import OwnerKey
from earmark.marks import Noise
from earmark.models import PlainCNN
from earmark.verify import SequentialTriggerTest, TriggerTest

OWNER = OwnerKey.generate()
MARK = Noise(30)(OWNER.mark_key("m"), None, digits())
NET = PlainCNN((1, 8, 8), 10)


def committed(out: Path, alpha: Any = 1e-6, check: bool = False) -> tuple[Path, Path]:
    return commit(OWNER, MARK, name="m", host=None, marked=NET, scheme="s", out=out, alpha=alpha, check=check)


ASKED: dict[str, Callable[[Any, Path], object]] = {
    "a trigger test": lambda alpha, _: TriggerTest(alpha=alpha),
    "a sequential test": lambda alpha, _: SequentialTriggerTest(alpha=alpha),
    "a comparison": lambda alpha, _: stats.accepts(-3.0, alpha),
    "a critical count": lambda alpha, _: stats.critical_count(10, 0.1, alpha),
    "a sample size": lambda alpha, _: stats.required_triggers(0.1, 0.9, alpha, 0.99),
    "a commitment": lambda alpha, out: committed(out / "new", alpha, check=True),
    "an unchecked commitment": lambda alpha, out: committed(out / "new", alpha),
    "a judge": lambda alpha, out: judge(*committed(out / "claim"), NET, alpha=alpha),
    "an arbitration": lambda alpha, out: arbitrate([Case("Ada", *committed(out / "claim"))], NET, alpha=alpha),
    "an arbitration without files": lambda alpha, out: arbitrate([Case("Ada", out / "a", out / "b")], NET, alpha=alpha),
}


@pytest.mark.parametrize("alpha", [0, 1, 1.5, -1e-6, math.nan, math.inf, True, None, "0.01"])
@pytest.mark.parametrize("who", ASKED)
def test_alpha_is_strictly_between_0_and_1(who: str, alpha: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="alpha: expected a probability strictly between 0 and 1, got"):
        ASKED[who](alpha, tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("alpha", [5e-324, 1e-6, 0.5, math.nextafter(1, 0)])
def test_every_alpha_in_between_will_do(alpha: float) -> None:
    assert probability("alpha", alpha) == alpha
    assert stats.critical_count(10, 0.1, alpha) >= 0
