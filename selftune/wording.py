"""Reason codes and numbers -> sentences for people, in Korean or English.

Answers "how is this record said?". It never fails: an unknown code or a missing slot becomes a plain
sentence that holds the code. The catalogue (language -> key -> template) is loaded by layer 2.

Templates: `{name}` is a parameter; `{name:spec}` says how, with the parts of `spec` set apart by `|`:
`dur` (seconds in words), `time` (instant, HH:MM:SS), `date`, `+` (signed), `~` (two digits that count; both:
`+~`), `pct` (0..1 as per cent), `int`, `unit` (a number with the unit in the parameter `unit`), `q` (as
typed, between backticks), `.3f` or `.0%` (Python's own), and a Korean particle: `{rule:은는}`,
`{limit:dur|을를}`. `{n:one|step|steps}` is no number but the word that goes with it: the first where it reads
1, else the second; a unit's entry (`unit.steps: " step| steps"`) likewise. `[[…{name}…]]` is left out when
`name` is absent or None. `{{` and `}}` are braces. Without a spec the value says how: a name in `*_s` is a
duration, one in `*_ms` an instant, and a word under a name of `WORD_KINDS` is shown by its entry
(`metric.risk_band`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import Any

from selftune.domain import GuardCheck, Problem, Reason, long_name
from selftune.korean import PAIR_OF, with_particle

Catalogue = Mapping[str, Mapping[str, str]]

FALLBACK_LANGUAGE = "en"
# prefixes under which a bare code is looked up, in this order
PREFIXES = ("", "reason.", "problem.", "guard.", "hold.", "error.")
SLOT = re.compile(r"\{([A-Za-z_]\w*)(?::([^{}]*))?\}")
_TOKEN = re.compile(r"\{\{|" + SLOT.pattern + r"|\}\}")  # read from the left: `{{{b}}}` is a slot in braces
OPTIONAL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
LONGEST_TEXT = 200
SURE = 0.999  # from here on a chance is "more than", and its complement "less than"
# parameters whose values are our own words, shown as `<kind>.<value>`; names that people give never are
WORD_KINDS = frozenset(
    {"metric", "verdict", "mode", "phase", "state", "role", "policy", "severity", "act", "kind", "origin",
     "confirm", "identity", "outcome", "unit", "language", "item", "grade"}
)  # fmt: skip
_PYTHON_FORMAT = re.compile(r"[+]?(?:\.\d{1,2})?[feg%d]")
_INVISIBLE_LETTERS = frozenset("ㅤᅟᅠﾠ")  # Hangul fillers are letters that show nothing
_LAST_RESORT = {"ko": "아직 풀어 쓴 설명이 없습니다 (코드 {code}).",
                "en": "There is no plain explanation for this yet (code {code})."}  # fmt: skip
# units of a time's two largest parts, used when the catalogue itself is missing
_UNITS = {"ko": ("일", "시간", "분", "초"), "en": (" d", " h", " min", " s")}


class _Absent(LookupError):
    """A slot that the template needs has no parameter."""


@dataclass(frozen=True)
class _Page:
    """What one rendering needs beside the template: the words, the language, the zone, the numbers."""

    lang: str
    words: Mapping[str, str]
    zone: tzinfo | None
    params: Mapping[str, Any]


# ----------------------------------------------------------------------------- sentences
def render(
    code: str, params: Mapping[str, Any], lang: str, catalogue: Catalogue, *, zone: tzinfo | None = None
) -> str:
    """The sentence for `code` in `lang`, with `params` in its slots; instants are shown in `zone` (else UTC).

    `code` is a key of the catalogue, or a bare code found under one of `PREFIXES`; where the parameter `why`
    names a case of its own (`<code>.<why>`), that entry. Never raises.
    """
    words = catalogue.get(lang) or catalogue.get(FALLBACK_LANGUAGE) or {}
    page = _Page(lang=lang, words=words, zone=zone, params=params)
    why = params.get("why")
    codes = (f"{code}.{why}", code) if isinstance(why, str) else (code,)
    template = next((words[p + c] for c in codes for p in PREFIXES if p + c in words), None)
    if template is not None:
        try:
            return _fill(template, page)
        except (_Absent, ValueError, TypeError, OverflowError, OSError):
            pass  # a caller's parameters do not fit the template: the code is still the truth
    return _last_resort(code, page)


def sentence(
    item: Reason | Problem | GuardCheck, lang: str, catalogue: Catalogue, *, zone: tzinfo | None = None
) -> str:
    """The sentence for a reason, a guard's answer or a problem; a problem begins with where it is."""
    if isinstance(item, GuardCheck):
        item = item.reason
    if isinstance(item, Reason):
        return render(item.code, item.params, lang, catalogue, zone=zone)
    text = render(_problem_key(item.code, lang, catalogue), {"key": item.key, **item.params}, lang, catalogue,
                  zone=zone)  # fmt: skip
    place = {"file": item.file, "line": item.line, "key": item.key}
    return render("common.where", place, lang, catalogue) + text


