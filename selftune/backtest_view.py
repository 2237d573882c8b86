"""What the backtest page shows: which runs are asked for, what they found, in plain facts. No Streamlit.

Answers "would it have been better, and can the record tell at all?" from runs on disk. It computes no score:
where the engine gives none, there is none here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import Any

from selftune import backtest_runs
from selftune.backtest_request import Baseline, Candidate, Mode, Request, Source
from selftune.backtest_result import Outcome, Result, Stretch, Support
from selftune.backtest_runs import Run
from selftune.chart_kit import Say, clock_text, span_text
from selftune.config import Settings, parse
from selftune.domain import PolicyName, SettingsError
from selftune.drafting import Work, draft
from selftune.plants import seed_plant
from selftune.records import stamp
from selftune.revising import Revision

MOST_BESIDE = 2  # runs shown beside the first
MOST_LISTED = 12
CANDIDATE = "candidate"
LETTERS = "ABC"
IN_FORCE, DRAFT, POLICY, REVISION = "in_force", "draft", "policy:", "rev:"
PERIODS_S: Mapping[str, int | None] = {"all": None, "24h": 86_400, "7d": 7 * 86_400}
CUSTOM = "custom"


class Verdict(StrEnum):
    """What a run says of a candidate against doing nothing (`backtest.v_<value>`)."""

    BETTER = "better"
    WORSE = "worse"
    EVEN = "even"
    STILL = "still"  # it would have changed nothing
    UNKNOWN = "unknown"  # the record cannot tell


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the address asks for. `unknown`: ids of no run, as typed, at most a few."""

    run: Run | None = None
    beside: tuple[Run, ...] = ()
    unknown: tuple[str, ...] = ()
    named: bool = False

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs to be compared, the first one first; only finished ones have figures."""
        return (*((self.run,) if self.run else ()), *self.beside)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One candidate or baseline of one run. `letter`: which run, '' while there is only one."""

    letter: str
    run: str
    mode: str
    outcome: Outcome

    @property
    def candidate(self) -> bool:
        return self.outcome.role == CANDIDATE


# ------------------------------------------------------------------------------- what is asked for
def asked(root: Path, query: Mapping[str, str]) -> Asked:
    """The runs that the address names (`run`, `vs`), and the names that are none."""
    first = query.get("run", "")
    others = [x for x in dict.fromkeys(query.get("vs", "").split(",")) if x and x != first]
    run = backtest_runs.read(root, first) if first else None
    found = [(x, backtest_runs.read(root, x)) for x in others[:MOST_BESIDE]]
    unknown = [*([first] if first and run is None else []), *(x for x, r in found if r is None)]
    return Asked(
        run=run, beside=tuple(r for _, r in found if r is not None and run is not None),
        unknown=tuple(unknown), named=bool(first),
    )  # fmt: skip


def query_of(run: str, beside: Sequence[str] = ()) -> dict[str, str]:
    """The parameters of the address for these runs."""
    return {"run": run, **({"vs": ",".join(beside)} if beside else {})}


# ------------------------------------------------------------------------------- asking
def draft_text(work: object) -> str | None:
    """The YAML of the edit that is open on the Targets page; None without one, or while it is not valid."""
    if not isinstance(work, Work) or not work.changes:
        return None
    try:
        return draft(work.base.decode("utf-8"), work.changes).after
    except (SettingsError, UnicodeDecodeError):
        return None


def grounds(s: Settings) -> list[Mode]:
    """What a backtest of these settings can run on: the simulated system knows its own names only."""
    spec = seed_plant()
    known = set(s.metrics) <= set(spec.names) and set(s.rules) <= set(spec.init)
    return [m for m in Mode if known or m is not Mode.PLANT]


def choices(revisions: Sequence[Revision], drafted: str | None) -> list[str]:
    """Codes of what can be tried, the settings in force first."""
    policies = [f"{POLICY}{p.value}" for p in PolicyName if p is not PolicyName.NONE]
    return [IN_FORCE, *([DRAFT] if drafted else []), *policies, *(f"{REVISION}{r.id}" for r in revisions)]


def candidate(code: str, drafted: str | None) -> Candidate:
    """The candidate of a code; its name is the code, so that each reader gets it in their language."""
    if code == DRAFT and drafted is not None:
        return Candidate(name=code, source=Source.DRAFT, text=drafted)
    if code.startswith(REVISION):
        return Candidate(name=code, source=Source.REVISION, revision=code.removeprefix(REVISION))
    if code.startswith(POLICY):
        return Candidate(name=code, policy=PolicyName(code.removeprefix(POLICY)))
    return Candidate(name=IN_FORCE)


def trial(drafted: str) -> Request:
    """Try before save: the draft, beside the settings in force, against doing nothing."""
    first = Candidate(name=DRAFT, source=Source.DRAFT, text=drafted)
    return Request(candidates=(first, Candidate(name=IN_FORCE)), baselines=(Baseline.NONE,))


# ------------------------------------------------------------------------------- names
def name_of(name: str, role: str, say: Say) -> str:
    """A candidate's or a baseline's name in the reader's words; a name that somebody typed stays."""
    if role != CANDIDATE:
        return say(f"backtest.role_{role}") if role in set(Baseline) else name
    if name in (IN_FORCE, DRAFT):
        return say(f"backtest.c_{name}")
    if name.removeprefix(POLICY) in set(PolicyName):  # a shell names them without the prefix
        return say(f"backtest.c_policy_{name.removeprefix(POLICY)}")
    if name.startswith(REVISION):
        ident = name.removeprefix(REVISION)
        return say("backtest.c_revision", at_ms=_minted_ms(ident)) if len(ident) == 26 else name
    return name


