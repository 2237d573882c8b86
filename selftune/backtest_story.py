"""What one candidate did on the record: what it wanted at each look, what held it, what it would take back.

Answers "what was its choice then?". Only values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from selftune.domain import Reason


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the candidate wanted at one look: nothing (`rule` None) or one step, `fresh` if newly said."""

    ts_ms: int
    rule: str | None = None
    old: float = 0.0
    new: float = 0.0
    reason: Reason | None = None
    fresh: bool = False


@dataclass
class Story:
    """What one candidate did over one stretch of the record."""

    wanted: list[Wanted] = field(default_factory=list)
    holds: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    examples: dict[tuple[str, str | None], Mapping[str, object]] = field(default_factory=dict)
    rollbacks: int = 0
    looks: int = 0
