"""What a backtest is asked: the period, the candidates, what they are held against, the seed.

Answers "what shall be tried?" as frozen values with a JSON form. Pure: settings of candidates are text here,
handed in by whoever read them (`backtest_runs.py`). Nothing that comes from outside gets past `of_json`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from selftune.domain import InputError, JsonDict, PolicyName, Problem

WHERE = "request"  # the "file" that a problem of a request names
LONGEST_NAME = 80
LONGEST_TEXT = 256 * 1024
MOST_CANDIDATES = 8  # three are shown side by side; a few more may be listed
MOST_POINTS = 4096
_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def is_id(text: object) -> bool:
    """True for a ULID in its one spelling; no other text ever becomes part of a path."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


class Mode(StrEnum):
    """On the record itself, on a model learned from it, or on the built-in plant."""

    REPLAY = "replay"
    SIMULATE = "simulate"
    PLANT = "plant"


class Source(StrEnum):
    """Where a candidate's settings come from."""

    IN_FORCE = "in_force"
    DRAFT = "draft"
    REVISION = "revision"


class Baseline(StrEnum):
    """What candidates are held against. RECORD: what really happened. ORACLE: the best that was possible."""

    NONE = "none"
    HEURISTIC = "heuristic"
    RECORD = "record"
    ORACLE = "oracle"


class Method(StrEnum):
    GRID = "grid"
    SOBOL = "sobol"


DEFAULT_BASELINES: Mapping[Mode, tuple[Baseline, ...]] = {
    Mode.REPLAY: (Baseline.NONE, Baseline.HEURISTIC),
    Mode.SIMULATE: (Baseline.NONE, Baseline.HEURISTIC, Baseline.RECORD, Baseline.ORACLE),
    Mode.PLANT: (Baseline.NONE, Baseline.HEURISTIC, Baseline.ORACLE),
}
ALLOWED_BASELINES: Mapping[Mode, frozenset[Baseline]] = {
    Mode.REPLAY: frozenset({Baseline.NONE, Baseline.HEURISTIC}),
    Mode.SIMULATE: frozenset(Baseline),
    Mode.PLANT: frozenset({Baseline.NONE, Baseline.HEURISTIC, Baseline.ORACLE}),
}


class RequestError(InputError):
    """What is asked cannot be; `problems` name every key."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One thing to try. `policy` None: the one that the settings name. `text`: the settings' YAML.

    `text` None: to be read when the run starts (in force, or the saved `revision`'s).
    """

    name: str
    policy: PolicyName | None = None
    source: Source = Source.IN_FORCE
    text: str | None = None
    revision: str | None = None

    def as_json(self) -> JsonDict:
        return {
            "name": self.name, "policy": None if self.policy is None else self.policy.value,
            "source": self.source.value, "text": self.text, "revision": self.revision,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One setting that a sweep varies: its path in the YAML, from `lo` to `hi`; `n` values on a grid."""

    path: str
    lo: float
    hi: float
    n: int = 5


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Many variants of the first candidate. GRID: every combination. SOBOL: `points` spread evenly."""

    axes: tuple[Axis, ...]
    method: Method = Method.GRID
    points: int = 16

    @property
    def size(self) -> int:
        """How many variants it makes."""
        return math.prod(a.n for a in self.axes) if self.method is Method.GRID else self.points


@dataclass(frozen=True, kw_only=True)
class Request:
    """One backtest. `from_ms`, `to_ms` None: from the first sample, to the last."""

    mode: Mode = Mode.REPLAY
    candidates: tuple[Candidate, ...] = (Candidate(name="in_force"),)
    baselines: tuple[Baseline, ...] | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    seed: int = 0
    sweep: Sweep | None = None

    @property
    def against(self) -> tuple[Baseline, ...]:
        """The baselines asked for, else the mode's own."""
        return DEFAULT_BASELINES[self.mode] if self.baselines is None else self.baselines

    def as_json(self) -> JsonDict:
        return {
            "v": 1, "mode": self.mode.value, "from_ms": self.from_ms, "to_ms": self.to_ms, "seed": self.seed,
            "candidates": [c.as_json() for c in self.candidates],
            "baselines": [b.value for b in self.against],
            "sweep": None if self.sweep is None else {
                "method": self.sweep.method.value, "points": self.sweep.points,
                "axes": [{"path": a.path, "lo": a.lo, "hi": a.hi, "n": a.n} for a in self.sweep.axes],
            },
        }  # fmt: skip


# ----------------------------------------------------------------------------- from outside
@dataclass
class _Reader:
    """Reads one JSON object with words for what is wrong. `problems` gathers all of them."""

    problems: list[Problem] = field(default_factory=list)

    def wrong(self, key: str, found: object, wanted: str) -> None:
        said = str(found)
        params = {"found": said[:80], "wanted": wanted}
        self.problems.append(Problem(code="backtest_request", file=WHERE, key=key, params=params))

    def choice(self, kind: type[StrEnum], key: str, found: object, default: Any) -> Any:
        if found is None:
            return default
        try:
            return kind(str(found))
        except ValueError:
            self.wrong(key, found, ", ".join(kind))
            return default

    def whole(self, key: str, found: object, default: Any, lo: int, hi: int) -> Any:
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int) or not lo <= found <= hi:
            self.wrong(key, found, f"{lo} .. {hi}")
            return default
        return found

    def real(self, key: str, found: object) -> float:
        good = isinstance(found, int | float) and not isinstance(found, bool)
        try:
            x = float(found) if good else math.nan  # type: ignore[arg-type]
        except OverflowError:
            x = math.nan
        if not math.isfinite(x):
            self.wrong(key, found, "a number")
        return x

    def text(self, key: str, found: object, longest: int) -> str:
        if not isinstance(found, str) or not 0 < len(found) <= longest:
            self.wrong(key, found, f"text of 1 .. {longest} characters")
            return ""
        return found

    def items(self, key: str, found: object, most: int) -> Sequence[Any]:
        if found is None:
            return ()
        if not isinstance(found, list | tuple) or len(found) > most:
            self.wrong(key, type(found).__name__, f"a list of at most {most}")
            return ()
        return found

    def table(self, key: str, found: object) -> Mapping[str, Any]:
        if not isinstance(found, Mapping):
            self.wrong(key, type(found).__name__, "an object")
            return {}
        return found


