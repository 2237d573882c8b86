"""The nouns of selftune: what a metric, a rule, a change, a verdict and a reason are.

Only frozen data, enums and the error tree; never a file, a clock or randomness.

Units: instants are int milliseconds UTC (`*_ms`), durations are seconds (`*_s`).
Two clocks: `ts_ms` is what a record says (the wall clock of whoever wrote it) and places
windows in the metrics' own time; `at_ms` is the same instant on the *reader's steady clock*,
set by whoever read the record, and is the only one that cooldowns, pauses, budgets and blind
time are counted on. A one-shot command has `at_ms = min(ts_ms, now)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

JsonDict = dict[str, Any]

SHORT_NAMES: Mapping[str, str] = {
    "phase_diff": "phase",
    "entropy_rate": "entropy",
    "creative_band": "creative",
    "risk_band": "risk",
}
_LONG_NAMES = {short: long for long, short in SHORT_NAMES.items()}


def short_name(metric: str) -> str:
    """The family's short name of a metric (`phase_diff` -> `phase`); others are their own."""
    return SHORT_NAMES.get(metric, metric)


def long_name(short: str) -> str:
    """The metric that a short name stands for (`phase` -> `phase_diff`); others are their own."""
    return _LONG_NAMES.get(short, short)


# ----------------------------------------------------------------------------- errors
class SelftuneError(Exception):
    """Root of every error that selftune raises on purpose; `str()` is a sentence for people."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong in an input: where, what was found, how to mend it.

    `code` is stable; `params` fill the sentence of the catalogue (`words/*.yaml`, key
    `problem.<code>`). `line` counts from 1.
    """

    code: str
    file: str
    line: int | None = None
    key: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


class InputError(SelftuneError):
    """A file or argument cannot be used; carries `problems`, worst first."""

    exit_code = 3

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.file}:{p.line or ''} {p.key or ''} {p.code}" for p in problems))


class SettingsError(InputError):
    """The settings are not whole and valid."""

    exit_code = 2


class Refused(SelftuneError):
    """A guard or a missing approval says no; `reasons` say which, and until when."""

    exit_code = 4

    def __init__(self, *reasons: Reason) -> None:
        self.reasons = reasons
        super().__init__("; ".join(r.code for r in reasons))


class UnknownId(SelftuneError):
    """No such decision, event or rule, or nothing there to act on."""

    exit_code = 3

    def __init__(self, code: str, **params: Any) -> None:
        self.reason = Reason(code, params)
        super().__init__(f"{code} {params}")


class LockHeld(SelftuneError):
    """Somebody else holds a lock: who, where, since when."""

    exit_code = 5

    def __init__(self, lock: str, *, pid: int | None, host: str | None, since: str | None) -> None:
        self.lock, self.pid, self.host, self.since = lock, pid, host, since
        super().__init__(f"{lock} is held by pid {pid} on {host} since {since}")


class StaleSnapshot(SelftuneError):
    """Something moved between reading and committing; read again and decide again."""


class StorageError(SelftuneError):
    """The disk did not take a write (full, short, read-only, I/O error); nothing counts as done."""

    exit_code = 1


class FileUnreadable(StorageError):
    """Files that say what is in force are there and cannot be read, so nothing is written on a guess."""

    exit_code = 3

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        said = ", ".join(f"{p.file} ({p.params['detail']})" for p in problems)
        super().__init__(f"cannot be read, so nothing is written: {said}")


# ----------------------------------------------------------------------------- enums
class Verdict(StrEnum):
    """What a change did. Ordered from worst to best by `RANK`; the worst guarded metric wins."""

    WORSENED = "WORSENED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NEUTRAL = "NEUTRAL"
    IMPROVED = "IMPROVED"


def verdict_of(said: object) -> Verdict:
    """The verdict that a record names; one that it does not name, or that nobody knows, proves nothing."""
    known = Verdict.__members__
    return known[said] if isinstance(said, str) and said in known else Verdict.INCONCLUSIVE


