"""Services over HTTP: every usual form of answer is read, nothing but pixels is sent, and manners are kept."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from serving import Asked, Said, hugging_face, minted, open_inference, opened, serving, slowly, well_known

from earmark.core import Query
from earmark.errors import BadInput
from earmark.keys import MarkKey
from earmark.marks import TriggerSet
from earmark.marks.triggers.trials import log_shares
from earmark.suspects import ClassNames, Unreachable, open_suspect, spoken
from earmark.suspects.pixels import Intake
from earmark.verify import SequentialTriggerTest, TriggerTest

KEY = MarkKey(bytes(range(32)))
MARK = minted(KEY)
LABEL = well_known(MARK)
NAMES = ["airplane", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "zebra"]


def images(mark: TriggerSet = MARK) -> torch.Tensor:
    return mark.images.float().div(255)


def best(query: Query, mark: TriggerSet = MARK) -> list[int]:
    """The class that a suspect puts first of each trigger."""
    return [int(at) for at in log_shares(query(images(mark)), mark.classes).argmax(1)]


def custom(answer: Callable[[int], Any]) -> Callable[[Asked], Said]:
    """A service that takes {"image": base64 PNG} and answers what `answer` makes of the label."""

    return lambda asked: Said.json(answer(LABEL(opened(base64.b64decode(json.loads(asked.body)["image"])))[0]))


# -------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("output", ["scores", "labels", "names"])
@pytest.mark.parametrize("datatype", ["FP32", "UINT8"])
def test_a_v2_server_is_read_whatever_its_types(output: str, datatype: str) -> None:
    with serving(open_inference(LABEL, datatype=datatype, output=output)) as served:
        names = ClassNames({f"class {at}": at for at in range(10)}) if output == "names" else None
        with open_suspect(f"{served.url}/v2/models/net", MARK, names=names, batch=7) as suspect:
            assert best(suspect) == MARK.labels.tolist()
        assert sorted(json.loads(each.body)["inputs"][0]["shape"][0] for each in served.asked[1:]) == [3, 7, 7, 7]


def test_a_v2_servers_classification_strings_are_a_ranking() -> None:
    def answer(asked: Asked) -> Said:
        if asked.method == "GET":
            return Said.json({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 6, 6]}]})
        data = ["0.5:3:cat", "0.25:0:bird"]
        return Said.json({"outputs": [{"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": data}]})

    with serving(answer) as served:
        names = ClassNames({"cat": 3, "bird": 0})
        with open_suspect(f"{served.url}/v2/models/net/infer", MARK, names=names) as suspect:
            (shares,) = log_shares(suspect(images()[:1]), 10).exp()
    assert [shares[3].item(), shares[0].item(), shares.sum().item()] == pytest.approx([2 / 3, 1 / 3, 1])


def test_images_are_brought_to_the_size_that_a_v2_server_declares_and_the_verdict_says_so() -> None:
    asked_for: list[torch.Size] = []

    def label(pixels: torch.Tensor) -> list[int]:
        asked_for.append(pixels.shape)
        return LABEL(pixels[:, :1, 1::3, 1::3])

    small = minted(KEY, shape=(1, 2, 2))
    with (
        serving(open_inference(label, shape=(3, 6, 6))) as served,
        open_suspect(f"{served.url}/v2/models/net", small) as suspect,
    ):
        verdict = TriggerTest()(suspect, small)
    assert asked_for[0] == (1, 3, 6, 6)
    assert verdict.details["suspect"]["size"] == (6, 6)
    assert verdict.details["unanswered"] == 0


@pytest.mark.parametrize("top_k", [None, 3, 10])
def test_hugging_faces_list_is_read_and_the_verdict_says_how_many_classes_it_had(top_k: int | None) -> None:
    settings: dict[str, Any] = {} if top_k is None else {"top_k": top_k}
    with serving(hugging_face(LABEL)) as served, open_suspect(served.url, MARK, form="hf", **settings) as suspect:
        verdict = TriggerTest()(suspect, MARK)
    assert (verdict.accepted, verdict.details["asr"]) == (True, 1.0)
    assert verdict.details["classes_told"] == (top_k or 5)
    assert verdict.details["suspect"]["form"] == "hf"


@pytest.mark.parametrize(
    ("answer", "settings", "told"),
    [
        (lambda at: at, {}, 1),
        (lambda at: NAMES[at], {"names": True}, 1),
        (lambda at: {"out": [{"scores": [float(at == k) for k in range(10)]}]}, {"answer": "out.0.scores"}, 1),
        (lambda at: {"classes": [{"name": NAMES[at]}, {"name": NAMES[at - 1]}]}, {"answer": "classes.*.name"}, 2),
        (lambda at: [{"what": NAMES[at], "sure": "0.9"}, {"what": "?", "sure": 0.1}], {"label": "what"}, 1),
        (lambda at: {NAMES[k]: 0.7 if k == at else 0.03 for k in range(10)}, {"names": True}, 10),
        (lambda at: [round(0.9 if k == at else 0.1 / 9, 2) for k in range(10)], {}, 10),
    ],
    ids=["label", "name", "scores", "ranking", "members", "by-name", "rounded"],
)
def test_a_custom_service_is_read_by_its_path(answer: Any, settings: dict[str, Any], told: int) -> None:
    named = bool(settings) and "out.0.scores" not in settings.values()
    own = {name: value for name, value in settings.items() if name != "names"}
    own |= {"score": "sure"} if "label" in own else {}
    names = ClassNames({name: at for at, name in enumerate(NAMES)}) if named else None
    with serving(custom(answer)) as served, open_suspect(served.url, MARK, form="json", names=names, **own) as suspect:
        verdict = TriggerTest()(suspect, MARK)
    assert verdict.details["asr"] == 1.0
    assert verdict.details["classes_told"] == told
    if named:
        assert verdict.details["suspect"]["class_names"]["count"] == 10


@pytest.mark.parametrize(
    ("place", "read"),
    [
        ("$chw", lambda value: torch.tensor(value).mul(255).round().to(torch.uint8)[None]),
        ("$hwc", lambda value: torch.tensor(value, dtype=torch.uint8).permute(2, 0, 1)[None]),
        ("$data_url", lambda value: opened(base64.b64decode(value.partition(",")[2]))),
    ],
)
def test_a_template_says_where_the_image_goes_and_the_pixels_arrive_exactly(place: str, read: Any) -> None:
    def answer(asked: Asked) -> Said:
        value = json.loads(asked.body)
        assert value["model"] == "a"
        return Said.json(LABEL(read(value["data"][0]))[0])

    template = json.dumps({"model": "a", "data": [place]})
    with serving(answer) as served, open_suspect(served.url, MARK, form="json", template=template) as suspect:
        assert best(suspect) == MARK.labels.tolist()


def test_a_list_is_an_answer_among_the_classes_that_the_key_could_have_drawn() -> None:
    """The first class of the list that is none of the sources'; none where the list ends before."""
    rows = ClassNames()
    assert rows("LABEL_4") == 4
    from earmark.marks.triggers.trials import trial_answers
    from earmark.suspects.answers import ranking
    from earmark.suspects.answers import rows as as_rows

    said = [ranking([(2, 0.9), (5, 0.06)]), ranking([(2, 1.0)]), ranking([(5, 0.5), (2, 0.5)])]
    shares = log_shares(as_rows(said, 10), 10)[:, None]
    excluded = torch.tensor([[2], [2], [2]])
    assert trial_answers(shares, excluded).tolist() == [5, -1, 5]
    assert trial_answers(shares).tolist() == [2, 2, 5], "equals stand in the list's order"


