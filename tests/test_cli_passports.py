"""Passports by command line, from minting to a report, and what is refused on the way."""

from __future__ import annotations

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors import safe_open
from scipy.stats import binom
from test_cli_workflow import LATER, PASSWORD, SEEN, Desk, small_digits
from typer.testing import CliRunner

from earmark.attacks import PASSPORT_FORGERIES, PASSPORT_REMOVALS
from earmark.cli import app
from earmark.cli.secrets import Minted
from earmark.files import load_tensors
from earmark.keys import OwnerKey
from earmark.marks import Passports

NET = ("--model", "plain", "--model-set", "width=48")
DATA = ("--data", "npz:@digits.npz")
MINT = ("mint", "--key", "@owner.pem", "--name", "layers", *DATA, "--kind", "passports", *NET)
TRAINED = [f"--set={pair}" for pair in ("epochs=6", "lr=0.02", "batch_size=25", "sign=1", "watch=0")]
TIMES = ("--committed-before", SEEN, "--known-since", LATER)


BARE = (
    "from torch import nn\n\ndef build(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))\n"
)


def embed(version: int, mark: str, out: str, *more: str) -> tuple[str, ...]:
    method = ("--method", f"passports-v{version}", "--out", f"@{out}.safetensors")
    return (
        "embed",
        "--host",
        "@host.safetensors",
        "--mark",
        f"@{mark}.safetensors",
        *DATA,
        *NET,
        *method,
        *TRAINED,
        *more,
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """An owner's folder with a host, passports of 144 bits, a marked model and a commitment."""
    desk = Desk(tmp_path_factory.mktemp("passports"))
    small_digits(desk.folder / "digits.npz")
    (desk.folder / "bare.py").write_text(BARE)
    OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32))).save(desk.folder / "owner.pem", PASSWORD.encode())
    how = ("--set", "epochs=3", "--set", "lr=0.01", "--out", "@host.safetensors")
    desk.good("train", *DATA, *NET, *how)
    desk.good(*MINT, "--set", "layers=2", "--set", "signature=© Z", "--out", "@mark.safetensors")
    desk.good(*embed(2, "mark", "marked"))
    marks = ("--mark", "@mark.safetensors", "--marked", "@marked.safetensors", "--host", "@host.safetensors")
    desk.good("commit", "--key", "@owner.pem", *marks, *NET, "--owner", "Zoë", "--out", "@claim")
    return desk


def test_a_mark_is_told_in_bits_and_kept_secret(desk: Desk) -> None:
    value = desk.good(*MINT, "--set", "layers=2", "--set", "signature=© Z", "--out", "@again.safetensors")
    enough = next(k for k in range(145) if 2**64 * binom.sf(k - 1, 144, 0.5) <= 1e-6)
    assert (value["bits"], value["layers"], value["matches_needed"]) == (144, 2, enough)
    assert value["null"] == {"basis": "exact", "rate": 0.5}
    file, first = desk.folder / "again.safetensors", desk.folder / "mark.safetensors"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes() == first.read_bytes()
    mark = Minted.open(file).mark
    assert isinstance(mark, Passports)
    assert "© Z" not in repr(Minted.open(file))


def test_a_marked_model_is_the_users_network_and_holds_the_bits(desk: Desk) -> None:
    value = desk.good(*embed(2, "mark", "same"))
    assert value["bits"] == 1
    assert value["method"] == "passports-v2"
    assert "trig_acc" not in value
    host, marked = (load_tensors(desk.folder / f"{name}.safetensors") for name in ("host", "same"))
    assert {name: tensor.shape for name, tensor in host.items()} == {n: t.shape for n, t in marked.items()}
    assert not (desk.folder / "same.safetensors.checkpoint").exists()


@pytest.mark.parametrize(("suspect", "status"), [("marked", 0), ("host", 1)])
def test_verify_and_judge_end_with_their_verdict(desk: Desk, suspect: str, status: int) -> None:
    file = f"@{suspect}.safetensors"
    found = desk.run("verify", file, "--mark", "@mark.safetensors", *NET, "--json")
    assert (found.status, found.value["accepted"], found.value["n"]) == (status, status == 0, 144)
    claim = ("--claim", "@claim/claim.json", "--evidence", "@claim/evidence")
    found = desk.run("judge", file, *claim, *TIMES, *NET, "--json")
    assert (found.status, found.value["accepted"], found.value["details"]["step"]) == (status, status == 0, "suspect")
    if suspect == "marked":
        assert found.value["details"]["exact"] is True
        assert found.value["details"]["fidelity"]["private"] > 50


