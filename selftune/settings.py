"""The settings' shape: frozen values with every default filled in, and their digest.

Answers "what is set?". How text becomes `Settings` is config.py's; nothing here reads or checks text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from selftune.domain import Confirm, Identity, JsonDict, PolicyName, Rule, Target

SETTINGS_FILE = "configs/self_tuning.yaml"  # under the data root
METRICS_FILE = "logs/metrics.csv"


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
class Proxy:
    """Reverse proxies that are believed: their addresses, and the header in which they name the person."""

    peers: tuple[str, ...] = ()
    user_header: str = "X-Forwarded-User"


@dataclass(frozen=True, kw_only=True)
class Governance:
    approvals_required: int = 1
    manual_apply: bool = True
    identity: Identity = Identity.LOCAL
    public_view: bool | None = None  # None: true on loopback only
    allowed_hosts: tuple[str, ...] = ()
    proxy: Proxy = field(default_factory=Proxy)
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
        return tuple(
            m for m in self.targets if self.weights.get(m, 0) > 0 or m in self.hard or m in self.warn
        )


# ----------------------------------------------------------------------------- digest
def digest_of(settings: Settings) -> str:
    """SHA-256 hex of the canonical JSON: sorted keys, defaults filled in, no `dry_run`, no `language`."""
    text = json.dumps(canonical(settings), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def canonical(s: Settings) -> JsonDict:
    """The settings as one plain document in the shape of the YAML file, without `dry_run` and `language`.

    Numbers are floats (1 and 1.0 are one setting), so that writing a value another way voids no approval.
    """
    return {
        "targets": {
            m: {"max": _f(t.max), "min": _f(t.min), "scale": _f(t.scale), "range": [_f(t.lo), _f(t.hi)]}
            for m, t in s.targets.items()
        },
        "rules": {
            n: {
                "init": _f(r.init),
                "min": _f(r.min),
                "max": _f(r.max),
                "lr": _f(r.lr),
                "weight": _f(r.weight),
            }
            for n, r in s.rules.items()
        },
        "observe_window_s": _f(s.observe_window_s),
        "min_samples": s.min_samples,
        "cooldown_s": _f(s.cooldown_s),
        "settle_s": _f(s.settle_s),
        "history_s": _f(s.history_s),
        "timezone": s.timezone,
        "metrics": {"source": s.metrics_source, "rate_hz": _f(s.rate_hz), "max_age_s": _f(s.max_age_s)},
        "safety": {
            "good": _numbers(s.good),
            "warn": _limits(s.warn),
            "phase_bad": _f(s.phase_bad),
            "hard": _limits(s.hard),
        },
        "strategy": {
            "objective_weights": _numbers(s.weights),
            "direction": {n: r.direction for n, r in s.rules.items()},
            "max_concurrent_changes": s.max_concurrent_changes,
            "policy": str(s.policy),
            "auto_rollback": s.auto_rollback,
            "confirm": str(s.confirm),
            "excursion": {"max_steps": s.excursion.max_steps, "max_s": _f(s.excursion.max_s)},
            "rollback_limit": s.rollback_limit,
            "proposal_ttl_s": _f(s.proposal_ttl_s),
            "resolution": s.resolution,
        },
        "governance": {
            "approvals_required": s.governance.approvals_required,
            "manual_apply": s.governance.manual_apply,
            "identity": str(s.governance.identity),
            "public_view": s.governance.public_view,
            "allowed_hosts": list(s.governance.allowed_hosts),
            "proxy": {
                "peers": list(s.governance.proxy.peers),
                "user_header": s.governance.proxy.user_header,
            },
            "loan": {
                "changes": s.governance.loan.changes,
                "displacement": _f(s.governance.loan.displacement),
                "hours": _f(s.governance.loan.hours),
            },
            "readiness": _numbers(s.governance.readiness),
        },
        "logs": {"retention_days": _f(s.retention_days)},
    }


def _f(value: float | None) -> float | None:
    return None if value is None else float(value) + 0.0  # -0.0 and 0.0 are one setting


def _numbers(values: Mapping[str, float]) -> JsonDict:
    return {k: _f(v) for k, v in values.items()}


def _limits(values: Mapping[str, Limit]) -> JsonDict:
    return {k: {"max": _f(v.max), "min": _f(v.min)} for k, v in values.items()}