@pytest.mark.parametrize("copies", [lambda at: at, lambda at: (at + 1) % 10])
def test_labels_alone_decide_as_scores_do(copies: Any) -> None:
    with serving(custom(copies)) as served, open_suspect(served.url, MARK, form="json") as suspect:
        verdict = TriggerTest()(suspect, MARK)
    assert verdict.accepted is (copies(3) == 3)
    assert (verdict.details["scores"], verdict.details["classes_told"]) == (False, 1)


# ------------------------------------------------------------------------------------------------------ what is sent


@pytest.mark.parametrize("form", ["hf", "v2", "json"])
def test_nothing_but_pixels_is_sent(form: str) -> None:
    """Every body is rebuilt from the pixels alone, and headers hold nothing of the owner, the mark or its labels."""
    mark = minted(MarkKey(b"\x17" * 32), count=12)
    label = well_known(mark)
    services = {"hf": hugging_face(label), "v2": open_inference(label), "json": custom(lambda at: at)}
    service = services[form]
    with serving(service) as served:
        url = f"{served.url}/v2/models/net" if form == "v2" else f"{served.url}/"
        with open_suspect(url, mark, form=form) as suspect:
            TriggerTest()(suspect, mark)
    sent = []
    for each in served.asked[form == "v2" :]:
        if form == "hf":
            sent.append(opened(each.body))
        elif form == "json":
            value = json.loads(each.body)
            assert value.keys() == {"image"}
            sent.append(opened(base64.b64decode(value["image"])))
        else:
            value = json.loads(each.body)
            (tensor,) = value.pop("inputs")
            assert (value, tensor.keys()) == ({}, {"name", "shape", "datatype", "data"})
            sent.append(torch.tensor(tensor["data"]).reshape(tensor["shape"]).mul(255).round().to(torch.uint8))
        usual = {"host", "connection", "user-agent", "accept", "accept-encoding", "content-type", "content-length"}
        assert {name.lower() for name in each.headers} <= usual
        assert "earmark" not in str(each.headers)
    assert torch.equal(torch.cat(sent).sort(0).values, mark.images.sort(0).values)


