"""Backtests as jobs: they end in words, survive their starter, and no text from outside becomes a path."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune import backtest_runs as runs
from selftune.backtest_job import carry_out
from selftune.backtest_request import Candidate, Mode, Request, Source, is_id, of_json
from selftune.backtest_runs import State
from selftune.cli import FAULTS, main
from selftune.cli_words import INTERRUPTED
from selftune.demo import demo_root, run_demo
from selftune.domain import InputError, SettingsError, UnknownId
from selftune.ledger import mint_ulid

HOSTILE = (
    "", ".", "..", "../x", "/etc/passwd", "a/b", "01J", "x" * 26, "01" + "I" * 24, "8" + "0" * 25,
    "01JDKZ0000000000000000000\n", "\uff101JDKZ00000000000000000000", "01jdkz00000000000000000000",
)  # fmt: skip


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; a test that never sees it fails."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo root with half an hour of the plant."""
    top = tmp_path_factory.mktemp("root")
    run_demo(top, fast=True, seconds=1800, seed=3)
    return demo_root(top)


def test_a_run_ends_with_a_result_on_disk(root: Path) -> None:
    run_id = runs.start(root, Request())
    until(lambda: (r := runs.read(root, run_id)) is not None and r.status.over)
    run = runs.read(root, run_id)
    assert run is not None and run.status.state is State.DONE and run.status.share == 1.0
    assert run.result is not None and [o.role for o in run.result.outcomes] == [
        "candidate",
        "none",
        "heuristic",
    ]
    assert runs.listing(root)[0].id == run_id


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_worker_is_interrupted(root: Path) -> None:
    many = tuple(Candidate(name=f"c{i}") for i in range(8))
    run_id = runs.start(root, Request(candidates=many))
    until(lambda: (r := runs.read(root, run_id)) is not None and r.status.state is State.RUNNING)
    run = runs.read(root, run_id)
    assert run is not None and run.status.pid is not None
    os.kill(run.status.pid, signal.SIGKILL)
    until(lambda: (r := runs.read(root, run_id)) is not None and r.status.over)
    again = runs.read(root, run_id)
    assert again is not None and again.status.state is State.INTERRUPTED and again.result is None


def test_what_a_killed_run_laid_down_and_the_oldest_runs_are_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs.prepare(root, Request())
    runs.write_status(root, first, runs.Status(state=State.FAILED))
    laid = runs.lock_of(root, first).parent / runs.DATA
    laid.mkdir()
    second = runs.prepare(root, Request())
    assert not laid.exists()
    assert runs.read(root, first) is not None
    runs.write_status(root, second, runs.Status(state=State.FAILED))
    monkeypatch.setattr(runs, "KEPT", 1)
    runs.prepare(root, Request())
    assert runs.read(root, first) is None
    assert runs.read(root, second) is not None


def test_two_starts_at_once_may_remove_the_same_old_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.write_status(root, runs.prepare(root, Request()), runs.Status(state=State.FAILED))
    runs.write_status(root, runs.prepare(root, Request()), runs.Status(state=State.FAILED))
    monkeypatch.setattr(runs, "KEPT", 0)
    remove = runs.shutil.rmtree

    def too_late(folder: Path) -> None:
        remove(folder)
        remove(folder)

    monkeypatch.setattr(runs.shutil, "rmtree", too_late)
    assert runs.read(root, runs.prepare(root, Request())) is not None