class DataState(StrEnum):
    """Why an effect has numbers, or has none."""

    OK = "ok"
    CONSTANT = "constant"
    INSUFFICIENT = "insufficient_data"
    STALE = "stale"
    CONFOUNDED = "confounded"


class Mode(StrEnum):
    """The effective mode: whether the loop itself may write rule events."""

    DRY_RUN = "dry_run"
    LIVE = "live"


class Origin(StrEnum):
    """Who made a change: our loop, a person through us, or another program or person."""

    LOOP = "loop"
    PERSON = "person"
    FOREIGN = "foreign"


class Phase(StrEnum):
    """Where a change is in its life (house.md). Computed from records and the clock, never stored."""

    PROPOSED = "proposed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    APPLIED = "applied"  # inside the settle time
    OBSERVING = "observing"
    ON_PROBATION = "on_probation"
    CONFIRMED = "confirmed"
    KEPT = "kept"  # not proven better, shown to be no worse: the values stay
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"


class PolicyName(StrEnum):
    ADAPTIVE = "adaptive"
    HEURISTIC = "heuristic"
    NONE = "none"


class Confirm(StrEnum):
    STANDARD = "standard"
    REVERSAL = "reversal"


class Identity(StrEnum):
    LOCAL = "local"
    OIDC = "oidc"
    PROXY = "proxy"
    OPEN = "open"


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    REVIEWER = "reviewer"
    ADMIN = "admin"


# ----------------------------------------------------------------------------- settings' nouns
@dataclass(frozen=True, kw_only=True)
class Target:
    """What one metric should be: at most `max`, at least `min`, or both; missed by `scale` = 0 %.

    `lo`, `hi`: values outside are missing (settings `range`). Units: the metric's own.
    """

    metric: str
    max: float | None = None
    min: float | None = None
    scale: float = 1.0
    lo: float | None = None
    hi: float | None = None

    @property
    def down_is_good(self) -> bool:
        """True when lower is better (a `max` target; with both limits, `max` decides)."""
        return self.max is not None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A tunable parameter: its first value, its bounds, the largest step, which way is meant to help.

    `direction` is +1, -1 or 0 (not stated). Units: the rule's own; `lr` is a step in the same unit.
    """

    name: str
    init: float
    min: float
    max: float
    lr: float
    weight: float = 1.0
    direction: int = 0

    def clip(self, value: float) -> float:
        """`value` moved to the nearest bound if outside."""
        return min(self.max, max(self.min, value))


# ----------------------------------------------------------------------------- reasons
@dataclass(frozen=True)
class Reason:
    """Why: a code and the numbers behind it. Sentences are made from it at the edge."""

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.code:
            raise ValueError("a reason needs a code")

    def as_json(self) -> JsonDict:
        return {"code": self.code, "params": dict(self.params)}


@dataclass(frozen=True, kw_only=True)
class GuardCheck:
    """One guard's answer: passed or not, the observed number against its limit, and until when.

    `until_ms` is on the wall clock, None when no time frees it. `exploration_only` guards bar new
    steps but never a rollback, a return or an emergency.
    """

    code: str
    passed: bool
    observed: float | str | None
    limit: float | str | None
    unit: str
    rule: str | None = None
    until_ms: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> Reason:
        return Reason(
            self.code,
            {
                "rule": self.rule,
                "observed": self.observed,
                "limit": self.limit,
                "unit": self.unit,
                "until_ms": self.until_ms,
                **self.params,
            },
        )


# ----------------------------------------------------------------------------- records
@dataclass(frozen=True, kw_only=True)
class RuleEvent:
    """One line of `rules_history.jsonl`: the actuation itself.

    `key` is the event key of the contract. `new` and `old` are None when absent or not finite
    numbers (`raw_new` then holds what stood there, as text). `kind`, `decision`, `reverts` are ours.
    """

    key: str
    ts_ms: int
    at_ms: int
    actor: str
    rule: str
    old: float | None
    new: float | None
    note: str = ""
    id: str | None = None
    kind: str | None = None  # change | rollback | restore | manual
    decision: str | None = None
    reverts: str | None = None
    look: bool = False
    raw_new: str | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One line of `tuning_decisions.jsonl`, read whole: `data` is the record, the rest its index.

    `applied`: event keys this decision intended (older records: none when they hold event objects
    without id). `abandoned`: intended keys that never reached the history.
    """

    id: str
    ts_ms: int
    at_ms: int
    kind: str  # suggest | cycle | manual | verdict | mode
    act: str | None
    mode: Mode
    applied: tuple[str, ...]
    abandoned: tuple[str, ...]
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Governance:
    """One line of `approvals.jsonl`, with its place in the hash chain."""

    id: str
    ts_ms: int
    at_ms: int
    kind: str
    by: str
    role: str
    n: int  # line number from 1
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RiskWarning:
    """One line of `risk_ledger.jsonl`. `resolves` closes an earlier `crit` (effect key, or ts+rule)."""

    ts_ms: int
    at_ms: int
    severity: str  # info | warn | crit
    rule: str | None
    note: str
    signal: Mapping[str, Any] = field(default_factory=dict)
    effect: str | None = None
    resolves: Any = None