def test_a_claim_names_the_scheme_and_shows_no_secret(desk: Desk) -> None:
    claim = json.loads((desk.folder / "claim" / "claim.json").read_text())["claim"]
    assert (claim["scheme"], claim["kind"], claim["parameters"]["n"]) == ("deepipr", "passports", 144)
    assert "© Z" not in json.dumps(claim, ensure_ascii=False)


def test_two_claims_on_one_suspect_are_ruled_on_together(desk: Desk) -> None:
    """The second claimant brings the model before it was marked, and is refused."""
    desk.good(*MINT, "--name", "other", "--set", "layers=2", "--out", "@other.safetensors")
    marks = ("--mark", "@other.safetensors", "--marked", "@host.safetensors", "--unchecked")
    desk.good("commit", "--key", "@owner.pem", *marks, *NET, "--owner", "Other", "--out", "@second")
    claims = [word for name in ("claim", "second") for word in (f"--claim=@{name}/claim.json",)]
    evidence = [f"--evidence=@{name}/evidence" for name in ("claim", "second")]
    found = desk.run("judge", "@marked.safetensors", *claims, *evidence, *NET, "--json")
    assert [one["accepted"] for one in found.value] == [True, False]


def test_a_report_on_passports_is_written_without_any_trigger(desk: Desk) -> None:
    found = desk.run("verify", "@marked.safetensors", "--mark", "@mark.safetensors", *NET, "--json")
    (desk.folder / "verdict.json").write_text(found.out)
    desk.good("report", "@verdict.json", "--out", "@report.html")
    page = (desk.folder / "report.html").read_text()
    assert "144 of 144" in page
    assert "accepted" in page
    assert "probability 1/2" in page


def test_v1_is_released_with_its_passports_folded_in(desk: Desk) -> None:
    assert desk.good(*embed(1, "mark", "v1"))["bits"] == 1
    found = desk.run("verify", "@v1.safetensors", "--mark", "@mark.safetensors", *NET, "--json")
    fidelity = found.value["details"]["fidelity"]
    assert (found.status, fidelity["holds"]) == (0, True)
    assert fidelity["public"] == pytest.approx(fidelity["private"])


def test_v3_learns_triggers_that_have_a_claim_of_their_own(desk: Desk) -> None:
    key = ("--key", "@owner.pem")
    desk.good("mint", *key, "--name", "t", *DATA, "--count", "60", "--out", "@triggers.safetensors")
    value = desk.good(*embed(3, "mark", "v3", "--triggers", "@triggers.safetensors", "--set=triggers_per_batch=10"))
    assert value["bits"] == 1
    assert value["trig_acc"] > 0.2
    found = desk.run("verify", "@v3.safetensors", "--mark", "@triggers.safetensors", *NET, "--json")
    assert found.value["details"]["matches"] == pytest.approx(60 * value["trig_acc"])


def test_feature_maps_are_those_of_the_trained_host(desk: Desk) -> None:
    shuffled = ("--set", "layers=1", "--set", "passports=shuffle", "--out", "@maps.safetensors")
    assert "need a trained network" in desk.fault(*MINT, *shuffled)
    desk.good(*MINT, *shuffled, "--host", "@host.safetensors")
    with safe_open(desk.folder / "maps.safetensors", framework="pt") as file:
        assert file.get_slice("scale.0").get_shape() == [1, 48, 4, 4]


def test_embedding_starts_afresh_or_from_the_host(desk: Desk) -> None:
    value = desk.good(*embed(2, "mark", "tuned", "--set=fresh=false"))
    assert value["digest"] != desk.good(*embed(2, "mark", "fresh", "--set=fresh=true"))["digest"]


CLAIM = ("--claim", "@claim/claim.json", "--evidence", "@claim/evidence")
RELEASED = ("--released", "@marked.safetensors")


