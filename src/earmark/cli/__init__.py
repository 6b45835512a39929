"""The command line: parse, call, show.

| who | commands |
|---|---|
| owner | `key new`, `key show`, `train`, `mint`, `embed`, `commit` |
| anyone | `fidelity`, `report`, `demo`, `reproduce deep-fidelity` |
| thief, forger | `attack NAME` |
| judge | `verify`, `judge` |

Each takes `--json` (one value on standard output, everything else on standard error) and `--help`, which ends in an
example. Status 0 is success or an accepted claim, 1 a rejected one, 2 bad input, 3 an inconclusive verdict.
"""

from __future__ import annotations

import typer

from earmark.cli import court, demo, key, measure, owner, reproduce, thief
from earmark.cli.group import Commands, example

__all__ = ["app"]


def _group(words: str) -> typer.Typer:
    return typer.Typer(
        cls=Commands, help=words, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )


app = _group("Prove, with a stated error probability, that a neural network is yours.")
keys = _group("Make an owner's key, or show its public half.")
papers = _group("Reproduce a paper's tables.")
app.add_typer(keys, name="key")

keys.command("new", epilog=example("earmark key new owner.pem"))(key.new)
keys.command("show", epilog=example("earmark key show owner.pem"))(key.reveal)
app.command("train", epilog=example("earmark train --data digits --out host.safetensors"))(owner.train)
app.command("mint", epilog=example("earmark mint --key owner.pem --name spring --data digits --out mark.safetensors"))(
    owner.mint
)
app.command(
    "embed",
    epilog=example(
        "earmark embed --host host.safetensors --mark mark.safetensors --data digits \\",
        "    --set lr=0.001 --set triggers_per_batch=16 --out marked.safetensors",
    ),
)(owner.embed)
app.command(
    "commit",
    epilog=example(
        "earmark commit --key owner.pem --mark mark.safetensors --host host.safetensors \\",
        "    --marked marked.safetensors --out commitment",
    ),
)(owner.commit_to)
app.command(
    "fidelity",
    epilog=example("earmark fidelity marked.safetensors --host host.safetensors --mark mark.safetensors --data digits"),
)(measure.fidelity)
app.command(
    "attack",
    epilog=example(
        "earmark attack prune-global marked.safetensors --data digits --set share=0.3 --out pruned.safetensors"
    ),
)(thief.attack)
app.command("verify", epilog=example("earmark verify pruned.safetensors --mark mark.safetensors"))(court.verify)
app.command(
    "judge",
    epilog=example(
        "earmark judge pruned.safetensors --claim commitment/claim.json --evidence commitment/evidence \\",
        "    --committed-before 2024-05-01T12:00:00Z --known-since 2024-06-01T00:00:00Z",
    ),
)(court.judge)
app.command("report", epilog=example("earmark report verdict.json fidelity.json --out report.html"))(measure.report)
app.command("demo", epilog=example("earmark demo --out demo/"))(demo.demo)
app.add_typer(papers, name="reproduce")
papers.command(
    "deep-fidelity",
    epilog=example("earmark reproduce deep-fidelity table4 --scale cpu --data ~/data --out results/deep-fidelity"),
)(reproduce.deep_fidelity)
