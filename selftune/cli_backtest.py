"""`selftune backtest`: the record, a model learned from it, or the plant, under settings and policies.

Answers with the contract's JSON, or a short table. The run is kept like one that the page starts; nothing on
stdout tells when or where it ran, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from selftune.acting import iso
from selftune.backtest_request import Baseline, Candidate, Mode, Request, Source
from selftune.backtest_result import Interval, Outcome, Result, Support
from selftune.cli_status import table
from selftune.cli_words import INTERRUPTED, Voice
from selftune.config import SETTINGS_FILE, parse
from selftune.domain import PolicyName, Problem, SettingsError
from selftune.files import read_small
from selftune.wording import plain, word

FILE_BYTES = 256 * 1024


def arguments(add: Callable[..., Any], run: Callable[..., int], voice: Voice) -> None:
    """Register the command."""
    sub = add("backtest", run)
    sub.add_argument("--from", dest="since", type=_stamp, metavar="T", help=voice.text("cli.help.bt_from"))
    sub.add_argument("--to", dest="until", type=_stamp, metavar="T", help=voice.text("cli.help.bt_to"))
    sub.add_argument("--policy", type=_policies, metavar="P,…", help=voice.text("cli.help.bt_policy"))
    sub.add_argument("--settings", type=Path, metavar="FILE", help=voice.text("cli.help.bt_settings"))
    modes = [m.value for m in Mode]
    sub.add_argument("--mode", choices=modes, default="replay", help=voice.text("cli.help.bt_mode"))
    sub.add_argument("--seed", type=_seed, default=0, metavar="N", help=voice.text("cli.help.bt_seed"))
    sub.add_argument("--json", action="store_true", help=voice.text("cli.help.json"))


def _stamp(text: str) -> datetime:
    """ISO 8601; without an offset it is read in the settings' zone. Raises: ValueError."""
    return datetime.fromisoformat(text)


def _policies(text: str) -> tuple[PolicyName, ...]:
    """`adaptive,heuristic`. Raises: ValueError."""
    return tuple(dict.fromkeys(PolicyName(p.strip()) for p in text.split(",")))


def _seed(text: str) -> int:
    """Raises: ValueError."""
    value = int(text)
    if not 0 <= value < 2**31:
        raise ValueError(text)
    return value


def run(path: Path, voice: Voice, a: argparse.Namespace) -> int:
    """One backtest, here and now. Raises: SettingsError (2), InputError (3), StorageError (1)."""
    from selftune import backtest_job, backtest_runs  # what the other commands need not load

    request = _request(path, a)
    run_id = backtest_runs.prepare(path, request)
    whole = backtest_runs.request_of(path, run_id)
    zone = ZoneInfo(parse(whole.candidates[0].text or "").timezone)
    try:
        result = backtest_job.carry_out(path, run_id, _progress(voice))
    except backtest_runs.Cancelled:  # by somebody on the page
        voice.say("backtest.cancelled_what")
        return INTERRUPTED
    if a.json:
        voice.json(result.contract(lambda ms: iso(ms, zone)))
    else:
        for line in screen(result, voice):
            voice.out(line)
    for note in result.notes:
        voice.tell(voice.sentence(note))
    voice.say("cli.backtest.kept", id=run_id)
    return 0


def _progress(voice: Voice) -> Callable[[float], None]:
    """One line that fills up, where somebody watches."""
    if not sys.stderr.isatty():
        return lambda _: None

    def show(share: float) -> None:
        print(f"\r{voice.text('cli.backtest.progress', share=share)}", end="", file=sys.stderr, flush=True)
        if share >= 1.0:
            print(file=sys.stderr)

    return show