def test_a_run_of_the_shell_that_the_page_cancels_ends_in_words(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = runs.prepare

    def cancelled(at: Path, request: Request) -> str:
        run_id = prepare(at, request)
        assert runs.cancel(at, run_id)
        return run_id

    monkeypatch.setattr(runs, "prepare", cancelled)
    assert main(["--root", str(root), "--lang", "en", "backtest"]) == INTERRUPTED
    assert "cancel" in capsys.readouterr().err
    assert not (root / FAULTS).exists()


def test_a_cancelled_run_says_so(root: Path) -> None:
    many = tuple(Candidate(name=f"c{i}") for i in range(8))
    run_id = runs.start(root, Request(candidates=many))
    assert runs.cancel(root, run_id)
    until(lambda: (r := runs.read(root, run_id)) is not None and r.status.over)
    run = runs.read(root, run_id)
    assert run is not None and run.status.state is State.CANCELLED
    assert not runs.cancel(root, run_id)


def test_a_run_that_is_called_off_in_its_last_moment_has_no_result(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks for a cancel lies half a second: a fast run ends within it."""
    monkeypatch.setattr(runs.Progress, "EVERY_S", 1e9)
    run_id = runs.prepare(root, Request())

    def late(share: float) -> None:
        assert share > 0 or runs.cancel(root, run_id)

    with pytest.raises(runs.Cancelled):
        carry_out(root, run_id, late)
    run = runs.read(root, run_id)
    assert run is not None and (run.status.state, run.result) == (State.CANCELLED, None)


def test_what_cannot_be_run_is_refused_at_once(root: Path) -> None:
    with pytest.raises(SettingsError):
        runs.prepare(root, Request(candidates=(Candidate(name="d", source=Source.DRAFT, text="rules: ["),)))
    lost = Candidate(name="r", source=Source.REVISION, revision=mint_ulid(1))
    with pytest.raises(UnknownId):
        runs.prepare(root, Request(candidates=(lost,)))
    with pytest.raises(InputError):
        runs.prepare(root, Request(from_ms=10, to_ms=5))


def test_a_failure_is_told_in_words(tmp_path: Path, root: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/self_tuning.yaml").write_bytes((root / "configs/self_tuning.yaml").read_bytes())
    run_id = runs.start(tmp_path, Request())
    until(lambda: (r := runs.read(tmp_path, run_id)) is not None and r.status.over)
    run = runs.read(tmp_path, run_id)
    assert run is not None and run.status.state is State.FAILED
    assert run.status.error is not None and run.status.error.code == "problem.backtest_no_metrics"


# ----------------------------------------------------------------------------- what comes from outside
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_id_is_no_run(root: Path, text: str) -> None:
    assert not is_id(text)
    assert runs.read(root, text) is None
    assert runs.cancel(root, text) is False
    with pytest.raises(ValueError, match="not a run id"):
        runs.lock_of(root, text)


@given(st.text(max_size=40))
def test_only_ulids_are_ids(text: str) -> None:
    letters = set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert is_id(text) == (len(text) == 26 and set(text) <= letters and text[0] in "01234567")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = ["mode", "candidates", "baselines", "from_ms", "to_ms", "seed", "sweep"]


@given(JSON | st.dictionaries(st.sampled_from(KEYS), JSON))
def test_a_request_is_read_or_refused_in_words(data: object) -> None:
    found = read_or_refused(data)
    if isinstance(found, Request):
        assert of_json(found.as_json()) == replace(found, baselines=found.against)
    else:
        assert found.problems


def read_or_refused(data: object) -> Request | InputError:
    try:
        return of_json(data)
    except InputError as error:
        return error


def test_each_wrong_key_of_a_request_is_named() -> None:
    with pytest.raises(InputError) as caught:
        of_json({"mode": "guess", "seed": -1, "candidates": [{"name": ""}], "baselines": ["best"]})
    assert {p.key for p in caught.value.problems} == {"mode", "seed", "candidates.0.name", "baselines"}


def test_a_request_survives_its_json() -> None:
    asked = {
        "mode": "simulate", "seed": 7, "baselines": ["oracle"],
        "candidates": [{"name": "a", "policy": "adaptive"}],
        "sweep": {"axes": [{"path": "rules.risk_max.lr", "lo": 0.01, "hi": 0.04}], "method": "sobol"},
    }  # fmt: skip
    request = of_json(asked)
    assert request.mode is Mode.SIMULATE and request.sweep is not None and request.sweep.size == 16
    assert of_json(request.as_json()) == request