def _problem_key(code: str, lang: str, catalogue: Catalogue) -> str:
    """A problem's own entry first: a guard may use the same bare code in another sense."""
    words = catalogue.get(lang) or catalogue.get(FALLBACK_LANGUAGE) or {}
    return f"problem.{code}" if f"problem.{code}" in words else code


def word(kind: str, value: str, lang: str, catalogue: Catalogue) -> str:
    """The display word of an enum value or a metric (`metric`, `risk` -> 위험 밴드); else as written."""
    words = catalogue.get(lang) or catalogue.get(FALLBACK_LANGUAGE) or {}
    return _word(words, kind, str(value)) or plain(str(value))


def slots(template: str) -> frozenset[str]:
    """Names of the slots of a template."""
    return frozenset(m.group(1) for m in _TOKEN.finditer(template) if m.group(1))


def _last_resort(code: str, page: _Page) -> str:
    text = page.words.get("common.unknown_code", "")
    if "{code}" not in text:
        text = _LAST_RESORT.get(page.lang, _LAST_RESORT[FALLBACK_LANGUAGE])
    return text.replace("{code}", plain(code))


def _fill(template: str, page: _Page) -> str:
    def optional(match: re.Match[str]) -> str:
        part = match.group(1)
        return part if all(page.params.get(name) is not None for name in slots(part)) else ""

    def token(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()[0]
        return _show(match.group(1), match.group(2) or "", page)

    # one pass, so that a value that holds braces is never read as a template
    return _TOKEN.sub(token, OPTIONAL.sub(optional, template))


# ----------------------------------------------------------------------------- one slot
def _show(name: str, spec: str, page: _Page) -> str:
    if name not in page.params:
        raise _Absent(name)
    particle = ""
    how = ""
    parts = spec.split("|")
    if parts[0] == "one":
        return _counted(page.params[name], *parts[1:])
    for part in parts:
        part = part.strip()
        if part in PAIR_OF:
            particle = part
        elif part:
            how = part
    text = _value(name, page.params[name], how, page)
    return with_particle(text, particle) if particle else text


def _counted(value: Any, one: str, more: str) -> str:
    """`one` for what reads 1 or -1, else `more`."""
    counts = isinstance(value, int | float) and not isinstance(value, bool)
    return one if counts and number(value).removeprefix("-") == "1" else more


def _value(name: str, value: Any, how: str, page: _Page) -> str:
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return page.words.get("common.none", "–")
    if how == "q":
        return f"`{plain(str(value))}`"
    if isinstance(value, bool):
        return page.words.get("common.yes" if value else "common.no", str(value).lower())
    if isinstance(value, str):
        return _text(name, value, page)
    if isinstance(value, int | float):
        return _number(name, value, how, page)
    if isinstance(value, Mapping):
        return _join(
            f"{_text('metric', str(k), page)} {_value(name, v, how, page)}" for k, v in value.items()
        )
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return _join(_value(name, v, how, page) for v in value)
    return plain(str(value))


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _text(name: str, value: str, page: _Page) -> str:
    kind = name.removesuffix("s")  # `metrics` holds metrics
    return (_word(page.words, kind, value) if kind in WORD_KINDS else None) or plain(value)


def _word(words: Mapping[str, str], kind: str, value: str) -> str | None:
    # `word.` keeps a word apart from a reason code of the same name (`mode.dry_run` is both)
    found = words.get(f"word.{kind}.{value}", words.get(f"{kind}.{value}"))
    return words.get(f"metric.{long_name(value)}") if found is None and kind == "metric" else found


def _number(name: str, value: float, how: str, page: _Page) -> str:
    if not math.isfinite(value):
        return page.words.get("common.not_finite", "–")
    if how in ("dur", "time", "date"):
        return duration(value, page.lang) if how == "dur" else instant(value, page.zone, date=how == "date")
    if how in ("+", "~", "+~"):
        return number(value, signed="+" in how, digits=2 if "~" in how else 4)
    if how == "pct":
        return _chance(value) if name == "p" else number(value * 100, digits=3) + "%"
    if how == "int":
        return f"{round(value)}"
    if how == "unit":
        return quantity(value, str(page.params.get("unit") or ""), page.lang, page.words, zone=page.zone)
    if how:
        if not _PYTHON_FORMAT.fullmatch(how):
            raise ValueError(f"unknown format {how!r}")
        return format(round(value) if how.endswith("d") else value, how)
    if name.endswith("_s"):
        return duration(value, page.lang)
    if name.endswith("_ms"):
        return instant(value, page.zone)
    return number(value)


def _chance(p: float) -> str:
    """A chance in per cent; what was only estimated is neither certain nor impossible."""
    if p >= SURE:
        return f">{number(SURE * 100, digits=3)}%"
    if p <= 1.0 - SURE:
        return f"<{number((1.0 - SURE) * 100, digits=3)}%"
    return number(p * 100, digits=3) + "%"


# ----------------------------------------------------------------------------- values
def number(value: float, *, signed: bool = False, digits: int = 4) -> str:
    """`value` without float noise: whole digits always, else `digits` significant ones; never an exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = min(12, max(0 if value == int(value) else 1, digits - 1 - math.floor(math.log10(abs(value)))))
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if text in ("-0", "0"):
        return "0"
    return f"+{text}" if signed and value > 0 else text


def duration(seconds: float, lang: str) -> str:
    """Seconds in words, at most the two largest parts: `4분 10초`, `4 min 10 s`."""
    day, hour, minute, second = _UNITS.get(lang, _UNITS[FALLBACK_LANGUAGE])
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 9.95:
        return f"{sign if round(seconds, 1) else ''}{number(round(seconds, 1))}{second}"
    total = round(seconds)
    sizes = ((86_400, day), (3_600, hour), (60, minute), (1, second))
    first = next(i for i, (size, _) in enumerate(sizes) if total >= size)
    step = sizes[min(first + 1, 3)][0]
    total = (total + step // 2) // step * step  # what is not shown is rounded, not cut
    shown = [f"{total // size if i == 0 else total % sizes[i - 1][0] // size}{unit}"
             for i, (size, unit) in enumerate(sizes)]  # fmt: skip
    first = next(i for i, (size, _) in enumerate(sizes) if total >= size)
    parts = [text for text in shown[first : first + 2] if not re.match(r"0\D", text)]
    return sign + " ".join(parts)


def instant(ms: float, zone: tzinfo | None, *, date: bool = False) -> str:
    """An instant in `zone` as HH:MM:SS, with `date` YYYY-MM-DD before it; without a zone in UTC, and said."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    text = moment.astimezone(zone or UTC).strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")
    return text if zone else f"{text} UTC"


