"""What an owner does before release: train, mint, embed, commit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from torch import nn

from earmark.cli import options
from earmark.cli.methods import IN_WEIGHTS, NAMES, ON_HOST, beside, embedder_of, minting
from earmark.cli.networks import fitting, network, save_network
from earmark.cli.output import new_file, new_folder, note, show
from earmark.cli.secrets import Minted, open_key
from earmark.cli.settings import Form
from earmark.cli.timestamps import token_from
from earmark.core import Data, Embed, rng
from earmark.data import CropFlip, open_data
from earmark.embed import Backdoor, PassportLayers, Uchida
from earmark.errors import BadInput
from earmark.evidence import check_text, commit
from earmark.evidence.kinds import kind_of
from earmark.files import model_digest, read_json, weights_digest
from earmark.marks import MINTS, AnyMark, Passports, Projection, TriggerSet
from earmark.schemes import scheme_of
from earmark.stats import GRINDING_BITS, critical_count
from earmark.training import HOST, Settings, accuracy, train_host

__all__ = ["commit_to", "embed", "mint", "train"]

ALPHA: Final = 1e-6
"""The error probability that a judge keeps to unless told otherwise."""
ADVICE: Final = {
    "triggers": "train longer, or with more triggers per batch",
    "passports": "train longer, or with a larger sign or lr",
    "projection": "train longer, or with a larger strength or lr",
}
EMBEDS: Final = {Backdoor: TriggerSet, PassportLayers: Passports, Uchida: Projection}
"""The marks that each kind of method embeds."""

KINDS: Final = sorted({*MINTS, *IN_WEIGHTS} - {"sliced"})
"""What the command line mints."""

Augmented = Annotated[bool, typer.Option("--augment", help="Crop and flip training images at random.")]


def train(
    out: options.Out,
    data: options.DataSource,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    sets: options.Settings = None,
    augment: Augmented = False,
    seed: options.Seed = 0,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Train a host: a model that is worth marking.

    The epoch with the best test accuracy is kept. A run that was killed goes on from OUT.checkpoint when the same
    command is given again. --set takes the settings of `earmark.training.Settings`.
    """
    settings = Form.of("settings of training", Settings).fill(sets, HOST.but)
    checkpoint = beside(out)
    images, out = open_data(data), new_file(out, force, ".safetensors", again=checkpoint.exists())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = fitting(network(model, None, model_set, images), images, f"the network {model}")
    view = CropFlip() if augment else None
    host = train_host(fresh, images, rng(seed), settings, augment=view, checkpoint=checkpoint)
    value = {**_written(out, host, images, force), "settings": settings.to_dict()}
    show(as_json, value, f"{out}: {100 * value['val_acc']:.2f} % of the test images right")
    checkpoint.unlink(missing_ok=True)


