"""What every test may ask for: a data root of its own, and no network."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import selftune.threads  # noqa: F401  (before numpy, as the program does it)

CHECKOUT = Path(__file__).resolve().parent.parent
SHIPPED = CHECKOUT / "selftune" / "shipped" / "self_tuning.yaml"  # a developer may have edited configs/

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the shipped settings and nothing else."""
    for folder in ("configs", "controls", "logs"):
        (tmp_path / folder).mkdir()
    shutil.copyfile(SHIPPED, tmp_path / "configs" / "self_tuning.yaml")
    return tmp_path


@pytest.fixture(scope="session", autouse=True)
def _one_scan() -> Iterator[None]:
    """Streamlit looks through every installed package at each new AppTest; what it finds does not change."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            manifest_scanner,
            "scan_component_manifests",
            functools.cache(manifest_scanner.scan_component_manifests),
        )
        yield


@pytest.fixture(autouse=True)
def _main_module() -> Iterator[None]:
    """Page tests run a script as `__main__`; processes that a later test spawns must not run it again."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that leaves this machine fails the test; loopback and local sockets are free."""
    connect = socket.socket.connect

    def only_loopback(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if host not in ("", "localhost", "::1") and not str(host).startswith("127."):
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_loopback)
    # a root chosen by the developer's shell must not leak into a test
    monkeypatch.delenv("SELFTUNE_ROOT", raising=False)


# Whole lives, whole pages and real processes: `make test` runs them, `make check` has no time for them.
SLOW = {
    "test_accountable",
    "test_backtest",
    "test_backtest_closed",
    "test_backtest_runs",
    "test_charts",
    "test_clocks",
    "test_crash",
    "test_example",
    "test_faults",
    "test_ledger",
    "test_loop",
    "test_no_dead_ends",
    "test_oidc",
    "test_pretended",
    "test_raw_socket",
    "test_rotation",
    "test_samples",
    "test_tuning_guarded",
    "test_two_writers",
    "test_up",
    "test_worlds",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW or item.path.parent.name == "pages":
            item.add_marker(pytest.mark.slow)
