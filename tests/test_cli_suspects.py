"""Suspects by one short text on the command line: verify, judge and scan take them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from serving import Asked, Said, hugging_face, open_inference, serving, slowly, well_known
from torch import nn
from typer.testing import CliRunner

from earmark.cli import app
from earmark.cli.scan import Entry, _identity
from earmark.cli.secrets import Minted
from earmark.evidence import commit
from earmark.files import save_tensors
from earmark.keys import OwnerKey
from earmark.marks import Noise, TriggerSet

SHAPE = (1, 6, 6)

NETS = """
import torch
from torch import nn

class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("images", torch.zeros(40, 36))
        self.register_buffer("labels", torch.zeros(40, dtype=torch.int64))
    def forward(self, images):
        near, which = torch.cdist(images.flatten(1), self.images).min(1)
        return nn.functional.one_hot(torch.where(near < 0.1, self.labels[which], 0), 10).float()
"""


def owner(seed: int) -> OwnerKey:
    return OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes([seed + 1]) * 32))


def mark(seed: int) -> TriggerSet:
    return Noise(count=40).make(owner(seed).mark_key("m"), SHAPE, 10)


LABEL = well_known(mark(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Claims of two owners, a mark, decoys, code that builds a network, and weights that know the first mark."""
    folder = tmp_path_factory.mktemp("court")
    for seed in (0, 1):
        how: dict[str, Any] = {"host": None, "scheme": "x", "owner_name": f"owner {seed}", "check": False}
        (folder / "claims").mkdir(exist_ok=True)
        commit(owner(seed), mark(seed), name="m", marked=nn.Linear(1, 1), out=folder / "claims" / str(seed), **how)
    wide = Noise(count=40).make(owner(2).mark_key("m"), SHAPE, 300)
    commit(owner(2), wide, name="m", marked=nn.Linear(1, 1), out=folder / "wide", **{**how, "owner_name": "wide"})
    Minted("m", mark(0)).save(folder / "mark.safetensors")
    (folder / "nets.py").write_text(NETS)
    images, labels = mark(0).images.flatten(1) / 255, mark(0).labels
    (folder / "models").mkdir()
    for name, shift in (("stolen", 0), ("innocent", 1)):
        save_tensors(folder / "models" / f"{name}.safetensors", {"images": images, "labels": (labels + shift) % 10})
    pixels, classes = np.random.default_rng(0).integers(0, 256, (30, 6, 6)).astype(np.uint8), np.arange(30) % 10
    np.savez(folder / "day.npz", x_train=pixels, x_test=pixels, y_train=classes, y_test=classes)
    return folder


def run(folder: Path, *words: str, status: int = 0) -> Any:
    found = CliRunner().invoke(app, [word.replace("@", f"{folder}/") for word in words] + ["--json"])
    assert found.exit_code == status, (found.exit_code, found.stdout, found.stderr, found.exception)
    return json.loads(found.stdout) if found.stdout else found.stderr


CLAIM = ("--claim", "@claims/0/claim.json", "--evidence", "@claims/0/evidence")


def test_a_service_is_verified_and_judged_and_its_transcript_gives_the_same_verdicts(
    folder: Path, tmp_path: Path
) -> None:
    with serving(hugging_face(LABEL)) as served:
        url = f"{served.url}/models/x?key=k1e2y3"
        kept = ("--form", "hf", "--transcript", f"{tmp_path}/t.jsonl", "--suspect-set", "concurrency=8")
        owners = run(folder, "verify", url, "--mark", "@mark.safetensors", *kept)
        judges = run(folder, "judge", url, *CLAIM, *kept)
        assert len(served.asked) == 40, "the judge asked nothing that the transcript has"
    assert owners["suspect"] == judges["suspect"] == f"{served.url}/models/x"
    assert "k1e2y3" not in json.dumps([owners, judges]) + (tmp_path / "t.jsonl").read_text()
    for text in (f"{tmp_path}/t.jsonl", f"transcript:{tmp_path}/t.jsonl"):
        again = run(folder, "judge", text, *CLAIM)
        assert {**again, "suspect": ""} == {**judges, "suspect": ""}
        assert run(folder, "verify", text, "--mark", "@mark.safetensors")["log10_p"] == owners["log10_p"]
    changed = bytearray((tmp_path / "t.jsonl").read_bytes())
    changed[-200] ^= 1
    (tmp_path / "t.jsonl").write_bytes(changed)
    assert "line 41 is not as it was written" in run(folder, "judge", f"{tmp_path}/t.jsonl", *CLAIM, status=2)


