"""Sentences: both languages complete, particles right, numbers clean; never an exception or a raw slot."""

from __future__ import annotations

import re
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.catalogue import LANGUAGES, WORDS, conflicts, files, load
from selftune.domain import GuardCheck, Mode, Problem, Reason, Verdict
from selftune.korean import with_particle
from selftune.wording import OPTIONAL, SLOT, duration, instant, number, plain, render, sentence, slots, word

KST = timezone(timedelta(hours=9))
SOURCES = sorted(p for p in WORDS.parent.rglob("*.py"))


def said(template: str, lang: str = "ko", **params: object) -> str:
    words = {**load()[lang], "reason.x": template}
    return render("x", params, lang, {lang: words}, zone=KST)


# ----------------------------------------------------------------------------- the shipped words
def test_both_languages_have_the_same_keys() -> None:
    ko, en = (load()[lang] for lang in ("ko", "en"))
    assert set(ko) == set(en)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_word_file_has_its_twin_and_no_key_is_said_twice_differently(lang: str) -> None:
    twin = {"ko": "en", "en": "ko"}[lang]
    assert [p.name for p in files(WORDS, lang)] == [p.name for p in files(WORDS, twin)]
    assert conflicts(WORDS, lang) == []


def test_both_languages_have_the_same_slots() -> None:
    ko, en = (load()[lang] for lang in ("ko", "en"))
    assert {k: slots(ko[k]) for k in ko if slots(ko[k]) != slots(en.get(k, ko[k]))} == {}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_templates_are_well_formed(lang: str) -> None:
    for key, template in load()[lang].items():
        bare = SLOT.sub("", OPTIONAL.sub(r"\1", template).replace("{{", "").replace("}}", ""))
        assert not re.search(r"[{}]|\[\[|\]\]", bare), f"{key}: {template}"
        assert template.strip(), key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_slot_can_be_filled(lang: str) -> None:
    """With some number and some word in each slot no template falls back to its code."""
    for key, template in load()[lang].items():
        for value in (0.33, "risk_max"):
            text = render(key, dict.fromkeys(slots(template), value), lang, load())
            assert f"({key})" not in text and f"코드 {key}" not in text and f"code {key}" not in text, key


def test_english_has_no_hangul() -> None:
    assert [k for k, v in load()["en"].items() if re.search("[가-힣]", v) and k != "language.ko"] == []


def test_every_problem_that_the_settings_can_raise_has_a_sentence() -> None:
    text = "".join(p.read_text(encoding="utf-8") for p in SOURCES if re.match("settings|config", p.name))
    raised = set(re.findall(r"(?:fail|Misfit|_stop)\(\s*\"([a-z0-9_]+)\"", text))
    raised |= set(re.findall(r"code=\"([a-z0-9_]+)\"", text)) | set(re.findall(r"yield \"([a-z_]+)\"", text))
    assert len(raised) > 50
    assert {c for c in raised if f"problem.{c}" not in load()["ko"]} == set()


# ----------------------------------------------------------------------------- particles
@pytest.mark.parametrize(
    ("text", "pair", "shown"),
    [
        ("위상", "은는", "위상은"),
        ("밴드", "은는", "밴드는"),
        ("위험", "이가", "위험이"),
        ("엔트로피율", "으로로", "엔트로피율로"),
        ("쿨다운", "으로로", "쿨다운으로"),
        ("목표", "으로로", "목표로"),
        ("0.30", "은는", "0.30은"),
        ("0.35", "은는", "0.35는"),
        ("7", "으로로", "7로"),
        ("3", "으로로", "3으로"),
        ("10", "을를", "10을"),
        ("100,000", "이가", "100,000이"),
        ("1000000000000", "이가", "1000000000000가"),
        ("risk_max", "은는", "risk_max는"),
        ("creative_min", "은는", "creative_min은"),
        ("table", "으로로", "table로"),
        ("step", "이가", "step이"),
        ("R", "을를", "R을"),
        ("CPU", "을를", "CPU를"),
        ("5 Hz", "이가", "5 Hz가"),
        ("42%", "이가", "42%가"),
        ("‘위상’", "은는", "‘위상’은"),
        ("漢", "은는", "漢은(는)"),
        ("", "을를", "을(를)"),
        ("4분 10초", "을를", "4분 10초를"),
        ("90분", "과와", "90분과"),
        ("밴드", "과", "밴드와"),
    ],
)
def test_the_particle_follows_the_sound(text: str, pair: str, shown: str) -> None:
    assert with_particle(text, pair) == shown


