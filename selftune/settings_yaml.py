"""Strict YAML: text -> a small tree of nodes that know their line and place, or the problems found.

Answers "is this one plain document of mappings, lists and scalars?". Limits are counted on the stream of
events, so that a bomb is refused before anything is composed. Aliases, anchors, tags, duplicate keys and
second documents are refused. Nothing is converted here: a scalar is its text and whether it was quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

from selftune.domain import Problem

MAX_BYTES = 256 * 1024
MAX_NODES = 5_000
MAX_DEPTH = 20
MAX_PROBLEMS = 50  # a list that nobody reads to its end is cut, and says so
BOM = "\ufeff"

Path = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Node:
    """`start`, `end` are offsets into the text without BOM; `line` counts from 1."""

    line: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Scalar(Node):
    """`plain`: not quoted, so that `0.3`, `true`, `null` may mean more than text."""

    text: str
    plain: bool
    style: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    key: Scalar
    value: Node


@dataclass(frozen=True, kw_only=True)
class Collection(Node):
    """`flow`: written with brackets."""

    flow: bool


@dataclass(frozen=True, kw_only=True)
class Map(Collection):
    pairs: tuple[Pair, ...]

    def get(self, key: str) -> Node | None:
        return next((p.value for p in self.pairs if p.key.text == key), None)


@dataclass(frozen=True, kw_only=True)
class List(Collection):
    items: tuple[Node, ...]


class Unreadable(Exception):
    """The text is no acceptable document; `problems` say why."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(", ".join(p.code for p in problems))


@dataclass
class _Open:
    """A collection whose end has not come yet."""

    event: yaml.CollectionStartEvent
    path: Path
    children: list[Node] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