def _request(path: Path, a: argparse.Namespace) -> Request:
    text = None if a.settings is None else _text(a.settings)
    source = Source.IN_FORCE if text is None else Source.DRAFT
    name = "in_force" if text is None else a.settings.name
    policies: tuple[PolicyName | None, ...] = a.policy or (None,)
    named = [(name if p is None else p.value, p) for p in policies]
    zone = _zone(path, text)
    return Request(
        mode=Mode(a.mode),
        seed=a.seed,
        from_ms=_ms(a.since, zone),
        to_ms=_ms(a.until, zone),
        candidates=tuple(Candidate(name=n, policy=p, source=source, text=text) for n, p in named),
    )


def _text(file: Path) -> str:
    raw = read_small(file, FILE_BYTES)
    if raw is None:
        raise SettingsError(Problem(code="missing_file", file=str(file)))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(Problem(code="not_utf8", file=str(file))) from error


def _zone(path: Path, text: str | None) -> ZoneInfo:
    """The zone of the settings that are tried. Raises: SettingsError."""
    return ZoneInfo(parse(_text(path / SETTINGS_FILE) if text is None else text).timezone)


def _ms(at: datetime | None, zone: ZoneInfo) -> int | None:
    if at is None:
        return None
    return round((at if at.tzinfo is not None else at.replace(tzinfo=zone)).timestamp() * 1000)


# ----------------------------------------------------------------------------- for people
def screen(result: Result, voice: Voice) -> list[str]:
    """The result as a short table, what it means, and how to get the same bytes again."""
    head = [voice.text(f"cli.backtest.col_{c}") for c in ("name", "score", "gain", "known", "moves", "worst")]
    rows = [tuple(head), *(_row(o, voice) for o in result.outcomes)]
    period = {"from_ms": result.from_ms, "to_ms": result.to_ms, "rows": result.rows, "events": result.events}
    lines = [voice.text(f"cli.backtest.head_{result.mode}", **period), "", *table(rows), ""]
    lines += _meaning(result, voice)
    r = result.reproduce
    said = {"data": r["data_sha256"][:12], "config": r["config"][:12], "version": r["version"]}
    lines.append(voice.text("cli.backtest.reproduce", **said, seed=r["seed"]))
    return lines


def _row(o: Outcome, voice: Voice) -> tuple[str, ...]:
    known = voice.text(f"cli.backtest.support_{o.support.value}", share=o.support_share)
    moves = voice.text("cli.backtest.moves", changes=o.changes, rollbacks=o.rollbacks)
    worst = "–" if o.worst is None or o.worst.against is None else f"{o.worst.against:+.3f}"
    return (
        _name(o, voice),
        _span(o.score),
        "–" if o.gain is None else _span(o.gain, "+"),
        known,
        moves,
        worst,
    )


def _name(o: Outcome, voice: Voice) -> str:
    if o.role in {b.value for b in Baseline}:
        return voice.text(f"cli.backtest.role_{o.role}")
    name = voice.text("cli.backtest.in_force") if o.name == "in_force" else plain(o.name)
    policy = word("policy", o.policy, voice.lang, voice.words)
    return name if o.name == o.policy else f"{name} ({policy})"


def _span(x: Interval | None, sign: str = "") -> str:
    return "–" if x is None else f"{x.mean:{sign}.3f} [{x.lo:{sign}.3f}, {x.hi:{sign}.3f}]"


def _meaning(result: Result, voice: Voice) -> Iterator[str]:
    """One sentence a candidate: better, worse, not to be told apart, or not to be known."""
    for o in result.outcomes:
        if o.role != "candidate":
            continue
        if o.support is Support.NONE:
            yield voice.text("cli.backtest.means_unknown", name=_name(o, voice), share=o.support_share)
        elif o.gain is None:
            continue
        elif o.gain.lo > 0:
            yield voice.text("cli.backtest.means_better", name=_name(o, voice), gain=o.gain.mean)
        elif o.gain.hi < 0:
            yield voice.text("cli.backtest.means_worse", name=_name(o, voice), gain=-o.gain.mean)
        else:
            yield voice.text("cli.backtest.means_same", name=_name(o, voice))