def _minted_ms(ulid: str) -> int:
    """When a ULID was made: its first ten signs. Source: the ULID specification."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    ms = 0
    for sign in ulid[:10]:
        ms = ms * 32 + max(0, alphabet.find(sign))
    return ms


def run_name(run: Run, say: Say, zone: str) -> str:
    """'11-26 19:10 · the settings in force · record': a run in a list."""
    first = run.request.candidates[0]
    what = name_of(first.name, CANDIDATE, say)
    more = len(run.request.candidates) - 1
    return " · ".join(
        [
            clock_text(run.status.started_ms or _minted_ms(run.id), zone)[:11],
            say("backtest.and_more", name=what, n=more) if more else what,
            say(f"backtest.mode_{run.request.mode.value}"),
        ]
    )


def period(result: Result, zone: str) -> str:
    return span_text(result.from_ms, result.to_ms, zone)


# ------------------------------------------------------------------------------- what was found
def verdict(o: Outcome) -> Verdict:
    """What the run says of this candidate, against doing nothing."""
    if o.support is Support.NONE or o.score is None:
        return Verdict.UNKNOWN
    if o.changes == 0:
        return Verdict.STILL
    if o.gain is None:
        return Verdict.UNKNOWN
    if o.gain.lo > 0:
        return Verdict.BETTER
    return Verdict.WORSE if o.gain.hi < 0 else Verdict.EVEN


def candidates(result: Result) -> tuple[Outcome, ...]:
    return tuple(o for o in result.outcomes if o.role == CANDIDATE)


def lines(runs: Sequence[Run]) -> tuple[Line, ...]:
    """Every candidate of the finished runs, and the baselines of the first: a gain needs no other."""
    done = [(r, r.result) for r in runs if r.result is not None]
    several = len(done) > 1
    return tuple(
        Line(letter=LETTERS[i] if several else "", run=run.id, mode=result.mode, outcome=o)
        for i, (run, result) in enumerate(done)
        for o in result.outcomes
        if i == 0 or o.role == CANDIDATE
    )


def uneven(found: Sequence[Line]) -> bool:
    """True when the record answers for some less than for others: their scores are of other moments."""
    return any(x.outcome.support is Support.PARTIAL for x in found)


def differences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Why scores may not be held against each other: `backtest.differ_<code>`."""
    done = [r.result for r in runs if r.result is not None]
    found = []
    if len({r.mode for r in done}) > 1:
        found.append("mode")
    if len({(r.from_ms, r.to_ms) for r in done}) > 1:
        found.append("period")
    elif len({r.data_sha256 for r in done}) > 1:
        found.append("data")
    if len(set(yardsticks(runs))) > 1:
        found.append("yardstick")
    return tuple(found)


def yardsticks(runs: Sequence[Run]) -> list[str]:
    """What each candidate's score is measured by: its targets and weights, as one text each."""
    found = []
    for run in runs:
        for c in run.request.candidates:
            try:
                s = parse(c.text) if c.text else None
            except SettingsError:
                s = None
            if s is not None:
                found.append(repr((sorted(s.targets.items()), sorted(s.weights.items()))))
    return found


def table(found: Sequence[Line], say: Say, zone: str) -> dict[str, list[Any]]:
    """All lines as columns with readable headers: for the CSV."""
    columns: dict[str, list[Any]] = {}

    def put(key: str, values: list[Any]) -> None:
        columns[say(key)] = values

    outcomes = [x.outcome for x in found]
    put("backtest.col_run", [x.run for x in found])
    put("backtest.col_name", [name_of(o.name, o.role, say) for o in outcomes])
    put("backtest.col_policy", [o.policy for o in outcomes])
    for key, part in (("score", "score"), ("gain", "gain")):
        got = [getattr(o, part) for o in outcomes]
        put(f"backtest.col_{key}", [percent(x.mean) if x else None for x in got])
        put(f"backtest.col_{key}_lo", [percent(x.lo) if x else None for x in got])
        put(f"backtest.col_{key}_hi", [percent(x.hi) if x else None for x in got])
    put("backtest.col_worst_at", [_when(o.worst, zone) for o in outcomes])
    put("backtest.col_worst", [_against(o.worst) for o in outcomes])
    put("backtest.col_changes", [o.changes for o in outcomes])
    put("backtest.col_rollbacks", [o.rollbacks for o in outcomes])
    put("backtest.col_support", [round(100 * o.support_share, 1) for o in outcomes])
    return columns


def percent(x: float | None) -> float | None:
    """A score of 0..1 as score points."""
    return None if x is None else round(100 * x, 2)


def _when(s: Stretch | None, zone: str) -> str:
    return "" if s is None else span_text(s.from_ms, s.to_ms, zone)


def _against(s: Stretch | None) -> float | None:
    return None if s is None or s.against is None else percent(s.against)


def command(run: Run) -> str | None:
    """The command that gives the same figures; None where a shell cannot name the settings (a draft)."""
    r = run.result
    tried = run.request.candidates
    if r is None or run.request.sweep is not None or any(c.source is not Source.IN_FORCE for c in tried):
        return None
    policies = [c.policy.value for c in tried if c.policy is not None]
    if policies and len(policies) != len(tried):
        return None
    parts = ["python -m selftune backtest", f"--mode {r.mode}", f"--from {stamp(r.from_ms, UTC)}"]
    parts += [f"--to {stamp(r.to_ms, UTC)}", f"--seed {r.seed}"]
    if policies:
        parts.append(f"--policy {','.join(policies)}")
    return " ".join(parts)