LATEST_MS = 253_402_300_800_000  # the year 10000


def of_json(data: object) -> Request:
    """The request that this JSON says. Raises: RequestError that names every key that is wrong."""
    r = _Reader()
    top = r.table("", data)
    mode: Mode = r.choice(Mode, "mode", top.get("mode"), Mode.REPLAY)
    raw = r.items("candidates", top.get("candidates"), MOST_CANDIDATES)
    candidates = tuple(_candidate(r, f"candidates.{i}", c) for i, c in enumerate(raw))
    names = [c.name for c in candidates]
    for twice in sorted({n for n in names if names.count(n) > 1}):
        r.wrong("candidates", twice, "each name once")
    sweep = top.get("sweep")
    request = Request(
        mode=mode,
        candidates=candidates or Request().candidates,
        baselines=_baselines(r, mode, top.get("baselines")),
        from_ms=r.whole("from_ms", top.get("from_ms"), None, 0, LATEST_MS),
        to_ms=r.whole("to_ms", top.get("to_ms"), None, 0, LATEST_MS),
        seed=r.whole("seed", top.get("seed"), 0, 0, 2**31 - 1),
        sweep=None if sweep is None else _sweep(r, r.table("sweep", sweep)),
    )
    if request.from_ms is not None and request.to_ms is not None and request.from_ms >= request.to_ms:
        r.wrong("to_ms", request.to_ms, f"> {request.from_ms}")
    if r.problems:
        raise RequestError(*r.problems)
    return request


def _baselines(r: _Reader, mode: Mode, found: object) -> tuple[Baseline, ...] | None:
    if found is None:
        return None
    chosen = []
    for b in r.items("baselines", found, len(Baseline)):
        baseline: Baseline | None = r.choice(Baseline, "baselines", b, None)
        if baseline is not None and baseline not in ALLOWED_BASELINES[mode]:
            r.wrong("baselines", b, ", ".join(sorted(ALLOWED_BASELINES[mode])))
        elif baseline is not None and baseline not in chosen:
            chosen.append(baseline)
    return tuple(chosen)


def _candidate(r: _Reader, key: str, data: object) -> Candidate:
    table = r.table(key, data)
    source: Source = r.choice(Source, f"{key}.source", table.get("source"), Source.IN_FORCE)
    text, revision = table.get("text"), table.get("revision")
    if source is Source.DRAFT or text is not None:
        text = r.text(f"{key}.text", text, LONGEST_TEXT)
    if source is Source.REVISION and not is_id(revision):
        r.wrong(f"{key}.revision", revision, "the id of a saved revision")
    return Candidate(
        name=r.text(f"{key}.name", table.get("name"), LONGEST_NAME),
        policy=r.choice(PolicyName, f"{key}.policy", table.get("policy"), None),
        source=source, text=text, revision=revision if is_id(revision) else None,
    )  # fmt: skip


def _sweep(r: _Reader, table: Mapping[str, Any]) -> Sweep:
    axes = []
    for i, a in enumerate(r.items("sweep.axes", table.get("axes"), 8)):
        one, key = r.table(f"sweep.axes.{i}", a), f"sweep.axes.{i}"
        axes.append(
            Axis(
                path=r.text(f"{key}.path", one.get("path"), 200),
                lo=r.real(f"{key}.lo", one.get("lo")),
                hi=r.real(f"{key}.hi", one.get("hi")),
                n=r.whole(f"{key}.n", one.get("n"), 5, 1, 64),
            )
        )
    sweep = Sweep(
        axes=tuple(axes),
        method=r.choice(Method, "sweep.method", table.get("method"), Method.GRID),
        points=r.whole("sweep.points", table.get("points"), 16, 1, MOST_POINTS),
    )
    if not axes:
        r.wrong("sweep.axes", "[]", "at least one setting")
    elif sweep.size > MOST_POINTS:
        r.wrong("sweep", sweep.size, f"at most {MOST_POINTS}")
    return sweep