def decode(raw: bytes | str, file: str) -> str:
    """The text without BOM. Raises: Unreadable when it is too large, not UTF-8, or holds NUL bytes."""
    size = len(raw)
    if size <= MAX_BYTES and isinstance(raw, str):
        size = len(raw.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise Unreadable([Problem(code="too_large", file=file, params={"found": size // 1024, "limit": 256})])
    if isinstance(raw, str):
        return raw.removeprefix(BOM)
    try:
        return raw.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Unreadable([Problem(code="not_utf8", file=file, line=line)]) from error


def read(text: str, file: str) -> tuple[Map, list[Problem]]:
    """The document's root mapping and its duplicate keys; `text` has no BOM.

    Raises: Unreadable with every structural problem, when there are others than duplicates.
    """
    reader = _Reader(file)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            reader.take(event)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reader.fail("bad_character", line, (), found=f"U+{ord(text[error.position]):04X}")
    except yaml.MarkedYAMLError as error:
        reader.fail(*_explain(error, text))
    except (RecursionError, ValueError, OverflowError):  # an escape or directive that PyYAML cannot hold
        reader.fail("syntax", None, ())
    if any(p.code != "duplicate_key" for p in reader.problems):
        raise Unreadable(reader.problems)
    if not isinstance(reader.root, Map):
        raise Unreadable([Problem(code="empty_file" if reader.empty else "not_a_mapping", file=file, line=1)])
    return reader.root, reader.problems


def read_again(text: str, file: str) -> tuple[Map, list[Problem]]:
    """What `read` gives, remembered for the last few texts; for settings, which hold no secrets.

    An edit, its check and its preview read the same ones over and over; PyYAML takes 10 to 30 ms for each.
    """
    root, problems = _remembered(text, file)
    return root, list(problems)


@lru_cache(maxsize=8)
def _remembered(text: str, file: str) -> tuple[Map, tuple[Problem, ...]]:
    root, problems = read(text, file)
    return root, tuple(problems)


def _explain(error: yaml.MarkedYAMLError, text: str) -> tuple[str, int | None, Path]:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    said = f"{error.context or ''} {error.problem or ''}"
    at = text[mark.index : mark.index + 1] if mark else ""
    if at == "\t":
        return "tab_indent", line, ()
    if "undefined alias" in said:
        return "alias", line, ()
    if "tag" in said:
        return "tag", line, ()
    if "flow" in said or "quoted scalar" in said:
        opened = error.context_mark
        return "not_closed", opened.line + 1 if opened else line, ()
    return "syntax", line, ()


class _Reader:
    """Builds the tree from events with a stack of its own: no recursion, no PyYAML composer."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self.empty = True
        self._stack: list[_Open] = []
        self._nodes = 0
        self._documents = 0

    def fail(self, code: str, line: int | None, path: Path, **params: object) -> None:
        key = dotted(path) if path else None
        self.problems.append(Problem(code=code, file=self.file, line=line, key=key, params=params))

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop("many_documents", event)
            if event.tags or event.version:
                self.fail("directive", _line(event), ())
        elif isinstance(event, yaml.NodeEvent):
            self._node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(event)
        if len(self.problems) >= MAX_PROBLEMS:
            raise Unreadable(self.problems)

    def _stop(self, code: str, event: yaml.Event, **params: object) -> None:
        self.fail(code, _line(event), (), **params)
        raise Unreadable(self.problems)

    def _node(self, event: yaml.NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop("too_many_nodes", event, limit=MAX_NODES)
        path = self._path()
        if isinstance(event, yaml.AliasEvent):
            self.fail("alias", _line(event), path, found=f"*{event.anchor}")
            self._add(_scalar(event, "", plain=False))
            return
        if event.anchor is not None:
            self.fail("anchor", _line(event), path, found=f"&{event.anchor}")
        if isinstance(event, yaml.ScalarEvent):
            if event.tag is not None:
                self.fail("tag", _line(event), path, found=event.tag)
            self.empty = self.empty and event.value == ""
            self._add(_scalar(event, event.value, plain=event.style is None))
        elif isinstance(event, yaml.CollectionStartEvent):
            self.empty = False
            if event.tag is not None:
                self.fail("tag", _line(event), path, found=event.tag)
            if len(self._stack) >= MAX_DEPTH:
                self._stop("too_deep", event, limit=MAX_DEPTH)
            self._stack.append(_Open(event, path))

    def _path(self) -> Path:
        """The key path of the node that comes next."""
        if not self._stack:
            return ()
        top = self._stack[-1]
        if isinstance(top.event, yaml.SequenceStartEvent):
            return (*top.path, str(len(top.children)))
        key = top.children[-1] if len(top.children) % 2 else None
        return (*top.path, key.text) if isinstance(key, Scalar) else top.path

    def _add(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        if isinstance(top.event, yaml.MappingStartEvent) and len(top.children) % 2 == 0:
            if not isinstance(node, Scalar):
                self.fail("key_not_a_word", node.line, top.path)
                node = Scalar(line=node.line, start=node.start, end=node.end, text="", plain=False)
            elif node.text in top.keys:
                self.fail("duplicate_key", node.line, (*top.path, node.text), found=node.text)
            else:
                top.keys.add(node.text)
        top.children.append(node)

    def _close(self, event: yaml.CollectionEndEvent) -> None:
        done = self._stack.pop()
        line, start, end = _line(done.event), _offset(done.event.start_mark), _offset(event.end_mark)
        flow, children = bool(done.event.flow_style), tuple(done.children)
        if isinstance(done.event, yaml.SequenceStartEvent):
            self._add(List(line=line, start=start, end=end, flow=flow, items=children))
        else:
            self._add(Map(line=line, start=start, end=end, flow=flow, pairs=tuple(_pairs(children))))


def _pairs(children: tuple[Node, ...]) -> Iterator[Pair]:
    for key, value in zip(children[::2], children[1::2], strict=True):
        if isinstance(key, Scalar):
            yield Pair(key=key, value=value)


def _scalar(event: yaml.NodeEvent, text: str, *, plain: bool) -> Scalar:
    return Scalar(
        line=_line(event),
        start=_offset(event.start_mark),
        end=_offset(event.end_mark),
        text=text,
        plain=plain,
        style=getattr(event, "style", None),
    )


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 1


def _offset(mark: Any) -> int:
    return int(mark.index)  # of characters, as the text is a str


# ----------------------------------------------------------------------------- key paths
def dotted(path: Path) -> str:
    """A key path as text; a key that holds a dot is quoted: `targets."p95.ms".max`."""
    return ".".join(f'"{key}"' if "." in key or '"' in key or not key else key for key in path)


def path_at(node: Node, line: int) -> Path:
    """The path of the first key on a line; () when the line has none."""
    pairs = node.pairs if isinstance(node, Map) else ()
    for pair in pairs:
        if pair.key.line == line:
            return (pair.key.text,)
        below = path_at(pair.value, line)
        if below:
            return (pair.key.text, *below)
    return ()


def split_path(path: str | Path) -> Path:
    """The keys of a path: a tuple as it is, a text split at the dots outside double quotes."""
    if not isinstance(path, str):
        return tuple(path)
    keys, rest = [], path
    while rest:
        end = rest.find('".', 1) + 1 if rest.startswith('"') else rest.find(".")
        if rest.startswith('"') and end == 0:
            end = len(rest) if rest.endswith('"') and len(rest) > 1 else rest.find(".")
        key, rest = (rest, "") if end < 0 else (rest[:end], rest[end + 1 :])
        keys.append(key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key)
    return tuple(keys)