def test_a_token_goes_into_its_header_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    monkeypatch.setenv("SERVICE_TOKEN", "s3cret-t0ken")
    with serving(hugging_face(LABEL)) as served:
        with open_suspect(f"{served.url}/?key=hidden", MARK, form="hf", token="SERVICE_TOKEN") as suspect:
            verdict = TriggerTest()(suspect, MARK)
            told = [repr(suspect), str(suspect.facts), verdict.to_json(), str(vars(suspect))]
        assert served.asked[0].headers["Authorization"] == "Bearer s3cret-t0ken"
    assert not any("s3cret" in words or "hidden" in words for words in told[:3])
    assert "HTTP Request" in caplog.text
    assert "s3cret" not in caplog.text
    assert "hidden" not in caplog.text
    with serving(hugging_face(LABEL)) as served:
        settings: dict[str, Any] = {"token": "SERVICE_TOKEN", "header": "X-Api-Key"}
        with open_suspect(served.url, MARK, form="hf", **settings) as suspect:
            suspect(images()[:1])
        assert served.asked[0].headers["X-Api-Key"] == "s3cret-t0ken"


def test_a_token_is_not_sent_where_others_can_read_it_and_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "x")
    with pytest.raises(BadInput, match="not encrypted"):
        open_suspect("http://models.example/", MARK, form="hf", token="SERVICE_TOKEN")
    with pytest.raises(BadInput, match="NO_TOKEN holds no value"):
        open_suspect("https://models.example/", MARK, form="hf", token="NO_TOKEN")
    monkeypatch.setenv("SERVICE_TOKEN", "x\r\nHost: evil")
    with pytest.raises(BadInput, match="holds no value that can go into a header"):
        open_suspect("https://models.example/", MARK, form="hf", token="SERVICE_TOKEN")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
def test_what_goes_to_this_machine_goes_through_no_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "s3cret")
    with serving(hugging_face(LABEL)) as served, serving(hugging_face(LABEL)) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        for url in (served.url, served.url.replace("127.0.0.1", "localhost")):
            with open_suspect(url, MARK, form="hf", token="SERVICE_TOKEN") as suspect:
                suspect(images()[:1])
        assert (len(served.asked), len(proxy.asked)) == (2, 0)