def quantity(
    value: float, unit: str, lang: str, words: Mapping[str, str], *, zone: tzinfo | None = None
) -> str:
    """A number with its unit's word: seconds in words, `ms_utc` as an instant, `share` as per cent."""
    if unit in ("s", "seconds"):
        return duration(value, lang)
    if unit == "ms_utc":
        return instant(value, zone)
    if unit == "share":
        return number(value * 100, digits=3) + "%"
    known = words.get(f"unit.{unit}")
    if known is None:
        return number(value) + (f" {plain(unit)}" if unit else "")
    one, bar, more = known.partition("|")
    return number(value) + (_counted(value, one, more) if bar else one)


def plain(text: str, longest: int = LONGEST_TEXT) -> str:
    """`text` safe to show in a terminal: what is invisible or steers it is written as an escape, long cut."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(_escape(c) if _steers(c) else c for c in cut)


def unsteered(json_text: str) -> str:
    """JSON text with the same meaning in which nothing steers a terminal: `\\u` escapes instead."""
    if json_text.isascii() and json_text.replace("\n", "").isprintable():
        return json_text
    return "".join(json.dumps(c)[1:-1] if c not in "\n" and _steers(c) else c for c in json_text)


def _steers(char: str) -> bool:
    """Control, format (bidi, zero width), private and unassigned characters, odd blanks, Hangul fillers."""
    return not char.isprintable() or char in _INVISIBLE_LETTERS


def _escape(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or (
        f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}" if ord(char) < 65536
        else f"\\U{ord(char):08x}")  # fmt: skip
