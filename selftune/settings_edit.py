"""Careful edits of a settings text: only the edited scalars change, byte for byte.

Answers "what is the smallest change of this text that says the new values?". Comments, quotes, line ends
and the BOM of everything else stay; the result is read again and compared before it is handed back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from selftune.domain import Problem, SettingsError
from selftune.settings import SETTINGS_FILE
from selftune.settings_fields import Misfit, boolean, is_null, number
from selftune.settings_parse import parse
from selftune.settings_yaml import (
    BOM,
    List,
    Map,
    Node,
    Path,
    Scalar,
    Unreadable,
    decode,
    dotted,
    read_again,
    split_path,
)

Value = float | bool | int | str | None
KeyPath = str | tuple[str, ...]
_PLAIN_TEXT = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.+-]*")
_INDENT = "  "


def edit(text: str, changes: Mapping[KeyPath, Value], *, file: str = SETTINGS_FILE) -> str:
    """`text` with each value of `changes` (key path -> value) in place of the old one, all else as it was.

    A path is dotted (`targets."p95.ms".max`) or a tuple of keys; a missing optional key is added at the end
    of its section. A value that is the present one already changes nothing.
    Raises: SettingsError when the text or the result is not valid, or the edit cannot be made safely.
    """
    parse(text, file=file)  # an invalid file is mended by a person, not edited over
    bom = BOM if text.startswith(BOM) else ""
    body = text.removeprefix(BOM)
    wanted = _data(_tree(body, file))
    for key, value in changes.items():
        path = split_path(key)
        if not path or not all(path):
            raise _refused(file, path)
        body = _set(body, path, value, file)
        _put(wanted, path, value, file)
    parse(body, file=file)
    if not _same(_data(_tree(body, file)), wanted):
        raise _refused(file, ())
    return bom + body


def _refused(file: str, path: Path) -> SettingsError:
    return SettingsError(Problem(code="edit_refused", file=file, key=dotted(path) if path else None))


def _tree(body: str, file: str) -> Map:
    try:
        return read_again(decode(body, file), file)[0]
    except Unreadable as unreadable:
        raise SettingsError(*unreadable.problems) from unreadable


# ----------------------------------------------------------------------------- the text
def _set(body: str, path: Path, value: Value, file: str) -> str:
    """`body` with one scalar replaced, or added where its section ends."""
    node: Node = _tree(body, file)
    for depth, key in enumerate(path):
        below = _child(node, key)
        if below is None:
            if not isinstance(node, Map):
                raise _refused(file, path)
            return _insert(body, node, path[depth:], _literal(value))
        node = below
    if not isinstance(node, Scalar):
        raise _refused(file, path)
    if _same(_meaning(node), value):
        return body
    new = _literal(value, like=node)
    if node.start == node.end:  # an empty value: its place is right behind the colon
        return f"{body[: node.start]} {new}{body[node.start :]}"
    return body[: node.start] + new + body[node.end :]


def _child(node: Node, key: str) -> Node | None:
    if isinstance(node, Map):
        return node.get(key)
    if isinstance(node, List) and key.isascii() and key.isdigit() and int(key[:9]) < len(node.items):
        return node.items[int(key)]
    return None


def _insert(body: str, section: Map, path: Path, literal: str) -> str:
    """`body` with `path: literal` added behind the last entry of `section`."""
    if section.flow:
        entry = f"{_word(path[-1])}: {literal}"
        for key in reversed(path[:-1]):
            entry = f"{_word(key)}: {{ {entry} }}"
        if not section.pairs:
            return f"{body[: section.start]}{{ {entry} }}{body[section.end :]}"
        end = section.pairs[-1].value.end
        return f"{body[:end]}, {entry}{body[end:]}"
    newline = "\r\n" if "\r\n" in body else "\n"
    first = section.pairs[0].key.start
    indent = body[_line_start(body, first) : first]
    entry = newline.join(
        f"{indent}{_INDENT * i}{_word(key)}:" + (f" {literal}" if i == len(path) - 1 else "")
        for i, key in enumerate(path)
    )
    end = _line_end(body, _last(section))
    return f"{body[:end]}{newline}{entry}{body[end:]}"


def _last(node: Node) -> int:
    """Where the text of the last leaf ends; a block's own end lies behind the comments that follow it."""
    if isinstance(node, Map) and not node.flow and node.pairs:
        return _last(node.pairs[-1].value)
    if isinstance(node, List) and not node.flow and node.items:
        return _last(node.items[-1])
    return node.end


def _line_start(body: str, at: int) -> int:
    return body.rfind("\n", 0, at) + 1


def _line_end(body: str, at: int) -> int:
    end = body.find("\n", at)
    end = len(body) if end < 0 else end
    return end - 1 if body[at:end].endswith("\r") else end


def _word(key: str) -> str:
    sure = _PLAIN_TEXT.fullmatch(key) and key.lower() not in (
        "true",
        "false",
        "null",
        "yes",
        "no",
        "on",
        "off",
    )
    return key if sure else json.dumps(key, ensure_ascii=False)


def _literal(value: Value, like: Scalar | None = None) -> str:
    """How `value` is written: numbers without exponent, texts quoted as the old one was."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        shown = format(Decimal(repr(value)), "f") if value == value else "nan"
        return shown.removesuffix(".0")
    if like is not None and like.style == "'":
        return "'" + value.replace("'", "''") + "'"
    return _word(value) if like is None or like.style is None else json.dumps(value, ensure_ascii=False)


# ----------------------------------------------------------------------------- the meaning
def _data(node: Node) -> Any:
    """The tree as dicts, lists and scalars, for comparison."""
    if isinstance(node, Map):
        return {p.key.text: _data(p.value) for p in node.pairs}
    if isinstance(node, List):
        return [_data(i) for i in node.items]
    assert isinstance(node, Scalar)
    return _meaning(node)


def _meaning(node: Scalar) -> Value:
    if is_null(node.text, node.plain):
        return None
    for read_as in (boolean, number):
        try:
            return read_as(node.text, node.plain)
        except Misfit:
            continue
    return node.text


def _put(data: Any, path: Path, value: Value, file: str) -> None:
    try:
        for key in path[:-1]:
            data = data[int(key)] if isinstance(data, list) else data.setdefault(key, {})
        if isinstance(data, list):
            data[int(path[-1])] = value
        else:
            data[path[-1]] = value
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise _refused(file, path) from error


def _same(a: Any, b: Any) -> bool:
    """Equal in kind and value: true is not 1, but 1 is 1.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