@dataclass(frozen=True, kw_only=True)
class Quote:
    """One line of `quotes_bank.jsonl`: an evidence sentence about one effect."""

    ts_ms: int
    by: str
    rule: str
    delta: Mapping[str, float | None]
    confidence: float
    quote: str
    effect: str | None = None


# ----------------------------------------------------------------------------- measurement
@dataclass(frozen=True, kw_only=True)
class Window:
    """Half-open `[start_ms, end_ms)` in the metrics' own time."""

    start_ms: int
    end_ms: int

    @property
    def length_s(self) -> float:
        return (self.end_ms - self.start_ms) / 1000


@dataclass(frozen=True, kw_only=True)
class WindowStat:
    """Mean of one metric over a window with an autocorrelation-aware standard error.

    `mean`, `se` are None without enough data; `n` counts valid samples.
    """

    mean: float | None
    se: float | None
    n: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, kw_only=True)
class MetricEffect:
    """What one event did to one metric (effects.md).

    `delta` with its 95 % interval `[lo, hi]`; for decisions the truth is `delta + sigma * t_nu`.
    `odds`: by chance about 1 in `odds` placebos is as large. `d_raw` is post mean - pre mean and is
    never judged on. All but the counts are None unless `state` is OK (or CONSTANT: delta 0).
    """

    metric: str
    state: DataState
    delta: float | None = None
    lo: float | None = None
    hi: float | None = None
    sigma: float | None = None
    nu: float | None = None
    odds: float | None = None
    d_raw: float | None = None
    pre_mean: float | None = None
    post_mean: float | None = None
    n_pre: int = 0
    n_post: int = 0
    n_eff: float | None = None
    candidate: str | None = None
    pre_s: float | None = None
    post_s: float | None = None
    history_s: float = 0.0
    missing_share: float = 0.0
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one change (one event, or several rules in one second) did to every metric."""

    keys: tuple[str, ...]
    event_ms: int
    window: Window  # the post window, counted from the event: [t, t + R), R maybe shortened
    settle_s: float
    metrics: Mapping[str, MetricEffect]
    final: bool  # True when the window is complete and the data reach its end
    estimator: str = ""


@dataclass(frozen=True, kw_only=True)
class VerdictReport:
    """A verdict with why: `reasons` is never empty; `p_gain` = P(score gain > 0)."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    score_gain: float | None = None
    p_gain: float | None = None
    p_loss: float | None = None

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("a verdict needs a reason")


# ----------------------------------------------------------------------------- proposals
@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One small move of one rule, and why. `expected`: metric -> (mean, lo, hi), may be empty."""

    rule: str
    old: float
    new: float
    reasons: tuple[Reason, ...]
    expected: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    confidence: float | None = None

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("a proposal needs a reason")
        if self.new == self.old:
            raise ValueError("a proposal must move the rule")

    @property
    def step(self) -> float:
        return self.new - self.old


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Nothing is proposed, and why. `reasons` is never empty."""

    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("a hold needs a reason")
