"""The keys of the settings file: type, default, limits and unit of each, and how its text becomes a value.

Answers "is this one value of the right kind, and what is it?". YAML 1.1 has traps, so that a scalar is
read by our own rules: a number is a plain decimal (`0.3`, `+0.008`, `.5`, `1e-3`; PyYAML alone would read the
last as text); sexagesimal `1:30`, octal `010`, `0x1F` and `1_000` are refused, because readers differ on
them; a boolean is `true` or `false` and never `yes`, `on` or `0`; quoted numbers are text.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from selftune.domain import Confirm, Identity, PolicyName
from selftune.settings import METRICS_FILE

YEAR_S = 366 * 86_400.0
LARGEST = 1e15  # beyond it a float no longer holds whole units, and differences may overflow


class Kind(Enum):
    NUMBER = "number"
    WHOLE = "whole"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    TEXT = "text"
    LIST = "list"


@dataclass(frozen=True)
class Field:
    """One key with a fixed path. `above`: the least value itself is not allowed. `unit`: of unit.* words."""

    path: str
    kind: Kind
    default: Any
    least: float = -LARGEST
    most: float = LARGEST
    above: bool = False
    unit: str = ""
    choices: tuple[str, ...] = ()
    nullable: bool = False


def _seconds(path: str, default: float, *, zero: bool = False) -> Field:
    return Field(path, Kind.NUMBER, default, least=0, most=YEAR_S, above=not zero, unit="s")


def _count(path: str, default: int, least: int, most: int, unit: str = "") -> Field:
    return Field(path, Kind.WHOLE, default, least=least, most=most, unit=unit)


def _flag(path: str, default: bool | None) -> Field:
    return Field(path, Kind.BOOLEAN, default, nullable=default is None)


def _choice(path: str, default: str, choices: Iterable[str]) -> Field:
    return Field(path, Kind.CHOICE, default, choices=tuple(str(c) for c in choices))


FIELDS: dict[str, Field] = {
    f.path: f
    for f in (
        _seconds("observe_window_s", 90.0),
        _count("min_samples", 300, 1, 10_000_000, "samples"),
        _seconds("cooldown_s", 120.0, zero=True),
        _seconds("settle_s", 20.0, zero=True),
        _seconds("history_s", 600.0),
        Field("timezone", Kind.TEXT, "Asia/Seoul"),
        _choice("language", "ko", ("ko", "en")),
        Field("metrics.source", Kind.TEXT, METRICS_FILE),
        Field("metrics.rate_hz", Kind.NUMBER, 5.0, least=0, most=1e6, above=True, unit="Hz"),
        _seconds("metrics.max_age_s", 5.0),
        Field("safety.warn.phase_bad", Kind.NUMBER, None),
        _flag("strategy.dry_run", True),
        _count("strategy.max_concurrent_changes", 1, 1, 1000, "changes"),
        _choice("strategy.policy", PolicyName.ADAPTIVE, PolicyName),
        _flag("strategy.auto_rollback", True),
        _choice("strategy.confirm", Confirm.STANDARD, Confirm),
        _count("strategy.excursion.max_steps", 6, 1, 10_000, "steps"),
        _seconds("strategy.excursion.max_s", 3600.0),
        _count("strategy.rollback_limit", 3, 1, 10_000),
        _seconds("strategy.proposal_ttl_s", 600.0),
        _count("strategy.resolution", 6, 0, 12),
        _count("governance.approvals_required", 1, 0, 100),
        _flag("governance.manual_apply", True),
        _choice("governance.identity", Identity.LOCAL, Identity),
        _flag("governance.public_view", None),
        Field("governance.allowed_hosts", Kind.LIST, ()),
        Field("governance.proxy.peers", Kind.LIST, ()),
        Field("governance.proxy.user_header", Kind.TEXT, "X-Forwarded-User"),
        _count("governance.loan.changes", 20, 1, 1_000_000, "changes"),
        Field("governance.loan.displacement", Kind.NUMBER, 6.0, least=0, most=1e6, above=True, unit="steps"),
        Field("governance.loan.hours", Kind.NUMBER, 24.0, least=0, most=8784, above=True, unit="h"),
        Field("logs.retention_days", Kind.NUMBER, None, least=0, most=36_600, above=True, unit="days",
              nullable=True),
    )
}  # fmt: skip

# sections whose keys are names that people give
NAMED = frozenset(
    {"targets", "rules", "safety.good", "safety.warn", "safety.hard", "strategy.objective_weights",
     "strategy.direction", "governance.readiness"}
)  # fmt: skip
TARGET_KEYS = ("max", "min", "scale", "range")
RULE_KEYS = ("init", "min", "max", "lr", "weight")
LIMIT_KEYS = ("max", "min")


def children(section: str) -> tuple[str, ...]:
    """The keys known directly below `section` ("" is the root)."""
    prefix = f"{section}." if section else ""
    below = [p[len(prefix) :] for p in (*FIELDS, *sorted(NAMED)) if p.startswith(prefix)]
    return tuple(dict.fromkeys(p.split(".")[0] for p in below))


WORDS_OF_THE_SCHEMA = frozenset(
    part for path in (*FIELDS, *NAMED) for part in path.split(".")
) | {*TARGET_KEYS, *RULE_KEYS}  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when none is near."""
    folded = {k.casefold().replace("-", "_"): k for k in known}
    wanted = name[:100].strip().casefold().replace("-", "_")
    found = difflib.get_close_matches(wanted, list(folded)[:200], n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def home_of(name: str) -> str | None:
    """The path of a key that is known under this name elsewhere: `dry_run` -> `strategy.dry_run`."""
    return next((p for p in (*FIELDS, *sorted(NAMED)) if p.split(".")[-1] == name), None)


# ----------------------------------------------------------------------------- one value
class Misfit(Exception):
    """The text is not such a value: a problem's code and parameters."""

    def __init__(self, code: str, **params: Any) -> None:
        self.code, self.params = code, params
        super().__init__(code)


_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_UNSURE = re.compile(r"[-+]?(?:0[xob][0-9a-fA-F_]+|[0-9][0-9_]*(?::[0-9.]+)+|[0-9][0-9_]*_[0-9_.]*)")
_NOT_FINITE = re.compile(r"[-+]?\.?(?:inf(?:inity)?|nan)", re.IGNORECASE)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})
_LIKE_TRUE, _LIKE_FALSE = (
    frozenset({"yes", "on", "y", "1", "true"}),
    frozenset({"no", "off", "n", "0", "false"}),
)


