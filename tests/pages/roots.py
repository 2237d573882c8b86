"""Data roots for the pages' tests: metrics that end now, a rule history, decisions made by the real core."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from selftune import suggesting
from selftune.access import Action
from selftune.config import edit
from selftune.domain import Reason, Role, Verdict
from selftune.office import Office
from selftune.picture import Picture
from selftune.plan import Act

SEOUL = timezone(timedelta(hours=9))
HEADER = "ts,phase_diff,entropy_rate,creative_band,risk_band"
OFF = (0.068, 0.262, 0.234, 0.329)
MET = (0.031, 0.252, 0.262, 0.262)
LOSS = Reason("score_loss", {"observed": -0.02, "p": 0.96})
NASTY = "<script>alert(1)</script> **굵게** ![x](http://evil.example/a.png) =1+1 \u202eabc \x1b[31m"


def write_metrics(
    root: Path, *, level: tuple[float, ...] = OFF, minutes: float = 15, ago_s: float = 0
) -> None:
    """5 Hz rows up to `ago_s` seconds before now, each metric around its level."""
    rng = np.random.default_rng(1)
    n = round(minutes * 300)
    end = datetime.now(UTC) - timedelta(seconds=ago_s)
    noise = rng.normal(0, 0.002, (n + 1, 4))
    rows = [HEADER]
    for k in range(n, -1, -1):
        t = (end - timedelta(seconds=0.2 * k)).astimezone(SEOUL).isoformat(timespec="milliseconds")
        rows.append(t + "," + ",".join(f"{x + d:.3f}" for x, d in zip(level, noise[k], strict=True)))
    (root / "logs" / "metrics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_event(
    root: Path, rule: str, old: float | None, new: float | None, *, minutes_ago: float, actor: str = "demo",
    note: str = "",
) -> None:  # fmt: skip
    """One line of another program in the rule history."""
    at = (
        (datetime.now(UTC) - timedelta(minutes=minutes_ago))
        .astimezone(SEOUL)
        .isoformat(timespec="milliseconds")
    )
    line = {"ts": at, "actor": actor, "rule": rule, "old": old, "new": new, "note": note}
    with (root / "controls" / "rules_history.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps(line, ensure_ascii=False) + "\n")


def change_settings(root: Path, **keys: object) -> None:
    """Some settings by dotted key (`__` for a dot)."""
    path = root / "configs" / "self_tuning.yaml"
    text = edit(path.read_text(encoding="utf-8"), {k.replace("__", "."): v for k, v in keys.items()})
    path.write_text(text, encoding="utf-8")


def suggest(root: Path) -> str:
    """The core's own suggestion, on record; its id. The heuristic's: it lowers risk_max."""
    change_settings(root, strategy__policy="heuristic")
    office = Office(root)
    p = office.glance().picture
    assert p is not None
    zone = SEOUL
    _, done = office.act(
        Action.APPLY, lambda q: (suggesting.suggestion(q, zone),), actor="tester", role=Role.OPERATOR
    )
    assert done.lines[0]["proposals"], done.lines[0]["reasons"]
    return done.decisions[0]


def record(root: Path, *acts: Act) -> None:
    """Acts of the loop or of a person, written by the real commit."""
    Office(root).act(Action.APPLY, lambda _: acts, actor="tester", role=Role.OPERATOR)


def judge(root: Path, verdict: Verdict) -> None:
    """The newest change gets its first verdict, with a measured Δ."""

    def acts(p: Picture) -> tuple[Act, ...]:
        change = p.life.changes[-1]
        metric = {"delta": -0.012, "lo": -0.02, "hi": -0.004, "odds": 40, "n_post": 350}
        code = {Verdict.IMPROVED: "score_gain", Verdict.WORSENED: "score_loss"}.get(verdict, "no_effect_seen")
        data = {"change": change.id, "keys": list(change.keys), "verdict": verdict.value,
                "effect": {"metrics": {"risk_band": metric}}}  # fmt: skip
        return (Act(kind="verdict", act="evaluate", reasons=(Reason(code, {"observed": 0.02, "p": 0.97}),),
                    data=data),)  # fmt: skip

    Office(root).act(Action.APPLY, acts, actor="selftune", role=Role.OPERATOR)


def propose_rollback(root: Path) -> str:
    """The loop proposes to undo the newest event, which made things worse; the event's key."""
    judge(root, Verdict.WORSENED)
    p = Office(root).glance().picture
    assert p is not None
    e = p.snap.records.events[-1]
    record(
        root,
        Act(kind="cycle", act="propose_rollback", reasons=(LOSS,),
            data={"cause": "worsened", "reverts": [e.key], "events": [e.key]}),
    )  # fmt: skip
    return e.key


def harm(root: Path, rule: str, times: int) -> None:
    """So many proven harms of one rule in a row."""
    for _ in range(times):
        harmed = {"rule": rule, "sign": -1, "anchor": 0.35, "deltas": {}}
        record(root, Act(kind="cycle", act="return", reasons=(LOSS,),
                         data={"cause": "worsened", "harm": harmed}))  # fmt: skip
