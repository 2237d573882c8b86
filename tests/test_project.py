"""The promises of the files around the code: pins, packaging, tasks, README, CI."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import selftune

CHECKOUT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
PAGES = sorted({*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), *CHECKOUT.glob("*/README.md")})


def pins() -> dict[str, Requirement]:
    lines = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line.split("#")[0].strip() for line in lines]
    return {r.name: r for r in map(Requirement, filter(None, wanted))}


def test_every_pin_is_exact_and_installed() -> None:
    for name, pin in pins().items():
        assert [s.operator for s in pin.specifier] == ["=="], name
        assert pin.specifier.contains(importlib.metadata.version(name), prereleases=True), name


def test_each_pin_says_what_it_is_for() -> None:
    lines = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "==" in line and "#" not in line] == []


def test_the_packages_own_ranges_admit_the_pins() -> None:
    ranges = {r.name: r for r in map(Requirement, PROJECT["project"]["dependencies"])}
    missing = {name for name in ranges if name not in pins()}
    assert not missing
    for name, wanted in ranges.items():
        version = next(iter(pins()[name].specifier)).version
        assert wanted.specifier.contains(version, prereleases=True), name


def test_the_version_is_written_once() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", selftune.__version__)


def test_tasks_keep_the_familys_labels_and_work_on_windows() -> None:
    tasks = json.loads((CHECKOUT / ".vscode/tasks.json").read_text(encoding="utf-8"))["tasks"]
    by_label = {t["label"]: t for t in tasks}
    assert by_label["lumen:tuning:suggest"]["command"] == "python -m selftune suggest"
    assert by_label["lumen:tuning:loop"]["command"] == "python -m selftune loop"
    assert by_label["lumen:tuning:loop"]["isBackground"] is True
    assert {"lumen:tuning:dashboard", "lumen:rules:effects", "lumen:rules:rollback"} <= set(by_label)
    for label, task in by_label.items():
        assert task["options"]["env"] == {"PYTHONUTF8": "1"}, label
        assert task["command"].startswith("python -m selftune "), label


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link, picture in LINK.findall(page.read_text(encoding="utf-8")):
        target = link or picture
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_readme_says_first_what_it_never_does() -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    first_heading = text.split("\n## ")[1]
    assert first_heading.startswith("What it will never do by itself")
    assert "스스로는 절대 하지 않는 일" in text


@pytest.mark.skipif(os.name == "nt", reason="make and bash are not promised on Windows")
@pytest.mark.parametrize("target", ["run", "test", "check", "bench", "soak", "example", "shots", "dist"])
def test_make_knows_its_targets(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=CHECKOUT, check=True, capture_output=True, timeout=30)


@pytest.mark.skipif(os.name == "nt", reason="make and bash are not promised on Windows")
def test_ci_is_a_whole_shell_script() -> None:
    script = CHECKOUT / ".ci/run"
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=30)
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("language", ["ko", "en"])
def test_word_files_are_flat_text(language: str) -> None:
    folder = CHECKOUT / "selftune/words"
    for path in [*folder.glob(f"{language}.yaml"), *folder.glob(f"{language}.d/*.yaml")]:
        words = yaml.safe_load(path.read_text(encoding="utf-8"))
        wrong = {k: v for k, v in words.items() if not (isinstance(k, str) and isinstance(v, str) and v)}
        assert not wrong, path.name


def test_both_languages_have_the_same_files() -> None:
    folder = CHECKOUT / "selftune/words"
    korean, english = ({p.name for p in (folder / f"{x}.d").glob("*.yaml")} for x in ("ko", "en"))
    assert korean == english


def test_it_runs_without_being_installed(tmp_path: Path) -> None:
    """`python -m selftune` works from the checkout of somebody who only installed the requirements."""
    code = "import selftune, pathlib; print(pathlib.Path(selftune.__file__).parent.parent)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=60
    )
    assert Path(run.stdout.strip()) == CHECKOUT
