"""What leaves the dashboard: nothing in it runs, nothing in it asks, and both languages say the same."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest

from selftune import catalogue
from selftune.chart_kit import Look, Say, Theme
from selftune.charts import RuleTrace, Span, rule_traces
from selftune.domain import Mode, UnknownId
from selftune.picture import Picture
from selftune.report import chart_png, chart_svg, decision_html, defused, file_name, panels, timeline_csv
from tests.stage import Scene, Story, ms
from tests.test_cards import EXPECTED, WHY, WINDOW

NASTY = '<script>alert("1")</script> **b** ![x](http://evil.example/a.png) \u202eabc \x1b[31m'


def story() -> Story:
    s = Story()
    s.at(-900).foreign("risk_max", 0.36, actor="=cmd|' /C calc'!A0", note=NASTY)
    s.at(-600).foreign("risk_max", 0.35, actor="김 철수", note="=1+1")
    return s


def suggested() -> tuple[Picture, str]:
    s = story().at(100)
    proposal = {"rule": "risk_max", "old": 0.35, "new": 0.33, "reasons": [WHY], "expected": EXPECTED}
    did = s.say("cycle", "step", mode=Mode.DRY_RUN, proposals=[proposal], window=WINDOW)
    s.at(150).say("manual", "reject", of=did, actor="lee", why=NASTY)
    return Scene(s).picture(160), did


# ----------------------------------------------------------------------------- CSV
def test_the_csv_opens_in_a_spreadsheet_and_runs_nothing() -> None:
    raw = timeline_csv(Scene(story()).picture(0))
    assert raw.startswith(b"\xef\xbb\xbf") and b"\r\n" in raw
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    assert [r["rule"] for r in rows] == ["risk_max", "risk_max"]
    assert rows[0]["actor"] == "김 철수" and rows[0]["note"] == "'=1+1"
    assert rows[1]["actor"] == "'=cmd|' /C calc'!A0" and float(rows[1]["new"]) == 0.36
    assert rows[0]["ts"].endswith("+09:00")


def test_filters_are_kept() -> None:
    p = Scene(story()).picture(0)
    assert timeline_csv(p, actor="김 철수").count(b"\r\n") == 2
    assert timeline_csv(p, rule="creative_min").count(b"\r\n") == 1


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "  =1", "\n=1"])
def test_a_formula_is_defused(text: str) -> None:
    assert str(defused(text)).startswith("'")


@pytest.mark.parametrize(("cell", "shown"), [("plain", "plain"), (-0.5, -0.5), (None, ""), ("a\0b", "ab")])
def test_what_runs_nothing_is_left_alone(cell: object, shown: object) -> None:
    assert defused(cell) == shown  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- the report
class Page(HTMLParser):
    """Every tag and every address of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]


@pytest.mark.slow
def test_the_report_holds_everything_and_asks_nobody() -> None:
    p, did = suggested()
    text = decision_html(p, did).decode()
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image"}
    assert [a for a in page.addresses if not a.startswith(("#", "data:"))] == [] and page.handlers == []
    assert "default-src 'none'" in text and "@media print" in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert text.count("<svg") == 6  # ruler, receipt and metric, in two languages


@pytest.mark.slow
def test_both_languages_say_it() -> None:
    p, did = suggested()
    text = decision_html(p, did).decode()
    ko, en = text.split('<section lang="en">')
    assert "risk_max를 0.35에서 0.33으로 낮추기" in ko and "Lower risk_max from 0.35 to 0.33" in en
    assert "왜?" in ko and "Why?" in en
    assert not re.search("[가-힣]", re.sub(r"<svg.*?</svg>|lee|굵게", "", en, flags=re.S))
    assert not re.search(r"\b(sugg|report|check|hand)\.[a-z_]+\b|\(code |\(코드 ", text)


def test_what_people_typed_stays_text() -> None:
    p, did = suggested()
    text = decision_html(p, did).decode()
    assert "&lt;script&gt;" in text and "\u202e" not in text and "\x1b" not in text
    assert "**b**" in text


def test_any_decision_has_a_report() -> None:
    s = Story().at(10)
    did = s.say("cycle", "hold", reasons=[{"code": "guard.pace", "params": {"limit": 180}}])
    text = decision_html(Scene(s).picture(20), did).decode()
    assert "3분" in text and "3 min" in text


def test_an_act_by_hand_reports_what_it_did_and_the_suggestion_behind_it() -> None:
    s = Story().at(100)
    proposal = {"rule": "risk_max", "old": 0.35, "new": 0.33, "reasons": [WHY], "expected": EXPECTED}
    suggestion = s.say("cycle", "step", mode=Mode.DRY_RUN, proposals=[proposal], window=WINDOW)
    applied = s.at(150).say("manual", "apply", {"risk_max": 0.33}, of=suggestion, actor="lee", why="try")
    effect = {"metrics": {"risk_band": {"delta": -0.012, "lo": -0.02, "hi": -0.004, "odds": 40}}}
    s.at(250).verdict(applied, "IMPROVED", reasons=[WHY], effect=effect)
    text = decision_html(Scene(s).picture(260), applied).decode()
    for words in (
        "Applied by hand",
        "confirmed",
        "−0.012 (better)",
        "Lower risk_max from 0.35 to 0.33",
        "try",
    ):
        assert words in text, words


def test_without_samples_it_says_so() -> None:
    s = Story().at(10)
    did = s.say("cycle", "hold", reasons=[])
    p = Scene(s, start=15).picture(20)
    far = replace(p.snap, series=p.snap.series.between(0, 1))
    assert "there is no picture" in decision_html(Picture(far), did).decode()


def test_unknown_decision() -> None:
    p, _ = suggested()
    with pytest.raises(UnknownId):
        decision_html(p, "nowhere")


def test_a_file_name_that_every_system_takes() -> None:
    p, did = suggested()
    assert re.fullmatch(r"selftune-\d\d-\d\d-d1\.html", file_name(p, did))
    assert re.fullmatch(r"selftune-00-00-[A-Za-z]+\.html", file_name(p, "../<x>:*"))


# ----------------------------------------------------------------------------- pictures
@pytest.mark.slow
@pytest.mark.parametrize("theme", list(Theme))
@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_stacked_panels_are_charts_of_their_own(language: str, theme: Theme) -> None:
    s = Story()
    say = Say(language, catalogue.load(), ZoneInfo("Asia/Seoul"))
    rows = [
        RuleTrace(rule=r, t_ms=[ms(0), ms(50)], values=[r.init, r.min]) for r in s.settings.rules.values()
    ]
    look = Look(language=language, theme=theme)
    view = rule_traces(rows, Span(start_ms=ms(0), end_ms=ms(100)), look=look, say=say)
    found = panels(view)
    assert len(found) == 2 and all("vconcat" not in v.spec for v in found)
    for v in (view, *found):
        assert chart_svg(v).startswith(b"<svg") and b"NaN" not in chart_svg(v)
    assert chart_png(view, scale=1).startswith(b"\x89PNG")
    assert panels(found[0]) == [found[0]]
