"""Decisions as lines to read: who decided what, why, and what it moved.

Reads any form that the record holds, older and foreign ones too, and never raises. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from selftune.domain import Decision, Mode, Reason, Verdict
from selftune.picture import Picture

RECENT = 12


@dataclass(frozen=True, kw_only=True)
class DecisionLine:
    """One decision for the list of recent ones. `moves`: (rule, old, new); `wrote`: they were carried out."""

    id: str
    ts_ms: int
    kind: str
    act: str
    mode: Mode
    who: str | None
    reasons: tuple[Reason, ...]
    moves: tuple[tuple[str, float, float], ...] = ()
    wrote: bool = False
    why: str = ""
    verdict: Verdict | None = None


def recent(p: Picture, n: int = RECENT) -> tuple[DecisionLine, ...]:
    """The newest decisions, newest first."""
    return tuple(line_of(d) for d in reversed(p.snap.records.decisions[-n:]))


def line_of(d: Decision) -> DecisionLine:
    """One decision as the list shows it; a line of an older or foreign form shows what it has."""
    verdict, actor, why = d.data.get("verdict"), d.data.get("actor"), d.data.get("why")
    return DecisionLine(
        id=d.id,
        ts_ms=d.ts_ms,
        kind=d.kind,
        act=d.act or ("step" if d.data.get("proposals") else "hold"),
        mode=d.mode,
        who=actor if isinstance(actor, str) else None,
        reasons=reasons_of(d.data.get("reasons")),
        moves=_moves_of(d),
        wrote=bool(d.applied),
        why=why if isinstance(why, str) else "",
        verdict=Verdict(verdict) if isinstance(verdict, str) and verdict in Verdict.__members__ else None,
    )


def _moves_of(d: Decision) -> tuple[tuple[str, float, float], ...]:
    found = []
    for x in objects(d.data.get("would")) or objects(d.data.get("proposals")):
        old, new = number_of(x.get("old")), number_of(x.get("new"))
        if old is not None and new is not None:
            found.append((str(x.get("rule")), old, new))
    return tuple(found)


def reasons_of(given: object) -> tuple[Reason, ...]:
    """The reasons of a record; what has no code is left out."""
    found = []
    for r in objects(given):
        code, params = r.get("code"), r.get("params")
        if isinstance(code, str) and code:
            found.append(Reason(code, dict(params) if isinstance(params, Mapping) else {}))
    return tuple(found)


def number_of(x: object) -> float | None:
    if isinstance(x, bool) or not isinstance(x, int | float) or not isfinite(x):
        return None
    return float(x)


def objects(x: object) -> list[Mapping[str, Any]]:
    """The objects of a list that a record holds; [] for anything else."""
    return [i for i in x if isinstance(i, Mapping)] if isinstance(x, list | tuple) else []


def keys_of(x: object) -> list[str]:
    """The texts of a list that a record holds; [] for anything else."""
    return [i for i in x if isinstance(i, str)] if isinstance(x, list | tuple) else []