def attack(name: str, out: str, *more: str) -> tuple[str, ...]:
    return ("attack", name, "@marked.safetensors", *DATA, *NET, "--out", out, *more)


@pytest.mark.parametrize("name", sorted(PASSPORT_REMOVALS))
def test_every_removal_of_passports_writes_a_model(desk: Desk, name: str) -> None:
    told = desk.good(*attack(name, f"@{name}.safetensors", "--set", "layers=2"))
    if name != "flip-scales":
        assert told["val_acc"] == told["val_acc_before"] > 0.3
    assert load_tensors(desk.folder / f"{name}.safetensors")


@pytest.mark.parametrize("name", ["flip-signs", "permute-channels"])
def test_what_was_moved_or_flipped_is_found_beside_the_release_and_between_two_dates(desk: Desk, name: str) -> None:
    desk.good(*attack(name, f"@{name}-all.safetensors"))
    judge = ("judge", f"@{name}-all.safetensors", *CLAIM, *NET, "--json")
    for more in (TIMES, RELEASED, (*RELEASED, *TIMES[:2])):
        found = desk.run(*judge, *more)
        assert (found.status, found.value["details"]["step"]) == (1, "suspect")
        assert found.value["details"]["share"] < 0.7
    found = desk.run(*judge, *RELEASED, *TIMES)
    assert (found.status, found.value["details"]["share"]) == (0, 1)
    assert found.value["details"]["reading"] == "aligned"
    assert found.value["details"]["comparison"] == "with the released model"


def test_a_folded_network_is_built_by_code_of_its_own_and_found_in_any_order(desk: Desk) -> None:
    (desk.folder / "folded.py").write_text(FOLDED)
    desk.good(*attack("permute-channels", "@moved.safetensors"))
    folded = attack("fold-norm", "@folded.safetensors", "--set", "layers=*")
    desk.good(*(word.replace("@marked", "@moved") for word in folded))
    suspect = ("judge", "@folded.safetensors", *CLAIM, *TIMES, "--model", "@folded.py:build", "--json")
    assert desk.run(*suspect).status == 1
    shown = ("--released-model", "@folded.py:plain")
    assert desk.run(*suspect, *RELEASED, *shown).status == 0


def test_products_are_found_in_flipped_channels_without_a_release_and_not_for_v1(desk: Desk) -> None:
    desk.good(*MINT, "--set", "layers=2", "--set", "scale=product", "--out", "@products.safetensors")
    assert desk.good(*embed(2, "products", "multiplied"))["bits"] == 1
    flipped = (word.replace("@marked", "@multiplied") for word in attack("flip-signs", "@turned.safetensors"))
    desk.good(*flipped)
    found = desk.run("verify", "@turned.safetensors", "--mark", "@products.safetensors", *NET, "--json")
    assert (found.status, found.value["details"]["share"]) == (0, 1)
    assert "embed by V2 or V3" in desk.fault(*embed(1, "products", "x"))


FOLDED = """
from torch import nn
from earmark.models import PlainCNN

def plain(): return PlainCNN((1, 8, 8), 10, width=48)

def build():
    net = plain()
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d): module.bias = nn.Parameter(module.weight[:, 0, 0, 0].detach().clone())
        if isinstance(module, nn.BatchNorm2d): net.set_submodule(name, nn.Identity())
    return net
"""

FORGED = {
    "reverse-scales": ("epochs=1",),
    "cerb": ("epochs=1", "images=0.5"),
    "retrained": ("epochs=1", "mark=@mark.safetensors"),
}


@pytest.mark.parametrize("name", sorted(PASSPORT_FORGERIES))
def test_every_forgery_of_passports_is_committed_to_and_rejected(desk: Desk, name: str) -> None:
    sets = [f"--set={setting}" for setting in ("layers=2", *FORGED.get(name, ()))]
    told = desk.good(*attack(name, f"@{name}", *sets))
    assert told["model"] == str(desk.folder / f"{name}.safetensors")
    claim = ("--claim", told["claim"], "--evidence", told["evidence"], "--released", told["model"])
    found = desk.run("judge", told["model"], *claim, *NET, "--json")
    assert (found.status, found.value["accepted"], found.value["details"]["step"]) == (1, False, "re-minting")
    assert found.value["details"]["released"] == "the model that the claim commits to"


