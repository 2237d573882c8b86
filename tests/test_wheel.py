"""What an installed package holds: every file that the checkout serves from is in the wheel."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.version import Version

from selftune import house

CHECKOUT = Path(__file__).resolve().parent.parent
SETUP = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
LAUNCHED = (".streamlit", "pages")


def folder_of(package: str) -> Path:
    """Where a package's files lie in the checkout."""
    return CHECKOUT / SETUP["package-dir"].get(package, package.replace(".", "/"))


def packed() -> set[str]:
    """Paths in the wheel: each package's own modules and its data."""
    found = set()
    for package in SETUP["packages"]:
        folder, inside = folder_of(package), PurePosixPath(package.replace(".", "/"))
        for pattern in ("*.py", *SETUP["package-data"].get(package, ())):
            found |= {str(inside / p.relative_to(folder).as_posix()) for p in folder.glob(pattern)}
    return found


def needed() -> set[str]:
    """Paths that must be there: all of selftune/, and what `house` looks for when it is installed."""
    package = CHECKOUT / "selftune"
    files = [p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    found = {f"selftune/{p.relative_to(package).as_posix()}" for p in files}
    launch = [p for name in LAUNCHED for p in (CHECKOUT / name).rglob("*") if "__pycache__" not in p.parts]
    files = [CHECKOUT / "app.py", *(p for p in launch if p.is_file())]
    return found | {f"selftune/launch/{p.relative_to(CHECKOUT).as_posix()}" for p in files}


def test_the_wheel_holds_every_file_that_the_dashboard_needs() -> None:
    assert needed() == packed()


def test_the_checkout_serves_from_its_own_top() -> None:
    assert house.APP == CHECKOUT / "app.py" and house.APP.is_file()
    assert (house.PAGES / "overview.py").is_file()


def _builder() -> bool:
    try:
        return Version(importlib.metadata.version("setuptools")) >= Version("77")
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not _builder(), reason="no setuptools 77 here: pip install -r requirements.txt")
def test_a_built_wheel_is_what_the_lists_say(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(tracked, cwd=CHECKOUT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((CHECKOUT / name).read_bytes())
    code = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert inside == needed()
