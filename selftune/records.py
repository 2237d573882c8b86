"""One line of a ledger file <-> one record: parsing that never raises, keys, times, the older forms.

Answers "what does this line say?" and "how is this record written?". Pure: bytes in, values out.
Every older or foreign form is normalised here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any

from selftune.domain import Decision, Governance, JsonDict, Mode, Quote, RiskWarning, RuleEvent

MAX_LINE = 1_000_000  # bytes; promises rule 7
MAX_DEPTH = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[\]{}]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Reject(StrEnum):
    """Why a line was set aside, or (last three) read only with a repair."""

    NUL = "nul"
    NOT_UTF8 = "not_utf8"
    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    NO_RULE = "no_rule"
    NO_KIND = "no_kind"
    CELLS = "cells"
    UNKNOWN_HEADER = "unknown_header"
    BAD_TS = "bad_ts"
    NAIVE_TS = "naive_ts"
    DUPLICATE_ID = "duplicate_id"


# ----------------------------------------------------------------------------- lines
def strip_end(line: bytes) -> bytes:
    """`line` without its line end (LF or CRLF)."""
    return line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line


def parse_line(line: bytes) -> JsonDict | Reject:
    """The JSON object of one line without its end, or why there is none. Never raises.

    Of duplicate keys the last wins, as in every reader of the family. NaN and Infinity, which Python
    writers produce, are kept as floats; lone surrogates become U+FFFD.
    """
    if len(line) > MAX_LINE:
        return Reject.TOO_LONG
    if b"\0" in line:
        return Reject.NUL
    if _too_deep(line):
        return Reject.TOO_DEEP
    try:
        found = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Reject.NOT_UTF8
    except (ValueError, RecursionError):  # also an integer of more than 4,300 digits
        return Reject.NOT_JSON
    if not isinstance(found, dict):
        return Reject.NOT_OBJECT
    clean: JsonDict = _without_surrogates(found) if _SURROGATE.search(line) else found
    return clean


def _too_deep(line: bytes) -> bool:
    if line.count(b"{") + line.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", line)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return [_without_surrogates(v) for v in value] if isinstance(value, list) else value


def render(record: Mapping[str, Any]) -> bytes:
    """The line of `record` in UTF-8 with its line end; numbers that are not finite become null."""
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode("utf-8", "replace") + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return _finite(value.item()) if hasattr(value, "item") else value


def sha256(line: bytes) -> str:
    """SHA-256 hex of a line's bytes without line end."""
    return hashlib.sha256(line).hexdigest()


def foreign_key(digest: str, occurrence: int) -> str:
    """Key of a record without id: `x-`, 16 hex of its line's SHA-256, `-`, its occurrence from 1."""
    return f"x-{digest[:16]}-{occurrence}"


# ----------------------------------------------------------------------------- values
def number(value: Any) -> float | None:
    """`value` as a finite float, None for anything else (text, null, NaN, true, 10**400)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def instant_ms(stamp: Any, zone: tzinfo) -> tuple[int | None, bool]:
    """(milliseconds UTC or None, whether the stamp was naive and read in `zone`)."""
    if not isinstance(stamp, str):
        return None, False
    try:
        moment = datetime.fromisoformat(stamp.strip())
        naive = moment.tzinfo is None
        return ((moment.replace(tzinfo=zone) if naive else moment) - _EPOCH) // _MS, naive
    except (ValueError, OverflowError):
        return None, False


def stamp(ms: int, zone: tzinfo) -> str:
    """ISO 8601 with milliseconds and the offset of `zone`."""
    return (_EPOCH + ms * _MS).astimezone(zone).isoformat(timespec="milliseconds")


def text(value: Any) -> str:
    """`value` if it is text, its JSON if it is something else, "" for null."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _keys(value: Any) -> tuple[str, ...]:
    return tuple(k for k in value if isinstance(k, str)) if isinstance(value, list) else ()