FAULTS: list[tuple[tuple[str, ...], str]] = [
    ((*MINT, "--set", "layers=9", "--out", "@x.safetensors"), "layers: expected a whole number from 1 to 2"),
    ((*MINT, "--set", "layers=stem*", "--out", "@x.safetensors"), "no convolution with a norm is called 'stem*'"),
    (
        (*MINT, "--set", f"signature={'a' * 19}", "--set=layers=2", "--out", "@x.safetensors"),
        "152 bits and there is room",
    ),
    ((*MINT, "--set", "passports=suffle", "--out", "@x.safetensors"), "passports"),
    ((*MINT, "--set", "scale=prodct", "--out", "@x.safetensors"), "'private' or 'product'"),
    ((*MINT, "--set", "layer=2", "--out", "@x.safetensors"), "unknown setting 'layer': did you mean 'layers'?"),
    ((*MINT, "--set", "witnesses=0", "--out", "@x.safetensors"), "take at least 1"),
    ((*MINT, "--count", "3", "--out", "@x.safetensors"), "--count is for triggers"),
    ((*MINT[:-2], "--model", "@bare.py:build", "--out", "@x.safetensors"), "no nn.Conv2d with a"),
    (
        (*MINT[:7], "--host", "@host.safetensors", "--out", "@x.safetensors"),
        "are for passports, projection, frontier, got --kind noise",
    ),
    ((*MINT[:7], "--kind", "pasports", "--out", "@x.safetensors"), "did you mean 'passports'?"),
    (embed(3, "mark", "x"), "belongs to --method passports-v3 or uchida"),
    (embed(2, "mark", "x", "--triggers", "@mark.safetensors"), "holds a mark of kind 'passports', expected triggers"),
    (embed(2, "mark", "x", "--set=sgin=1"), "unknown setting 'sgin': did you mean 'sign'?"),
    (embed(2, "mark", "x", "--set=sign=-1"), "sign"),
    ((*embed(2, "mark", "x", "--method", "fixll")[:-6], "--method", "fixll"), "fixll does not embed passports"),
    ((*embed(2, "mark", "x"), "--method", "passports-v4"), "did you mean 'passports-v"),
    (attack("flip-sings", "@x.safetensors"), "unknown attack 'flip-sings': did you mean 'flip-signs'?"),
    (attack("solvd", "@x"), "unknown attack 'solvd': did you mean 'solved'?"),
    (attack("flip-signs", "@x.safetensors", "--set=shares=1"), "unknown setting 'shares': did you mean 'share'?"),
    (attack("flip-signs", "@x.safetensors", "--set=layers=stem*"), "no convolution with a norm is called 'stem*'"),
    (attack("cerb", "@x", "--set=epoch=1"), "unknown setting 'epoch': did you mean 'epochs'?"),
    (attack("retrained", "@x"), "retrained needs mark"),
    (attack("retrained", "@x", "--set=mark=@host.safetensors"), "holds no mark"),
    (("verify", "@marked.safetensors", "--mark", "@mark.safetensors", *NET, "--sequential"), "are read at once"),
    (
        ("evade", "jpeg", "@marked.safetensors", "--mark", "@mark.safetensors", *DATA, *NET),
        "holds a mark of kind 'passports', expected triggers",
    ),
]


@pytest.mark.parametrize(("words", "says"), FAULTS)
def test_a_mistake_is_one_line_that_says_what_to_do(desk: Desk, words: tuple[str, ...], says: str) -> None:
    assert says in desk.fault(*words)
    assert not (desk.folder / "x.safetensors").exists()


def test_the_help_shows_how() -> None:
    for command, says in (("mint", "passports"), ("embed", "passports"), ("attack", "flip"), ("judge", "--released")):
        told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
        assert says in told[told.index("Example:") :]


def test_nothing_that_was_said_holds_a_secret(desk: Desk) -> None:
    mark = Minted.open(desk.folder / "mark.safetensors").mark
    assert isinstance(mark, Passports)
    said = "\n".join(desk.said).replace("signature=© Z", "")
    assert "© Z" not in said
    assert "tensor(" not in said
