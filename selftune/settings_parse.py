"""Text -> `Settings`, with every problem in one error; and the repair of what can only mean one thing."""

from __future__ import annotations

from dataclasses import replace

from selftune.domain import Problem, SettingsError
from selftune.settings import SETTINGS_FILE, Settings
from selftune.settings_mend import mend, tab_lines, without_tabs
from selftune.settings_schema import build
from selftune.settings_yaml import BOM, MAX_PROBLEMS, Unreadable, decode, dotted, path_at, read, read_again


def parse(text: bytes | str, *, file: str = SETTINGS_FILE) -> Settings:
    """The settings that `text` states, defaults filled in.

    Numbers are plain decimals, `1e-3` among them; a reader of YAML 1.1 would take that one as text.
    Raises: SettingsError with every problem, in the order of the lines.
    """
    settings, problems = check(text, file)
    if settings is None:
        raise SettingsError(*_cut(problems, file))
    return settings


def repair(text: str, *, file: str = SETTINGS_FILE) -> tuple[str, tuple[Problem, ...]]:
    """`text` with what is surely a slip mended, and what was mended; valid text comes back as it is.

    The result may still be invalid for other reasons. A BOM and the line ends stay.
    """
    try:
        body = decode(text, file)
    except Unreadable:
        return text, ()
    settings, _ = _check(body, file)
    if settings is not None:
        return text, ()
    mended, found = _mended(body, file)
    return (BOM if text.startswith(BOM) else "") + mended, tuple(found)


def check(text: bytes | str, file: str) -> tuple[Settings | None, list[Problem]]:
    """The settings, or None with the problems: the slips that `repair` mends first, then what remains."""
    try:
        body = decode(text, file)
    except Unreadable as unreadable:
        return None, unreadable.problems
    settings, problems = _check(body, file)
    if settings is None:
        mended, found = _mended(body, file)
        if found:  # each slip is told once, not again as the puzzles it causes
            problems = sorted(found + _check(mended, file)[1], key=lambda p: p.line or 0)
    return settings, problems


def _check(body: str, file: str) -> tuple[Settings | None, list[Problem]]:
    try:
        root, duplicates = read_again(body, file)
    except Unreadable as unreadable:
        return None, unreadable.problems
    return build(root, file, duplicates)


def _mended(body: str, file: str) -> tuple[str, list[Problem]]:
    text, found = mend(body, file)
    lines = tab_lines(text)
    if lines:
        candidates = list(without_tabs(text))
        meaning = _check(candidates[0], file)[0]
        if meaning is not None and all(_check(c, file)[0] == meaning for c in candidates[1:]):
            text = candidates[0]
            found += [Problem(code="tab_indent", file=file, line=lines[0])]
    return text, _with_keys(text, found, file)


def _with_keys(mended: str, found: list[Problem], file: str) -> list[Problem]:
    """Each problem with the key path that its line has once it is mended."""
    try:
        root, _ = read(mended, file)
    except Unreadable:
        return found
    return [replace(p, key=dotted(path_at(root, p.line or 0)) or None) for p in found]


def _cut(problems: list[Problem], file: str) -> list[Problem]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    more = Problem(code="more_problems", file=file, params={"n": len(problems) - MAX_PROBLEMS})
    return [*problems[:MAX_PROBLEMS], more]
