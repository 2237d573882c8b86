"""A data root in which everything that a person or a program can write is hostile.

Script, markdown, HTML, bidi and zero-width characters, terminal escapes and spreadsheet formulas: in names,
actors, notes, quotes, reasons, comments, in settings, records and heartbeats. Whoever shows this root must
show it as typed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from selftune import backtest, hands, reviewing
from selftune.access import Action
from selftune.backtest_request import Candidate, Request
from selftune.backtest_runs import State, Status, prepare, request_of, write_result, write_status
from selftune.book import Batch
from selftune.domain import Reason, Role, Verdict
from selftune.ledger import FileLedger, wall_ms
from selftune.office import Office
from selftune.plan import Act
from selftune.runtime import Root
from tests.pages.roots import SEOUL, judge, record

SITE = "evil.example"
RUNS_FILE = "logs/runs.txt"  # the ids of the two backtests
# what a name may hold: printable, at most 100 characters
RULE = f"<img src=x onerror=ran()>**r**![p](http://{SITE}/r)"
METRIC = f"=<svg onload=ran()>*m*[l](//{SITE}/m) http://{SITE}/h :red[x]'];ran();//\"\\"
# what a text may hold: anything
STEERING = "\u202egnp\u202c\u200b\u2066\x1b[31m\x1b]0;owned\x07\x9b31m\x00\x7f"
TEXT = (
    f"=cmd|' /C calc'!A0 <script>ran()</script><img src=//{SITE}/i onerror=ran()><b>bold</b> **굵게** "
    f"![p](http://{SITE}/p.png) [l](javascript:ran()) :red[x] :material/home: $x^2$ `c` # h\n---\n"
    f"<iframe src=//{SITE}></iframe>{STEERING} </div></li>"
)
ACTOR = f"@kim <b>bold</b> **굵게** [l](//{SITE}/a) {STEERING}"

_SETTINGS = """
targets:
  risk_band: {{ max: 0.30 }}
  {metric}: {{ max: 0.05 }}
rules:
  risk_max: {{ init: 0.35, min: 0.20, max: 0.40, lr: 0.02 }}
  {rule}: {{ init: 0.22, min: 0.10, max: 0.40, lr: 0.02 }}
observe_window_s: 30
min_samples: 50
cooldown_s: 0
settle_s: 3
safety:
  hard:
    {metric}: {{ max: 0.9 }}
strategy:
  objective_weights: {{ risk_band: 1.0, {metric}: 1.0 }}
  direction: {{ risk_max: -1, {rule}: -1 }}