def test_a_ruling_is_printed_of_a_service_and_shows_what_it_said(folder: Path, tmp_path: Path) -> None:
    with serving(hugging_face(LABEL)) as served:
        page = tmp_path / "ruling.html"
        verdict = run(folder, "judge", f"{served.url}/?key=k1e2y3", *CLAIM, "--form", "hf", "--ruling", str(page))
        assert len(served.asked) == 40
    assert verdict["details"]["suspect"]["form"] == "hf"
    assert served.url in page.read_text()
    assert "k1e2y3" not in page.read_text()


def test_decoys_and_few_queries_go_together(folder: Path) -> None:
    with serving(open_inference(LABEL)) as served:
        hidden = ("--sequential", "--decoys", "npz:@day.npz", "--decoys-each", "2")
        words = ("verify", f"{served.url}/v2/models/net", "--mark", "@mark.safetensors", *hidden)
        verdict = run(folder, *words)
        assert len([each for each in served.asked if each.method == "POST"]) == 7 + 14
        assert verdict["details"]["suspect"]["decoys"] == 14
        assert run(folder, "judge", f"{served.url}/v2/models/net", *CLAIM, *hidden)["n"] == 27


def test_several_claimants_may_accuse_one_service_whatever_their_tasks(folder: Path) -> None:
    """A rival's claim of 300 classes changes neither how lists nor how names are read."""
    both = (*CLAIM, *(word.replace("/0/", "/1/") for word in CLAIM), *(word.replace("/0/", "/2/") for word in CLAIM))
    (folder / "labels.json").write_text(json.dumps([f"LABEL_{at}" for at in range(10)]))
    with serving(hugging_face(LABEL)) as served:
        how = ("--form", "hf", "--class-names", "@labels.json")
        verdicts = run(folder, "judge", served.url, *(word.replace("@claims/2", "@wide") for word in both), *how)
    assert verdicts.pop()["accepted"] is False
    assert [(each["claimant"], each["accepted"]) for each in verdicts] == [("owner 0", True), ("owner 1", False)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("@models/stolen.safetensors", "--form", "hf"), "is a file of weights, and --form"),
        (("http://127.0.0.1:1/", "--form", "hff"), "unknown form 'hff': did you mean 'hf'"),
        (("http://127.0.0.1:1/", "--form", "hf", "--suspect-set", "budgt=3"), "did you mean 'budget'"),
        (("http://127.0.0.1:1/", "--form", "hf", "--suspect-set", "budget=few"), "budget: "),
        (("http://127.0.0.1:1/", "--form", "hf", "--suspect-set", "retries=0"), "gave no answer in 1 tries"),
        (("onnx:@none.onnx",), "none.onnx is not there"),
        (("@none.safetensors",), "none.safetensors is not there"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_status_2(folder: Path, words: Sequence[str], said: str) -> None:
    error = run(folder, "verify", *words, "--mark", "@mark.safetensors", status=2)
    assert said in error
    assert error.count("\n") == 1


def test_class_names_come_from_a_file(folder: Path, tmp_path: Path) -> None:
    names = [f"kind {at}" for at in range(10)]
    (tmp_path / "names.json").write_text(json.dumps(names))

    def answer(asked: Asked) -> Said:
        listed = json.loads(hugging_face(LABEL)(asked).body)
        return Said.json([{"label": names[int(each["label"][6:])], "score": each["score"]} for each in listed])

    with serving(answer) as served:
        words = ("verify", served.url, "--form", "hf", "--mark", "@mark.safetensors")
        told = run(folder, *words, "--class-names", f"{tmp_path}/names.json")
        assert told["details"]["suspect"]["class_names"]["count"] == 10
        assert "named no class of the mark's task, but 'kind " in run(folder, *words, status=2)
    (tmp_path / "names.json").write_text('{"a": 10}')
    assert "expected a class from 0 to 9" in run(folder, *words, "--class-names", f"{tmp_path}/names.json", status=2)


@pytest.fixture(scope="module")
def named(folder: Path) -> tuple[str, ...]:
    """A claim on the first mark that says what the classes are called."""
    how: dict[str, Any] = {"host": None, "scheme": "x", "owner_name": "namer", "check": False}
    names = [f"kind {at}" for at in range(10)]
    commit(owner(0), mark(0), name="m", marked=nn.Linear(1, 1), out=folder / "named", class_names=names, **how)
    return ("--claim", "@named/claim.json", "--evidence", "@named/evidence")


def in_names(asked: Asked) -> Said:
    listed = json.loads(hugging_face(LABEL)(asked).body)
    return Said.json([{"label": f"kind {each['label'][6:]}", "score": each["score"]} for each in listed])


DATED = ("--committed-before", "2999-01-01T00:00:00Z", "--known-since", "2999-01-02T00:00:00Z")


def test_a_service_is_read_by_the_names_in_a_claim_that_is_older(folder: Path, named: tuple[str, ...]) -> None:
    with serving(in_names) as served:
        verdict = run(folder, "judge", served.url, *named, *DATED, "--form", "hf")
    assert (verdict["accepted"], verdict["statistic"]) == (True, 40)
    assert verdict["details"]["suspect"]["class_names"]["source"] == "the claim"


def test_names_in_a_claim_that_may_be_younger_choose_no_answers(folder: Path, named: tuple[str, ...]) -> None:
    """Whoever has seen the answers could name the classes to fit them."""
    for late in ((), DATED[:2], (*DATED[:3], "2998-01-01T00:00:00Z")):
        with serving(in_names) as served:
            assert "named no class of the mark's task" in run(
                folder, "judge", served.url, *named, *late, "--form", "hf", status=2
            )


def test_numbers_stay_numbers_whatever_a_claim_names(folder: Path, named: tuple[str, ...]) -> None:
    with serving(hugging_face(LABEL)) as served:
        assert run(folder, "judge", served.url, *named, *DATED, "--form", "hf")["statistic"] == 40


def test_class_names_are_committed_to_from_a_list(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARMARK_PASSWORD", "correct horse")
    owner(0).save(tmp_path / "owner.pem", b"correct horse")
    model = ("--model", f"{folder}/nets.py:Memory", "--marked", "@models/stolen.safetensors")
    words = ("commit", "--key", f"{tmp_path}/owner.pem", "--mark", "@mark.safetensors", *model)
    (tmp_path / "names.json").write_text(json.dumps([f"kind {at}" for at in range(10)]))
    run(folder, *words, "--class-names", f"{tmp_path}/names.json", "--out", f"{tmp_path}/to")
    body = json.loads((tmp_path / "to" / "claim.json").read_text())["claim"]
    assert (body["format"], body["class_names"][3]) == (3, "kind 3")
    (tmp_path / "names.json").write_text('{"kind 0": 0}')
    faulty = run(folder, *words, "--class-names", f"{tmp_path}/names.json", "--out", f"{tmp_path}/no", status=2)
    assert "expected a JSON list of the names of all classes" in faulty


# ----------------------------------------------------------------------------------------------------------------- scan


def test_a_scan_finds_what_there_is_and_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    with serving(hugging_face(LABEL)) as served, serving(slowly(0.4, hugging_face(LABEL))) as slow:
        entries = [
            {"suspect": served.url, "name": "service", "form": "hf", "set": {"concurrency": 8}},
            {"suspect": slow.url, "name": "slow", "form": "hf", "set": {"patience": 0.3}},
            *(
                {"suspect": f"{folder}/models/{name}.safetensors", "model": f"{folder}/nets.py:Memory"}
                for name in ("stolen", "innocent")
            ),
            {"suspect": f"{folder}/gone.safetensors", "model": "plain"},
        ]
        (tmp_path / "list.json").write_text(json.dumps(entries))
        words = ("scan", "--registry", "@claims", "--suspects", f"{tmp_path}/list.json", "--out", f"{tmp_path}/s.jsonl")
        rows = run(folder, *words)
        asked = len(served.asked)
        with (tmp_path / "s.jsonl").open("ab") as file:
            file.write(b'{"cut')
        again = run(folder, *words)
        assert len(served.asked) == asked
    found = {(row["suspect"], row["claimant"]): row["accepted"] for row in rows}
    assert {pair for pair, accepted in found.items() if accepted} == {
        ("service", "owner 0"),
        ("stolen.safetensors", "owner 0"),
    }
    assert {pair[0] for pair, accepted in found.items() if accepted is None} == {"slow", "gone.safetensors"}
    assert all("too slow" in row["fault"] or "longer" in row["fault"] for row in rows if row["suspect"] == "slow")
    strength = [row["log10_p"] for row in rows if row["log10_p"] is not None]
    assert strength == sorted(strength)
    assert [row["log10_adjusted"] for row in again] == [row["log10_adjusted"] for row in rows]


def test_what_cannot_be_read_costs_a_scan_its_own_pairs(folder: Path, tmp_path: Path) -> None:
    bad = [f"{tmp_path}/broken.safetensors", f"{tmp_path}/{'x' * 300}.pt", "http://me:pw@[::1/v2/models/x"]
    Path(bad[0]).symlink_to("/proc/self/mem")  # a regular file whose first byte nobody can read
    (tmp_path / "list.txt").write_text("\n".join([*bad, f"{folder}/models/stolen.safetensors"]))
    how = ("--model", "@nets.py:Memory", "--suspects", f"{tmp_path}/list.txt")
    rows = run(folder, "scan", "--registry", "@claims", *how)
    assert [row["suspect"] for row in rows if row["accepted"]] == ["stolen.safetensors"]
    assert len([row for row in rows if row["fault"]]) == 2 * len(bad)
    assert "pw" not in str(rows)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_checkpoint_with_another_file_is_another_suspect(name: str, tmp_path: Path) -> None:
    for each in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / each).write_text("{}")
    before = _identity(Entry(suspect=f"transformers:{tmp_path}"))
    assert _identity(Entry(suspect=f"transformers:{tmp_path}", name="called so")) == before
    (tmp_path / name).write_text("[]")
    assert _identity(Entry(suspect=f"transformers:{tmp_path}")) != before


def test_a_scan_writes_over_no_other_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"not pairs")
    how = ("--suspects", "@models", "--model", "@nets.py:Memory", "--out", f"{tmp_path}/mine")
    assert "it is left as it is" in run(folder, "scan", "--registry", "@claims", *how, status=2)
    assert (tmp_path / "mine").read_bytes() == b"not pairs"


