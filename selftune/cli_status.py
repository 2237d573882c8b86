"""The short screen of `status`: mode, pulse, data, metrics against targets, rules, what is open, what holds.

Answers "how are things?" on half a terminal page. Pure text from what status.py saw; decides nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from selftune.cli_words import Voice
from selftune.decision_lines import reasons_of
from selftune.domain import GuardCheck, Reason, Target, WindowStat
from selftune.picture import Picture
from selftune.status import Seen, holding, stopped_by
from selftune.wording import number, plain, word


def screen(seen: Seen, voice: Voice) -> list[str]:
    """The lines of the screen."""
    lines = [*_head(seen, voice)]
    if seen.snap is not None:
        p = Picture(seen.snap)
        lines += [*_metrics(p, voice), *_rules(p, voice), *_changes(seen, voice), *_holds(p, voice)]
    if seen.problems:
        lines += ["", voice.text("cli.status.settings_bad")]
        lines += [f"  · {voice.sentence(x)}" for x in seen.problems]
    if seen.blind:
        lines += ["", voice.text("cli.status.unreadable")]
        lines += [f"  · {voice.sentence(x)}" for x in seen.blind]
    return lines


def _head(seen: Seen, voice: Voice) -> Iterator[str]:
    s = seen.status
    live = s["mode"] == "live"
    name = word("mode", s["mode"], voice.lang, voice.words)
    yield ("● " if live else "○ ") + name + (" · " + voice.text("cli.status.demo") if s["demo"] else "")
    stop = stopped_by(seen.records.governance)
    yield "  " + (voice.text("mode.stopped", by=stop.by) if stop is not None else voice.sentence(seen.mode))
    if s["armed"] is not None:
        yield "  " + voice.text("cli.status.armed", **s["armed"])
    yield voice.text(f"cli.status.loop.{s['heartbeat']['state']}", age_s=s["heartbeat"]["age_s"])
    yield _data(seen, voice)
    score = s["score"]
    yield (
        voice.text("cli.status.score", score=score)
        if score is not None
        else voice.text("cli.status.no_score")
    )


def _data(seen: Seen, voice: Voice) -> str:
    m = seen.status["metrics"]
    if m["age_s"] is None:
        return voice.text("cli.status.no_data")
    rejects = sum(m["rejects"].values()) or None
    return voice.text("cli.status.data", age_s=m["age_s"], rate=m["rate_hz"], rejects=rejects)


# ----------------------------------------------------------------------------- metrics and rules
def _metrics(p: Picture, voice: Voice) -> Iterator[str]:
    yield ""
    yield voice.text("cli.status.metrics", seconds=p.settings.observe_window_s)
    rows = [_metric(m, t, p.shown[m], voice) for m, t in p.settings.targets.items()]
    yield from (f"  {line}" for line in table(rows))


def _metric(metric: str, target: Target, stat: WindowStat, voice: Voice) -> tuple[str, ...]:
    """Name, value, target, how far off; in words, not only by a sign."""
    name, goal = word("metric", metric, voice.lang, voice.words), _goal(target, voice)
    if stat.mean is None:
        return (name, "–", goal, voice.text("cli.status.unknown"))
    if target.max is not None and stat.mean > target.max:
        off = voice.text("cli.status.high", gap=stat.mean - target.max)
    elif target.min is not None and stat.mean < target.min:
        off = voice.text("cli.status.low", gap=target.min - stat.mean)
    else:
        off = voice.text("cli.status.met")
    return (name, f"{stat.mean:.4g}", goal, off)


def _goal(target: Target, voice: Voice) -> str:
    parts = []
    if target.min is not None:
        parts.append(voice.text("cli.status.at_least", limit=target.min))
    if target.max is not None:
        parts.append(voice.text("cli.status.at_most", limit=target.max))
    return ", ".join(parts)


def _rules(p: Picture, voice: Voice) -> Iterator[str]:
    yield ""
    yield voice.text("cli.status.rules")
    rows = []
    for name, rule in p.settings.rules.items():
        value, anchor = p.life.values[name], p.life.anchor[name]
        if value == anchor:
            where = voice.text("cli.status.proven")
        else:
            where = voice.text("cli.status.away", anchor=anchor, steps=abs(value - anchor) / rule.lr)
        rows.append((plain(name), number(value), f"{number(rule.min)} ~ {number(rule.max)}", where))
    yield from (f"  {line}" for line in table(rows))


# ----------------------------------------------------------------------------- what is open, what holds
def _changes(seen: Seen, voice: Voice) -> Iterator[str]:
    exc = seen.status["excursion"]
    if not seen.status["open"] and exc is None:
        return
    yield ""
    yield voice.text("cli.status.open")
    for c in seen.status["open"]:
        for m in c["rules"]:
            yield "  · " + voice.text(
                "cli.status.change" if c["verdict_in_s"] > 0 else "cli.status.change_due",
                rule=m["rule"],
                old=m["old"],
                new=m["new"],
                actor=c["actor"],
                phase=c["phase"],
                left_s=c["verdict_in_s"],
            )
    if exc is not None:
        yield "  · " + voice.text(
            "cli.status.excursion",
            steps=exc["steps"],
            max_steps=exc["max_steps"],
            left_s=max(0.0, exc["max_s"] - exc["age_s"]),
        )


def _holds(p: Picture, voice: Voice) -> Iterator[str]:
    found = [Reason(g.code, g.reason.params) for g in holding(p) if not _said_already(g)]
    found = found or _policy_waits(p)
    if not found:
        return
    yield ""
    yield voice.text("cli.status.holds")
    said: set[str] = set()
    for reason in found:
        line = voice.sentence(reason)
        if line not in said:
            said.add(line)
            yield f"  · {line}"


def _policy_waits(p: Picture) -> list[Reason]:
    """Where no guard holds: why the policy itself keeps still, as it last said."""
    last = p.life.last_said.get("explore")
    return [] if last is None or last.act != "hold" else list(reasons_of(last.data.get("reasons")))


def _said_already(g: GuardCheck) -> bool:
    return g.code in ("guard.settings", "guard.stopped")


# ----------------------------------------------------------------------------- columns
def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows in columns; a Hangul letter is two columns wide in a terminal."""
    widths = [max(width(r[i]) for r in rows) for i in range(len(rows[0]))] if rows else []
    return [
        "  ".join(c + " " * (w - width(c)) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows
    ]


def width(text: str) -> int:
    """Columns that `text` takes in a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
