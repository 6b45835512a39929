"""The printed ruling: it says what the verdict says, to somebody who does not compute, and nothing in it acts."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn

from earmark.core import Null, Query, Verdict
from earmark.evidence import Bundle, Case, Draw, Slice, arbitrate, claim_of, judge
from earmark.evidence.hearing import NO_ANSWER, Hearing
from earmark.keys import OwnerKey
from earmark.marks import Noise, NotTrue, Sliced, Stamped, TriggerSet
from earmark.reports import CaseFile, CourtRuling, render_ruling, shown_trials, write_ruling
from earmark.reports.court import MOST_SHOWN, plain
from earmark.reports.reasons import chance_in_words, reasons

OWNER = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = OWNER.mark_key("winter")
MARK = Sliced(of=Noise(count=60)).make(KEY, (3, 8, 8), 10)
BUNDLE = Bundle.seal(MARK, KEY, name="winter", scheme="deep fidelity", salt=bytes(32))
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
EVIL = '<script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>{{ 7 * 7 }}'
CLAIM = claim_of(OWNER, BUNDLE, host=None, marked=nn.Flatten(), time=NOW, owner_name=EVIL)
DRAW = Draw(bytes(32), 40)
CUT = Slice.cut(CLAIM, BUNDLE, DRAW.nonce, DRAW.count)


class Memory:
    """Answers the triggers of a mark with their labels, but for the first `wrong`, and all else with class 0."""

    def __init__(self, mark: TriggerSet, wrong: int = 0) -> None:
        said = mark.labels.clone()
        said[:wrong] = (said[:wrong] + 1) % 10
        self.known = {row.tobytes(): int(label) for row, label in zip(mark.images.numpy(), said, strict=True)}

    def __call__(self, images: Tensor) -> Tensor:
        rows = images.mul(255).round().to(torch.uint8).numpy()
        return torch.tensor([self.known.get(row.tobytes(), 0) for row in rows])


def page(verdict: Verdict, **parts: Any) -> str:
    return render_ruling(CourtRuling("copy.safetensors", [CaseFile("Ada", verdict, CLAIM, **parts)], judged="today"))


def words(text: str) -> str:
    """What a reader of the page sees."""
    body = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


def heard(suspect: Query, draw: Draw | None = DRAW, **known: Any) -> tuple[Verdict, Hearing]:
    hearing = Hearing(suspect)
    return judge(CLAIM, CUT, hearing, draw=draw, **known), hearing


# ------------------------------------------------------------------------------------------------------------ the words


def test_the_page_answers_a_lawyers_questions_in_order() -> None:
    verdict, hearing = heard(Memory(CUT.mark, wrong=2))
    text = page(verdict, trials=shown_trials(CUT.mark, hearing.answers(CUT.mark)), opened=40)
    headings = [html.unescape(re.sub("<.*?>", "", found)).strip() for found in re.findall("<h2.*?</h2>", text)]
    assert headings == [
        "1 The question",
        "2 What was committed, and when",
        "3 What was asked",
        "4 What came back",
        "5 How likely is this by chance?",
        "6 What could still be wrong",
        "7 To check this ruling",
        "The hearing",
        "Annex: the opened trials",
    ]
    seen = words(text)
    assert "Yes. The claim is upheld." in seen
    assert "38 of 40 answers were the foretold ones." in seen
    assert "By guessing alone, 4 of 40 would be expected, one in 10." in seen
    assert "Of 60 secret trials 40 were opened" in seen
    assert "drawn by the judge" in seen
    assert "multiplied by 2 to the power of 64" in seen
    assert DRAW.nonce.hex() in seen
    assert CLAIM.public_key in seen


def test_time_rests_on_the_owners_word_unless_somebody_else_gives_it() -> None:
    bare, _ = heard(Memory(CUT.mark))
    assert "the owner's word alone: no time-stamp token" in words(page(bare))
    assert "Nobody but the owner vouches for the time of the claim." in words(page(bare))
    dated, _ = heard(Memory(CUT.mark), committed_before=NOW, dated_by="a token of CN=Clock")
    assert "a token of CN=Clock, by 2024-05-01T12:00:00Z" in words(page(dated))
    assert "Nobody but the owner vouches" not in words(page(dated))
    told, _ = heard(Memory(CUT.mark), committed_before=NOW)
    assert told.details["time"] == "a source that the judge trusts, by 2024-05-01T12:00:00Z"


def test_a_rejection_an_open_question_and_a_claim_that_fell_are_told_apart() -> None:
    rejected, _ = heard(lambda images: torch.zeros(len(images), dtype=torch.int64))
    seen = words(page(rejected))
    assert "No. The claim is not upheld." in seen
    assert "A rejection does not show that the suspect was made independently." in seen
    undrawn, _ = heard(Memory(CUT.mark), draw=None)
    seen = words(page(undrawn))
    assert "Left open." in seen
    assert "as if he had chosen the trials by hand" in seen
    assert "The judge did not draw the number" in seen
    fallen, hearing = heard(Memory(CUT.mark), draw=Draw(bytes(16), 40))
    seen = words(page(fallen, trials=shown_trials(CUT.mark, hearing.answers(CUT.mark))))
    assert "The claim fell before the suspect was asked." in seen
    assert "No probability follows" in seen
    assert "Annex" not in seen


def test_a_claim_whose_files_could_not_be_read_is_said_so() -> None:
    null = Null("none", None, "No mark could be read.")
    refused = Verdict(False, 0, 0, null, None, 1e-6, "the files do not hold: claim.json", {"step": "files"})
    seen = words(render_ruling(CourtRuling("copy", [CaseFile("x/claim.json", refused)])))
    assert "could not be read as a claim" in seen
    assert "No. The claim is not upheld." in seen


def test_between_two_claims_the_page_says_which_facts_decided() -> None:
    thief = OwnerKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    other = Noise(count=60).make(thief.mark_key("m"), (3, 8, 8), 10)
    bundle = Bundle.seal(other, thief.mark_key("m"), name="m", scheme="x")
    rival = claim_of(thief, bundle, host=None, marked=nn.Flatten(), time=NOW)
    suspect = Memory(MARK)
    suspect.known |= Memory(other).known
    cases = [Case("Ada", CLAIM, CUT, NOW, draw=DRAW), Case("Eve", rival, bundle, NOW + timedelta(days=1))]
    outcomes = arbitrate(cases, suspect)
    parts = zip(outcomes, (CLAIM, rival), strict=True)
    files = [CaseFile(outcome.claimant, outcome.verdict, claim) for outcome, claim in parts]
    seen = words(render_ruling(CourtRuling("copy", files)))
    assert "6 What decided between the claims Against “Eve”: Ada has the earlier trusted commitment" in seen
    assert "Against “Ada”: Ada has the earlier trusted commitment" in seen
    assert seen.count("The model as released not shown") == 2
    assert "This mark in the other's model cannot be told: no model that answers was shown" in seen
    assert "The other's time rests on a source that the judge trusts, by 2024-05-01T12:00:00Z" in seen
    assert seen.count("Decided by time") == 2
    assert seen.count("The mark is in the suspect all the same.") == 1


def test_bits_in_weights_are_called_what_they_are() -> None:
    claim = CLAIM.model_copy(update={"kind": "passports"})
    null = Null("exact", 0.5, "Each bit was drawn at random.")
    verdict = Verdict(True, 96, 96, null, -9.6, 1e-6, "96 of 96 bits", {"step": "suspect", "grinding_bits": 64})
    told = reasons("Ada", verdict, claim)
    assert told.asked == ("Nothing: 96 bits were read from the suspect's weights with the opened key.",)
    assert "secret bits in the weights" in dict(told.committed)["What"]


def test_a_calibrated_null_is_not_told_as_a_key_s_and_its_second_term_is_not_multiplied() -> None:
    null = Null("calibrated", 0.25, "Measured on innocent models.")
    told: dict[str, Any] = {"step": "suspect", "grinding_bits": 64, "calibration_error": 0.036}
    seen = words(page(Verdict(True, 60, 60, null, -1.4, 0.05, "60 of 60", told)))
    assert "the owner's key had foretold" not in seen
    assert "By guessing alone" not in seen
    assert "15 of 60 are taken to be expected at most" in seen
    assert "This number is already multiplied" not in seen
    assert "Of this number 0.036 stands for the next innocent model" in seen
    assert "The rest is already multiplied by 2 to the power of 64" in seen
    assert "ask how many claims there are" in seen
    assert "The judge was told of no other commitment" in seen
    seen = words(page(Verdict(True, 60, 60, null, -2.1, 0.01, "", told | {"commitments": 5, "alpha_of_all": 0.05})))
    assert "told of 5 commitments that could have been shown. Each may err with 0.05 / 5 (Bonferroni)" in seen
    assert "Commitments that could have been shown 5" in seen
    assert "for no more than the 5 commitments that the judge was told of" in seen


@pytest.mark.parametrize("log10_p", [-2.0, -6.3, -21.4, -300.7])
def test_coins_are_no_rarer_than_the_probability(log10_p: float) -> None:
    found = re.fullmatch(r".*followed by (\d+) zeros; .* heads (\d+) times.*", chance_in_words(log10_p))
    assert found is not None
    zeros, heads = map(int, found.groups())
    assert 10.0**-zeros >= 10.0**log10_p > 10.0 ** -(zeros + 1)
    assert 2.0**-heads >= 10.0**log10_p > 2.0 ** -(heads + 1)


# ------------------------------------------------------------------------------------------------------------- pictures


def test_each_picture_stands_over_the_foretold_and_the_given_answer() -> None:
    _, hearing = heard(Memory(CUT.mark, wrong=2))
    shown = shown_trials(CUT.mark, hearing.answers(CUT.mark))
    assert [trial.foretold for trial in shown] == CUT.mark.labels.tolist()
    assert [trial.matched for trial in shown] == [False] * 2 + [True] * 38
    assert all(trial.pictures[0].png.startswith(b"\x89PNG") for trial in shown)


def test_what_was_not_asked_is_not_shown_and_a_large_mark_is_shown_in_part() -> None:
    verdict, hearing = heard(Memory(CUT.mark), draw=DRAW, sequential=True)
    shown = shown_trials(CUT.mark, hearing.answers(CUT.mark))
    assert len(shown) == verdict.n < 40
    many = Noise(count=MOST_SHOWN + 5).make(KEY, (1, 4, 4), 10)
    assert len(shown_trials(many, many.labels.tolist())) == MOST_SHOWN


def test_large_images_are_shown_small() -> None:
    large = Noise(count=2).make(KEY, (3, 300, 150), 10)
    sizes = [int.from_bytes(trial.pictures[0].png[16:24], "big") for trial in shown_trials(large, [0, 1])]
    assert sizes == [(48 << 32) + 96] * 2


ODD_ANSWERS: dict[str, tuple[Any, int]] = {
    "labels": (lambda images: torch.full((len(images),), 3), 3),
    "scores": (lambda images: torch.eye(10)[torch.full((len(images),), 3)], 3),
    "half": (lambda images: torch.eye(10, dtype=torch.float16)[torch.full((len(images),), 3)], 3),
    "a list": (lambda images: [3] * len(images), 3),
    "an array": (lambda images: np.full(len(images), 3), 3),
    "NaN": (lambda images: torch.full((len(images), 10), torch.nan), NO_ANSWER),
    "too few scores": (lambda images: torch.zeros(len(images), 3), NO_ANSWER),
    "too few answers": (lambda images: torch.zeros(1, 10), NO_ANSWER),
    "no tensor": (lambda images: "3", NO_ANSWER),
    "fractions": (lambda images: torch.full((len(images),), 3.0), NO_ANSWER),
    "complex": (lambda images: torch.zeros(len(images), 10, dtype=torch.complex64), NO_ANSWER),
    "an error": (lambda images: torch.zeros(1)[len(images) :][0], NO_ANSWER),
    "out of range": (lambda images: torch.full((len(images),), 77), NO_ANSWER),
}


@pytest.mark.parametrize("case", ODD_ANSWERS)
def test_the_page_shows_the_answers_that_the_test_counted(case: str) -> None:
    suspect, said = ODD_ANSWERS[case]
    verdict, hearing = heard(suspect)
    answers = hearing.answers(CUT.mark)
    assert answers == [said] * 40
    assert verdict.statistic == sum(trial.matched for trial in shown_trials(CUT.mark, answers))
    assert verdict == judge(CLAIM, CUT, suspect, draw=DRAW)


def test_answers_are_read_among_the_classes_that_the_key_could_have_drawn() -> None:
    carriers = Noise(count=40).make(KEY, (1, 8, 8), 10).as_images()
    mark = Stamped(count=40, labels=NotTrue()).make(KEY, (1, 8, 8), 10, carriers)
    hearing = Hearing(lambda images: torch.eye(10)[carriers.labels[: len(images)]] + torch.linspace(0, 0.5, 10))
    hearing(mark.images.float() / 255)
    assert mark.excluded is not None
    assert not any(said == int(own) for said, own in zip(hearing.answers(mark), mark.excluded[:, 0], strict=True))


# -------------------------------------------------------------------------------------------------------------- hostile


class Acting(HTMLParser):
    """Collects what could act or load: elements, and attributes that are not the page's own."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.sources: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources |= {str(value)[:22] for name, value in attrs if name in ("src", "href", "action", "style")}


