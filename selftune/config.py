"""The settings: YAML text <-> validated `Settings`, their digest, precise errors, careful edits.

Answers "what does configs/self_tuning.yaml mean, and is it whole?". Never reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from selftune.domain import Confirm, Identity, PolicyName, Rule, Target


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A one- or two-sided limit on a number; None = no limit on that side. Units: the metric's own."""

    max: float | None = None
    min: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExcursionBudget:
    max_steps: int = 6
    max_s: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class Loan:
    """Defaults offered in an arming request: number of changes, displacement per rule in steps, hours."""

    changes: int = 20
    displacement: float = 6.0
    hours: float = 24.0


@dataclass(frozen=True, kw_only=True)
class Governance:
    approvals_required: int = 1
    manual_apply: bool = True
    identity: Identity = Identity.LOCAL
    public_view: bool | None = None  # None: true on loopback only
    allowed_hosts: tuple[str, ...] = ()
    loan: Loan = field(default_factory=Loan)
    readiness: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Validated settings, defaults filled in. Durations in seconds.

    `good[m]`: improvement of metric m that counts, always > 0 (|safety.good|, or 0.03 x scale).
    `warn[m]`: Limit on the delta (post - pre) of m; `phase_bad`: delta of phase_diff beyond which,
    together with entropy, a warning stands (None: the metrics of `warn` alone decide).
    `hard[m]`: Limit on the level of m. `digest`: SHA-256 hex of the canonical JSON without
    strategy.dry_run and language.
    """

    targets: Mapping[str, Target]
    rules: Mapping[str, Rule]
    weights: Mapping[str, float]  # objective_weights; metrics without one weigh 0
    good: Mapping[str, float]
    warn: Mapping[str, Limit]
    phase_bad: float | None
    hard: Mapping[str, Limit]
    dry_run: bool
    max_concurrent_changes: int
    policy: PolicyName
    auto_rollback: bool
    confirm: Confirm
    excursion: ExcursionBudget
    rollback_limit: int
    proposal_ttl_s: float
    resolution: int
    observe_window_s: float
    min_samples: int
    cooldown_s: float
    settle_s: float
    history_s: float
    timezone: str
    language: str
    rate_hz: float
    max_age_s: float
    metrics_source: str
    governance: Governance
    retention_days: float | None
    digest: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that the settings name, in the order of `targets`."""
        return tuple(self.targets)

    @property
    def guarded(self) -> tuple[str, ...]:
        """Metrics whose harm counts: weighted, hard-limited or warned about."""
        return tuple(m for m in self.targets if self.weights.get(m, 0) > 0 or m in self.hard or m in self.warn)
