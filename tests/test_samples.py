"""The 5 Hz stream: wild files, growing files, other files in the same place, and history by time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selftune.coarse import BIN_MS
from selftune.domain import Window
from selftune.rows import MAX_LINE, REASONS, RowParser
from selftune.samples import (
    POLL_BYTES,
    SampleStream,
    StreamStatus,
    Unavailable,
    iter_ranges,
    last_ts,
    read_around,
    read_range,
)
from selftune.series import Series

GOLDEN = Path(__file__).parent / "golden" / "metrics"
METRICS = ("phase_diff", "entropy_rate", "creative_band", "risk_band")
KW = {"metrics": METRICS, "ranges": {"risk_band": (0.0, 1.0)}, "timezone": "Asia/Seoul"}
HEADER = b"ts,phase_diff,entropy_rate,creative_band,risk_band\n"
KST = timezone(timedelta(hours=9))
T0 = int(datetime(2026, 3, 1, 9, tzinfo=KST).timestamp() * 1000)
LATER = T0 + 86_400_000


def row(ms: int, x: float = 0.5) -> bytes:
    """One clean row, `ms` after T0."""
    stamp = datetime.fromtimestamp((T0 + ms) / 1000, KST).isoformat(timespec="milliseconds")
    return f"{stamp},{x:.3f},0.200,0.300,0.400\n".encode()


def rows(start_ms: int, n: int, x: float = 0.5, step_ms: int = 200) -> bytes:
    return b"".join(row(start_ms + i * step_ms, x) for i in range(n))


def stream(path: Path, **more: object) -> SampleStream:
    return SampleStream(path, **{**KW, **more})  # type: ignore[arg-type]


def same(a: Series, b: Series) -> None:
    np.testing.assert_array_equal(a.ts_ms, b.ts_ms)
    for metric in METRICS:
        np.testing.assert_array_equal(a.values[metric], b.values[metric])
    assert a.epoch_start_ms == b.epoch_start_ms


def since_t0(series: Series) -> list[int]:
    return [int(t) - T0 for t in series.ts_ms]


# ----------------------------------------------------------------------------- wild files
TEN = list(range(0, 2000, 200))
WILD: dict[str, tuple[list[int], dict[str, int]]] = {
    "plain.csv": (TEN, {}),
    "bom_crlf.csv": (TEN, {}),
    "other_order_and_more.csv": (TEN, {}),
    "quoted.csv": (TEN, {"value": 10}),  # "0,2" is no number
    "header_again.csv": (TEN, {}),
    "header_grows.csv": (TEN, {}),
    "headers_old_family.csv": (TEN, {}),
    "mixed_offsets.csv": (TEN, {"naive_ts": 2}),
    "nul_and_bytes.csv": (TEN, {"nul": 2, "not_utf8": 1}),
    "torn_and_glued.csv": (TEN, {"cells": 2, "torn": 1}),
    "bad_stamps.csv": (TEN, {"ts": 7}),
    "bad_cells.csv": ([*range(0, 1800, 200), 2000], {"value": 7, "range": 2, "no_number": 1}),
    "order.csv": (TEN, {"out_of_order": 2, "duplicate_ts": 1}),
    "stray.csv": (TEN, {"stray": 2}),
    "jump_back.csv": (TEN, {}),
    "leap_second_and_zero_fraction.csv": ([59800, 60000, 60200, 61000], {}),
    "no_header.csv": ([], {"no_header": 10}),
    "unknown_columns.csv": ([], {"no_number": 1}),
    "blank_lines.csv": (TEN, {}),
}


def test_every_golden_file_has_its_expectation() -> None:
    assert {p.name for p in GOLDEN.glob("*.csv")} == set(WILD)


@pytest.mark.parametrize("name", WILD)
def test_a_wild_file_gives_its_samples_and_its_counts(name: str) -> None:
    expected, rejects = WILD[name]
    series = stream(GOLDEN / name).poll(LATER)
    assert since_t0(series) == expected
    assert series.rejects == rejects


@pytest.mark.parametrize("name", [n for n, (ts, r) in WILD.items() if ts == TEN and n != "order.csv"])
def test_values_are_found_by_name(name: str) -> None:
    series = stream(GOLDEN / name).poll(LATER)
    np.testing.assert_allclose(series.values["phase_diff"], [(100 + i) / 1000 for i in range(10)])
    np.testing.assert_allclose(series.values["risk_band"], [(400 + i) / 1000 for i in range(10)])


def test_of_one_instant_the_last_row_wins() -> None:
    series = stream(GOLDEN / "order.csv").poll(LATER)
    assert series.values["phase_diff"].tolist() == [
        0.1,
        0.101,
        0.102,
        0.103,
        0.104,
        0.105,
        0.106,
        0.9,
        0.108,
        0.109,
    ]


def test_a_value_outside_its_range_is_missing_for_that_metric_alone() -> None:
    watched = stream(GOLDEN / "bad_cells.csv")
    series = watched.poll(LATER)
    assert np.isnan(series.values["risk_band"][7:9]).all()
    assert np.isfinite(series.values["phase_diff"][7:9]).all()
    assert watched.state.outside == {"risk_band": 2}


def test_a_jump_back_begins_a_new_epoch_and_says_when() -> None:
    series = stream(GOLDEN / "jump_back.csv").poll(LATER)
    assert (series.epoch, series.epoch_start_ms) == (1, T0)


def test_states_have_names(tmp_path: Path) -> None:
    assert stream(GOLDEN / "no_header.csv").state.status is StreamStatus.MISSING  # not looked at yet
    for name, status in {
        "no_header.csv": StreamStatus.NO_HEADER,
        "unknown_columns.csv": StreamStatus.UNKNOWN_COLUMNS,
        "plain.csv": StreamStatus.OK,
    }.items():
        watched = stream(GOLDEN / name)
        watched.poll(LATER)
        assert watched.state.status is status
    watched = stream(GOLDEN / "header_grows.csv", metrics=(*METRICS, "pressure"))
    watched.poll(LATER)
    assert watched.state.metrics_missing == ("pressure",)


def test_every_reason_has_words_in_both_languages() -> None:
    words = Path(__file__).parent.parent / "selftune" / "words"
    ko, en = (yaml.safe_load((words / f"{lang}.d/samples.yaml").read_text("utf-8")) for lang in ("ko", "en"))
    assert ko.keys() == en.keys()
    assert {f"reject.{r}" for r in REASONS} | {f"stream.{s}" for s in StreamStatus} <= ko.keys()


# ----------------------------------------------------------------------------- growing files
def test_a_row_torn_at_any_byte_is_whole_once_it_is_finished(tmp_path: Path) -> None:
    whole = HEADER + rows(0, 4)
    last = row(800, 0.777)
    for cut in range(len(last) + 1):
        path = tmp_path / f"{cut}.csv"
        path.write_bytes(whole + last[:cut])
        watched = stream(path)
        before = watched.poll(LATER)
        assert len(before) == (5 if cut == len(last) else 4)
        assert before.rejects == ({"torn": 1} if 0 < cut < len(last) else {})
        with path.open("ab") as file:
            file.write(last[cut:])
        after = watched.poll(LATER)
        assert since_t0(after) == [0, 200, 400, 600, 800]
        assert after.values["phase_diff"][-1] == 0.777
        assert after.rejects == {}


_line = st.one_of(
    st.tuples(st.just("next"), st.integers(1, 3)),
    st.tuples(st.just("many"), st.integers(1, 50)),
    st.tuples(st.just("late"), st.integers(1, 5000)),
    st.tuples(st.just("back"), st.integers(5001, 3_600_000)),
    st.tuples(st.just("jump_back"), st.integers(5001, 3_600_000)),
    st.tuples(st.just("leap"), st.integers(1, 60_000)),
    st.tuples(st.just("spike"), st.integers(5001, 3_600_000)),
    st.tuples(st.just("ahead"), st.just(2 * 86_400_000)),
    st.tuples(st.just("raw"), st.sampled_from([HEADER, b"\n", b"\r\n", b"\0\0\n", b"a,b\n", b"\xff,1\n",
                                                b"ts,risk_band\n", b"x" * 300 + b"\n",
                                                b"2026-03-01T09:00:0x.000+09:00,.1,.2,.3,.4\n",
                                                b"2026-03-01T09:00:00.00x+09:00,.1,.2,.3,.4\n"])),
)  # fmt: skip


def written(script: Sequence[tuple[str, object]]) -> bytes:
    clock, out, n = 0, [HEADER], 0
    for kind, arg in script:
        n += 1
        x = n % 997 / 1000
        if isinstance(arg, bytes):
            out.append(arg)
            continue
        assert isinstance(arg, int)
        match kind:
            case "next" | "many":
                out.append(rows(clock + 200, arg, x))
                clock += 200 * arg
            case "late" | "back":
                out.append(row(clock - arg, x))
            case "jump_back":
                clock -= arg
                out.append(rows(clock, 4, x))
                clock += 600
            case "leap":
                clock += arg
                out.append(row(clock, x))
            case "spike" | "ahead":
                out.append(row(clock + arg, x))
    return b"".join(out)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_line, max_size=20), st.lists(st.floats(0, 1), max_size=8))
def test_any_interleaving_of_appends_and_polls_gives_what_one_read_gives(
    tmp_path: Path, script: list[tuple[str, object]], cuts: list[float]
) -> None:
    data = written(script)
    at_once, grown = tmp_path / "once.csv", tmp_path / "grown.csv"
    at_once.write_bytes(data)
    grown.write_bytes(b"")
    whole = stream(at_once).poll(LATER)
    watched = stream(grown)
    edges = [0, *sorted(round(c * len(data)) for c in cuts), len(data)]
    for a, b in pairwise(edges):
        with grown.open("ab") as file:
            file.write(data[a:b])
        part = watched.poll(LATER)
    same(whole, part)
    assert whole.epoch == part.epoch
    assert whole.rejects == part.rejects


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=6), st.booleans())
def test_random_bytes_never_raise_and_good_rows_after_them_are_read(
    tmp_path: Path, parts: list[bytes], header: bool
) -> None:
    path = tmp_path / "random.csv"
    path.write_bytes(HEADER if header else b"")
    watched = stream(path)
    for part in parts:
        with path.open("ab") as file:
            file.write(part)
        watched.poll(LATER)
    with path.open("ab") as file:
        file.write(b"\n" + HEADER + rows(0, 5))
    assert since_t0(watched.poll(LATER))[-5:] == [0, 200, 400, 600, 800]


@settings(max_examples=60)
@given(st.lists(_line, min_size=1, max_size=30))
def test_the_columnar_path_reads_what_the_line_path_reads(script: list[tuple[str, object]]) -> None:
    """Each line alone never takes the columnar path; all at once does for every plain block."""
    parser = RowParser(METRICS, {}, UTC)
    data = rows(-90_000, 60) + written(script).removeprefix(HEADER)
    header = parser.header_in(HEADER)
    fast = parser.parse(data, header)
    ts, values = [], []
    for line in data.splitlines(keepends=True):
        one = parser.parse(line, header)
        header = one.header
        ts += one.ts_ms.tolist()
        values += one.values.T.tolist()
    assert fast.ts_ms.tolist() == ts
    np.testing.assert_array_equal(fast.values, np.array(values).T)


_cell = st.one_of(
    st.from_regex(r"-?[0-9]{1,14}\.[0-9]{1,14}", fullmatch=True),
    st.from_regex(r"[0-9]\.[0-9]{3}", fullmatch=True),
    st.sampled_from(["", "1", ".5", "5.", "-.5", "-0.0", "+0.5", " 0.5", "1e-3", "nan", "inf", "0.-5"]),
)  # fmt: skip


@given(st.lists(_cell, min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_a_number_is_to_the_last_bit_what_float_makes_of_it(cells: list[str], end: str) -> None:
    stamps = [datetime.fromtimestamp(1_772_323_200 + i, UTC).isoformat() for i in range(60)]
    said = [
        f"{ts},{cells[i % len(cells)]},0.5,1,{cells[i % len(cells)]}{end}".encode()
        for i, ts in enumerate(stamps)
    ]
    parser = RowParser(METRICS, {}, UTC)
    header = parser.header_in(HEADER)
    fast, slow = parser.parse(b"".join(said), header), [parser.parse(line, header) for line in said]
    assert fast.values.tobytes() == np.concatenate([one.values for one in slow], axis=1).tobytes()
    assert fast.rejects == sum((one.rejects for one in slow), start=type(fast.rejects)())


@pytest.mark.parametrize(
    "bodies",
    [
        ["0.25,0.5,1.0,2.5", "0.5,0.25,1.0,2.5"],  # commas elsewhere
        ["0.25,0.5,1.0,2.5", "-.25,0.5,1.0,2.5", "-1.0,0.5,-0.0,2.5", "1e-2,0.5,1.0,2.5"],
        ["0.25,0.5,1.0,2.5\r", "0.25,0.5,1.0,2.55", "0.25,0.5,1.0,2.\r5"],
        ["0.25,0.5,1.0,", "0.25,0.5,1.0,"],
        ["0.25,0.5,1.0,\r", "0.25,0.5,1.0,\r"],
        [",,,", ",,,"],
        ["0.25,0.5,1.0,2.5", "0.25,0.5,1.0,2.5,", "0.25,0.5,1.02.55"],
        ["0.25,0.5,1.0,2.5", " 0.2,0.5,1.0,2.5", "0.25,0.5, 1.,2.5", "0.25, 0.5,1.,2.5"],
        ["0.25,0.5,1.0,2.5", "nan.,0.5,1.0,2.5", "0.25,inf,1.0,2.5"],
    ],
)
@pytest.mark.parametrize("repeat", [1, 700])
def test_lines_of_one_length_are_read_as_each_alone(bodies: list[str], repeat: int) -> None:
    said = [
        f"2026-03-01T00:{i // 60 % 60:02}:{i % 60:02}.{i // 3600}00Z,{body}\n".encode()
        for i, body in enumerate(bodies * repeat)
    ]
    parser = RowParser(METRICS, {}, UTC)
    header = parser.header_in(HEADER)
    fast, slow = parser.parse(b"".join(said), header), [parser.parse(line, header) for line in said]
    assert fast.ts_ms.tolist() == [t for one in slow for t in one.ts_ms.tolist()]
    assert fast.values.tobytes() == np.concatenate([one.values for one in slow], axis=1).tobytes()
    assert fast.rejects == sum((one.rejects for one in slow), start=type(fast.rejects)())


@pytest.mark.parametrize("at_once", [1, 50])
def test_a_line_that_is_too_long_is_refused_also_among_its_likes(at_once: int) -> None:
    parser = RowParser(METRICS, {}, UTC)
    header = parser.header_in(HEADER)
    long = row(0)[:-1] + b"0" * MAX_LINE + b"\n"
    found = parser.parse(rows(0, 4096) + long * at_once, header)
    assert len(found.ts_ms) == 4096 and found.rejects == {"too_long": at_once}


def test_plain_decimals_are_never_split_into_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftune.rows._numbers", lambda cells: pytest.fail(f"{cells[:3]} are plain"))
    parser = RowParser(METRICS, {}, UTC)
    assert len(parser.parse(rows(0, 100), parser.header_in(HEADER)).ts_ms) == 100


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "form", ["{}Z", "{}.2Z", "{}.123456+09:00", "{}.12+0530", "{}-03", "{}", "{}.9999", "{} +09:00"]
)
def test_every_form_of_stamp_is_the_same_instant_on_both_paths(form: str, end: str) -> None:
    days = [datetime(2024, 2, 28, 23, 58, 57) + timedelta(seconds=s) for s in range(0, 90_000, 1500)]  # noqa: DTZ001
    mixed = [f"{form.format(d.isoformat(' '))},0.5,,nan,1e-1{end}".encode() for d in days]
    mixed[7:7] = [row(0), row(200)]
    parser = RowParser(METRICS, {"phase_diff": (0.6, None)}, KST)
    header = parser.header_in(HEADER)
    fast = parser.parse(b"".join(mixed), header)
    slow = [parser.parse(line, header) for line in mixed]
    assert fast.ts_ms.tolist() == [t for one in slow for t in one.ts_ms.tolist()]
    np.testing.assert_array_equal(fast.values, np.concatenate([one.values for one in slow], axis=1))
    assert fast.rejects == sum((one.rejects for one in slow), start=type(fast.rejects)())
    assert len(fast.ts_ms) == 62
    text = form.format(days[1].isoformat()).replace(" ", "")
    stamp = datetime.fromisoformat(text)
    expected = stamp if stamp.tzinfo else stamp.replace(tzinfo=KST)
    assert fast.ts_ms[1] == int(expected.timestamp() * 1000)


@pytest.mark.parametrize("at", [*range(4), 5, 8, 10, 12, 14, 17, 18, 20, 22])
def test_one_stamp_with_a_letter_among_plain_rows_is_rejected_alone(at: int) -> None:
    bad = bytearray(row(20_000))
    bad[at] = ord("x")
    parser = RowParser(METRICS, {}, UTC)
    header = parser.header_in(HEADER)  # known before, so that the block is plain rows alone
    found = parser.parse(rows(0, 100) + bytes(bad) + rows(20_200, 100), header)
    assert (len(found.ts_ms), found.rejects) == (200, {"ts": 1})


def test_what_was_handed_out_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 50))
    watched = stream(path)
    taken = []
    for more in (
        rows(10_000, 5),
        row(10_100, 0.1) + row(9_900, 0.2),
        rows(11_000, 3000),
        row(-50_000) * 3 + rows(0, 2),
    ):
        series = watched.poll(LATER)
        taken.append((series, series.ts_ms.copy(), {m: v.copy() for m, v in series.values.items()}))
        with path.open("ab") as file:
            file.write(more)
    watched.poll(LATER)
    for series, ts, values in taken:
        np.testing.assert_array_equal(series.ts_ms, ts)
        for metric, v in values.items():
            np.testing.assert_array_equal(series.values[metric], v)
        with pytest.raises(ValueError, match="read-only"):
            series.ts_ms[0] = 0


def test_a_poll_reads_at_most_twice_the_new_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 20))
    watched = stream(path)
    watched.poll(LATER)
    for k in range(20):
        before = watched.state.bytes_read
        new = rows(4000 + 1000 * k, 5)
        with path.open("ab") as file:
            file.write(new)
        watched.poll(LATER)
        assert watched.state.bytes_read - before <= 2 * len(new)


# ----------------------------------------------------------------------------- rows ahead
def test_rows_in_the_future_wait_for_their_time(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 30))
    watched = stream(path)
    now = T0 + 1000
    assert since_t0(watched.poll(now))[-1] == 3000  # 2 s ahead is no fault
    assert watched.state.set_aside == 14
    assert watched.poll(now).ahead_share == pytest.approx(14 / 25)  # of the last 5 s of rows
    assert since_t0(watched.poll(T0 + 2000))[-1] == 4000
    assert len(watched.poll(T0 + 6000)) == 30
    assert watched.state.set_aside == 0
    assert watched.poll(T0 + 20_000).ahead_share == 0


def test_a_future_row_that_later_rows_contradict_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 5) + row(3_600_000) + rows(1000, 5))
    watched = stream(path)
    series = watched.poll(T0 + 2000)
    assert since_t0(series) == TEN
    assert series.rejects == {"ahead": 1}
    assert len(watched.poll(T0 + 4_000_000)) == 10


def test_the_clock_of_writer_and_reader_set_back_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 50))
    watched = stream(path)
    watched.poll(T0 + 10_000)
    back = -3_600_000
    with path.open("ab") as file:
        file.write(rows(back, 5))
    series = watched.poll(T0 + back + 1000)
    assert (series.epoch, since_t0(series), series.ahead_share) == (1, [back + 200 * i for i in range(5)], 0)


def test_only_the_reader_s_clock_set_back_is_all_rows_ahead(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 50))
    watched = stream(path)
    watched.poll(T0 + 10_000)
    with path.open("ab") as file:
        file.write(rows(10_000, 5))
    series = watched.poll(T0 - 3_600_000)
    assert (len(series), series.ahead_share) == (50, 1)
    assert len(watched.poll(T0 + 11_000)) == 55  # the clock is mended: nothing was lost


@pytest.mark.parametrize("leaps", [[3_600_000], [10_000, 30_000], [60_000, 3_600_000]])
def test_one_or_two_leaps_ahead_that_are_taken_back_cost_no_history(tmp_path: Path, leaps: list[int]) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 100) + b"".join(map(row, [20_000 + leap for leap in leaps])))
    watched = stream(path, keep_s=60)
    watched.poll(LATER)
    with path.open("ab") as file:
        file.write(rows(20_000, 100))
    series = watched.poll(LATER)
    assert since_t0(series) == list(range(0, 40_000, 200))
    assert (series.epoch, series.rejects) == (0, {"stray": len(leaps)})
    assert [int(t) - T0 for t in watched.coarse.start_ms] == [0, 10_000, 20_000]


def test_three_rows_ahead_are_a_clock_and_the_way_back_is_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 20) + rows(3_600_000, 3) + rows(4000, 3))
    series = stream(path).poll(LATER)
    assert (series.epoch, since_t0(series), series.epoch_start_ms) == (1, [4000, 4200, 4400], T0 + 4000)


def test_an_old_row_alone_is_a_stray_however_often_it_comes(tmp_path: Path) -> None:
    """Two writers, one an hour behind: the lagging one never moves the epoch."""
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + b"".join(row(200 * i) + row(200 * i - 3_600_000) for i in range(40)))
    series = stream(path).poll(LATER)
    assert (series.epoch, len(series), series.rejects) == (0, 40, {"stray": 39})  # the last one is still held


# ----------------------------------------------------------------------------- another file in its place
def _rotate(path: Path, new: bytes) -> None:
    path.rename(path.with_suffix(".1"))
    path.write_bytes(new)


def _truncate(path: Path, new: bytes) -> None:
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(new)


@pytest.mark.parametrize("swap", [_rotate, _truncate])
@pytest.mark.parametrize("n", [3, 20, 21, 400])
def test_a_file_that_goes_on_elsewhere_keeps_the_samples(tmp_path: Path, swap: object, n: int) -> None:
    """n = 20: the new file is exactly as long as the old one was."""
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 20))
    watched = stream(path)
    watched.poll(LATER)
    swap(path, HEADER + rows(4000, n))  # type: ignore[operator]
    series = watched.poll(LATER)
    assert since_t0(series) == list(range(0, 4000 + 200 * n, 200))
    assert series.epoch == 0


@pytest.mark.parametrize("swap", [_rotate, _truncate])
def test_the_header_is_read_again(tmp_path: Path, swap: object) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 3))
    watched = stream(path)
    watched.poll(LATER)
    stamp = row(600).split(b",")[0]
    swap(path, b"risk_band,ts\n0.25," + stamp + b"\n")  # type: ignore[operator]
    series = watched.poll(LATER)
    assert series.values["risk_band"].tolist() == [0.4, 0.4, 0.4, 0.25]
    assert watched.state.metrics_missing == METRICS[:3]


def test_a_file_cut_to_nothing_under_its_writer_keeps_the_known_header(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 10))
    watched = stream(path)
    watched.poll(LATER)
    _truncate(path, b"")
    assert len(watched.poll(LATER)) == 10
    assert watched.state.status is StreamStatus.EMPTY
    path.write_bytes(rows(2000, 5))
    assert len(watched.poll(LATER)) == 15


def test_a_hole_of_zeros_where_the_file_was_cut_under_a_writer_that_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 50_000))
    watched = stream(path)
    watched.poll(LATER)
    end = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(0)
        file.seek(end)
        file.write(rows(10_000_000, 30))
    series = watched.poll(LATER)
    # the first row stands on the line of the zeros
    assert since_t0(series)[-29:] == list(range(10_000_200, 10_006_000, 200))
    assert series.epoch == 0


def test_an_older_recording_in_its_place_is_a_new_epoch_and_a_copy_is_not(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 100))
    watched = stream(path)
    first = watched.poll(LATER)
    shutil.copyfile(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    again = watched.poll(LATER)
    same(first, again)
    assert again.epoch == 0
    _rotate(path, HEADER + rows(-3_600_000, 50))
    older = watched.poll(LATER)
    assert (older.epoch, len(older), older.epoch_start_ms) == (1, 50, T0 - 3_600_000)


def test_missing_then_made_then_gone(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "m.csv"
    watched = stream(path)
    assert len(watched.poll(LATER)) == 0
    assert watched.state.status is StreamStatus.MISSING
    path.parent.mkdir()
    path.write_bytes(HEADER[:10])
    watched.poll(LATER)
    assert watched.state.status is StreamStatus.EMPTY
    path.write_bytes(HEADER + rows(0, 5))
    assert len(watched.poll(LATER)) == 5
    path.unlink()
    assert len(watched.poll(LATER)) == 5
    assert watched.state.status is StreamStatus.MISSING


def _specials(folder: Path) -> Iterator[tuple[str, Path]]:
    (folder / "folder").mkdir()
    yield "folder", folder / "folder"
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fifo")
        yield "fifo", folder / "fifo"
        (folder / "zero").symlink_to("/dev/zero")
        yield "zero", folder / "zero"


def test_a_folder_a_pipe_and_a_device_are_a_named_state(tmp_path: Path) -> None:
    for _, path in _specials(tmp_path):
        watched = stream(path)
        assert len(watched.poll(LATER)) == 0
        assert watched.state.status is StreamStatus.NOT_REGULAR
        assert last_ts(path, timezone="UTC") is None
        with pytest.raises(Unavailable):
            list(iter_ranges(path, [Window(start_ms=0, end_ms=1)], **KW))  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_named_state(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER)
    path.chmod(0)
    watched = stream(path)
    watched.poll(LATER)
    assert watched.state.status is StreamStatus.UNREADABLE


def test_a_path_that_cannot_be_is_a_named_state(tmp_path: Path) -> None:
    for bad in (str(tmp_path) + "/\0.csv", str(tmp_path / ("x" * 5000))):
        watched = SampleStream(bad, **KW)  # type: ignore[arg-type]
        watched.poll(LATER)
        assert watched.state.status is StreamStatus.UNREADABLE


# ----------------------------------------------------------------------------- bounds
def test_a_line_without_end_is_skipped_and_memory_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 5))
    watched = stream(path)
    watched.poll(LATER)
    held = []
    with path.open("ab") as file:
        for _ in range(6):
            file.write(b"9" * (3 * MAX_LINE // 2))
            file.flush()
            watched.poll(LATER)
            held.append(watched.state.held_bytes)
        file.write(b"\n" + rows(1000, 5))
    series = watched.poll(LATER)
    assert since_t0(series) == TEN
    assert series.rejects == {"too_long": 1}
    assert max(held) < 2 * MAX_LINE
    # a restart looks back 8 MB at most: what stands before the line is not looked for, what follows is read
    assert since_t0(stream(path).poll(LATER)) == TEN[5:]


def test_the_past_before_a_very_long_line_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 2000) + b"9" * MAX_LINE + b"9\n" + rows(400_000, 2000))
    watched = stream(path, keep_s=60)
    for _ in range(12):
        watched.poll(LATER)
    assert watched.state.older_done
    assert int(watched.coarse.start_ms[0]) == T0


def test_far_behind_it_skips_to_the_end_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + rows(0, 5))
    watched = stream(path, keep_s=60)
    watched.poll(LATER)
    pad = b"#" * 999 + b"\n"
    with path.open("ab") as file:
        file.write(pad * (5 * POLL_BYTES // len(pad)) + rows(600_000, 1000))
    for _ in range(2):
        series = watched.poll(LATER)
    assert since_t0(series)[-1] == 600_000 + 999 * 200
    assert watched.state.skipped_bytes > 3 * POLL_BYTES


# ----------------------------------------------------------------------------- a long file
@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:  # type: ignore[type-arg]
    """20,000 rows (67 min), slightly out of order, with a distinct value each."""
    path = tmp_path_factory.mktemp("long") / "m.csv"
    lines = [row(200 * i, i % 1000 / 1000) for i in range(20_000)]
    for i in range(50, 19_970, 97):
        lines[i], lines[i + 24] = lines[i + 24], lines[i]
    path.write_bytes(HEADER + b"".join(lines))
    return path, np.arange(20_000) % 1000 / 1000


def test_a_cold_start_reads_the_end_and_has_the_same_samples(
    long_file: tuple[Path, np.ndarray],
    tmp_path: Path,  # type: ignore[type-arg]
) -> None:
    path, _ = long_file
    cold = stream(path, keep_s=300)
    series = cold.poll(LATER)
    assert cold.state.bytes_read < path.stat().st_size / 4
    followed_path = tmp_path / "m.csv"
    data = path.read_bytes()
    followed_path.write_bytes(data[:1000])
    followed = stream(followed_path, keep_s=300)
    followed.poll(LATER)
    followed_path.write_bytes(data)
    slow = followed.poll(LATER)
    np.testing.assert_array_equal(series.ts_ms, slow.ts_ms)
    np.testing.assert_array_equal(series.values["phase_diff"], slow.values["phase_diff"])
    # the past arrives little by little, and is the same in the end
    for _ in range(20):
        series = cold.poll(LATER)
    assert cold.state.older_done
    assert series.epoch_start_ms == T0
    assert cold.coarse.start_ms.tolist() == followed.coarse.start_ms.tolist()
    for metric in METRICS:
        np.testing.assert_array_equal(cold.coarse.count[metric], followed.coarse.count[metric])
        np.testing.assert_allclose(cold.coarse.mean[metric], followed.coarse.mean[metric], rtol=1e-12)


def test_coarse_means_hold_late_rows_however_the_file_was_followed(tmp_path: Path) -> None:
    order = list(range(600))
    for i in range(40, 570, 13):
        order[i], order[i + 24] = order[i + 24], order[i]  # 4.8 s late
    order = [i for k, i in enumerate(order) if all(order[j] <= i + 25 for j in range(max(0, k - 60), k))]
    lines = [row(200 * i, i / 1000) for i in order]
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER)
    watched = stream(path)
    for line in lines:
        with path.open("ab") as file:
            file.write(line)
        watched.poll(LATER)
    at_once = stream(path)
    at_once.poll(LATER)
    assert watched.coarse.start_ms.tolist() == at_once.coarse.start_ms.tolist()
    assert watched.coarse.count["phase_diff"].tolist() == at_once.coarse.count["phase_diff"].tolist()
    full = np.bincount(np.array(order) // 50)[: len(at_once.coarse)]
    assert at_once.coarse.count["phase_diff"].tolist() == full.tolist()


def test_coarse_means_are_those_of_full_bins(long_file: tuple[Path, np.ndarray]) -> None:  # type: ignore[type-arg]
    path, values = long_file
    watched = stream(path)
    for _ in range(10):
        watched.poll(LATER)
    coarse = watched.coarse
    assert set(coarse.count["phase_diff"].tolist()) == {50}
    assert (np.diff(coarse.start_ms) == BIN_MS).all()
    first = (int(coarse.start_ms[0]) - T0) // 200
    np.testing.assert_allclose(coarse.mean["phase_diff"][0], values[first : first + 50].mean())
    part = coarse.between(T0 + 15_000, T0 + 45_000)
    assert [int(t) - T0 for t in part.start_ms] == [20_000, 30_000]


def test_the_header_that_holds_at_the_end_is_found_after_a_restart(tmp_path: Path) -> None:
    """The columns changed in mid-file, once in number and once only in order."""
    for new in (b"ts,extra,risk_band\n", b"ts,risk_band,phase_diff,entropy_rate,creative_band\n"):
        path = tmp_path / "m.csv"
        tail = b"".join(row(600_000 + 200 * i) for i in range(6000))
        cells = new.count(b",") + 1
        if cells == 3:
            tail = b"".join(b",".join([*line.split(b",")[:2], b"0.7\n"]) for line in tail.splitlines())
        path.write_bytes(HEADER + rows(0, 3000) + new + tail)
        watched = stream(path, keep_s=120)
        for _ in range(3):
            series = watched.poll(LATER)
        assert set(series.values["risk_band"].tolist()) == {0.7 if cells == 3 else 0.5}


# ----------------------------------------------------------------------------- history by time
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(-10_000, 4_010_000), length=st.integers(0, 600_000))
def test_any_range_is_what_the_whole_file_holds_there(
    long_file: tuple[Path, np.ndarray],
    start: int,
    length: int,  # type: ignore[type-arg]
) -> None:
    path, values = long_file
    series = read_range(path, T0 + start, T0 + start + length, **KW)  # type: ignore[arg-type]
    index = np.arange(20_000)
    wanted = index[(index * 200 >= start) & (index * 200 < start + length)]
    assert since_t0(series) == (wanted * 200).tolist()
    np.testing.assert_array_equal(series.values["phase_diff"], values[wanted])


def test_a_row_written_far_from_its_place_is_found_in_its_window(
    long_file: tuple[Path, np.ndarray],  # type: ignore[type-arg]
) -> None:
    path, _ = long_file
    for i in range(50, 19_970, 97):
        for moved in (i, i + 24):
            series = read_range(path, T0 + moved * 200, T0 + moved * 200 + 1, **KW)  # type: ignore[arg-type]
            assert since_t0(series) == [moved * 200]


def test_many_windows_come_in_order_from_one_pass(long_file: tuple[Path, np.ndarray]) -> None:  # type: ignore[type-arg]
    path, _ = long_file
    instants = [T0 + 1000 * k for k in (3000, 5, 40, 45, 2000)]
    found = list(read_around(path, instants, before_s=10, after_s=20, **KW))  # type: ignore[arg-type]
    assert [t for t, _ in found] == sorted(instants)
    for t, series in found:
        same(series, read_range(path, t - 10_000, t + 20_000, **KW))  # type: ignore[arg-type]


def test_after_a_jump_back_the_latest_epoch_that_has_the_window_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    # 0..50 min, then the clock goes back to 20 min and runs to 40 min
    path.write_bytes(HEADER + rows(0, 15_000, 0.1) + rows(1_200_000, 6_000, 0.9))
    for minute, x in ((5, 0.1), (30, 0.9), (45, 0.1)):
        start = T0 + minute * 60_000
        series = read_range(path, start, start + 60_000, **KW)  # type: ignore[arg-type]
        assert len(series) == 300
        assert set(series.values["phase_diff"].tolist()) == {x}
    assert last_ts(path, timezone="UTC") == T0 + 1_200_000 + 5_999 * 200


def test_the_newest_instant(long_file: tuple[Path, np.ndarray], tmp_path: Path) -> None:  # type: ignore[type-arg]
    assert last_ts(long_file[0], timezone="UTC") == T0 + 19_999 * 200
    assert last_ts(tmp_path / "none.csv", timezone="UTC") is None
    (tmp_path / "stray.csv").write_bytes(HEADER + rows(0, 5) + row(-9_000_000) + b"torn")
    assert last_ts(tmp_path / "stray.csv", timezone="UTC") == T0 + 800
