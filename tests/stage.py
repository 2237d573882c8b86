"""A stage for the decision core: records written by hand, samples made to measure, one picture of both.

`Story` writes what the ledgers would hold; `Scene` adds the samples and asks for the plan. Times are
seconds from `T0`, so that a test reads like a timetable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np

from selftune.book import Batch, Chain, Records, Version
from selftune.coarse import CoarseBook
from selftune.config import edit, parse
from selftune.cycle import decide
from selftune.domain import Decision, Governance, Mode, Reason, RiskWarning, RuleEvent
from selftune.ledger import Ledger
from selftune.lifecycle import Life, fold
from selftune.picture import Picture
from selftune.plan import Act, Plan, Snapshot
from selftune.series import Series
from selftune.settings import Settings
from tests.conftest import SHIPPED

T0 = 1_763_800_000_000  # a multiple of 10 s: the bins of the coarse history begin here
GOOD = {"phase_diff": 0.04, "creative_band": 0.25, "risk_band": 0.28, "entropy_rate": 0.26}
OFF = {"phase_diff": 0.07, "creative_band": 0.225, "risk_band": 0.33, "entropy_rate": 0.26}
LIVE = {"strategy.dry_run": False, "governance.approvals_required": 0}
HARD = {"safety.hard.risk_band.max": 0.45}
NOISE = {"phase_diff": 0.002, "creative_band": 0.002, "risk_band": 0.002, "entropy_rate": 0.002}


def settings_text(**changes: Any) -> str:
    """The shipped settings with some keys changed; `__` in a name stands for a dot."""
    return _edited(tuple((k.replace("__", "."), type(v), v) for k, v in changes.items()))


@cache  # by type too: 1, 1.0 and True are equal and written differently
def _edited(changes: tuple[tuple[str, type, Any], ...]) -> str:
    return edit(SHIPPED.read_text(encoding="utf-8"), {key: value for key, _, value in changes})


def settings_with(changes: Mapping[str, Any] | None = None, **more: Any) -> Settings:
    """Parsed settings, see `settings_text`."""
    return parse(settings_text(**{**(changes or {}), **more}).encode())


def ms(seconds: float) -> int:
    """The instant so many seconds after `T0`."""
    return T0 + round(seconds * 1000)


def iso(seconds: float) -> str:
    """The same instant as a record writes it."""
    return datetime.fromtimestamp(ms(seconds) / 1000, UTC).isoformat(timespec="milliseconds")


def sign(ledger: Ledger, digest: str, loan: Mapping[str, Any], values: Mapping[str, float]) -> None:
    """An arming in a real ledger, as the review writes it: asked for by one, signed by another."""
    asked = {"settings": digest, "loan": dict(loan), "evidence": ""}
    (request,) = ledger.commit(
        Batch(governance=({"kind": "request", "by": "kim", "role": "operator", "what": "arming", **asked},)),
        expect=None,
    ).governance
    signed = {"by": "lee", "role": "reviewer", "request": request, **asked}
    lines = ({"kind": "approve", **signed}, {"kind": "arm", "values": dict(values), **signed})
    ledger.commit(Batch(governance=lines), expect=None)


@dataclass
class Story:
    """What happened, record by record. `now` moves with `at()`; ids are d1, d2, … and e1, e2, …"""

    settings: Settings = field(default_factory=settings_with)
    now: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    events: list[RuleEvent] = field(default_factory=list)
    governance: list[Governance] = field(default_factory=list)
    warnings: list[RiskWarning] = field(default_factory=list)

    def at(self, seconds: float) -> Story:
        self.now = seconds
        return self

    @property
    def life(self) -> Life:
        return fold(self.decisions, self.events, self.settings)

    def foreign(self, rule: str, new: float | None, actor: str = "someone", **more: Any) -> str:
        """Another program's line; returns the event's key."""
        key = f"e{len(self.events) + 1}"
        self._event(key, rule, new, actor=actor, **more)
        return key

    def _event(self, key: str, rule: str, new: float | None, **more: Any) -> None:
        old = self.life.values.get(rule)
        self.events.append(
            RuleEvent(key=key, ts_ms=ms(self.now), at_ms=ms(self.now), rule=rule,
                      **{"old": old, "new": new, "actor": "selftune", **more})
        )  # fmt: skip

    def say(
        self,
        kind: str,
        act: str | None,
        moves: Mapping[str, float] | None = None,
        *,
        lost: bool = False,
        mode: Mode | None = None,
        **data: Any,
    ) -> str:
        """One decision line with the events it intends (`lost`: they never arrive); returns its id."""
        mode = mode or (Mode.DRY_RUN if self.settings.dry_run else Mode.LIVE)
        did = f"d{len(self.decisions) + 1}"
        kinds = {"return": "rollback", "look": "rollback", "restore": "restore", "rollback": "rollback"}
        keys = tuple(f"e{len(self.events) + 1 + i + 100 * lost}" for i in range(len(moves or {})))
        after = self.events[-1].key if self.events else None
        self.decisions.append(
            Decision(
                id=did, ts_ms=ms(self.now), at_ms=ms(self.now), kind=kind, act=act, mode=mode, applied=keys,
                abandoned=tuple(data.get("abandoned", ())),
                data={"after": after, "mode": mode.value, "digest": self.settings.digest, **data},
            )
        )  # fmt: skip
        for key, (rule, new) in zip(keys, (moves or {}).items(), strict=True):
            if not lost:
                self._event(key, rule, new, kind=kinds.get(act or "", "change"), decision=did,
                            look=act == "look")  # fmt: skip
        return did

    # ---- the moves of loop.md
    def step(self, rule: str, new: float, **more: Any) -> str:
        """A step of ours; returns the change's id."""
        proposals = [{"rule": rule, "old": self.life.values[rule], "new": new, "reasons": []}]
        return self.say("cycle", "step", {rule: new}, proposals=proposals, **more)

    def joint(self, **moves: float) -> str:
        return self.say("cycle", "step", moves)

    def suggest(self, rule: str, new: float, **more: Any) -> str:
        proposals = [{"rule": rule, "old": self.life.values[rule], "new": new, "reasons": []}]
        return self.say("cycle", "step", mode=Mode.DRY_RUN, proposals=proposals, **more)

    def verdict(self, change: str, verdict: str, **more: Any) -> str:
        return self.say("verdict", "evaluate", change=change, verdict=verdict, **more)

    def looked(self, **more: Any) -> str:
        return self.say("verdict", "excursion", **more)

    def confirm(self, basis: str = "improved") -> str:
        exc = self.life.excursion
        assert exc is not None
        anchor = {**self.life.anchor, **{r: v for r, (_, v) in exc.displaced.items()}}
        return self.say("verdict", "confirm", basis=basis, anchor=anchor, steps=list(exc.steps))

    def back(
        self, cause: str, home: Mapping[str, float], undoes: list[str] | None = None, *,
        scope: str = "excursion", **more: Any,
    ) -> str:  # fmt: skip
        exc = self.life.excursion
        steps = undoes if undoes is not None else list(exc.steps if exc else ())
        return self.say("cycle", "return", home, cause=cause, scope=scope, undoes=steps, **more)

    def look(self, home: Mapping[str, float]) -> str:
        return self.say("cycle", "look", home, cause="look", scope="excursion", undoes=[])

    def look_over(self, result: str, **more: Any) -> str:
        look = self.life.look
        assert look is not None
        over = self.say("verdict", "look", change=look.change, result=result, left=dict(look.left), **more)
        if result == "restore":
            self.say("cycle", "restore", look.left, cause="look")
        return over

    def harmed(self, rule: str, new: float, *, after: float = 90.0, cause: str = "worsened") -> str:
        """A step that is proven harmful and goes back; returns the id of the return."""
        old = self.life.values[rule]
        change = self.step(rule, new)
        self.at(self.now + after)
        self.verdict(change, "WORSENED")
        harm = {"rule": rule, "sign": 1 if new > old else -1, "anchor": old, "deltas": {}}
        return self.back(cause, {rule: old}, [change], harm=harm)

    def govern(self, kind: str, by: str = "kim", **data: Any) -> None:
        self.governance.append(
            Governance(id=f"g{len(self.governance) + 1}", ts_ms=ms(self.now), at_ms=ms(self.now), kind=kind,
                       by=by, role="reviewer", n=len(self.governance) + 1, data={"kind": kind, **data})
        )  # fmt: skip

    def arm(self, *, changes: int = 20, displacement: float = 6.0, hours: float = 24.0, **more: Any) -> None:
        """An arming as the review writes it: asked for, signed by as many as it takes, carried out."""
        loan = {"changes": changes, "displacement": displacement, "until": iso(self.now + hours * 3600)}
        asked = {"settings": self.settings.digest, "loan": loan, "evidence": ""}
        self.govern("request", by="asker", what="arming", **asked)
        request = self.governance[-1].id
        for k in range(max(1, self.settings.governance.approvals_required)):
            self.govern("approve", by=f"signer{k}", request=request, **asked)
        values = dict(self.life.values)
        self.govern("arm", request=request, values=values, **{**asked, "loan": dict(loan), **more})

    def crit(self, note: str = "something burns", rule: str | None = None, **more: Any) -> None:
        self.warnings.append(
            RiskWarning(ts_ms=ms(self.now), at_ms=ms(self.now), severity="crit", rule=rule, note=note, **more)
        )

    def warn_resolved(self, resolves: Any) -> None:
        self.warnings.append(
            RiskWarning(ts_ms=ms(self.now), at_ms=ms(self.now), severity="info", rule=None, note="done",
                        resolves=resolves)
        )  # fmt: skip

    def records(self, *, chain_ok: bool = True) -> Records:
        return Records(
            version=Version(files=(), settings="sha"),
            events=tuple(self.events), decisions=tuple(self.decisions), governance=tuple(self.governance),
            warnings=tuple(self.warnings), chain=Chain(reason=None if chain_ok else "prev"),
        )  # fmt: skip


