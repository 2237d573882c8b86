"""The list of modules is the architecture: who may import whom, and what the pure layers never touch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "selftune"

# One line a theme, so that two people adding a module do not meet on one line.
LAYERS: dict[int, list[str]] = {
    0: """
        __init__
        domain
        settings settings_yaml settings_fields settings_walk settings_schema
        settings_parse settings_mend settings_edit
        config
    """.split(),
    1: """
        book records gather evidence lives fold_events fold_decisions lifecycle excursion mode governing
        series rows intake ring coarse downsample
        effects effectrows effect_record judging gaps harm noise limits contrast weights quiet health
        objective guards policy policy_state adaptive response_model
        plan picture seen watch cycle acts acting hands proposed
        suggesting
        drafting reach readiness track
        backtest_request backtest_result backtest_story backtest_score backtest_entries backtest_response
        decision_lines whereabouts cards timeline
        wording korean
        address access accounts
    """.split(),
    2: """
        files threads locks parts catalogue house
        source ranges samples
        stores ledger
        account_book passwords sessions backoff reception openid
    """.split(),
    3: """
        plants simulate tuned demo
        runtime loop up supervisor lifeline
        revising pretended standing reviewing
        rehearsal
        backtest backtest_data backtest_pool backtest_replay backtest_closed backtest_life backtest_best
        backtest_figures backtest_simulate backtest_sweep backtest_runs backtest_job
        backtest_desk
        cli cli_backtest cli_check cli_hands cli_review cli_status cli_users cli_words __main__
        checkup status sweep
    """.split(),
    4: """
        chart_kit chart_parts charts effect_charts
        view desk office pace ui web frame switch
        oidc doors sockets sign_in sign_in_page whoami
        needs past trends
        revision_text backtest_view backtest_text backtest_charts
        deskwork trying markup card_text event_text report
        review_text review_report
    """.split(),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}

# What the pure core never touches: files, clocks, randomness, processes, the terminal.
IMPURE_MODULES = {
    "asyncio", "glob", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil",
    "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "uuid", "ulid", "filelock",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
IMPURE_ATTRIBUTES = {  # ends of a dotted name, so that `np.random.normal` and `datetime.now` are both seen
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "np.random", "numpy.random",
    "io.open", "np.load", "np.save", "np.loadtxt", "np.fromfile",
}  # fmt: skip
CORE_LIBRARIES = {"numpy", "scipy", "yaml"}  # of scipy: scipy.special only
YAML_ALONE = {"settings_yaml", "config"}  # the core modules that parse the text of the settings

STREAMLIT_WHOLE = {"ui", "frame", "deskwork", "switch", "whoami", "trying"}
STREAMLIT_PARTS = {  # ASGI parts, no widgets
    "oidc": ("streamlit.auth_util", "streamlit.errors", "streamlit.web"),
    "sockets": ("streamlit.proto",),
}
HEAVY_FOR_THE_LOOP = ("pandas", "scipy.stats", "streamlit", "pyarrow", "altair", "matplotlib")


def module_name(path: Path) -> str:
    """`selftune/cycle.py` -> `cycle`; a file in a sub-package is named by its sub-package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Dotted names imported anywhere in the file, each with whether it counts at run time."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"line {node.lineno}: write `from selftune.x import y`, not a relative import"
            )
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in typing_only


