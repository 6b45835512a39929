"""How few queries a sequential test takes: a marked model of the digits, its copies, and one that was never marked.

python benchmarks/queries.py [--out results/queries]
"""

from __future__ import annotations

import argparse
import json
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
from earmark.reports.figures import evidence_path, query_curves, to_png
from earmark.stats import GRINDING_BITS

COUNT = 100
ORDERS = 200


def hits(query: Query, mark: TriggerSet) -> list[bool]:
    """Which triggers are answered with their label, in the mark's order."""
    found: list[bool] = mark.trials_matched(log_shares(query(mark.images.float() / 255), mark.classes)).tolist()
    return found


def asked(matches: Sequence[bool], rate: float) -> dict[str, dict[str, object]]:
    """Queries until the owner and a judge accept, over many keyed orders of the same answers."""
    out: dict[str, dict[str, object]] = {}
    for who, bits in (("owner", 0), ("judge", GRINDING_BITS)):
        counts = sorted(until(matches, rate, bits, at) for at in range(ORDERS))
        found = sum(count <= len(matches) for count in counts)
        middle, most = counts[ORDERS // 2], counts[ORDERS * 95 // 100]
        told = {name: count if count <= len(matches) else None for name, count in (("median", middle), ("95 %", most))}
        out[who] = {"accepted": found / ORDERS, **told}
    return out


def until(matches: Sequence[bool], rate: float, bits: int, order: int) -> int:
    """Queries until p <= 1e-6, one more than there are triggers where that never comes."""
    at = MarkKey(order.to_bytes(32, "big")).stream("query-order").permutation(len(matches)).tolist()
    path = evidence_path([matches[i] for i in at], rate, bits)
    return next((count for count, value in enumerate(path, start=1) if value >= 6), len(matches) + 1)


def suspects(data: Data) -> tuple[TriggerSet, dict[str, Query]]:
    """The mark, and who is asked."""
    torch.manual_seed(0)  # the network draws its first weights from the global state
    host = train_host(PlainCNN(data.shape, data.classes), data, rng(0))
    mark = Noise(count=COUNT)(MarkKey(bytes(range(32))), host, data)
    marked = fixll_pfl(beta=0.05).but(lr=1e-3, triggers_per_batch=16, enough=1.0)(host, mark, data, rng(1))
    pruned = {f"{share:.0%} pruned": attack("prune-global", share=share)(marked, data, rng(2)) for share in (0.5, 0.65)}
    models = {"unattacked copy": marked, **pruned, "never marked": host}
    return mark, {name: as_query(model) for name, model in models.items()}


def main() -> None:
    """Measure, and write the numbers and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/queries"))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    mark, found = suspects(open_data("digits"))
    runs = {name: hits(query, mark) for name, query in found.items()}
    rate = mark.null.rate
    assert rate is not None, "labels are drawn from the key"
    rows = {name: {"matches": sum(run), **asked(run, rate)} for name, run in runs.items()}
    (folder / "queries.json").write_text(json.dumps(rows, indent=2) + "\n")
    labelled = {f"{name}, {sum(run)} of {COUNT}": run for name, run in runs.items()}
    (folder / "queries.png").write_bytes(to_png(query_curves(labelled, rate)))
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