Levels = list[tuple[float, Mapping[str, float]]]


def made(
    levels: Levels, end: float, *, start: float = 0.0, noise: Mapping[str, float] = NOISE, seed: int = 1,
    gaps: list[tuple[float, float]] | None = None, hz: float = 5.0,
) -> Series:  # fmt: skip
    """Samples from `start` up to `end`: each metric at the newest level that has begun, plus white noise."""
    ts = np.arange(round((end - start) * hz)) * round(1000 / hz) + ms(start)
    rng = np.random.default_rng(seed)
    values = {}
    for m in OFF:
        level = np.zeros(len(ts))
        for begins, at in levels:
            if m in at:
                level[ts >= ms(begins)] = at[m]
        values[m] = np.round(level + rng.normal(0.0, noise[m], len(ts)), 3)
    keep = np.ones(len(ts), bool)
    for a, b in gaps or []:
        keep &= ~((ts >= ms(a)) & (ts < ms(b)))
    return Series(ts_ms=ts[keep], values={m: v[keep] for m, v in values.items()})


@dataclass
class Scene:
    """A story with samples. `levels`: from which second on which metric is where."""

    story: Story
    levels: Levels = field(default_factory=lambda: [(0.0, OFF)])
    gaps: list[tuple[float, float]] = field(default_factory=list)
    noise: Mapping[str, float] = field(default_factory=lambda: NOISE)
    start: float = -1800.0
    seed: int = 1
    edits: Callable[[Snapshot], Snapshot] = lambda s: s

    def snapshot(self, now: float, **more: Any) -> Snapshot:
        levels = [(self.start, OFF), *self.levels]
        series = made(levels, now, start=self.start, noise=self.noise, seed=self.seed, gaps=self.gaps)
        book = CoarseBook(tuple(series.values), 86_400_000)
        if len(series):
            rows = np.stack([series.values[m] for m in series.values])
            book.forward(series.ts_ms, rows, int(series.ts_ms[-1]), whole=True)
        newest = series.newest_ms
        snap = Snapshot(
            now_ms=ms(now), clock_ms=ms(now), settings=self.story.settings, config_sha="sha",
            records=self.story.records(), series=series, coarse=book.coarse,
            ok_at_ms=newest,
        )  # fmt: skip
        return self.edits(replace(snap, **more))

    def picture(self, now: float, **more: Any) -> Picture:
        return Picture(self.snapshot(now, **more))

    def plan(self, now: float, **more: Any) -> Plan:
        return decide(self.snapshot(now, **more))


def acts(plan: Plan) -> list[tuple[str, str | None]]:
    """What a plan wants to write, in short."""
    return [(a.kind, a.act) for a in plan.acts]


def the(plan: Plan, act: str) -> Act:
    """The one act of that name."""
    found = [a for a in plan.acts if a.act == act]
    assert len(found) == 1, f"{act} is not the one of {acts(plan)}"
    return found[0]


def codes(reasons: tuple[Reason, ...]) -> list[str]:
    return [r.code for r in reasons]


def moved(act: Act) -> dict[str, tuple[float, float]]:
    """rule -> (old, new) of an act's moves."""
    return {m.rule: (m.old, m.new) for m in act.moves}
