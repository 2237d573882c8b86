"""What one candidate did on the record: what it wanted at each look, what held it, what it would take back.

Answers "what was its choice then?". Only values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from selftune.domain import Reason

Key = tuple[str, str | None]  # a guard's (or hold's) code, and the rule it speaks of


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the candidate wanted at one look: nothing (`rule` None) or one step, `fresh` if newly said."""

    ts_ms: int
    rule: str | None = None
    old: float = 0.0
    new: float = 0.0
    reason: Reason | None = None
    fresh: bool = False

    @property
    def step(self) -> tuple[str | None, float, float]:
        return self.rule, self.old, self.new


@dataclass
class Story:
    """What one candidate did, look by look."""

    wanted: list[Wanted] = field(default_factory=list)
    holds: Counter[Key] = field(default_factory=Counter)
    examples: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    rollbacks: int = 0
    looks: int = 0

    def want(self, w: Wanted) -> None:
        """Add one choice; a step that was wanted already is not new."""
        last = self.wanted[-1] if self.wanted else None
        again = w.rule is not None and last is not None and last.step == w.step
        self.wanted.append(replace(w, fresh=False) if again else w)

    def held(self, code: str, rule: str | None, params: Mapping[str, Any]) -> None:
        """Count one reason that kept it still."""
        self.holds[code, rule] += 1
        self.examples.setdefault((code, rule), params)

    def add(self, later: Story) -> None:
        """Go on with a later stretch."""
        for w in later.wanted:
            self.want(w)
        self.holds.update(later.holds)
        for key, params in later.examples.items():
            self.examples.setdefault(key, params)
        self.rollbacks += later.rollbacks
        self.looks += later.looks
