"""The review from a shell: exit codes of the contract, JSON on stdout, words on stderr in both languages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftune.catalogue import LANGUAGES
from selftune.cli import main
from selftune.config import parse
from tests.pages.roots import change_settings
from tests.test_reviewing import seen, watch

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], root: Path) -> Run:
    """(exit code, stdout as JSON or None, stderr) of `review …`."""

    def go(*argv: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main(["--root", str(root), "review", *argv])
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "(code " not in said.err and "(코드 " not in said.err
        return code, json.loads(said.out) if said.out.strip() else None, said.err

    return go


def test_the_whole_way(root: Path, run: Run) -> None:
    change_settings(root, governance__approvals_required=2)
    watch(root)
    assert run("list")[:2] == (0, [])
    code, asked, err = run(
        "request", "--actor", "kim", "--reason", "calm weeks", "--changes", "4", "--lang", "en"
    )
    assert code == 0 and asked["state"] == "open" and asked["loan"]["changes"] == 4 and asked["id"] in err
    assert run("approve", "--actor", "lee", "--comment", "read")[1]["left"] == 1
    code, signed, _ = run("approve", asked["id"], "--actor", "park", "--comment", "read")
    assert (code, signed["left"], signed["done"]) == (0, 0, True)
    assert seen(root).mode.live and not parse((root / "configs/self_tuning.yaml").read_bytes()).dry_run
    (one,) = run("list")[1]
    assert one["state"] == "used" and [s["by"] for s in one["signatures"]] == ["lee", "park"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_no_is_a_4_in_words_and_changes_nothing(root: Path, run: Run, lang: str) -> None:
    before = (root / "configs/self_tuning.yaml").read_bytes()
    assert run("request", "--actor", "kim", "--reason", "x")[0] == 4  # nobody has watched yet
    watch(root)
    assert run("approve", "--actor", "lee", "--comment", "x")[0] == 4  # nothing to sign
    assert run("request", "--actor", "kim")[0] == 4  # no reason
    assert run("request", "--actor", "kim", "--reason", "x", "--changes", "0")[0] == 4
    assert run("request", "--actor", "kim", "--reason", "x")[0] == 0
    for argv, words in (
        (("approve", "--actor", "KIM", "--comment", "x"), ("요청한 사람", "Whoever asked")),
        (("approve", "--actor", "lee"), ("의견으로", "as a comment")),
        (("refuse", "--actor", "lee"), ("이유를", "reason")),
    ):
        code, out, err = run(*argv, "--lang", lang)
        assert code == 4 and out is None and words[LANGUAGES.index(lang)] in err
        assert bool(re.search("[가-힣]", err)) is (lang == "ko")
    assert run("approve", "01NOBODY", "--actor", "lee", "--comment", "x")[0] == 3
    change_settings(root, cooldown_s=200)
    code, _, err = run("approve", "--actor", "lee", "--comment", "x", "--lang", lang)
    assert code == 4 and ("지문" if lang == "ko" else "fingerprint") in err
    change_settings(root, cooldown_s=120)
    assert (root / "configs/self_tuning.yaml").read_bytes() == before and not seen(root).mode.live


def test_a_refusal_and_the_list_say_why(root: Path, run: Run) -> None:
    watch(root)
    run("request", "--actor", "kim", "--reason", "x")
    assert run("refuse", "--actor", "lee", "--reason", "the drill first")[0] == 0
    code, listed, err = run("list", "--lang", "en")
    assert (
        code == 0
        and listed[0]["refused"] == {"by": "lee", "reason": "the drill first"}
        and "Sent back" in err
    )


def test_the_default_actor_who_asked_cannot_sign_under_another_name(root: Path, run: Run) -> None:
    watch(root)
    assert run("request", "--reason", "x")[0] == 0
    assert run("approve", "--comment", "x")[0] == 4
    assert run("approve", "--actor", "somebody-else", "--comment", "x")[0] == 4, "the same OS account"
    assert not seen(root).mode.live


@pytest.mark.parametrize("argv", [("dance",), (), ("request", "--changes", "many")])
def test_bad_usage_is_a_2(run: Run, argv: tuple[str, ...]) -> None:
    assert run(*argv)[0] == 2