def own_modules(tree: ast.AST) -> set[str]:
    """Modules of the package that a file imports, as names of the table."""
    found = set()
    for name, _ in imported(tree):
        head, _, rest = name.partition(".")
        if head == "selftune":
            found.add(rest.split(".")[0])
    return found


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def ids(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def core_faults(name: str, tree: ast.AST) -> list[str]:
    """What a module of layer 0 or 1 does that belongs to an outer layer."""
    faults = []
    for full, at_run_time in imported(tree):
        head = full.split(".")[0]
        if not at_run_time or head in ("selftune", "__future__"):
            continue
        if head in IMPURE_MODULES:
            faults.append(f"imports {head}")
        elif head not in sys.stdlib_module_names and head not in CORE_LIBRARIES:
            faults.append(f"imports {head}: the core has numpy and scipy.special")
        elif head == "scipy" and not full.startswith("scipy.special"):
            faults.append(f"imports {full}: of scipy only scipy.special")
        elif head == "yaml" and name not in YAML_ALONE:
            faults.append("imports yaml: layer 2 hands the data in")
        elif full.startswith(("numpy.random", "importlib.resources")):
            faults.append(f"imports {full}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            faults.append(f"line {node.lineno}: calls {node.func.id}()")
        if isinstance(node, ast.Attribute):
            full = dotted(node)
            if any(full == bad or full.endswith("." + bad) for bad in IMPURE_ATTRIBUTES):
                faults.append(f"line {node.lineno}: uses {full}")
    return faults


@pytest.mark.parametrize("path", sources(), ids=ids)
def test_every_module_has_a_layer_and_imports_only_downward(path: Path) -> None:
    name = module_name(path)
    assert name in LAYER_OF, f"{ids(path)}: add it to the table of layers in {ids(Path(__file__))}"
    upward = {}
    for other in own_modules(tree_of(path)):
        # `from selftune import __version__`, and submodules by `from selftune import series`
        target = other if other in LAYER_OF else "__init__"
        if LAYER_OF[target] > LAYER_OF[name]:
            upward[other] = LAYER_OF[target]
    assert not upward, f"{ids(path)} (layer {LAYER_OF[name]}) imports upward: {upward}"


CORE = [p for p in sources() if LAYER_OF.get(module_name(p), 9) <= 1]


@pytest.mark.parametrize("path", CORE, ids=ids)
def test_the_core_is_pure(path: Path) -> None:
    assert core_faults(module_name(path), tree_of(path)) == []


@pytest.mark.parametrize("path", sources(), ids=ids)
def test_streamlit_stays_in_the_pages(path: Path) -> None:
    name = module_name(path)
    if name in STREAMLIT_WHOLE:
        return
    allowed = STREAMLIT_PARTS.get(name, ())
    found = [n for n, _ in imported(tree_of(path)) if n.split(".")[0] == "streamlit"]
    assert [n for n in found if not n.startswith(allowed or ("\0",))] == []


def test_scripts_beside_the_package_reach_only_into_it() -> None:
    """`app.py` and `pages/` are thin: no page imports another page or the launcher."""
    for path in [CHECKOUT / "app.py", *sorted((CHECKOUT / "pages").glob("*.py"))]:
        if path.exists():
            heads = {n.split(".")[0] for n, _ in imported(tree_of(path))}
            assert not heads & {"app", "pages"}, ids(path)


@pytest.mark.parametrize("name", [n for n in ("loop", "simulate", "demo") if (PACKAGE / f"{n}.py").exists()])
def test_the_loop_stays_light(name: str) -> None:
    """A fresh interpreter that imports the loop has loaded none of the heavy libraries."""
    code = f"import sys, selftune.{name}; print(*[m for m in {HEAVY_FOR_THE_LOOP!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.split() == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import os", "imports os"),
        ("from pathlib import Path", "imports pathlib"),
        ("open('x')", "calls open()"),
        ("print(1)", "calls print()"),
        ("import numpy as np\nnp.random.default_rng(1)", "uses np.random"),
        ("import datetime\ndatetime.datetime.now()", "uses datetime.datetime.now"),
        ("from datetime import datetime\ndatetime.now()", "uses datetime.now"),
        ("from scipy import stats", "imports scipy.stats"),
        ("import pandas", "imports pandas"),
        ("def f():\n    import time", "imports time"),
    ],
)
def test_the_purity_check_sees(text: str, fault: str) -> None:
    assert any(fault in f for f in core_faults("cycle", ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nfrom scipy.special import stdtr",
        "from scipy import special",
        "import scipy.special as sc",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pathlib import Path",
        "from datetime import datetime\ndatetime.fromtimestamp(0)",
    ],
)
def test_the_purity_check_lets_pass(text: str) -> None:
    assert core_faults("cycle", ast.parse(text)) == []


def test_an_upward_import_is_seen() -> None:
    assert own_modules(ast.parse("from selftune import loop\nimport selftune.cli\n")) == {"loop", "cli"}