"""


def hostile_root(root: Path) -> Path:
    """The root, written: by other programs as lines, by people through the same functions as everybody's."""
    for folder in ("configs", "controls", "logs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    text = _SETTINGS.format(metric=json.dumps(METRIC), rule=json.dumps(RULE))
    (root / "configs" / "self_tuning.yaml").write_text(text, encoding="utf-8")
    _metrics(root)
    _others(root)
    _people(root)
    _backtests(root)
    return root


def _backtests(root: Path) -> None:
    """A run with the engine's own result under hostile names, and one that failed for a hostile reason."""
    named = Request(candidates=(Candidate(name=TEXT[:80]),))
    run = prepare(root, named)
    write_result(root, run, backtest.run(root, request_of(root, run)))
    when = {"started_ms": wall_ms() - 9000, "ended_ms": wall_ms()}
    write_status(root, run, Status(state=State.DONE, share=1.0, **when))
    failed = prepare(root, named)
    why = Reason(f"<b>{TEXT}", {"error": TEXT, "rule": RULE})
    write_status(root, failed, Status(state=State.FAILED, error=why, **when))
    (root / RUNS_FILE).write_text(f"{run} {failed}", encoding="utf-8")


def stamp(minutes_ago: float) -> str:
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return at.astimezone(SEOUL).isoformat(timespec="milliseconds")


def add(root: Path, name: str, **line: Any) -> None:
    """One line of another program."""
    with (root / name).open("a", encoding="utf-8") as f:
        f.write(json.dumps(line, ensure_ascii=False) + "\n")


def _metrics(root: Path) -> None:
    name = METRIC.replace('"', '""')
    rows = [f'ts,risk_band,"{name}","=1+1 <b>other</b>"']
    now = datetime.now(UTC)
    for k in range(15 * 300, -1, -1):
        t = (now - timedelta(seconds=0.2 * k)).astimezone(SEOUL).isoformat(timespec="milliseconds")
        rows.append(f"{t},{0.32 + k % 7 / 1000:.3f},{0.07 + k % 5 / 1000:.3f},0.1")
    (root / "logs" / "metrics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _others(root: Path) -> None:
    history, ledger = "controls/rules_history.jsonl", "logs/tuning_decisions.jsonl"
    for minutes, rule, new in (
        (12, RULE, 0.24),
        (9, f"foreign {RULE}{STEERING}", 0.3),
        (6, "risk_max", TEXT),
    ):
        add(root, history, ts=stamp(minutes), actor=ACTOR, rule=rule, old=0.22, new=new, note=TEXT,
            id=f"<b>{minutes}</b>**id**", kind=TEXT)  # fmt: skip
    add(root, history, ts=stamp(5), actor=ACTOR, rule=RULE, old=0.24, new=0.22, note=TEXT)
    delta = {"phase": None, "entropy": None, "creative": None, "risk": -0.01}
    add(root, "controls/quotes_bank.jsonl", ts=stamp(12), by=ACTOR, rule=RULE, delta=delta, confidence=0.9,
        quote=TEXT)  # fmt: skip
    for severity in ("info", "warn", "crit", "<b>loud</b>"):
        add(root, "controls/risk_ledger.jsonl", ts=stamp(4), severity=severity, rule=RULE, note=TEXT,
            signal={"<b>s</b>": TEXT})  # fmt: skip
    proposal = {"rule": RULE, "step": -0.02, "old": 0.22, "new": 0.20, "confidence": 0.5,
                "reasons": [{"code": f"<b>{TEXT}", "params": {"metric": METRIC, "why": TEXT}}]}  # fmt: skip
    for kind in ("suggest", "cycle"):
        add(root, ledger, ts=stamp(3), kind=kind, act=TEXT, mode="dry_run", deltas=None, applied=[],
            proposals=[proposal], reasons=[{"code": TEXT, "params": {"rule": RULE}}], id=f"<b>{kind}</b>",
            guards=[{"code": TEXT, "rule": RULE, "observed": TEXT, "limit": 1}],
            actor=ACTOR, why=TEXT)  # fmt: skip
    beat = {"v": 1, "ts": stamp(0), "pid": TEXT, "host": TEXT, "state": TEXT, "mode": TEXT, "cycle": TEXT}
    (root / "logs" / "loop_status.json").write_text(json.dumps(beat), encoding="utf-8")


def _people(root: Path) -> None:
    office = Office(root)
    loss = Reason("score_loss", {"observed": -0.02, "p": 0.96, "metric": METRIC, "rule": RULE})
    record(root, Act(kind="cycle", act="hold", reasons=(loss,)))
    judge(root, Verdict.WORSENED)
    proposals = [
        {"rule": RULE, "step": -0.02, "old": 0.22, "new": 0.20, "reasons": [loss.as_json()],
         "expected": {METRIC: {"mean": -0.01, "lo": -0.02, "hi": 0.0}}, "confidence": 0.6}
    ]  # fmt: skip
    made = Act(kind="suggest", act="step", reasons=(loss,), data={"proposals": proposals})
    for end in ("", "reject", "snooze"):
        _, done = office.act(Action.APPLY, lambda _: (made,), actor=ACTOR, role=Role.OPERATOR)
        if end:
            said = {"of": done.decisions[0], "actor": ACTOR, "why": TEXT}
            record(root, Act(kind="manual", act=end, reasons=(), data=said))
    _reviews(root)
    office.act(
        Action.STOP, lambda p: hands.stop(p, actor=ACTOR, role="operator", reason=TEXT),
        actor=ACTOR, role=Role.OPERATOR,
    )  # fmt: skip


def _reviews(root: Path) -> None:
    """Requests that ended in each way, as reviewing.py writes them; an open one for looser bounds."""
    loan = {"changes": 3, "displacement": 2.0, "until": stamp(-300)}
    said = {"role": "operator", "what": "arming", "settings": "0" * 64, "evidence": "e" * 64, "loan": loan,
            "grades": {"days": "pass", "<b>g</b>": TEXT}}  # fmt: skip
    ledger = FileLedger(root, timezone="UTC")
    for end in ("approve", "refuse", "void"):
        request = {"kind": "request", "by": ACTOR, "reason": TEXT, **said}
        (asked,) = ledger.commit(Batch(governance=(request,)), None).governance
        signed = {"kind": end, "by": f"{ACTOR} 2", "role": "reviewer", "request": asked, "comment": TEXT,
                  "reason": TEXT, "os": TEXT, "moved": [{"code": TEXT, "params": {"by": ACTOR}}]}  # fmt: skip
        ledger.commit(Batch(governance=(signed,)), None)
    base = (root / "configs" / "self_tuning.yaml").read_bytes()
    looser = {"rules.risk_max.max": 0.45}
    reviewing.propose(Root(root), base, looser, actor=ACTOR, role=Role.OPERATOR, why=TEXT)
