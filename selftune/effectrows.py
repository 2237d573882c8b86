"""`rules_effects.csv`: which headers are known, a row read, a row written in a file's own columns.

Answers "what does this row say, and how would ours look in this file?". Pure: text in, text out.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from selftune.book import EffectRow
from selftune.records import Reject, instant_ms, number

FAMILY = (
    "rule_ts",
    "actor",
    "rule",
    "old",
    "new",
    "pre_s",
    "post_s",
    "d_phase",
    "d_entropy",
    "d_creative",
    "d_risk",
    "opts_iqr",
    "opts_ema",
    "ema_alpha",
)
"""The header that the family's tracker writes today."""

_SHORTS = ("phase", "entropy", "creative", "risk")
_FORMULA = ("=", "+", "-", "@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")


def our_header(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Columns of a file that we create; `extra` are short names of further metrics."""
    shorts = (*_SHORTS, *(m for m in extra if m not in _SHORTS))
    further = tuple(f"d_{m}" for m in shorts[len(_SHORTS) :])
    bounds = tuple(f"{side}_{m}" for m in shorts for side in ("lo", "hi"))
    return (*FAMILY, "event_id", "n_pre", "n_post", *further, *bounds, "verdict", "reason", "estimator")


def parse_header(line: str) -> tuple[str, ...]:
    """Column names of a header line, a BOM and blanks removed."""
    return tuple(cell.strip() for cell in _cells(line.removeprefix("\ufeff")))


def is_known(header: Sequence[str]) -> bool:
    """Whether rows may be appended: one of the family's forms, or ours, maybe with further columns."""
    return (
        len(set(header)) == len(header)
        and {"rule_ts", "rule"} <= set(header)
        and any(c.startswith("d_") for c in header)
    )


def parse_row(header: Sequence[str], line: str, zone: tzinfo) -> EffectRow | Reject | None:
    """The row of one line, None for a blank line or a repeated header, or why it is none."""
    cells = _cells(line)
    if not any(c.strip() for c in cells) or tuple(c.strip() for c in cells) == tuple(header):
        return None
    if len(cells) != len(header):
        return Reject.CELLS
    named = dict(zip(header, cells, strict=True))
    ts_ms, _ = instant_ms(named["rule_ts"], zone)
    if ts_ms is None:
        return Reject.BAD_TS
    rule = unquote(named["rule"].strip())
    if not rule:
        return Reject.NO_RULE
    return EffectRow(
        ts_ms=ts_ms,
        rule=rule,
        d={c.removeprefix("d_"): _float(v) for c, v in named.items() if c.startswith("d_")},
        event_id=unquote(named.get("event_id", "")) or None,
        verdict=named.get("verdict") or None,
        cells=named,
    )


def render_row(header: Sequence[str], row: Mapping[str, Any], end: str = "\n") -> bytes:
    """`row` in the columns of `header`; what the file has no column for is left out."""
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerow([cell(row.get(c)) for c in header])
    return out.getvalue().encode("utf-8", "replace")


def render_header(header: Sequence[str]) -> bytes:
    return (",".join(header) + "\n").encode()


def cell(value: Any) -> str:
    """A cell: numbers plain and finite, text on one line and never a formula."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value) if isinstance(value, int) else _short(float(value))
    flat = _CONTROL.sub(" ", str(value))
    return f"'{flat}" if flat.lstrip()[:1] in _FORMULA else flat


def unquote(value: str) -> str:
    """`value` without the quote that `cell` put before a formula character."""
    return value[1:] if value[:1] == "'" and value[1:].lstrip()[:1] in _FORMULA else value


def _short(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""


def _float(value: str) -> float | None:
    try:
        return number(float(value))
    except ValueError:
        return None


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def our_header_line() -> str:
    """The header line that we write for the family's four metrics."""
    return ",".join(our_header())


def shorts_of(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Short names of the metrics that `rows` hold a delta of, in order."""
    return tuple(dict.fromkeys(c.removeprefix("d_") for r in rows for c in r if c.startswith("d_")))
