"""What is kept of an audit, and triggers among ordinary images."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Said, hugging_face, minted, serving, well_known
from torch import Tensor

from earmark.core import Images
from earmark.errors import BadInput, EarmarkError, Tampered
from earmark.files import canonical_json
from earmark.keys import MarkKey
from earmark.suspects import Answer, Mixed, Reached, Recorded, Transcript, Unreachable, open_suspect
from earmark.suspects.answers import answers_of
from earmark.suspects.pixels import as_pixels
from earmark.suspects.reached import Heard
from earmark.verify import SequentialTriggerTest, TriggerTest

KEY = MarkKey(bytes(range(32)))
MARK = minted(KEY)


class Model(Reached):
    """Knows the triggers; breaks off after so many images."""

    def __init__(self, form: str = "scores", patience: int = 1 << 30, name: str = "a") -> None:
        self.classes, self._form, self._label, self._patience, self._name = 10, form, well_known(MARK), patience, name
        self.asked: list[Tensor] = []

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"kind": "test", "name": self._name}

    def ask(self, images: Tensor, heard: Heard | None = None) -> list[Answer]:
        out = []
        for at, pixels in enumerate(as_pixels(images)):
            if len(self.asked) == self._patience:
                raise Unreachable("the line is dead")
            self.asked.append(pixels)
            out.append(self._say(self._label(pixels[None])[0]))
            if heard is not None:
                heard(at, out[-1])
        return out

    def _say(self, label: int) -> Answer:
        if self._form == "labels":
            return Answer(label=label)
        if self._form == "lists":
            return Answer(listed=((label, -0.1), ((label + 1) % 10, -2.5)))
        if self._form == "faults" and len(self.asked) % 3:
            return Answer(fault="it broke")
        (answer,) = answers_of(torch.nn.functional.one_hot(torch.tensor([label]), 10) * 0.3, 1)
        return answer


FORMS = ["scores", "labels", "lists", "faults"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("test", [TriggerTest(), SequentialTriggerTest()])
def test_a_transcript_judged_again_gives_the_same_verdict(form: str, test: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Recorded(Model(form), path) as suspect:
        verdict = test(suspect, MARK)
    again = test(Transcript(path, 10), MARK)
    assert again.to_dict() == verdict.to_dict()
    assert again.details["suspect"]["transcript"]["lines"] == len(path.read_bytes().splitlines())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_transcript_holds_no_pixel_label_or_key_but_digests(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Recorded(Model(), path) as suspect:
        TriggerTest()(suspect, MARK)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {frozenset(line) for line in lines[1:]} == {frozenset({"answer", "image", "n", "sha256", "time"})}
    assert all(len(line["image"]) == 64 for line in lines[1:])


def test_an_audit_that_broke_off_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    path, first, second = tmp_path / "t.jsonl", Model(patience=9), Model()
    with Recorded(first, path) as suspect, pytest.raises(Unreachable):
        TriggerTest()(suspect, MARK)
    with path.open("ab") as file:
        file.write(b'{"answer":{"label":3},"im')  # as a power failure leaves it
    with Recorded(second, path) as suspect:
        verdict = TriggerTest()(suspect, MARK)
    assert (verdict.statistic, len(first.asked), len(second.asked)) == (24, 9, 15)
    assert Transcript(path)(MARK.images.float() / 255).argmax(1).tolist() == MARK.labels.tolist()


def test_images_without_an_answer_are_asked_again_when_an_audit_goes_on(tmp_path: Path) -> None:
    path, second = tmp_path / "t.jsonl", Model()
    with Recorded(Model("faults"), path) as suspect:
        assert TriggerTest()(suspect, MARK).details["unanswered"] == 16
    with Recorded(second, path) as suspect:
        verdict = TriggerTest()(suspect, MARK)
    assert (len(second.asked), verdict.details["unanswered"]) == (16, 0)
    assert TriggerTest()(Transcript(path), MARK).to_dict() == verdict.to_dict()


def test_no_other_file_is_ever_written_over(tmp_path: Path) -> None:
    for content in (b"weights without a line", b"x\n" * 20, b'{"classe'):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        if content[:1] == b"{":
            Recorded(Model(), path).close()  # a head that was cut short is begun anew
            assert Transcript(path).classes == 10
        else:
            with pytest.raises(BadInput, match="is no transcript; it is left as it is"):
                Recorded(Model(), path)
            assert path.read_bytes() == content


def test_an_image_that_was_asked_before_is_not_asked_again() -> None:
    model = Model()
    suspect, images = Recorded(model), MARK.images[[0, 1, 0, 0]].float() / 255
    heard: list[int] = []
    answers = suspect.ask(images, lambda at, _: heard.append(at))
    assert [answer.scores for answer in answers].count(answers[0].scores) >= 3
    suspect.ask(images, lambda at, _: heard.append(at))
    assert len(model.asked) == 2
    assert sorted(set(heard)) == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("written") / "t.jsonl"
    with Recorded(Model("lists"), path) as suspect:
        TriggerTest()(suspect, MARK)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_is_named_by_its_line(written: bytes, data: st.DataObject) -> None:
    import tempfile

    at = data.draw(st.integers(0, len(written) - 2))
    changed = bytearray(written)
    changed[at] ^= data.draw(st.integers(1, 255))
    line = written[:at].count(b"\n") + 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        path.write_bytes(changed)
        with pytest.raises((Tampered, BadInput), match=rf"line {line} is not as|is no transcript") as raised:
            Transcript(path)
        assert line == 1 or isinstance(raised.value, Tampered)
        if isinstance(raised.value, Tampered):
            with pytest.raises(Tampered):
                Recorded(Model("lists"), path)


def test_lines_that_are_gone_or_moved_are_seen(written: bytes, tmp_path: Path) -> None:
    lines, path = written.splitlines(keepends=True), tmp_path / "t.jsonl"
    for kept, named in ((lines[:3] + lines[4:], 4), ([*lines[:3], lines[4], lines[3], *lines[5:]], 4)):
        path.write_bytes(b"".join(kept))
        with pytest.raises(Tampered, match=f"line {named} is not as it was written"):
            Transcript(path)


@pytest.mark.parametrize("form", ["hf", "json"])
def test_a_class_beyond_every_task_spoils_no_transcript(form: str, tmp_path: Path) -> None:
    said = {
        "hf": [{"label": "LABEL_999999", "score": 0.9}, {"label": "LABEL_1", "score": 0.1}],
        "json": ["LABEL_999999", "LABEL_1"],
    }
    with serving(lambda _: Said.json(said[form])) as served:
        with Recorded(open_suspect(served.url, MARK, form=form), tmp_path / "t.jsonl") as suspect:
            first = suspect.ask(MARK.images[:3].float() / 255)
        with Recorded(open_suspect(served.url, MARK, form=form), tmp_path / "t.jsonl") as suspect:
            assert suspect.ask(MARK.images[:3].float() / 255) == first
        assert len(served.asked) == 3
    assert Transcript(tmp_path / "t.jsonl").ask(MARK.images[:3].float() / 255) == first


HEAD: dict[str, Any] = {"classes": 10, "earmark_transcript": 1, "suspect": {}}


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ({"suspect": ["x"]}, {}),
        ({"suspect": "x"}, {}),
        ({"earmark_transcript": 2}, {}),
        ({"classes": "10"}, {}),
        ({}, {"image": []}),
        ({}, {"answer": {"scores": [10**400]}}),
        ({}, {"answer": {"label": 999999}}),
        ({}, {"answer": []}),
    ],
)
def test_a_transcript_that_somebody_chained_anew_is_read_or_one_clear_error(
    head: dict[str, Any], line: dict[str, Any], tmp_path: Path
) -> None:
    before, out = "", b""
    for n, part in enumerate([HEAD | head, {"answer": {"label": 1}, "image": "0" * 64} | line]):
        body = {**part, "n": n, "time": "2030-01-01T00:00:00Z"}
        before = sha256(b"earmark/transcript/1\n" + before.encode() + b"\n" + canonical_json(body)).hexdigest()
        out += canonical_json({**body, "sha256": before}) + b"\n"
    (tmp_path / "t.jsonl").write_bytes(out)
    with pytest.raises(EarmarkError):
        Transcript(tmp_path / "t.jsonl")


def test_a_transcript_of_another_suspect_task_or_test_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Recorded(Model(), path) as suspect:
        SequentialTriggerTest()(suspect, MARK)
    with pytest.raises(BadInput, match="transcript of another suspect"):
        Recorded(Model(name="b"), path)
    with pytest.raises(Unreachable, match="has no answer to the image"):
        TriggerTest()(Transcript(path), MARK)
    with pytest.raises(BadInput, match="task of 10 classes, and this one has 7"):
        open_suspect(str(path), minted(KEY, classes=7))
    with pytest.raises(BadInput, match="is no transcript"):
        open_suspect(f"transcript:{tmp_path / 'none'}", MARK)
    with pytest.raises(BadInput, match="cannot write"):
        Recorded(Model(), tmp_path / "no" / "folder.jsonl")


# --------------------------------------------------------------------------------------------------------------- decoys

DECOYS = Images(torch.randint(0, 256, (50, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)),
                torch.zeros(50, dtype=torch.int64), 10)  # fmt: skip


def is_trigger(pixels: Tensor) -> bool:
    return any(torch.equal(pixels, image) for image in MARK.images)


@pytest.mark.parametrize("test", [TriggerTest(), SequentialTriggerTest(), SequentialTriggerTest(batch_size=5)])
def test_decoys_change_no_verdict_and_stand_three_to_one(test: Any) -> None:
    plain, mixed = Model(), Model()
    verdict, hidden = test(plain, MARK), test(Mixed(mixed, DECOYS, KEY), MARK)
    told = hidden.to_dict()
    assert told["details"]["suspect"].pop("decoys") == 3 * len(plain.asked)
    assert told["details"]["suspect"].pop("decoys_each") == 3
    assert told == verdict.to_dict()
    assert len(mixed.asked) == 4 * len(plain.asked)
    assert sum(map(is_trigger, mixed.asked)) == len(plain.asked)


def test_the_order_is_the_keys_and_triggers_are_as_likely_at_every_place() -> None:
    places = torch.zeros(4)
    for seed in range(200):
        model = Model()
        Mixed(model, DECOYS, MarkKey(seed.to_bytes(32, "big"))).ask(MARK.images[:1].float() / 255)
        places[[is_trigger(pixels) for pixels in model.asked].index(True)] += 1
    assert float((places - 50).square().sum() / 50) < 16.3, "chi-squared, 3 degrees of freedom, at 0.001"
    twice = []
    for _ in range(2):
        model = Model()
        TriggerTest()(Mixed(model, DECOYS, KEY), MARK)
        twice.append(torch.stack(model.asked))
    assert torch.equal(*twice)


def test_a_service_sees_triggers_only_among_decoys_and_a_resumed_audit_asks_nothing_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with serving(hugging_face(well_known(MARK))) as served:
        for _ in range(2):
            with Recorded(open_suspect(served.url, MARK, form="hf"), path) as recorded:
                verdict = SequentialTriggerTest()(Mixed(recorded, DECOYS, KEY), MARK)
        assert len(served.asked) == 7 * 4
    assert (verdict.accepted, verdict.n) == (True, 7)
    assert SequentialTriggerTest()(Transcript(path), MARK).log10_p == verdict.log10_p


def test_decoys_that_a_filter_could_tell_apart_are_refused() -> None:
    other = Images(torch.zeros(5, 3, 6, 6, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), 10)
    with pytest.raises(BadInput, match="a filter would tell them apart"):
        Mixed(Model(), other, KEY).ask(MARK.images[:1].float() / 255)
    with pytest.raises(BadInput, match="no ordinary images"):
        Mixed(Model(), other.subset(torch.arange(0)), KEY)