@pytest.mark.parametrize("proxy", ["foo://me:s3cret@host", "http://me:s3cret/x@host", "http://host:port"])
def test_a_proxy_that_cannot_be_used_is_one_clear_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(BadInput, match="names a proxy that cannot be used") as raised:
        open_suspect("https://models.example/", MARK, form="hf")
    assert "s3cret" not in str(raised.value)


# -------------------------------------------------------------------------------------------------------------- manners


def failing(times: int, status: int, then: Callable[[Asked], Said], **headers: str) -> Callable[[Asked], Said]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: then(asked) if asked.number >= times else Said(b"busy", status, headers=named)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_service_is_asked_again_with_growing_pauses(status: int) -> None:
    with serving(failing(3, status, hugging_face(LABEL))) as served:
        settings: dict[str, Any] = {"backoff": 0.02, "concurrency": 1}
        with open_suspect(served.url, MARK, form="hf", **settings) as suspect:
            began = time.monotonic()
            assert best(suspect)[:1] == MARK.labels[:1].tolist()
        assert time.monotonic() - began >= 0.02 + 0.04 + 0.08
        assert len(served.asked) == 24 + 3


def test_a_service_that_stays_busy_is_no_verdict() -> None:
    with serving(failing(99, 503, hugging_face(LABEL))) as served:
        with (
            open_suspect(served.url, MARK, form="hf", backoff=0.001, retries=2, concurrency=1) as suspect,
            pytest.raises(Unreachable, match=r"no answer in 3 tries \(it answered with status 503\)"),
        ):
            TriggerTest()(suspect, MARK)
        assert len(served.asked) == 3


def test_retry_after_is_heeded_and_a_long_one_ends_the_audit() -> None:
    with serving(failing(1, 429, hugging_face(LABEL), Retry_After="1")) as served:
        with open_suspect(served.url, MARK, form="hf", concurrency=1, backoff=0.0) as suspect:
            began = time.monotonic()
            suspect(images()[:1])
        assert time.monotonic() - began >= 1
    with (
        serving(failing(1, 429, hugging_face(LABEL), Retry_After="86400")) as served,
        open_suspect(served.url, MARK, form="hf") as suspect,
        pytest.raises(Unreachable, match="left alone for 86400 seconds"),
    ):
        suspect(images()[:1])


def test_a_model_that_is_still_loading_is_waited_for() -> None:
    loading = json.dumps({"error": "Model is loading", "estimated_time": 0.3}).encode()
    for body, pause in ((loading, 0.3), (b'{"estimated_time": true}', 0), (b'{"estimated_time": -1}', 0), (b"[]", 0)):
        answers = iter([Said(body, 503)])
        with serving(lambda asked, answers=answers: next(answers, None) or hugging_face(LABEL)(asked)) as served:  # type: ignore[misc]
            began = time.monotonic()
            with open_suspect(served.url, MARK, form="hf", backoff=0.0) as suspect:
                suspect(images()[:1])
            assert time.monotonic() - began >= pause
            assert len(served.asked) == 2


def test_retry_after_may_be_a_date_and_nonsense_is_none() -> None:
    from email.utils import formatdate

    from earmark.suspects.wire import _wait

    assert _wait({"retry-after": formatdate(time.time() + 30)}) == pytest.approx(30, abs=2)
    assert _wait({"retry-after": formatdate(time.time() - 30)}) == 0
    assert [_wait({"retry-after": text}) for text in ("soon", "-5", "1e9", "", "²")] == [None] * 5


def test_a_budget_is_never_overdrawn() -> None:
    with (
        serving(hugging_face(LABEL)) as served,
        open_suspect(served.url, MARK, form="hf", budget=10) as suspect,
        pytest.raises(Unreachable, match="budget of 10 images is used up"),
    ):
        TriggerTest()(suspect, MARK)
    assert len(served.asked) <= 10


def test_a_rate_is_kept_to() -> None:
    with serving(hugging_face(LABEL)) as served, open_suspect(served.url, MARK, form="hf", rate=100) as suspect:
        began = time.monotonic()
        suspect(images()[:21])
        assert time.monotonic() - began >= 20 / 100