def test_a_folder_of_models_and_a_list_of_lines_are_scanned(folder: Path, tmp_path: Path) -> None:
    how = ("--model", "@nets.py:Memory", "--control", "bh")
    rows = run(folder, "scan", "--registry", "@claims", "--suspects", "@models", *how)
    assert [(row["suspect"], row["accepted"]) for row in rows][:2] == [
        ("stolen.safetensors", True),
        ("innocent.safetensors", False),
    ]
    (tmp_path / "list.txt").write_text(f"# mine\n{folder}/models/stolen.safetensors\n")
    assert len(run(folder, "scan", "--registry", "@claims", "--suspects", f"{tmp_path}/list.txt", *how)) == 2
    shown = CliRunner().invoke(
        app, [w.replace("@", f"{folder}/") for w in ("scan", "--registry", "@claims", "--suspects", "@models", *how)]
    )
    assert "p adjusted (bh)" in shown.stdout
    assert "stolen.safetensors" in shown.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [("[3]", "expected a suspect's name or an object"), ('[{"suspct": "x"}]', "suspct"), ("[]", "names no suspect"),
     ("{", "is no list of suspects"), ('{"a": 1}', "expected a JSON list")],
)  # fmt: skip
def test_a_list_that_is_none_is_one_clear_error(folder: Path, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "list.json").write_text(content)
    assert said in run(folder, "scan", "--registry", "@claims", "--suspects", f"{tmp_path}/list.json", status=2)