def mint(
    key: options.KeyFile,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The mark's name; its key is derived from the owner's by it.")
    ],
    data: options.DataSource,
    out: options.Out,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND",
            help=", ".join(KINDS),
        ),
    ] = "noise",
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", help="How many triggers; the kind's own number without it.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="SOURCE", help="Other data, for unrelated triggers.")
    ] = None,
    sliced: Annotated[
        bool, typer.Option("--sliced", help="Triggers that can be opened to a judge a few at a time, with `open`.")
    ] = False,
    host: Annotated[
        Path | None,
        typer.Option("--host", metavar="FILE", help="The weights of the model, for frontier, passports or projection."),
    ] = None,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    sets: options.Settings = None,
    password_file: options.PasswordFile = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Derive a mark from the owner's key.

    A mark is secret triggers with the labels that a marked model will give them, or passports or a projection with the
    bits that its weights will show. Everything in it follows from the key, the name and the settings, so there is
    nothing to seed. The file is secret (mode 0600) and does not hold the key. --set takes the settings of the kind,
    such as std=0.3 or labels=not-true; of passports, layers (how many, or a pattern of names), signature, passports,
    images, witnesses and tolerance; of a projection, layer (a name or a pattern), bits and signature. Both are minted
    for the layers of --model; only feature maps (passports=shuffle) need --host too. Frontier triggers are found on
    --host. Penetrative stamps are found on shadow autoencoders that are trained on --data first: settings are shadows
    (how many), family, bottleneck and epochs, and iterations of the search.
    """
    if (host is not None or model_set) and kind not in ON_HOST:
        raise BadInput(f"--host and --model-set are for {', '.join(ON_HOST)}, got --kind {kind}; leave them out")
    if kind == "frontier" and host is None:
        raise BadInput("frontier triggers are found on the model that they mark; give its weights as --host")
    check_text("--name", name)
    make = minting(kind, count, source, sets, sliced)
    images = open_data(data)
    subject = None
    if kind in ON_HOST:
        with torch.random.fork_rng():
            subject = fitting(network(model, host, model_set, images), images, str(host or f"the network {model}"))
    out = new_file(out, force, ".safetensors", again=True)
    mark = make(open_key(key, password_file).mark_key(name), subject, images)
    Minted(name, mark).save(out, force)
    facts = about(name, mark)
    if facts["matches_needed"] is None or facts["matches_needed"] > kind_of(mark).facts(mark)["n"]:
        note("no judge can accept this mark: " + ("it is too small" if mark.null.rate else mark.null.words))
    counted = f"{len(mark)} {'triggers' if isinstance(mark, TriggerSet) else 'bits'}"
    show(as_json, {"out": str(out), **facts}, f"{out}: {counted}. {mark.null.words}")


def embed(
    host: Annotated[Path, typer.Option("--host", metavar="FILE", help="The weights of the model to mark.")],
    mark: options.MarkFile,
    data: options.DataSource,
    out: options.Out,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help=f"One of {', '.join(NAMES)}.")] = "fixll+pfl",
    triggers: Annotated[
        Path | None,
        typer.Option("--triggers", metavar="FILE", help="A mark of triggers that passports-v3 or uchida teach, too."),
    ] = None,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    sets: options.Settings = None,
    augment: Augmented = False,
    seed: options.Seed = 0,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Hide a mark in a copy of a model.

    A run that was killed goes on from OUT.checkpoint when the same command is given again. --set takes the method's
    own settings (alpha, beta, gamma; drop, every, refine_images, refine_lr, refine_every, fresh of function-coupled;
    share, spread of its -plus), those of training, and enough, patience, select, watch, head, replace. Passports take
    those of training, sign, margin and ridge of the sign loss, watch, head, and fresh=false to start from --host and
    not from fresh parameters. uchida takes those of training, strength (lambda), watch, head, and fresh=true to start
    from fresh parameters.
    """
    checkpoint = beside(out)
    out = new_file(out, force, ".safetensors", again=checkpoint.exists())
    given = {"checkpoint": checkpoint, "augment": CropFlip() if augment else None}
    embedder = embedder_of(method, triggers, sets, given)
    hide: Embed[Any] = embedder
    minted, images = Minted.open(mark), open_data(data)
    hidden = minted.mark
    if not isinstance(hidden, EMBEDS[type(embedder)]):
        raise BadInput(f"{method} does not embed {hidden.kind}, which {mark} holds; take another method or mark")
    unmarked = fitting(network(model, host, model_set, images), images, str(host))
    marked = hide(unmarked, hidden, images, rng(seed))
    verdict = kind_of(hidden).test(marked, hidden, ALPHA, GRINDING_BITS)
    value = {**_written(out, marked, images, force), "method": method, "settings": embedder.settings.to_dict()}
    shown = hidden if isinstance(embedder, Backdoor) else embedder.triggers
    if isinstance(shown, TriggerSet):
        value["trig_acc"] = accuracy(marked, shown.as_images())
    if not isinstance(hidden, TriggerSet):
        value["bits"] = verdict.details["share"]
    if not verdict.accepted:
        needed = about(minted.name, hidden)["matches_needed"]
        enough = needed is not None and needed <= verdict.n
        note(f"no judge would accept this: {verdict.reason}" + (f"; {ADVICE[hidden.kind]}" if enough else ""))
    learnt = f"{verdict.statistic:g} of {verdict.n} {hidden.called if isinstance(hidden, TriggerSet) else 'bits'}"
    found = f"{learnt} and {100 * value['val_acc']:.2f} % of the test images right"
    show(as_json, value, f"{out}: {found}")
    checkpoint.unlink(missing_ok=True)