def test_no_rate_keeps_an_audit_longer_than_its_patience() -> None:
    with (
        serving(hugging_face(LABEL)) as served,
        open_suspect(served.url, MARK, form="hf", rate=0.2, patience=1.0) as suspect,
    ):
        began = time.monotonic()
        with pytest.raises(Unreachable, match="too slow"):
            suspect(images()[:4])
        assert time.monotonic() - began < 3
        assert suspect.sent == len(served.asked) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_requests_are_under_way_at_once_and_no_more(concurrency: int) -> None:
    with serving(slowly(0.02, hugging_face(LABEL))) as served:
        with open_suspect(served.url, MARK, form="hf", concurrency=concurrency) as suspect:
            assert best(suspect) == MARK.labels.tolist()
        assert served.most_at_once == concurrency


def test_the_sequential_test_asks_a_service_no_more_than_it_needs() -> None:
    with serving(hugging_face(LABEL)) as served, open_suspect(served.url, MARK, form="hf") as suspect:
        verdict = SequentialTriggerTest()(suspect, MARK)
    assert (verdict.accepted, len(served.asked)) == (True, 7)


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("text", "how", "words"),
    [
        ("http://host/x", {}, "does not tell what it speaks; say --form v2, hf or json"),
        ("http://host/x", {"form": "huging"}, "unknown form 'huging'"),
        ("http://host/x", {"form": "hf", "ratee": 2}, "did you mean 'rate'|unknown setting of the suspect 'ratee'"),
        ("http://host/x", {"form": "hf", "rate": -2}, "rate: expected a number"),
        ("http://host/x", {"form": "hf", "header": "a: b\r\n"}, "header: expected the name of a header"),
        ("http://me:pw@host/x", {"form": "hf"}, "a name or a password in it"),
        ("http:///x", {"form": "hf"}, "expected the http:// or https:// address"),
        ("http://host:99999/x?key=pw", {"form": "hf"}, "is no address of a service"),
        ("http://me:pw/rd@host/x", {"form": "hf"}, "is no address of a service"),
        ("http://me:pw@[::1/v2/models/x", {}, "is no address of a service"),
        ("https:?key=pw", {"form": "hf"}, "expected the http:// or https:// address"),
        ("ftp:x", {}, "unknown kind of suspect 'ftp'"),
        ("onnx:nothing.onnx", {}, "nothing.onnx is not there"),
        ("onnx:nothing.onnx", {"form": "hf"}, "is no service, so it has no form"),
        ("http://host/x", {"form": "json", "template": '{"image": 3}'}, "0 places for the image"),
        ("http://host/x", {"form": "json", "template": "{"}, "template is not JSON"),
    ],
)
def test_wrong_settings_are_one_clear_error(text: str, how: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as raised:
        open_suspect(text, MARK, **how)
    assert "pw" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://me:pw@host/x?key=pw", "http://me:pw/rd@host/x", "http://me:pw@[::1/x?key=pw"])
def test_a_suspects_name_holds_no_password_whatever_the_address(url: str) -> None:
    assert "pw" not in spoken(url)
    assert spoken(url).endswith("/x")


def test_a_model_that_is_not_there_is_an_error_and_not_a_verdict() -> None:
    with serving(open_inference(LABEL)) as served, pytest.raises(BadInput, match="does not describe a model's inputs"):
        open_suspect(f"{served.url}/v2/models/other", MARK)


@pytest.mark.parametrize("shape", [(3, 5, 5), (None, 3, 5, 5)])
def test_the_intake_repeats_grey_scales_and_normalises(shape: tuple[int | None, ...]) -> None:
    intake = Intake.of((None, 3, 4, 4), "float32", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    (out,) = intake(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8))
    assert out.shape == (3, 4, 4)
    assert out.flatten().tolist() == [2.0] * 48
    if len(shape) == 4:
        assert Intake.of((None, 5, 5, 3), "uint8")(torch.zeros(2, 3, 5, 5, dtype=torch.uint8)).shape == (2, 5, 5, 3)
    with pytest.raises(BadInput, match="may be nchw or nhwc"):
        Intake.of((None, 3, 5, 3), "float32")
