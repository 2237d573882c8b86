"""What a settings text surely means although YAML reads it otherwise: the missing space, tabs, odd blanks.

Answers "which characters must change, and nothing else?". Lines are mended in place, so that line numbers
stay; only slips with a single possible meaning are touched, never the text inside quotes or comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selftune.domain import Problem
from selftune.settings_fields import WORDS_OF_THE_SCHEMA

_NAME = r"[^\s:#{}\[\],\"'&*!|>%@`]+"
# `creative_band:{ min` — nobody names a key with `:{` in it
_BEFORE_BRACKET = re.compile(rf"(?:(?<=[\s{{,])|^)({_NAME}):(?=[{{\[])")
# `min_samples:300` — only for names that the schema or the file itself knows
_BEFORE_VALUE = re.compile(
    rf"(?:(?<=[\s{{,])|^)({_NAME}):(?=(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)|true|false)\s*(?:[,}}]|$|\s\s*#))"
)
_KEY = re.compile(rf"(?:(?<=[\s{{,])|^)({_NAME})\s*:(?:\s|$)")
_ODD_BLANK = re.compile("[\u00a0\u2007\u202f\u3000]")  # one column wide each in YAML's counting
_TAB_WIDTHS = (2, 4, 8)


def mend(text: str, file: str) -> tuple[str, list[Problem]]:
    """`text` with every missing space and odd blank mended, and a problem for each mended line."""
    known = WORDS_OF_THE_SCHEMA | {m.group(1) for m in _KEY.finditer(text)}
    lines, problems = [], []
    for i, line in enumerate(text.split("\n"), start=1):
        blanks = _blanks(line)
        spaced = _spaces(blanks, known)
        if blanks != line:
            problems.append(Problem(code="odd_blank", file=file, line=i))
        if spaced != blanks:
            params = {"found": _code(blanks), "mend": _code(spaced)}
            problems.append(Problem(code="missing_space_after_colon", file=file, line=i, params=params))
        lines.append(spaced)
    return "\n".join(lines), problems


def without_tabs(text: str) -> Iterator[str]:
    """`text` with the tabs of its indents as 2, 4 and 8 columns: sure only if all three mean the same."""
    for width in _TAB_WIDTHS:
        yield re.sub(r"(?m)^[ \t]*\t[ \t]*", lambda m: m.group().expandtabs(width), text)  # noqa: B023


def tab_lines(text: str) -> list[int]:
    """Numbers of the lines whose indent holds a tab."""
    return [i for i, line in enumerate(text.split("\n"), start=1) if re.match(r"[ \t]*\t", line)]


def _blanks(line: str) -> str:
    open_text = _outside(line)
    return "".join(" " if o and _ODD_BLANK.match(c) else c for c, o in zip(line, open_text, strict=True))


def _spaces(line: str, known: frozenset[str] | set[str]) -> str:
    free = _outside(line)

    def space(match: re.Match[str]) -> str:
        listed = line.rfind("[", 0, match.start()) > line.rfind("]", 0, match.start())
        return match.group() + (" " if free[match.start()] and not listed else "")

    line = _BEFORE_BRACKET.sub(space, line)
    free = _outside(line)
    return _BEFORE_VALUE.sub(lambda m: space(m) if m.group(1) in known else m.group(), line)


def _code(line: str) -> str:
    """The line without indent and comment, short enough to show."""
    comment = re.search(r"\s#", line)
    return (line[: comment.start()] if comment else line).strip()[:120]


def _outside(line: str) -> list[bool]:
    """For each character whether it stands outside quotes and comments."""
    free: list[bool] = []
    quote = ""
    for i, char in enumerate(line):
        before = line[i - 1] if i else " "
        if not quote and char == "#" and (before.isspace() or i == 0):
            return free + [False] * (len(line) - i)
        opens = not quote and char in "\"'" and before in " \t{[,:("
        if opens:
            quote = char
            free.append(False)
            continue
        free.append(not quote)
        if char == quote and before != "\\":
            quote = ""
    return free