# ----------------------------------------------------------------------------- records
def rule_event(data: JsonDict, *, key: str, ts_ms: int, at_ms: int) -> RuleEvent | Reject:
    """The rule event of a parsed line; a line without a rule's name is none."""
    rule = _text_or_none(data.get("rule"))
    if rule is None:
        return Reject.NO_RULE
    new = number(data.get("new"))
    return RuleEvent(
        key=key,
        ts_ms=ts_ms,
        at_ms=at_ms,
        actor=text(data.get("actor")),
        rule=rule,
        old=number(data.get("old")),
        new=new,
        note=text(data.get("note")),
        id=_text_or_none(data.get("id")),
        kind=_text_or_none(data.get("kind")),
        decision=_text_or_none(data.get("decision")),
        reverts=_text_or_none(data.get("reverts")),
        look=data.get("look") is True,
        raw_new=json.dumps(data["new"], ensure_ascii=False) if new is None and "new" in data else None,
    )


def decision(data: JsonDict, *, key: str, ts_ms: int, at_ms: int) -> Decision | Reject:
    """The decision of a parsed line, the seed's own form included.

    The seed writes no id and no mode, and `applied` as event objects: those that carry an id give
    keys, the others none; a seed line with something applied was live.
    """
    kind = _text_or_none(data.get("kind"))
    if kind is None:
        return Reject.NO_KIND
    raw = data.get("applied")
    applied = raw if isinstance(raw, list) else []
    mode = data.get("mode")
    live = mode == Mode.LIVE if mode is not None else any(isinstance(a, dict) for a in applied)
    return Decision(
        id=key,
        ts_ms=ts_ms,
        at_ms=at_ms,
        kind=kind,
        act=_text_or_none(data.get("act")),
        mode=Mode.LIVE if live else Mode.DRY_RUN,
        applied=_keys([a.get("id") if isinstance(a, dict) else a for a in applied]),
        abandoned=_keys(data.get("abandoned")),
        data=data,
    )


def governance(data: JsonDict, *, key: str, ts_ms: int, at_ms: int, n: int) -> Governance | Reject:
    """The governance record of a parsed line; `n` is its line number from 1."""
    kind = _text_or_none(data.get("kind"))
    if kind is None:
        return Reject.NO_KIND
    return Governance(
        id=key,
        ts_ms=ts_ms,
        at_ms=at_ms,
        kind=kind,
        by=text(data.get("by")),
        role=text(data.get("role")),
        n=n,
        data=data,
    )


def risk_warning(data: JsonDict, *, ts_ms: int, at_ms: int, zone: tzinfo) -> RiskWarning:
    """The warning of a parsed line. An unknown severity reads as `warn`, never as nothing."""
    severity = data.get("severity")
    signal = data.get("signal")
    return RiskWarning(
        ts_ms=ts_ms,
        at_ms=at_ms,
        severity=severity if severity in ("info", "warn", "crit") else "warn",
        rule=_text_or_none(data.get("rule")),
        note=text(data.get("note")),
        signal=signal if isinstance(signal, dict) else {},
        effect=_text_or_none(data.get("effect")),
        resolves=_resolves(data.get("resolves"), zone),
    )


def _resolves(value: Any, zone: tzinfo) -> Any:
    """An effect key, or `{ts_ms, rule}` with the instant read, so that spellings of one ts are equal."""
    if isinstance(value, dict):
        return {"ts_ms": instant_ms(value.get("ts"), zone)[0], "rule": _text_or_none(value.get("rule"))}
    return _text_or_none(value)


def quote(data: JsonDict, *, ts_ms: int) -> Quote:
    """The evidence sentence of a parsed line; numbers that are none are None, confidence then 0."""
    delta = data.get("delta")
    return Quote(
        ts_ms=ts_ms,
        by=text(data.get("by")),
        rule=text(data.get("rule")),
        delta={str(k): number(v) for k, v in delta.items()} if isinstance(delta, dict) else {},
        confidence=number(data.get("confidence")) or 0.0,
        quote=text(data.get("quote")),
        effect=_text_or_none(data.get("effect")),
    )
