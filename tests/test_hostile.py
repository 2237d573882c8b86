"""Stored hostile text in a terminal, in exports and in addresses: as typed, and nothing steers or runs."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from selftune import catalogue, markup, report
from selftune.chart_kit import ChartView, Look, Say
from selftune.charts import Span, metric_chart
from selftune.cli import main
from selftune.demo import demo_root
from selftune.downsample import downsample
from selftune.office import Office
from selftune.picture import Picture
from selftune.revising import text_of
from selftune.runtime import Root
from selftune.standing import evidence_file, requests
from selftune.trends import asked
from selftune.wording import plain, unsteered
from tests.hostile import ACTOR, METRIC, RULE, STEERING, TEXT, hostile_root

HARMLESS = "\n"
RUNS = ("=", "+", "-", "@", "\t", "\r")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_root(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def hostile(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "root"))


def steering(text: str) -> list[str]:
    """Every character of `text` that could steer a terminal or turn a line around."""
    return sorted({repr(c) for c in text if c not in HARMLESS and plain(c) != c})


# ----------------------------------------------------------------------------- the terminal
COMMANDS = (
    ("check",), ("status",), ("status", "--json"), ("review", "list"), ("suggest",), ("effects", "--all"),
    ("loop", "--once"), ("apply", f"<b>{STEERING}"), ("reject", "<b>suggest</b>", "--reason", TEXT),
    ("rollback", "--event", f"<b>12</b>**id**{STEERING}"), ("rollback", "--rule", RULE, "--reason", TEXT),
    ("release", RULE, "--actor", ACTOR), ("review", "approve", "--actor", ACTOR, "--comment", TEXT),
    ("review", "refuse", "--actor", f"{ACTOR}2", "--reason", TEXT), ("stop", "--reason", TEXT),
    ("resume", "--actor", ACTOR, "--reason", TEXT),
)  # fmt: skip


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_no_command_writes_a_steering_character(
    language: str, hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in COMMANDS:
        main(["--root", str(hostile), "--lang", language, *argv])
        said = capsys.readouterr()
        assert steering(said.out) == [] and steering(said.err) == [], argv
        assert "Traceback" not in said.err, argv


def test_json_without_steering_means_the_same() -> None:
    data = {"a": TEXT, "b": [STEERING, "한국어", "😀\U000e0001"], TEXT: 1}
    text = unsteered(json.dumps(data, ensure_ascii=False, indent=2))
    assert json.loads(text) == data and steering(text) == [] and "한국어" in text


# ----------------------------------------------------------------------------- exports
def rows_of(data: bytes) -> Iterator[str]:
    for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))):
        yield from row


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_no_exported_cell_begins_a_formula(made: Path) -> None:
    p = Office(made).glance().picture
    assert p is not None
    say = Say("ko", catalogue.load())
    cells = [*rows_of(report.timeline_csv(p)), *rows_of(report.table_csv(table_of(p, say)))]
    dangerous = [c for c in cells if c.lstrip().startswith(RUNS) and not is_number(c)]
    assert dangerous == []
    assert any(c.startswith("'=cmd|") for c in cells), "the hostile note is in there"
    assert any(c.startswith("'=<svg") for c in cells), "and the metric's name as a heading"


def table_of(p: Picture, say: Say) -> dict[str, list[object]]:
    return {k: list(v) for k, v in chart_of(p, say).table.items()}


def chart_of(p: Picture, say: Say) -> ChartView:
    series = p.snap.series
    end = (series.newest_ms or 0) + 1
    buckets = downsample(series, (METRIC,), end - 600_000, end, 50)
    span = Span(start_ms=end - 600_000, end_ms=end)
    return metric_chart(buckets, METRIC, p.settings.targets[METRIC], (), span, look=Look(), say=say)


def test_a_drawing_holds_the_name_as_text_only(made: Path) -> None:
    p = Office(made).glance().picture
    assert p is not None
    tree = ElementTree.fromstring(report.chart_svg(chart_of(p, Say("ko", catalogue.load()))))
    tags = {e.tag.rpartition("}")[2] for e in tree.iter()}
    assert not tags & {"script", "foreignObject", "image", "iframe", "animate", "set", "a", "use"}
    assert not [a for e in tree.iter() for a in e.attrib if a.lower().startswith("on") or "href" in a]


@pytest.mark.parametrize("text", [TEXT, "=1+1", " =1", "@x", "+1", "-1", "plain"])
def test_a_cell_that_a_page_lets_people_save_begins_no_formula(text: str) -> None:
    shown = markup.cell(text)
    assert not shown.lstrip().startswith(RUNS) and shown.endswith(plain(text, 5000)[-4:])


# ----------------------------------------------------------------------------- addresses
PATHS = (
    "../../configs/self_tuning", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "....//....//x", "C:\\x", "\0",
    "a" * 64 + "/../../x", "0" * 63 + "/", ("0" * 64) + "\n", "０" * 64, "A" * 64,
)  # fmt: skip


@pytest.mark.parametrize("text", PATHS)
def test_no_file_name_comes_from_anything_but_a_digest(text: str, made: Path) -> None:
    assert text_of(made, text) is None and evidence_file(made, text) is None
    assert set(report.file_name(Office(made).glance().picture, text)) <= set(  # type: ignore[arg-type]
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
    )


def test_an_address_is_typed_and_bounded(made: Path) -> None:
    p = Office(made).glance().picture
    assert p is not None
    for text in (*PATHS, TEXT, "9" * 400, "nan", "-1", "1e999"):
        said = {"w": text, "rule": text, "from": text, "to": text, "e": text, "m": text}
        a = asked(said, p, p.snap.now_ms)
        assert 0 < a.end_ms - a.start_ms <= 7 * 86_400_000 + 1, text


# ----------------------------------------------------------------------------- links out of the root
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("name", ["logs/reviews", "logs/revisions", "logs/backup"])
def test_a_link_out_of_the_root_is_refused_for_writing(
    name: str, hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if (hostile / name).exists():
        shutil.rmtree(hostile / name)
    (hostile / name).symlink_to(outside)
    for argv in (("check", "--repair"), ("review", "request", "--reason", "x"), ("stop",)):
        main(["--root", str(hostile), *argv])
        assert "Traceback" not in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_the_demo_lies_inside(tmp_path: Path) -> None:
    assert demo_root(tmp_path).is_relative_to(tmp_path)
    assert requests(Picture(Root(hostile_root(tmp_path / "r")).snapshot()))
