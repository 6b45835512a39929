"""How few queries a sequential test takes: a marked model of the digits, its copies, and one that was never marked.

python benchmarks/queries.py [results/queries]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from earmark import Data, MarkKey, as_query, open_data, rng, train_host
from earmark.attacks import attack
from earmark.core import Query
from earmark.embed import fixll_pfl
from earmark.marks import Noise, TriggerSet
from earmark.marks.triggers.trials import log_shares
from earmark.models import PlainCNN
from earmark.reports.figures import query_curves, save
from earmark.stats import GRINDING_BITS
from earmark.verify import SequentialTriggerTest

COUNT = 100
KEYS = 200


def hits(query: Query, mark: TriggerSet) -> list[bool]:
    """Which triggers are answered with their label, in the mark's order."""
    found: list[bool] = mark.trials_matched(log_shares(query(mark.images.float() / 255), mark.classes)).tolist()
    return found


def asked(query: Query, mark: TriggerSet) -> dict[str, dict[str, object]]:
    """Queries until the owner and a judge have decided, in the mark's order and in many keyed ones."""
    out: dict[str, dict[str, object]] = {}
    for who, bits in (("owner", 0), ("judge", GRINDING_BITS)):
        verdicts = [
            SequentialTriggerTest(grinding_bits=bits, order=MarkKey(at.to_bytes(32, "big")))(query, mark)
            for at in range(KEYS)
        ]
        counts = sorted(verdict.n for verdict in verdicts)
        accepted = sum(verdict.accepted is True for verdict in verdicts)
        out[who] = {"accepted": accepted / KEYS, "median": counts[KEYS // 2], "95 %": counts[KEYS * 95 // 100]}
    return out


def remembered(query: Query, mark: TriggerSet) -> Query:
    """The same answers, given once and then looked up: the order of asking changes none of them."""
    answers = query(mark.images.float() / 255)
    at = {image.numpy().tobytes(): row for image, row in zip(mark.images, answers, strict=True)}

    def again(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([at[image.numpy().tobytes()] for image in images.mul(255).round().to(torch.uint8)])

    return again


def suspects(data: Data) -> tuple[TriggerSet, dict[str, Query]]:
    """The mark, and who is asked."""
    host = train_host(PlainCNN(data.shape, data.classes), data, rng(0))
    mark = Noise(count=COUNT)(MarkKey(bytes(range(32))), host, data)
    marked = fixll_pfl(beta=0.05).but(lr=1e-3, triggers_per_batch=16, enough=1.0)(host, mark, data, rng(1))
    pruned = {f"{share:.0%} pruned": attack("prune-global", share=share)(marked, data, rng(2)) for share in (0.5, 0.8)}
    models = {"unattacked copy": marked, **pruned, "never marked": host}
    return mark, {name: as_query(model) for name, model in models.items()}


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the numbers and the picture."""
    folder = Path(arguments[0] if arguments else "results/queries")
    folder.mkdir(parents=True, exist_ok=True)
    mark, found = suspects(open_data("digits"))
    runs = {name: hits(query, mark) for name, query in found.items()}
    rows = {name: {"matches": sum(runs[name]), **asked(remembered(query, mark), mark)} for name, query in found.items()}
    (folder / "queries.json").write_text(json.dumps(rows, indent=2) + "\n")
    labelled = {f"{name}, {sum(run)} of {COUNT}": run for name, run in runs.items()}
    save(query_curves(labelled, mark.null.rate or 0.1), folder / "queries")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
