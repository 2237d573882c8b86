"""Walks the tree of a settings file: sections, names and single values, with a note of all that is wrong.

Answers "what stands at this key?". What the sections mean together is settings_schema.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from selftune.domain import Problem
from selftune.settings_fields import (
    FIELDS,
    LARGEST,
    NAMED,
    Field,
    Kind,
    Misfit,
    boolean,
    check_name,
    children,
    choice,
    home_of,
    is_null,
    nearest,
    number,
    within,
)
from selftune.settings_yaml import MAX_PROBLEMS, List, Map, Node, Pair, Path, Scalar, dotted

_T = TypeVar("_T")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9.*:\[\]_-]{1,255}")


class Walk:
    """Reads values out of the tree and notes what is wrong with them."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file, self.problems = file, problems
        self._not_sections: set[str] = set()

    # -- notes
    def fail(self, code: str, node: Node, path: Path, **params: Any) -> None:
        shown = {k: v[:200] if isinstance(v, str) else v for k, v in params.items()}
        problem = Problem(code=code, file=self.file, line=node.line, key=dotted(path), params=shown)
        if problem not in self.problems:
            self.problems.append(problem)

    def missing(self, node: Node, path: Path) -> None:
        """Note that `path` must be there, unless a mistyped name stands in its place: that is the cause."""
        meant = {
            (*(p.key or "").split(".")[:-1], p.params.get("nearest"))
            for p in self.problems
            if p.code == "unknown_key"
        }
        if not any(path[: i + 1] in meant for i in range(len(path))):
            self.fail("missing_key", node, path)

    def has_problem_at(self, section: str) -> bool:
        return any(p.key == section or (p.key or "").startswith(f"{section}.") for p in self.problems)

    def guarded(self, node: Node, path: Path, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except Misfit as misfit:
            self.fail(misfit.code, node, path, **misfit.params)
            return None

    # -- sections
    def section(self, root: Map, section: str) -> Map | None:
        """The mapping at `section`; None when absent, or when something else stands there (noted once)."""
        node: Node | None = root
        path: Path = ()
        for key in section.split(".") if section else ():
            if not isinstance(node, Map):
                return None
            path = (*path, key)
            node = node.get(key)
            if node is not None and not isinstance(node, Map):
                if dotted(path) not in self._not_sections:
                    self._not_sections.add(dotted(path))
                    empty = isinstance(node, Scalar) and is_null(node.text, node.plain)
                    self.fail("empty_section" if empty else "not_a_section", node, path)
                return None
        return node if isinstance(node, Map) else None

    def names_in(self, root: Map, section: str) -> tuple[str, ...]:
        found = self.section(root, section)
        return tuple(p.key.text for p in found.pairs) if found else ()

    def unknown_keys(self, root: Map, section: str) -> None:
        found = self.section(root, section)
        known = children(section)
        for pair in found.pairs if found else ():
            name = pair.key.text
            path = f"{section}.{name}" if section else name
            if name not in known:
                crowd = len(self.problems) >= MAX_PROBLEMS  # beyond it nobody is shown a suggestion
                near = None if crowd else nearest(name, known) or home_of(name)
                self.fail("unknown_key", pair.key, tuple(path.split(".")), found=name, nearest=near)
            elif path not in NAMED and path not in FIELDS:
                self.unknown_keys(root, path)

    def named(
        self,
        root: Map,
        section: str,
        read: Callable[[Pair, Path], _T | None],
        known: tuple[str, tuple[str, ...]] | None = None,
    ) -> dict[str, _T]:
        """The entries of a section whose keys are names; with `known` a name must be one of them."""
        found: dict[str, _T] = {}
        entries = self.section(root, section)
        for pair in entries.pairs if entries else ():
            name, path = pair.key.text, (*section.split("."), pair.key.text)
            if ".".join(path) in FIELDS and not isinstance(pair.value, Map):
                continue  # `safety.warn.phase_bad` is a number beside the metrics
            if known and name not in known[1]:
                self.fail(known[0], pair.key, path, found=name, nearest=nearest(name, known[1]))
                continue
            if name == "<<" and pair.key.plain:
                self.fail("merge_key", pair.key, path)
                continue
            try:
                check_name(name)
            except Misfit as misfit:
                self.fail(misfit.code, pair.key, path, **misfit.params)
                continue
            value = read(pair, path)
            if value is not None:
                found.setdefault(name, value)
        return found

    def entries(self, pair: Pair, path: Path, known: tuple[str, ...]) -> dict[str, Node] | None:
        """The keys below one name, unknown ones noted; None when no mapping stands there."""
        node = pair.value
        if not isinstance(node, Map):
            empty = isinstance(node, Scalar) and is_null(node.text, node.plain)
            self.fail("empty_section" if empty else "not_a_section", node, path)
            return None
        for inner in node.pairs:
            name = inner.key.text
            if name not in known and name.isdigit() and node.flow:
                self.fail("decimal_comma", inner.key, path, found=name)  # `{ max: 0,05 }` is two entries
            elif name not in known:
                near = nearest(name, known)
                self.fail("unknown_key", inner.key, (*path, name), found=name, nearest=near)
        return {p.key.text: p.value for p in reversed(node.pairs) if p.key.text in known}

    # -- scalars
    def number(self, node: Node | None, path: Path, *, field: Field | None = None) -> float | None:
        if node is None:
            return None
        limits = field or Field(dotted(path), Kind.NUMBER, None, least=-LARGEST, most=LARGEST)
        if not isinstance(node, Scalar):
            self.fail("not_a_number", node, path, found="{}" if isinstance(node, Map) else "[]", mend=None)
            return None
        if is_null(node.text, node.plain):
            self.fail("empty_value", node, path)
            return None
        scalar = node

        def read() -> float:
            value = number(scalar.text, scalar.plain)
            within(value, limits, scalar.text)
            return value

        return self.guarded(node, path, read)

    def field(self, root: Map, field: Field) -> Any:
        """The value of a key with a fixed path, else its default."""
        *above, last = field.path.split(".")
        parent = self.section(root, ".".join(above))
        node = parent.get(last) if parent else None
        path = tuple(field.path.split("."))
        if node is None or (field.path == "safety.warn.phase_bad" and isinstance(node, Map)):
            return field.default
        if field.kind is Kind.LIST:
            return self.peers(node, path) if field.path.endswith(".peers") else self.hosts(node, path)
        if field.kind in (Kind.NUMBER, Kind.WHOLE) and not (
            field.nullable and isinstance(node, Scalar) and is_null(node.text, node.plain)
        ):
            value = self.number(node, path, field=field)
            return int(value) if value is not None and field.kind is Kind.WHOLE else value
        if not isinstance(node, Scalar):
            self.fail("not_a_scalar", node, path)
            return field.default
        if is_null(node.text, node.plain):
            if not field.nullable:
                self.fail("empty_value", node, path)
            return None
        return self.guarded(node, path, lambda: _scalar(field, node))

    def hosts(self, node: Node, path: Path) -> tuple[str, ...]:
        if not isinstance(node, List):
            self.fail("not_a_list", node, path)
            return ()
        for i, item in enumerate(node.items):
            if not isinstance(item, Scalar) or not _HOST.fullmatch(item.text):
                found = item.text if isinstance(item, Scalar) else "{}"
                self.fail("bad_host", item, (*path, str(i)), found=found)
        return tuple(i.text for i in node.items if isinstance(i, Scalar))

    def peers(self, node: Node, path: Path) -> tuple[str, ...]:
        """Addresses or networks; names are refused, because whoever answers for a name could change."""
        if not isinstance(node, List):
            self.fail("not_a_list", node, path)
            return ()
        found = []
        for i, item in enumerate(node.items):
            text = item.text if isinstance(item, Scalar) else "{}"
            try:
                found.append(str(ip_network(text, strict=False)))
            except ValueError:
                self.fail("bad_address", item, (*path, str(i)), found=text)
        return tuple(found)


def _scalar(field: Field, node: Scalar) -> Any:
    if field.kind is Kind.BOOLEAN:
        return boolean(node.text, node.plain)
    if field.kind is Kind.CHOICE:
        return choice(node.text, field.choices)
    read = {"timezone": zone, "governance.proxy.user_header": header}.get(field.path, inside_root)
    return read(node.text)


def header(name: str) -> str:
    """`name` when it can be an HTTP header's that no client needs for itself. Raises: Misfit."""
    if not _HEADER.fullmatch(name) or name.lower() in ("host", "cookie", "origin", "authorization"):
        raise Misfit("bad_header", found=name)
    return name


def zone(name: str) -> str:
    """`name` when the time zone data know it. Raises: Misfit."""
    try:
        if len(name) <= 64 and _ZONE.fullmatch(name):
            ZoneInfo(name)
            return name
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass  # OSError: the name is a folder of zones, as `Asia`
    raise Misfit("unknown_timezone", found=name, nearest=_near_zone(name))


def _near_zone(name: str) -> str | None:
    known = available_timezones()
    city = [z for z in known if z.rsplit("/", 1)[-1].casefold() == name.strip().casefold()]
    return min(city) if city else nearest(name, [z for z in known if z[:1].casefold() == name[:1].casefold()])


def inside_root(path: str) -> str:
    """`path` when it stays below the data root: relative, no `..`, no drive. Raises: Misfit."""
    parts = path.replace("\\", "/").split("/")
    if not path.isprintable() or not 0 < len(path) <= 300 or ":" in path or {"", ".."} & set(parts):
        raise Misfit("path_outside", found=path)
    return path
