"""What a backtest found: the contract's JSON, and beside it what a page draws. Frozen values, JSON both ways.

Answers "how did each candidate do, and where can nobody know?". Pure. Instants are ms UTC, scores 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from selftune.domain import JsonDict, Reason
from selftune.records import number


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    lo: float
    hi: float

    def as_json(self) -> JsonDict:
        return {"mean": _short(self.mean), "lo": _short(self.lo), "hi": _short(self.hi)}

    @staticmethod
    def of(data: Any) -> Interval | None:
        if not isinstance(data, Mapping):
            return None
        mean, lo, hi = (number(data.get(k)) for k in ("mean", "lo", "hi"))
        return None if mean is None or lo is None or hi is None else Interval(mean=mean, lo=lo, hi=hi)


class Support(StrEnum):
    """Whether the record can tell: for all of the choices, for some, for none (then there is no score)."""

    OK = "ok"
    PARTIAL = "partial"
    NONE = "none"


SUPPORT_OK, SUPPORT_LEAST = 0.8, 0.2  # share of choices whose values were visited


def support_of(share: float) -> Support:
    """`ok` from 80 % of the choices, `none` below 20 %."""
    if share >= SUPPORT_OK:
        return Support.OK
    return Support.PARTIAL if share >= SUPPORT_LEAST else Support.NONE


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The score over time, in at most a few hundred buckets; None where nothing is known."""

    ts_ms: tuple[int, ...] = ()
    mean: tuple[float | None, ...] = ()
    lo: tuple[float | None, ...] = ()
    hi: tuple[float | None, ...] = ()

    def as_json(self) -> JsonDict:
        return {
            "ts_ms": list(self.ts_ms),
            **{k: [None if x is None else _short(x) for x in getattr(self, k)] for k in ("mean", "lo", "hi")},
        }

    @staticmethod
    def of(data: Any) -> Curve:
        table = data if isinstance(data, Mapping) else {}
        parts = {k: tuple(number(x) for x in table.get(k) or ()) for k in ("mean", "lo", "hi")}
        return Curve(ts_ms=tuple(int(x) for x in table.get("ts_ms") or ()), **parts)


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """One step that the candidate proposed (replay) or took (simulate, plant).

    `followed`: the record holds what followed at these values; `gain`: score against staying, then.
    """

    ts_ms: int
    rule: str
    old: float
    new: float
    reason: Reason
    followed: bool = False
    gain: Interval | None = None

    def as_json(self) -> JsonDict:
        return {
            "ts_ms": self.ts_ms, "rule": self.rule, "old": self.old, "new": self.new,
            "reason": self.reason.as_json(), "followed": self.followed,
            "gain": None if self.gain is None else self.gain.as_json(),
        }  # fmt: skip

    @staticmethod
    def of(data: Mapping[str, Any]) -> Proposed:
        why = data.get("reason") or {}
        return Proposed(
            ts_ms=int(data["ts_ms"]), rule=str(data["rule"]), old=float(data["old"]), new=float(data["new"]),
            reason=Reason(str(why.get("code") or "unknown"), dict(why.get("params") or {})),
            followed=data.get("followed") is True, gain=Interval.of(data.get("gain")),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tripped:
    """How often one guard (or the policy's own hold) kept the candidate still; `share` of its looks."""

    code: str
    rule: str | None
    n: int
    share: float
    example: Mapping[str, Any] = field(default_factory=dict)  # the params of one, for the sentence

    def as_json(self) -> JsonDict:
        return {"code": self.code, "rule": self.rule, "n": self.n, "share": _short(self.share),
                "example": dict(self.example)}  # fmt: skip

    @staticmethod
    def of(data: Mapping[str, Any]) -> Tripped:
        return Tripped(
            code=str(data["code"]), rule=data.get("rule"), n=int(data["n"]), share=float(data["share"]),
            example=dict(data.get("example") or {}),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of the period; `score` there, and `against`: less that of doing nothing (None: unknown)."""

    from_ms: int
    to_ms: int
    score: float | None = None
    against: float | None = None

    def as_json(self) -> JsonDict:
        return {
            "from_ms": self.from_ms, "to_ms": self.to_ms,
            "score": None if self.score is None else _short(self.score),
            "against": None if self.against is None else _short(self.against),
        }  # fmt: skip

    @staticmethod
    def of(data: Any) -> Stretch | None:
        if not isinstance(data, Mapping):
            return None
        return Stretch(
            from_ms=int(data["from_ms"]), to_ms=int(data["to_ms"]),
            score=number(data.get("score")), against=number(data.get("against")),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one candidate did. `role`: `candidate`, or which baseline it is (none, heuristic, record, oracle).

    `config`: settings digest. `looks`: how often it was asked. `gain`: score less that of doing nothing,
    paired. `unsupported`: stretches in which the record cannot tell. `proposals` are the first
    `MOST_PROPOSALS` of `changes`. `score` is None exactly where `support` is NONE.
    """

    name: str
    role: str
    policy: str
    config: str
    score: Interval | None
    support_share: float
    support: Support
    changes: int = 0
    rollbacks: int = 0
    looks: int = 0
    gain: Interval | None = None
    worst: Stretch | None = None
    curve: Curve = field(default_factory=Curve)
    proposals: tuple[Proposed, ...] = ()
    guards: tuple[Tripped, ...] = ()
    unsupported: tuple[Stretch, ...] = ()

    def contract(self, iso: Any) -> JsonDict:
        """The object of contract.md. `iso`: ms -> ISO 8601 text."""
        worst = self.worst
        return {
            "name": self.name,
            "policy": self.policy,
            "score": None if self.score is None else self.score.as_json(),
            "support": {"share": _short(self.support_share), "status": self.support.value},
            "changes": self.changes,
            "rollbacks": self.rollbacks,
            "worst_window": None if worst is None else {
                "from": iso(worst.from_ms), "to": iso(worst.to_ms), **{
                    k: v for k, v in worst.as_json().items() if k in ("score", "against")
                },
            },
        }  # fmt: skip

    def as_json(self) -> JsonDict:
        return {
            "name": self.name, "role": self.role, "policy": self.policy, "config": self.config,
            "score": None if self.score is None else self.score.as_json(),
            "support_share": _short(self.support_share), "support": self.support.value,
            "changes": self.changes, "rollbacks": self.rollbacks, "looks": self.looks,
            "gain": None if self.gain is None else self.gain.as_json(),
            "worst": None if self.worst is None else self.worst.as_json(),
            "curve": self.curve.as_json(),
            "proposals": [p.as_json() for p in self.proposals],
            "guards": [g.as_json() for g in self.guards],
            "unsupported": [s.as_json() for s in self.unsupported],
        }  # fmt: skip

    @staticmethod
    def of(data: Mapping[str, Any]) -> Outcome:
        return Outcome(
            name=str(data["name"]), role=str(data["role"]), policy=str(data["policy"]),
            config=str(data["config"]), score=Interval.of(data.get("score")),
            support_share=float(data["support_share"]), support=Support(data["support"]),
            changes=int(data["changes"]), rollbacks=int(data["rollbacks"]), looks=int(data["looks"]),
            gain=Interval.of(data.get("gain")), worst=Stretch.of(data.get("worst")),
            curve=Curve.of(data.get("curve")),
            proposals=tuple(Proposed.of(p) for p in data.get("proposals") or ()),
            guards=tuple(Tripped.of(g) for g in data.get("guards") or ()),
            unsupported=tuple(s for x in data.get("unsupported") or () if (s := Stretch.of(x)) is not None),
        )  # fmt: skip


MOST_PROPOSALS = 500


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One variant of a sweep: what was set, and how it did."""

    values: Mapping[str, float]
    score: Interval | None
    support: Support
    changes: int
    rollbacks: int
    worst: float | None  # its worst stretch against doing nothing
    problem: Reason | None = None  # the settings would not be valid with these values

    def as_json(self) -> JsonDict:
        return {
            "values": {k: _short(v) for k, v in self.values.items()},
            "score": None if self.score is None else self.score.as_json(), "support": self.support.value,
            "changes": self.changes, "rollbacks": self.rollbacks,
            "worst": None if self.worst is None else _short(self.worst),
            "problem": None if self.problem is None else self.problem.as_json(),
        }  # fmt: skip

    @staticmethod
    def of(data: Mapping[str, Any]) -> SweepPoint:
        p = data.get("problem")
        return SweepPoint(
            values=dict(data["values"]), score=Interval.of(data.get("score")),
            support=Support(data["support"]), changes=int(data["changes"]),
            rollbacks=int(data["rollbacks"]), worst=number(data.get("worst")),
            problem=None if not p else Reason(str(p["code"]), dict(p.get("params") or {})),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Result:
    """The whole answer. `notes`: what a reader should know of the data (`backtest.note_*`).

    `sweep` is sorted best first; `rows`, `events` are what the period holds.
    """

    mode: str
    data_sha256: str
    config: str
    version: str
    seed: int
    from_ms: int
    to_ms: int
    rows: int
    events: int
    outcomes: tuple[Outcome, ...]
    notes: tuple[Reason, ...] = ()
    sweep: tuple[SweepPoint, ...] = ()

    @property
    def reproduce(self) -> JsonDict:
        return {
            "data_sha256": self.data_sha256, "config": self.config, "version": self.version, "seed": self.seed
        }  # fmt: skip

    def outcome(self, role: str) -> Outcome | None:
        """The outcome of that baseline, or the first candidate's."""
        return next((o for o in self.outcomes if o.role == role), None)

    def contract(self, iso: Any) -> JsonDict:
        """What `backtest --json` prints (contract.md). `iso`: ms -> ISO 8601 text."""
        found: JsonDict = {
            "reproduce": self.reproduce,
            "period": {"from": iso(self.from_ms), "to": iso(self.to_ms)},
            "candidates": [o.contract(iso) for o in self.outcomes],
        }
        if self.sweep:
            found["sweep"] = [p.as_json() for p in self.sweep]
        return found

    def as_json(self) -> JsonDict:
        return {
            "v": 1, "mode": self.mode, **self.reproduce, "from_ms": self.from_ms, "to_ms": self.to_ms,
            "rows": self.rows, "events": self.events, "outcomes": [o.as_json() for o in self.outcomes],
            "notes": [n.as_json() for n in self.notes], "sweep": [p.as_json() for p in self.sweep],
        }  # fmt: skip

    @staticmethod
    def of(data: Mapping[str, Any]) -> Result:
        """The result of its JSON. Raises: ValueError, KeyError, TypeError for anything else."""
        return Result(
            mode=str(data["mode"]), data_sha256=str(data["data_sha256"]), config=str(data["config"]),
            version=str(data["version"]), seed=int(data["seed"]), from_ms=int(data["from_ms"]),
            to_ms=int(data["to_ms"]), rows=int(data["rows"]), events=int(data["events"]),
            outcomes=tuple(Outcome.of(o) for o in data["outcomes"]),
            notes=tuple(Reason(str(n["code"]), dict(n.get("params") or {})) for n in data["notes"]),
            sweep=tuple(SweepPoint.of(p) for p in data.get("sweep") or ()),
        )  # fmt: skip


def _short(x: float) -> float:
    """Six decimals: what differs in the last bit of two machines differs nowhere a person reads."""
    return round(float(x), 6) + 0.0