@pytest.mark.parametrize(
    "name", [EVIL, "a\u202eb\u2066c\u0000\u001b[31m", '"><b>', "x" * 5000, "data:image/png;base64,<b>"]
)
def test_nothing_that_a_claimant_writes_acts(name: str) -> None:
    verdict, hearing = heard(Memory(CUT.mark))
    shown = shown_trials(CUT.mark, hearing.answers(CUT.mark))
    hostile = replace(verdict, reason=name, details={**verdict.details, "time": name, "against": {name: name}})
    text = render_ruling(CourtRuling(name, [CaseFile(name, hostile, CLAIM, name, shown, 40)] * 2, {name: name}, name))
    found = Acting()
    found.feed(text)
    assert found.elements <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "article", "section", "br"),
        *("h1", "h2", "p", "b", "bdi", "span", "div", "dl", "dt", "dd", "ul", "ol", "li", "img"),
    }
    assert found.sources == {"data:image/png;base64,"}
    assert not any(attribute.startswith("on") for attribute in found.attributes)
    assert "49" not in re.findall(r"\b49\b", words(text).replace(str(verdict.n), "")), "no template of his is run"
    assert not [sign for sign in text if not sign.isprintable() and sign != "\n"]
    assert "default-src 'none'" in text


def test_signs_that_turn_the_writing_are_shown_by_their_numbers() -> None:
    assert plain("a\u202eb\x1b") == "a[U+202E]b[U+001B]"
    assert plain("Zoë 漢字") == "Zoë 漢字"
    assert len(plain("x" * 10_000)) < 3000


def test_the_same_hearing_gives_the_same_page_and_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    verdict, hearing = heard(Memory(CUT.mark))
    ruling = CourtRuling(
        "copy \ud800", [CaseFile("Ada", verdict, CLAIM, "", shown_trials(CUT.mark, hearing.answers(CUT.mark)), 40)]
    )
    assert render_ruling(ruling) == render_ruling(ruling)
    write_ruling(tmp_path / "ruling.html", ruling)
    assert (tmp_path / "ruling.html").stat().st_mode & 0o777 == 0o600


def test_keys_are_not_on_the_page() -> None:
    verdict, hearing = heard(Memory(CUT.mark))
    text = page(verdict, trials=shown_trials(CUT.mark, hearing.answers(CUT.mark)), evidence_digest=CUT.digest)
    for secret in (KEY.secret, *(trial.secret for trial in CUT.trials)):
        assert secret.hex() not in text
