"""Who runs in a backtest: each candidate and each baseline with its settings as they are run.

Answers "what bytes does it run under, and under which name is it judged?". Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selftune.backtest_request import Baseline, Candidate, Request
from selftune.backtest_score import Who
from selftune.config import edit, parse
from selftune.domain import PolicyName
from selftune.settings import Settings

POLICY_OF = {Baseline.NONE: PolicyName.NONE, Baseline.HEURISTIC: PolicyName.HEURISTIC}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One candidate or baseline, ready to run. `given`: its settings as they stand; `settings`: as run."""

    who: Who
    raw: bytes
    settings: Settings


def entries(request: Request, *, live: bool = False) -> list[Entry]:
    """The candidates, then those baselines that are policies, under the first candidate's settings."""
    first = request.candidates[0]
    found = [entry(c, "candidate", live=live) for c in request.candidates]
    for b in request.against:
        if b in POLICY_OF:
            one = Candidate(name=b.value, policy=POLICY_OF[b], text=first.text)
            found.append(entry(one, b.value, live=live))
    return found


def entry(c: Candidate, role: str, *, live: bool = False) -> Entry:
    """The candidate with its settings as they are run. Raises: SettingsError."""
    assert c.text is not None, "prepare() gave it one"
    raw, settings = variant(c.text, policy=c.policy, live=live)
    who = Who(name=c.name, role=role, policy=settings.policy.value, config=parse(c.text).digest)
    return Entry(who=who, raw=raw, settings=settings)


def variant(text: str, *, policy: PolicyName | None, live: bool = False) -> tuple[bytes, Settings]:
    """The settings' bytes as a backtest runs them, and what they mean. Raises: SettingsError.

    `live`: the loop itself acts (on a plant or a model); else it proposes only.
    """
    changes: dict[str | tuple[str, ...], float | bool | int | str | None] = {"strategy.dry_run": not live}
    if live:
        changes["governance.approvals_required"] = 0
    if policy is not None:
        changes["strategy.policy"] = policy.value
    raw = edit(text, changes).encode("utf-8")
    return raw, parse(raw)


def reading(found: Sequence[Entry]) -> Settings:
    """Settings under which the record holds what any of them names; in doubt the first one's word counts."""
    targets = {m: t for e in reversed(found) for m, t in e.settings.targets.items()}
    rules = {n: r for e in reversed(found) for n, r in e.settings.rules.items()}
    first = found[0].settings
    more = {m for m in targets if m not in first.targets} | {n for n in rules if n not in first.rules}
    if not more:
        return first
    order = [*first.targets, *(m for m in targets if m not in first.targets)]
    ruled = [*first.rules, *(n for n in rules if n not in first.rules)]
    return replace(first, targets={m: targets[m] for m in order}, rules={n: rules[n] for n in ruled})
