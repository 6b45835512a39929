"""The report: self-contained, hostile names are text, and its words say what the verdicts say."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.errors import BadInput
from earmark.reports import Picture, Report, Ruling, Table, render, summarise, write_report

HOSTILE = "</td><script>alert(1)</script>\"><img src='http://evil.example/x' onerror=alert(1)>{{ 7*7 }}{% x %}&amp;"
PICTURE = Picture(b"\x89PNG", "caption", "alternative")


def ruling(suspect: str = "copy", claimant: str = "owner", accepted: bool | None = True) -> Ruling:
    log10_p = {True: -40.3, False: -0.3, None: None}[accepted]
    return Ruling(suspect, claimant, accepted, log10_p, 1e-6, "because", 96.0, 100, "Binomial(100, 1/10)", 0.98)


class Page(HTMLParser):
    """Tags, the addresses that they would load, and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile(text: str) -> Report:
    made = ruling(text, text)
    return Report(
        title=text,
        rulings=[Ruling(text, text, False, -0.3, 1e-6, text, 1.0, 2, text), made],
        subtitle=text,
        tables=[Table((text, text), ((text, text),), text, text)],
        pictures=[Picture(b"x", text, text)],
        settings={text: text},
        notes=[text],
    )


def test_the_page_loads_nothing_from_elsewhere() -> None:
    text = render(Report("t", [ruling()], tables=[Table(("a",), (("b",),))], pictures=[PICTURE]))
    page = Page(text)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"@import|url\(", text)
    assert "default-src 'none'" in text


def test_hostile_text_is_shown_and_never_acts() -> None:
    page = Page(render(hostile(HOSTILE)))
    harmless = Page(render(hostile("harmless")))
    assert page.tags == harmless.tags
    assert page.handlers == []
    assert page.text.count(HOSTILE) >= 8
    assert "49" not in page.text.replace(HOSTILE, "")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_no_text_adds_a_tag(text: str) -> None:
    tags = Page(render(hostile(text or "x"))).tags
    empty = Page(render(hostile("harmless"))).tags
    assert tags == empty


def test_the_same_report_gives_the_same_page() -> None:
    assert render(hostile("a")) == render(hostile("a"))


def test_write_report_is_atomic_and_names_a_missing_folder(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", Report("t", [ruling()]))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(BadInput, match="nowhere"):
        write_report(tmp_path / "nowhere" / "report.html", Report("t"))


def test_every_ruling_has_its_row_with_word_p_and_reason() -> None:
    page = Page(render(Report("t", [ruling(), ruling("innocent", accepted=False), ruling("odd", accepted=None)])))
    for word in (
        "accepted",
        "rejected",
        "inconclusive",
        "10⁻⁴⁰",
        "96 of 100",
        "98.00",
        "because",
        "Binomial(100, 1/10)",
    ):
        assert word in page.text


def test_a_report_without_verdicts_has_no_summary_of_them() -> None:
    assert "What was found" not in Page(render(Report("t"))).text


def test_summary_names_who_won_and_who_lost() -> None:
    found = summarise([ruling("stolen"), ruling("innocent", accepted=False), ruling("stolen", "forger", False)]).found
    assert found == (
        "The claim of “owner” was upheld for “stolen”; rejected for “innocent”.",
        "The claim of “forger” was rejected for “stolen”.",
    )


def test_summary_quotes_the_weakest_upheld_claim() -> None:
    weak = Ruling("b", "owner", True, -7.5, 1e-6, "r")
    assert "at most 10⁻⁷," in " ".join(summarise([ruling(), weak]).means)


def test_summary_promises_no_probability_where_nothing_was_upheld() -> None:
    words = " ".join(summarise([ruling(accepted=False), ruling(accepted=None)]).means)
    assert "probability" not in words
    assert "Left open" in words


def test_two_upheld_claims_on_one_suspect_are_pointed_out() -> None:
    assert "More than one claim on “s”" in " ".join(summarise([ruling("s", "a"), ruling("s", "b")]).found)
    assert "More than one" not in " ".join(summarise([ruling("s", "a"), ruling("t", "b")]).found)


def test_each_null_is_a_sentence_of_its_own_with_one_full_stop() -> None:
    nulls = ("Each match is chance.", "Binomial(100, 1/10)", "Each match is chance.")
    page = Page(render(Report("t", [replace(ruling(), null=words) for words in nulls])))
    assert page.text.count("Null hypothesis: Each match is chance.\n") == 1
    assert page.text.count("Null hypothesis: Binomial(100, 1/10).\n") == 1


def test_a_name_breaks_between_words_unless_a_word_alone_is_too_long() -> None:
    (rule,) = re.findall(r"\.verdicts tbody th[^{]*{([^}]*)}", render(Report("t", [ruling()])))
    assert "overflow-wrap: break-word" in rule
    assert "max-width" in rule