def is_null(text: str, plain: bool) -> bool:
    return plain and text in _NULLS


def number(text: str, plain: bool) -> float:
    """The number written as `text`. Raises: Misfit."""
    if not plain:
        raise Misfit("number_as_text" if _NUMBER.fullmatch(text) else "not_a_number", found=text,
                     mend=text if _NUMBER.fullmatch(text) else None)  # fmt: skip
    if _NUMBER.fullmatch(text) and not _LEADING_ZERO.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise Misfit("not_finite", found=text)
        return value + 0.0
    if _LEADING_ZERO.fullmatch(text) or _UNSURE.fullmatch(text):
        raise Misfit("ambiguous_number", found=text)
    if _NOT_FINITE.fullmatch(text):
        raise Misfit("not_finite", found=text)
    likely = unicodedata.normalize("NFKC", text[:100]).replace(",", ".").replace("−", "-")
    raise Misfit("not_a_number", found=text, mend=likely if _NUMBER.fullmatch(likely) else None)


def boolean(text: str, plain: bool) -> bool:
    """`true` or `false`, and nothing that merely means it. Raises: Misfit."""
    if plain and text in _TRUE | _FALSE:
        return text in _TRUE
    like = text.strip().lower()
    mend = "true" if like in _LIKE_TRUE else "false" if like in _LIKE_FALSE else None
    raise Misfit("not_boolean", found=text, mend=mend)


def within(value: float, field: Field, found: str) -> None:
    """Raises: Misfit when `value` is outside the field's limits."""
    if field.kind is Kind.WHOLE and value != int(value):
        raise Misfit("not_whole", found=found)
    if value < field.least or (field.above and value == field.least):
        raise Misfit("not_above" if field.above else "too_small", found=found, limit=field.least)
    if value > field.most:
        raise Misfit("too_big", found=found, limit=field.most)


def choice(text: str, choices: tuple[str, ...]) -> str:
    """`text` when it is one of `choices`. Raises: Misfit."""
    if text in choices:
        return text
    raise Misfit("unknown_choice", found=text, choices=list(choices), nearest=nearest(text, choices))


def check_name(name: str) -> None:
    """Raises: Misfit unless `name` can name a metric or rule: 1 to 100 printable characters."""
    if not name.isprintable() or not 0 < len(name) <= 100 or name != name.strip():
        raise Misfit("bad_name", found=name)
