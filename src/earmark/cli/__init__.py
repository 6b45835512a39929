"""The command line: parse, call, show.

| who | commands |
|---|---|
| owner | `key new`, `key show`, `train`, `mint`, `embed`, `commit`, `attest`, `open` |
| anyone | `fidelity`, `attested`, `report`, `demo`, `reproduce PAPER`, `bench`, `leaderboard` |
| thief, forger | `attack NAME` |
| judge | `verify`, `judge`, `scan` |

Each takes `--json` (one value on standard output, everything else on standard error) and `--help`, which ends in an
example. Status 0 is success or an accepted claim, 1 a rejected one, 2 bad input, 3 an inconclusive verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from earmark.cli import attestations, bench, court, demo, evasion, key, measure, opening, owner, reproduce, thief
from earmark.cli import scan as scanning
from earmark.cli.group import Command, Commands, example

__all__ = ["app"]


def _group(words: str, *lines: str) -> typer.Typer:
    how: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False, "add_completion": False}
    return typer.Typer(cls=Commands, help=words, epilog=example(*lines), **how)


def _add(group: typer.Typer, name: str, command: Callable[..., None], *lines: str) -> None:
    """A command of a group, with the lines of an example to end its help."""
    group.command(name, cls=Command, epilog=example(*lines))(command)


app = _group(
    "Prove, with a stated error probability, that a neural network is yours.",
    "earmark demo --out demo/",
)
keys = _group("Make an owner's key, or show its public half.", "earmark key new owner.pem")
papers = _group("Reproduce a paper's tables.", "earmark reproduce deep-fidelity table4 --scale quick")

app.add_typer(keys, name="key")
_add(keys, "new", key.new, "earmark key new owner.pem")
_add(keys, "show", key.reveal, "earmark key show owner.pem")
_add(app, "train", owner.train, "earmark train --data digits --out host.safetensors")
_add(
    app,
    "mint",
    owner.mint,
    "earmark mint --key owner.pem --name spring --data digits --out mark.safetensors",
    "earmark mint --key owner.pem --name layers --data digits --kind passports --model resnet9-p \\",
    "    --model-set norm=gn --set layers=4 --set signature=mine --out passports.safetensors",
    "earmark mint --key owner.pem --name weights --data digits --kind projection --out projection.safetensors",
)
_add(
    app,
    "embed",
    owner.embed,
    "earmark embed --host host.safetensors --mark mark.safetensors --data digits \\",
    "    --set lr=0.001 --set triggers_per_batch=16 --out marked.safetensors",
    "earmark embed --host host.safetensors --mark passports.safetensors --data digits --method passports-v2 \\",
    "    --model resnet9-p --model-set norm=gn --set epochs=30 --out marked.safetensors",
    "earmark embed --host host.safetensors --mark projection.safetensors --data digits --method uchida \\",
    "    --out marked.safetensors",
)
_add(
    app,
    "commit",
    owner.commit_to,
    "earmark commit --key owner.pem --mark mark.safetensors --host host.safetensors \\",
    "    --marked marked.safetensors --out commitment",
)
_add(
    app,
    "attest",
    attestations.attest_to,
    "earmark attest --key owner.pem --claim commitment/claim.json --released marked.safetensors --out release",
)
_add(
    app,
    "attested",
    attestations.check_attested,
    "earmark attested marked.safetensors --envelope release/claim.intoto.json --owner-public 03a1...31b8",
)
_add(
    app,
    "open",
    opening.open_slice,
    "earmark open --claim commitment/claim.json --evidence commitment/evidence \\",
    "    --nonce 6f1c...e2 --count 60 --out slice",
)
_add(
    app,
    "fidelity",
    measure.fidelity,
    "earmark fidelity marked.safetensors --host host.safetensors --mark mark.safetensors --data digits",
)
_add(
    app,
    "attack",
    thief.attack,
    "earmark attack prune-global marked.safetensors --data digits --set share=0.3 --out pruned.safetensors",
    "earmark attack flip-signs marked.safetensors --data digits --model resnet9-p --model-set norm=gn \\",
    "    --out flipped.safetensors",
)
_add(
    app,
    "evade",
    evasion.evade,
    "earmark evade jpeg marked.safetensors --mark mark.safetensors --data digits --set quality=50",
)
_add(app, "verify", court.verify, "earmark verify pruned.safetensors --mark mark.safetensors")
_add(
    app,
    "judge",
    court.judge,
    "earmark judge pruned.safetensors --claim commitment/claim.json --evidence commitment/evidence \\",
    "    --committed-before 2024-05-01T12:00:00Z --known-since 2024-06-01T00:00:00Z",
    "earmark judge flipped.safetensors --claim commitment/claim.json --evidence commitment/evidence \\",
    "    --released marked.safetensors --model resnet9-p --model-set norm=gn \\",
    "    --committed-before 2024-05-01T12:00:00Z --known-since 2024-06-01T00:00:00Z",
)
_add(
    app,
    "scan",
    scanning.scan,
    "earmark scan --registry claims --suspects suspects.txt --out scan.jsonl",
)
_add(app, "report", measure.report, "earmark report verdict.json fidelity.json --out report.html")
_add(app, "demo", demo.demo, "earmark demo --out demo/")
_add(
    app,
    "bench",
    bench.bench,
    "earmark bench --preset digits --seeds 5 --workers 2 --out bench",
    "earmark bench --schemes deep-fidelity,uchida --attacks int8,prune-global,jpeg --data folder:images \\",
    "    --model my_package.nets:resnet --sweep prune-global.share=0.2,0.5,0.8 --set deep-fidelity.count=200",
)
_add(app, "leaderboard", bench.leaderboard, "earmark leaderboard bench/results.jsonl --out page")
app.add_typer(papers, name="reproduce")
_add(
    papers,
    "deep-fidelity",
    reproduce.deep_fidelity,
    "earmark reproduce deep-fidelity table4 --scale cpu --data ~/data --out results/deep-fidelity",
)
_add(
    papers,
    "function-coupled",
    reproduce.function_coupled,
    "earmark reproduce function-coupled table2 --scale cpu --data ~/data --setting mnist_lenet5",
)
_add(
    papers,
    "penetrative",
    reproduce.penetrative,
    "earmark reproduce penetrative table1 --scale cpu --data ~/data --setting mnist_resnet18",
)
_add(
    papers,
    "deepipr",
    reproduce.deepipr,
    "earmark reproduce deepipr table7 --scale cpu --data ~/data --setting cifar10_alexnet",
)