# ----------------------------------------------------------------------------- numbers and times
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.35 - 0.02, "0.33"),
        (0.1 + 0.2, "0.3"),
        (0.0, "0"),
        (-0.0, "0"),
        (1e-9, "0.000000001"),
        (12345678, "12345678"),
        (-0.005, "-0.005"),
        (1234.56, "1234.6"),
        (0.123456, "0.1235"),
        (1e20, "1" + "0" * 20),
        (float("nan"), "–"),
        (1e-300, "0"),
    ],
)
def test_numbers_have_no_noise(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "ko", "en"),
    [
        (0, "0초", "0 s"),
        (0.2, "0.2초", "0.2 s"),
        (45, "45초", "45 s"),
        (59.7, "1분", "1 min"),
        (250, "4분 10초", "4 min 10 s"),
        (3600, "1시간", "1 h"),
        (3599.6, "1시간", "1 h"),
        (7325, "2시간 2분", "2 h 2 min"),
        (90061, "1일 1시간", "1 d 1 h"),
        (-250, "-4분 10초", "-4 min 10 s"),
        (-0.01, "0초", "0 s"),
    ],
)
def test_durations_are_words(seconds: float, ko: str, en: str) -> None:
    assert (duration(seconds, "ko"), duration(seconds, "en")) == (ko, en)


def test_instants_are_in_the_readers_zone() -> None:
    assert instant(0, KST) == "09:00:00"
    assert instant(0, None) == "00:00:00 UTC"
    assert instant(86_400_000 * 1.5, KST, date=True) == "1970-01-02 21:00:00"


@pytest.mark.parametrize(
    ("template", "params", "shown"),
    [
        ("{d:+}", {"d": 0.012}, "+0.012"),
        ("{d:+}", {"d": -0.005}, "-0.005"),
        ("{d:+}", {"d": 0}, "0"),
        ("{d:~}", {"d": 0.0123}, "0.012"),
        ("{d:+~}", {"d": 123.44}, "+123.4"),
        ("{d:+~}", {"d": -0.0005882}, "-0.00059"),
        ("{p:pct}", {"p": 0.333}, "33.3%"),
        ("{p:.0%}", {"p": 0.95}, "95%"),
        ("{v:.3f}", {"v": 0.5}, "0.500"),
        ("{wait_s:을}", {"wait_s": 250}, "4분 10초를"),
        ("{x:dur|을를}", {"x": 60}, "1분을"),
        ("{until_ms}", {"until_ms": 0}, "09:00:00"),
        ("{metric:이}", {"metric": "risk_band"}, "위험 밴드가"),
        ("{metric}", {"metric": "phase"}, "위상 차이"),
        ("{metric}", {"metric": "latency"}, "latency"),
        ("{metrics}", {"metrics": ["risk_band", "x"]}, "위험 밴드, x"),
        ("{rule}", {"rule": "risk_band"}, "risk_band"),
        ("{verdict}", {"verdict": Verdict.IMPROVED}, "나아짐"),
        ("{mode}", {"mode": Mode.DRY_RUN}, "연습 모드"),
        ("{n:unit}", {"n": 3, "unit": "samples"}, "3개"),
        ("{n:unit}", {"n": 90, "unit": "s"}, "1분 30초"),
        ("{n:int} {n:one|step|steps}", {"n": 1}, "1 step"),
        ("{n:int} {n:one|step|steps}", {"n": 2}, "2 steps"),
        ("{n:+} {n:one|point|points}", {"n": -1}, "-1 point"),
        ("{n} {n:one|step|steps}", {"n": 1.00001}, "1 step"),  # as it reads
        ("{n} {n:one|step|steps}", {"n": 0}, "0 steps"),
        ("{n} {n:one|step is|steps are}", {"n": "1.0"}, "1.0 steps are"),
        ("a[[ {b}]]", {"b": None}, "a"),
        ("a[[ {b}]]", {}, "a"),
        ("a[[ {b}]]", {"b": 0}, "a 0"),
        ("{b}", {"b": None}, "없음"),
        ("{b}", {"b": True}, "예"),
        ("{{{b}}}", {"b": 1}, "{1}"),
        ("{b}", {"b": "{c}"}, "{c}"),
        ("{x}", {"x": float("inf")}, "숫자 아님"),
        ("{f:q|을}", {"f": "a\nb"}, "`a\\nb`를"),
        ("{d}", {"d": {"risk": 0.5}}, "위험 밴드 0.5"),
    ],
)
def test_a_slot_is_shown_as_its_kind(template: str, params: dict[str, object], shown: str) -> None:
    assert said(template, **params) == shown


def test_a_case_of_its_own_has_its_own_sentence() -> None:
    numbers = {"metric": "risk_band", "observed": 147, "history_s": 60.0, "needed_s": 110.0}
    short = render("too_few_samples", {**numbers, "why": "effect_short_history"}, "en", load())
    assert "1 min of quiet time" in short and "147" not in short
    for other in ({"why": "effect_few_samples"}, {"why": "typed by somebody"}, {"why": None}, {}):
        assert "only 147" in render("too_few_samples", {**numbers, **other}, "en", load())


