"""Coverage-guided fuzzing of the parsers of evidence, run by name: it needs `pip install atheris`, which no test does.

    python tests/fuzz_evidence.py slice -max_total_time=60

The first word is a target, the rest goes to libFuzzer. An error other than earmark's own ends the run and leaves the
input in a file. `test_evidence_fuzz.py` and its neighbours try fixed inputs in every test run.
"""

from __future__ import annotations

import base64
import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

GOLDEN = Path(__file__).parent / "golden"
SLICED, STAMPED = GOLDEN / "v2" / "sliced", GOLDEN / "v1" / "stamped"
SEEDS = {
    "claim": SLICED / "claim.json",
    "evidence": SLICED / "evidence" / "evidence.json",
    "slice": SLICED / "slice" / "slice.json",
    "tensors": SLICED / "slice" / "slice.safetensors",
    "envelope": SLICED / "claim.intoto.json",
    "token": STAMPED / "root.pem",
}
"""Each parser of bytes that come from a stranger, and a file to begin with."""


def parser(target: str) -> Callable[[bytes], object]:
    """What reads the bytes of a target; imported now, so that what is imported can be instrumented."""
    evidence, wire = importlib.import_module("earmark.evidence"), importlib.import_module("earmark.evidence.wire")
    claim, stamped = evidence.Claim.read(SLICED / "claim.json"), evidence.Claim.read(STAMPED / "claim.json")
    root = load_pem_x509_certificate((STAMPED / "root.pem").read_bytes())
    public, mark = bytes.fromhex(claim.public_key), (SLICED / "evidence" / "mark.safetensors").read_bytes()
    part = (SLICED / "slice" / "slice.safetensors").read_bytes()

    def dated(raw: bytes) -> object:
        return evidence.stamped_time(stamped.model_copy(update={"timestamp": base64.b64encode(raw).decode()}), [root])

    readers: dict[str, Callable[[bytes], object]] = {
        "claim": evidence.Claim.from_bytes,
        "evidence": lambda raw: evidence.Bundle.from_parts(raw, mark),
        "slice": lambda raw: evidence.Slice.from_parts(raw, part),
        "tensors": lambda raw: wire.open_tensors(raw, "tensors"),
        "envelope": lambda raw: evidence.attested(raw, SLICED / "release", public),
        "token": dated,
    }
    return readers[target]


def main(words: Sequence[str]) -> None:
    """Fuzz one target until libFuzzer's options say to stop."""
    if len(words) < 2 or words[1] not in SEEDS:
        raise SystemExit(f"expected a target: {', '.join(SEEDS)}")
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["earmark.evidence"]):
        parse = parser(words[1])
    known: type[Exception] = importlib.import_module("earmark.errors").EarmarkError

    def one(raw: bytes) -> None:
        with suppress(known):
            parse(raw)

    with tempfile.TemporaryDirectory() as corpus:
        (Path(corpus) / "seed").write_bytes(SEEDS[words[1]].read_bytes())
        atheris.Setup([words[0], *words[2:], corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
