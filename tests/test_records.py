"""Wild lines: nothing raises, nothing good is lost, everything set aside is counted by its reason."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune import effectrows, records
from selftune.book import APPROVALS, DECISIONS, EFFECTS, HISTORY, RISKS, Records, open_crits
from selftune.domain import Mode
from selftune.gather import FILES, Gather, Moment
from selftune.ledger import MemoryLedger
from selftune.records import Reject

GOLDEN = Path(__file__).parent / "golden" / "ledgers"
SEOUL = ZoneInfo("Asia/Seoul")
NOW = 1_772_400_000_000


def read(name: str, data: bytes) -> Records:
    ledger = MemoryLedger(timezone="Asia/Seoul", clock=lambda: NOW)
    ledger.put(name, data)
    return ledger.read()


def golden(name: str, file: str) -> Records:
    return read(name, (GOLDEN / file).read_bytes())


def instant(text: str) -> int:
    found, _ = records.instant_ms(text, SEOUL)
    assert found is not None
    return found


# ----------------------------------------------------------------------------- the wild history
def test_every_good_line_of_a_wild_history_is_read() -> None:
    found = golden(HISTORY, "rules_history_wild.jsonl")
    assert [(e.actor, e.rule, e.new, e.raw_new) for e in found.events] == [
        ("Lumen", "risk_max", 0.35, None),
        ("사람", "risk_max", 0.33, None),
        ("naive", "creative_min", 0.24, None),
        ("rules_rollback", "risk_max", None, "null"),
        ("x", "risk_max", None, "NaN"),
        ("x", "risk_max", None, '"0.31"'),
        ("x", "risk_max", None, "true"),
        ("x", "risk_max", None, "Infinity"),
        ("x", "risk_max", None, "9" * 400),
        ("x", "creative_min", 0.26, None),
        ("y", "risk_max", 9.5, None),
        ("Lumen", "risk_max", 0.34, None),
        ("Lumen", "risk_max", 0.34, None),
        ("twice", "creative_min", 0.25, None),
        ("twice", "creative_min", 0.25, None),
        ("\ufffd", "risk_max", 0.25, None),
    ]
    assert found.unfinished == (HISTORY,)


def test_what_is_set_aside_is_counted_by_reason() -> None:
    assert golden(HISTORY, "rules_history_wild.jsonl").rejects == {
        HISTORY: {
            "not_json": 2,
            "nul": 1,
            "not_utf8": 1,
            "not_object": 2,
            "too_deep": 1,
            "no_rule": 1,
            "naive_ts": 1,
            "bad_ts": 1,
            "duplicate_id": 1,
        }
    }


def test_keys_are_unique_and_follow_the_contract() -> None:
    events = golden(HISTORY, "rules_history_wild.jsonl").events
    assert len({e.key for e in events}) == len(events)
    first = (GOLDEN / "rules_history_wild.jsonl").read_bytes().split(b"\n")[0].removeprefix(b"\xef\xbb\xbf")
    assert events[0].key == f"x-{hashlib.sha256(first).hexdigest()[:16]}-1"
    twice = [e.key for e in events if e.actor == "twice"]
    assert twice[0][:-1] == twice[1][:-1] and [k[-2:] for k in twice] == ["-1", "-2"]
    assert events[11].key == "01HX0000000000000000000001" and events[12].key.startswith("x-")


def test_stamps_are_read_with_and_without_an_offset() -> None:
    events = golden(HISTORY, "rules_history_wild.jsonl").events
    assert events[0].ts_ms == instant("2026-03-01T00:00:00.123Z")
    assert events[2].ts_ms == instant("2026-03-01T09:05:00+09:00")
    assert events[3].ts_ms == instant("2026-03-01T09:06:00+09:00")
    # a stamp that is none: the value counts, at the time of the line before it
    assert events[9].ts_ms == instant("2026-03-01T09:13:00+09:00")


@pytest.mark.parametrize(
    "stamp",
    [
        "",
        "2026",
        "now",
        None,
        5,
        True,
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-02-30T00:00:00Z",
        "2026-03-01T25:00",
    ],
)
def test_odd_stamps_never_raise(stamp: Any) -> None:
    found, naive = records.instant_ms(stamp, SEOUL)
    assert found is None or isinstance(found, int)
    assert naive in (True, False)


@given(st.integers(min_value=-(10**13), max_value=2 * 10**14))
def test_an_instant_survives_being_written(ms: int) -> None:
    assert records.instant_ms(records.stamp(ms, SEOUL), UTC) == (ms, False)


# ----------------------------------------------------------------------------- lines
@given(st.binary(max_size=300))
def test_no_line_raises(line: bytes) -> None:
    assert isinstance(records.parse_line(line), dict | Reject)


@given(st.lists(st.binary(max_size=120), max_size=12), st.sampled_from(FILES))
def test_no_file_raises(lines: list[bytes], name: str) -> None:
    found = read(name, b"\n".join(lines))
    assert found.chain.n >= 0


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)
_FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "ts",
            "id",
            "rule",
            "kind",
            "new",
            "old",
            "applied",
            "abandoned",
            "resolves",
            "effect",
            "delta",
            "signal",
            "severity",
            "approvals_head",
            "prev",
            "mode",
            "confidence",
            "actor",
        ]
    ),
    _JSON | st.sampled_from(["risk_max", "2026-03-01T09:00:00+09:00", "crit", "cycle"]),
    max_size=8,
)


@given(st.lists(_FIELDS, max_size=6), st.sampled_from([f for f in FILES if f != EFFECTS]))
def test_no_object_of_the_right_names_and_wrong_types_raises(objects: list[Any], name: str) -> None:
    found = read(name, b"".join(json.dumps(o).encode() + b"\n" for o in objects))
    total = sum(map(len, (found.events, found.decisions, found.governance, found.warnings, found.quotes)))
    assert total <= len(objects)


def test_depth_is_measured_outside_of_texts() -> None:
    assert records.parse_line(json.dumps({"a": "[" * 500}).encode()) == {"a": "[" * 500}
    assert records.parse_line(json.dumps({"a": '\\"' + "{" * 500}).encode()) == {"a": '\\"' + "{" * 500}
    assert records.parse_line(b'{"a":' + b"[" * 64 + b"]" * 64 + b"}") is Reject.TOO_DEEP
    assert isinstance(records.parse_line(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"), dict)


def test_a_line_over_one_megabyte_is_set_aside() -> None:
    assert records.parse_line(b'{"a":"' + b"x" * 1_000_000 + b'"}') is Reject.TOO_LONG


def test_what_has_no_json_form_becomes_null() -> None:
    odd = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, "e": (1, 2), "f": "가"}
    line = records.render(odd)
    assert json.loads(line, parse_constant=lambda c: pytest.fail(c)) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
        "e": [1, 2],
        "f": "가",
    }
    assert line.endswith(b"\n") and "가".encode() in line


def test_numpy_scalars_are_written_as_numbers() -> None:
    import numpy as np

    line = records.render({"a": np.float64(0.25), "b": np.int64(3), "c": np.bool_(True)})
    assert json.loads(line) == {"a": 0.25, "b": 3, "c": True}


# ----------------------------------------------------------------------------- older decisions
def test_the_seed_s_own_decisions_are_read() -> None:
    found = golden(DECISIONS, "decisions_seed.jsonl")
    assert [(d.kind, d.mode, d.applied, d.abandoned) for d in found.decisions] == [
        ("suggest", Mode.DRY_RUN, (), ()),
        ("suggest", Mode.DRY_RUN, (), ()),
        ("cycle", Mode.LIVE, (), ()),
        ("cycle", Mode.DRY_RUN, (), ()),
    ]
    assert found.decisions[1].data["deltas"]["d_risk"] == 0.002
    assert all(d.id.startswith("x-") for d in found.decisions) and not found.rejects


def test_applied_holds_keys_or_event_objects() -> None:
    line = {"kind": "cycle", "applied": ["A", {"id": "B"}, {"rule": "r"}, 3]}
    assert read(DECISIONS, records.render(line)).decisions[0].applied == ("A", "B")


# ----------------------------------------------------------------------------- warnings
def test_a_crit_is_open_until_a_later_record_resolves_it() -> None:
    ts = "2026-03-01T09:00:00+09:00"
    crits = [
        {"ts": ts, "severity": "crit", "rule": "risk_max", "signal": {}, "note": ""},
        {"ts": ts, "severity": "crit", "rule": "creative_min", "note": "", "effect": "K"},
    ]
    data = b"".join(map(records.render, crits))
    assert len(open_crits(read(RISKS, data))) == 2
    by_effect = records.render({"ts": ts, "severity": "info", "rule": None, "note": "", "resolves": "K"})
    assert [w.rule for w in open_crits(read(RISKS, data + by_effect))] == ["risk_max"]
    # another spelling of the same instant
    by_ts = records.render(
        {
            "ts": ts,
            "severity": "info",
            "note": "",
            "resolves": {"ts": "2026-03-01T00:00:00Z", "rule": "risk_max"},
        }
    )
    assert [w.rule for w in open_crits(read(RISKS, data + by_ts))] == ["creative_min"]
    assert len(open_crits(read(RISKS, by_effect + data))) == 2, "what comes before cannot close it"


def test_an_unknown_severity_is_a_warning() -> None:
    assert read(RISKS, b'{"severity": "fatal", "note": "x"}\n').warnings[0].severity == "warn"


# ----------------------------------------------------------------------------- effects
def test_the_family_s_effects_are_read() -> None:
    found = golden(EFFECTS, "effects_family.csv")
    assert [(r.rule, r.d["phase"], r.d["creative"], r.d["risk"]) for r in found.effect_rows] == [
        ("risk_max", -0.012, None, -0.009),
        ("creative_min", None, None, -0.009),
    ]
    assert found.effect_rows[1].cells["actor"] == "O'Hara, J."
    assert found.rejects == {EFFECTS: {"cells": 1, "bad_ts": 1}} and found.effects_known
    old = golden(EFFECTS, "effects_family_old.csv")
    assert old.effects_known and old.effect_rows[0].d == {
        "phase": -0.01,
        "entropy": 0,
        "creative": 0.01,
        "risk": -0.01,
    }


def test_an_unknown_header_is_said() -> None:
    found = golden(EFFECTS, "effects_unknown.csv")
    assert not found.effects_known and len(found.effect_rows) == 0
    assert found.effects_header == ("when", "who", "what", "change")


def test_our_header_begins_with_the_family_s() -> None:
    header = effectrows.our_header(("latency",))
    assert header[:14] == effectrows.FAMILY and "d_latency" in header and "hi_latency" in header
    assert effectrows.is_known(header) and len(set(header)) == len(header)


@given(st.text(max_size=20))
def test_no_text_cell_is_a_formula_or_breaks_the_row(text: str) -> None:
    header = effectrows.our_header()
    row = {"rule_ts": "2026-03-01T09:00:00+09:00", "rule": "r", "actor": text}
    line = effectrows.render_row(header, row).decode()
    assert line.count("\n") == 1 and line.endswith("\n")
    assert effectrows.cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r")
    back = effectrows.parse_row(header, line.rstrip("\n"), SEOUL)
    assert isinstance(back, effectrows.EffectRow) and back.rule == "r"


# ----------------------------------------------------------------------------- the hash chain
def a_chain(n: int) -> list[bytes]:
    lines: list[bytes] = []
    prev = "0" * 64
    for i in range(n):
        lines.append(
            records.render(
                {
                    "v": 1,
                    "ts": "2026-03-01T09:00:00+09:00",
                    "id": f"g{i}",
                    "kind": "edit",
                    "by": "a",
                    "role": "admin",
                    "prev": prev,
                }
            )
        )
        prev = records.sha256(lines[-1][:-1])
    return lines


def test_an_intact_chain_is_intact_read_whole_or_line_by_line() -> None:
    lines = a_chain(5)
    whole = read(APPROVALS, b"".join(lines)).chain
    gather = Gather(SEOUL)
    for line in lines:
        gather.take(APPROVALS, [line[:-1]], Moment(wall_ms=NOW, steady_ms=NOW))
    assert whole.ok and whole == gather.chain() and whole.n == 5
    assert whole.sha256 == records.sha256(lines[-1][:-1])


@pytest.mark.parametrize("at", range(4))
def test_every_edit_cut_and_swap_inside_breaks_the_chain(at: int) -> None:
    lines = a_chain(5)
    edited = [*lines[:at], lines[at].replace(b'"edit"', b'"arm"'), *lines[at + 1 :]]
    assert read(APPROVALS, b"".join(edited)).chain.line == at + 2
    assert not read(APPROVALS, b"".join(lines[:at] + lines[at + 1 :])).chain.ok
    swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    assert not read(APPROVALS, b"".join(swapped)).chain.ok


def test_a_cut_tail_shows_against_a_head_recorded_in_a_decision() -> None:
    lines = a_chain(5)
    head = {"n": 5, "sha256": records.sha256(lines[-1][:-1])}
    ledger = MemoryLedger(timezone="Asia/Seoul", clock=lambda: NOW)
    ledger.put(
        DECISIONS,
        records.render({"ts": "2026-03-01T09:00:00+09:00", "kind": "cycle", "approvals_head": head}),
    )
    ledger.put(APPROVALS, b"".join(lines[:4]))
    assert (ledger.read().chain.reason, ledger.read().chain.line) == ("head", 5)
    ledger.put(APPROVALS, lines[4])
    assert ledger.read().chain.ok