def test_a_unit_has_its_singular() -> None:
    for value, shown in ((1, "1 step"), (2, "2 steps"), (0.5, "0.5 steps")):
        assert said("{n:unit}", "en", n=value, unit="steps") == shown
    assert said("{n:unit}", "en", n=1, unit="a|b") == "1 a|b"  # somebody's own


@pytest.mark.parametrize(
    ("p", "shown"),
    [(1.0, ">99.9%"), (0.9999, ">99.9%"), (0.999, ">99.9%"), (0.9984, "99.8%"), (0.5, "50%"),
     (0.0013, "0.13%"), (0.0005, "<0.1%"), (0.0, "<0.1%")],
)  # fmt: skip
def test_what_was_estimated_is_never_called_certain(p: float, shown: str) -> None:
    params = {"observed": 0.1, "p": p, "limit": 0.006}
    assert shown in sentence(Reason("score_gain", params), "en", load())
    assert shown in sentence(Reason("score_gain", params), "ko", load())


def test_no_english_sentence_counts_one_as_many() -> None:
    """A plural that has a singular somewhere has it behind every number."""
    words = load()["en"]
    pairs = re.findall(r"\{\w+:one\|([a-z]+)\|([a-z]+)\}", "\n".join(words.values()))
    many = "|".join(sorted({more for one, more in pairs if more.startswith(one)}))
    counted = re.compile(r"\{(?!metric)\w+(?::int)?\} (?:[a-z]+ )?(?:" + many + r")\b")
    assert {k: m.group() for k, t in words.items() if (m := counted.search(t))} == {}


# ----------------------------------------------------------------------------- when something is missing
@pytest.mark.parametrize("lang", [*LANGUAGES, "fr"])
def test_an_unknown_code_becomes_a_plain_sentence_with_the_code(lang: str) -> None:
    text = render("no_such_code", {}, lang, load())
    assert "no_such_code" in text
    assert " " in text
    assert "no_such_code" in render("no_such_code", {}, lang, {})


def test_a_missing_slot_or_a_wrong_type_is_no_exception() -> None:
    assert "(코드 x)" in said("{gone}이 없다")
    assert "(코드 x)" in said("{a:no_such_format}", a=1)
    assert "(코드 x)" not in said("{a:.3f}", a="글")


def test_a_problem_begins_with_its_place() -> None:
    problem = Problem(
        code="unknown_key", file="s.yaml", line=3, key="a.b", params={"found": "b", "nearest": None}
    )
    assert sentence(problem, "ko", load()) == "s.yaml 3행, a.b: 모르는 열쇠 `b`입니다."
    assert sentence(problem, "en", load()) == "s.yaml, line 3, a.b: Unknown key `b`."


def test_a_guards_answer_is_said_from_its_reason() -> None:
    check = GuardCheck(code="y", passed=False, observed=1.5, limit=2, unit="s", rule="r")
    words = {"ko": {"guard.y": "{rule:은} {observed:unit}, 한도 {limit:unit}"}}
    assert sentence(check, "ko", words) == sentence(check.reason, "ko", words) == "r은 1.5초, 한도 2초"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb", "a\\u200bb"),
        ("a\xa0b", "a\\xa0b"),
        ("\u3164", "\\u3164"),
        ("\r\n\t", "\\r\\n\\t"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("위상 ω é 漢", "위상 ω é 漢"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_text_that_steers_a_terminal_is_shown_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_words_for_metrics_and_enums() -> None:
    assert word("metric", "creative_band", "ko", load()) == "창의 밴드"
    assert word("metric", "entropy", "en", load()).lower() == "entropy rate"
    assert word("metric", "p95\x07", "ko", load()) == "p95\\x07"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text(), max_size=3),
    st.dictionaries(st.text(), st.floats(), max_size=2),
)


@given(st.sampled_from(sorted(load()["ko"])), st.sampled_from(LANGUAGES), st.data())
def test_no_template_fails_on_any_values(key: str, lang: str, data: st.DataObject) -> None:
    params = {name: data.draw(VALUES) for name in sorted(slots(load()[lang][key]))}
    text = sentence(Reason(key, params), lang, load(), zone=KST)
    assert text
    assert text.isprintable()


def test_a_folder_of_words_is_merged(tmp_path: Path) -> None:
    for lang in LANGUAGES:
        (tmp_path / f"{lang}.d").mkdir()
        (tmp_path / f"{lang}.d" / "a.yaml").write_text("k: one\nyes: 0.10\n", encoding="utf-8")
        (tmp_path / f"{lang}.d" / "b.yaml").write_text("k: two\nm: three\n", encoding="utf-8")
    assert load(tmp_path)["ko"] == {"k": "one", "yes": "0.10", "m": "three"}
    assert conflicts(tmp_path, "ko") == ["k (b.yaml)"]