def commit_to(
    key: options.KeyFile,
    mark: options.MarkFile,
    marked: Annotated[Path, typer.Option("--marked", metavar="FILE", help="The weights that will be released.")],
    out: options.Out,
    host: Annotated[Path | None, typer.Option("--host", metavar="FILE", help="The weights before marking.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="NAME", help="The name to show people.")] = None,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", metavar="NAME", help="The scheme's name in the claim; by default the mark's own."),
    ] = None,
    alpha: options.Alpha = 1e-6,
    tsa: Annotated[
        str | None, typer.Option("--tsa", metavar="URL", help="Have an RFC 3161 authority stamp the claim.")
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            "--class-names",
            metavar="FILE",
            help="What the model calls its classes, a JSON list, for the claim.",
        ),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Commit even to what no judge would accept as it stands.")
    ] = False,
    model: options.ModelName = "plain",
    model_set: options.ModelArguments = None,
    password_file: options.PasswordFile = None,
    as_json: options.Json = False,
) -> None:
    """Commit to a mark before its model is released.

    Writes OUT/claim.json, to publish before the model is, and OUT/evidence/, to keep secret until a dispute. OUT must
    not exist, or hold this very commitment already: a commitment is never overwritten.
    """
    minted = Minted.open(mark)
    task = minted.task(mark)
    released = fitting(network(model, marked, model_set, task), task, str(marked))
    before = None if host is None else network(model, host, model_set, task)
    signer = open_key(key, password_file)
    new_folder(out.parent)
    claim, evidence = commit(
        signer,
        minted.mark,
        name=minted.name,
        host=before,
        marked=released,
        scheme=scheme or scheme_of(minted.mark),
        out=out,
        owner_name=owner,
        alpha=alpha,
        stamp=None if tsa is None else partial(token_from, tsa),
        check=not unchecked,
        host_digest=None if host is None else weights_digest(host),
        marked_digest=weights_digest(marked),
        class_names=None if class_names is None else _names(class_names),
    )
    value = {
        "claim": str(claim),
        "evidence": str(evidence),
        "owner": signer.fingerprint,
        **about(minted.name, minted.mark),
    }
    show(as_json, value, f"{claim}: publish it before the model", f"{evidence}: keep it secret until a dispute")


def _names(file: Path) -> list[str]:
    names = read_json(file)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{file}: expected a JSON list of the names of all classes, that of class 0 first")
    return names


def about(name: str, mark: AnyMark) -> dict[str, Any]:
    """What anyone may know of a mark."""
    rate, trials = mark.null.rate, kind_of(mark).facts(mark)["n"]
    needed = None if rate is None else critical_count(trials, rate, ALPHA, GRINDING_BITS)
    facts = {"null": {"basis": mark.null.basis, "rate": rate}, "matches_needed": needed}
    if isinstance(mark, Passports):
        return {"mark": name, "bits": trials, "layers": len(mark.sites), **facts}
    if isinstance(mark, Projection):
        return {"mark": name, "bits": trials, "layer": mark.layer.name, "capacity": mark.layer.size, **facts}
    shown = {"shape": list(mark.shape), "classes": mark.classes}
    return {"mark": name, "triggers": len(mark), "trials": trials, **shown, **facts}


def _written(out: Path, model: nn.Module, data: Data, force: bool) -> dict[str, Any]:
    """Save the model, and say what was written; its checkpoint has to stay until that has been told."""
    facts = {"out": str(out), "digest": model_digest(model), "val_acc": accuracy(model, data.test)}
    save_network(out, model, force)
    return facts
