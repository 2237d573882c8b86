"""The settings: YAML text <-> validated `Settings`, their digest, precise errors, careful edits.

Answers "what does configs/self_tuning.yaml mean, is it whole, and what in it is doubtful?". Never reads a
file. The parts: settings.py (the shape), settings_yaml.py (strict YAML), settings_fields.py,
settings_walk.py and settings_schema.py (what may stand there), settings_parse.py, settings_mend.py (slips),
settings_edit.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from selftune.domain import Identity, Problem, Target
from selftune.settings import (
    METRICS_FILE,
    SETTINGS_FILE,
    ExcursionBudget,
    Governance,
    Limit,
    Loan,
    Settings,
    canonical,
    digest_of,
)
from selftune.settings_edit import edit
from selftune.settings_fields import FIELDS, Field
from selftune.settings_parse import check, parse, repair
from selftune.settings_yaml import dotted, split_path

__all__ = [
    "FIELDS",
    "METRICS_FILE",
    "SETTINGS_FILE",
    "ExcursionBudget",
    "Field",
    "Governance",
    "Limit",
    "Loan",
    "Settings",
    "advice",
    "canonical",
    "check",
    "digest_of",
    "dotted",
    "edit",
    "pace_of",
    "parse",
    "repair",
    "split_path",
]

SETTLE_MARGIN_S = 30.0  # what must remain of the window after the settle time to judge anything, at pace 1
SAMPLES_MARGIN = 1.2  # a window with just min_samples has none to lose


def advice(
    settings: Settings, rate_hz: float | None = None, *, file: str = SETTINGS_FILE
) -> tuple[Problem, ...]:
    """What is valid but doubtful; `rate_hz` is the observed sample rate, else the configured one is used."""
    found = (*_timing(settings, rate_hz), *_meaning(settings), *_freedom(settings))
    return tuple(Problem(code=code, file=file, key=key, params=params) for code, key, params in found)


Doubt = tuple[str, str, Mapping[str, object]]


def pace_of(settings: Settings) -> float:
    """How many seconds of this root stand for one second of the default, at most 1."""
    shares = (settings.observe_window_s / 90, settings.settle_s / 20, settings.history_s / 600)
    return min(1.0, max(*shares, 1e-3))


def recommended_cooldown_s(settings: Settings) -> float:
    """The pace at which steps can be told apart: max(settle + R, 2R), in seconds."""
    return max(settings.settle_s + settings.observe_window_s, 2 * settings.observe_window_s)


def _timing(s: Settings, rate_hz: float | None) -> Iterator[Doubt]:
    window, pace = s.observe_window_s, recommended_cooldown_s(s)
    needed = s.settle_s + SETTLE_MARGIN_S * pace_of(s)
    if window < needed:
        yield "window_short", "observe_window_s", {"window_s": window, "needed_s": needed}
    if s.cooldown_s < pace:
        yield "cooldown_short", "cooldown_s", {"cooldown_s": s.cooldown_s, "needed_s": pace}
    rate = s.rate_hz if rate_hz is None else rate_hz
    if rate * window < SAMPLES_MARGIN * s.min_samples:
        params = {"rate": rate, "window_s": window, "expected": round(rate * window), "needed": s.min_samples}
        yield "samples_scarce", "min_samples", params
    if s.history_s < pace:
        yield "history_short", "history_s", {"history_s": s.history_s, "needed_s": pace}
    if s.excursion.max_s < pace:
        yield "excursion_short", "strategy.excursion.max_s", {"max_s": s.excursion.max_s, "needed_s": pace}
    if s.max_age_s * rate < 1:
        yield "age_below_period", "metrics.max_age_s", {"max_age_s": s.max_age_s, "rate": rate}


def _meaning(s: Settings) -> Iterator[Doubt]:
    for m, t in s.targets.items():
        if m not in s.guarded:
            yield "target_without_weight", dotted(("targets", m)), {"metric": m}
        outside = [v for v in (t.max, t.min) if v is not None and not _inside(v, t.lo, t.hi)]
        if outside:
            params = {"metric": m, "limit": outside[0], "lo": t.lo, "hi": t.hi}
            yield "target_outside_range", dotted(("targets", m, "range")), params
        hard = s.hard.get(m, Limit())
        limits = (t.max, hard.max) if _tighter(t, hard) == "max" else (t.min, hard.min)
        if _tighter(t, hard):
            params = {"metric": m, "limit": limits[0], "hard": limits[1]}
            yield "hard_inside_target", dotted(("safety", "hard", m)), params
    for name, rule in s.rules.items():
        if rule.direction == 0:
            yield "direction_missing", dotted(("strategy", "direction", name)), {"rule": name}
        if any(round(v, s.resolution) != v for v in (rule.init, rule.min, rule.max)):
            yield "finer_than_resolution", dotted(("rules", name)), {"rule": name, "resolution": s.resolution}
    if s.phase_bad is not None and not ("phase_diff" in s.targets and "entropy_rate" in s.warn):
        yield "phase_bad_alone", "safety.warn.phase_bad", {}
    if s.max_concurrent_changes > len(s.rules):
        params = {"found": s.max_concurrent_changes, "rules": len(s.rules)}
        yield "more_changes_than_rules", "strategy.max_concurrent_changes", params


def _freedom(s: Settings) -> Iterator[Doubt]:
    if s.governance.approvals_required == 0:
        yield "no_approval_needed", "governance.approvals_required", {}
    if s.governance.identity is Identity.OPEN:
        yield "nobody_signs_in", "governance.identity", {}
    if not s.auto_rollback:
        yield "no_auto_rollback", "strategy.auto_rollback", {}


def _inside(value: float, lo: float | None, hi: float | None) -> bool:
    return (lo is None or value >= lo) and (hi is None or value <= hi)


def _tighter(target: Target, hard: Limit) -> str | None:
    """The side on which the hard limit forbids what the target allows."""
    if target.max is not None and hard.max is not None and hard.max < target.max:
        return "max"
    if target.min is not None and hard.min is not None and hard.min > target.min:
        return "min"
    return None
