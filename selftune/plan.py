"""What one cycle is given and what it wants: `Snapshot` in, `Plan` out.

Only values. A plan holds no ids and no stamps; the commit mints them. `as_json` shapes are those of
contract.md (decisions). Instants stay ms here; text is made where it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from selftune.book import Records
from selftune.coarse import Coarse
from selftune.config import Settings
from selftune.domain import GuardCheck, JsonDict, Mode, Proposal, Reason, WindowStat
from selftune.lifecycle import Life
from selftune.mode import ModeState
from selftune.series import Series

ACTOR = "selftune"
T = TypeVar("T")


class Memo:
    """Results kept from one snapshot to the next, under the very inputs they were made from (`get`).

    A function of equal inputs gives equal results, so that keeping them changes no decision. What was put in
    by `keep` says itself what it was made from.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[object, ...], object]] = {}

    def get(self, name: str, inputs: tuple[object, ...], make: Callable[[], T]) -> T:
        """`make()`, or what it gave last time if every input is the same object."""
        known = self._kept.get(name)
        if known is not None and all(a is b for a, b in zip(known[0], inputs, strict=True)):
            return cast("T", known[1])
        made = make()
        self._kept[name] = (inputs, made)
        return made

    def last(self, name: str) -> object | None:
        """What was kept last under this name, whatever it was made from."""
        known = self._kept.get(name)
        return None if known is None else known[1]

    def keep(self, name: str, value: object) -> None:
        """For `last` alone: whoever asks must see for itself what of it still holds."""
        self._kept[name] = ((), value)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a decision may stand on, read at one instant.

    `now_ms` is the wall clock, `clock_ms` the steady one (the axis of every record's `at_ms`).
    `ok_at_ms`: when (steady) the data were last good; `epoch_at_ms`: when the present epoch was first
    seen, None if it was there from the start. `settings_problem`: why the file on disk is not in
    force (the last valid settings are). `life`: the fold of `records` under `settings`, if known.
    """

    now_ms: int
    clock_ms: int
    settings: Settings
    config_sha: str
    records: Records
    series: Series
    coarse: Coarse
    ok_at_ms: int | None = None
    epoch_at_ms: int | None = None
    settings_problem: Reason | None = None
    lease_ok: bool = True
    life: Life | None = None
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class PlannedMove:
    """One rule event to be written. `kind`: change | rollback | restore | manual."""

    rule: str
    old: float
    new: float
    kind: str
    reverts: str | None = None
    look: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Act:
    """One decision line to be, with the rule events it writes if `write`, and what goes with it.

    `warnings`, `governance`: lines for the other ledgers, without stamps. `data` is merged into the
    decision as it is.
    """

    kind: str
    act: str | None
    reasons: tuple[Reason, ...] = ()
    moves: tuple[PlannedMove, ...] = ()
    write: bool = False
    proposals: tuple[Proposal, ...] = ()
    guards: tuple[GuardCheck, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[JsonDict, ...] = ()
    governance: tuple[JsonDict, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one cycle wants. No acts = nothing to write. `next_due_s`: look again after so long."""

    acts: tuple[Act, ...]
    mode: ModeState
    checks: tuple[GuardCheck, ...]
    score: float | None
    attainment: Mapping[str, float | None]
    windows: Mapping[str, WindowStat]
    next_due_s: float
    config_sha: str
    digest: str
    policy: tuple[str, str]
    approvals_head: JsonDict
    after: str | None
    holds: tuple[Reason, ...] = ()

    @property
    def effective(self) -> Mode:
        return self.mode.mode

    def without_acts(self) -> Plan:
        """The same picture with nothing to write."""
        return Plan(**{**self.__dict__, "acts": ()})


def proposal_json(p: Proposal) -> JsonDict:
    """A proposal as the contract's object."""
    return {
        "rule": p.rule,
        "step": p.step if p.step == 0 else float(f"{p.step:.12g}"),
        "old": p.old,
        "new": p.new,
        "reasons": [r.as_json() for r in p.reasons],
        "expected": {m: {"mean": x[0], "lo": x[1], "hi": x[2]} for m, x in p.expected.items()},
        "confidence": p.confidence,
    }
