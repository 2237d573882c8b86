"""What a page shows, as plain facts: view models and the small judgements that make them. No Streamlit.

Answers "alive or late?", "on target or by how much off?" from numbers that were already read. Pure:
ages and instants come in, nothing is asked of a clock or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from selftune.domain import Mode, Reason, Role, Target
from selftune.series import Series

ALIVE_S, LATE_S = 2.0, 5.0
CARD_WINDOW_S = 30.0
MANY = 20  # from so many sessions on, they share one look at the files for `SLOT_S`
SLOT_S = 2.0


class Way(StrEnum):
    """How the server knows who asks (`side.way_<value>` in the catalogue)."""

    OPEN = "open"  # by what `up` was started with, or as one of the public
    DEMO = "demo"  # chosen in the demo's role switcher
    ACCOUNT = "account"  # signed in, with a password or by a provider
    PROXY = "proxy"  # by a trusted proxy in front


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who looks at the page, as the server (never the browser) knows it.

    `key`: what they are recognised by again: of a session (never the cookie itself), or the login that a
    proxy or a provider vouched for.
    """

    name: str
    role: Role
    way: Way = Way.OPEN
    key: str = ""

    @property
    def signed_in(self) -> bool:
        """True for somebody with an account."""
        return self.way not in (Way.OPEN, Way.DEMO)


class LoopState(StrEnum):
    """The loop's pulse by the age of its heartbeat (`loop.<value>` in the catalogue)."""

    ALIVE = "alive"
    LATE = "late"
    STOPPED = "stopped"
    NONE = "none"


class DataAge(StrEnum):
    """The age of the newest sample (`data.<value>` in the catalogue)."""

    FRESH = "fresh"
    OLD = "old"
    NONE = "none"


class Standing(StrEnum):
    """One metric against its target (`standing.<value>` in the catalogue)."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A Stop that holds: who pressed it, when (wall clock), and what they wrote."""

    by: str
    at_ms: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class LoanView:
    """A running loan: changes left (None: no such limit) and when it ends. Or how the last one ended.

    `resumable`: it ended before its time, and an operator may take it up again until `until_ms`.
    """

    changes_left: int | None = None
    until_ms: int | None = None
    ended_ms: int | None = None
    why: Reason | None = None
    resumable: bool = False


@dataclass(frozen=True, kw_only=True)
class BannerView:
    """What stands on top of every page. Ages in seconds, None = never seen.

    `mode` is the effective one, on `loan` where there is one. `demo`: the data are made by the built-in
    plant. `fault`: why the data root cannot be read at all.
    """

    loop: LoopState
    loop_age_s: float | None
    mode: Mode
    data: DataAge
    data_age_s: float | None
    demo: bool = False
    holding: bool = False
    stopped: Stopped | None = None
    loan: LoanView | None = None
    chain_broken: bool = False
    settings_broken: bool = False
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class MetricCard:
    """One metric: its mean over the last seconds, against its target. Units: the metric's own.

    `gap` is how far off target, always >= 0; `since_ms` the newest sample behind `value`.
    """

    metric: str
    value: float | None
    target: Target | None
    standing: Standing
    gap: float | None
    limit: float | None
    at_most: bool
    samples: int


@dataclass(frozen=True, kw_only=True)
class FileFact:
    """One file of the data root: does it exist, how large, how old. `age_s` None when missing."""

    path: str
    purpose: str  # catalogue key `file.<purpose>`
    size: int | None
    age_s: float | None

    @property
    def exists(self) -> bool:
        return self.size is not None


def loop_state(age_s: float | None) -> LoopState:
    """Alive up to 2 s, late up to 5 s, then stopped; without a heartbeat: none."""
    if age_s is None:
        return LoopState.NONE
    # A heartbeat from the future is a clock that jumped: it proves nothing.
    if age_s < -ALIVE_S or age_s > LATE_S:
        return LoopState.STOPPED
    return LoopState.ALIVE if age_s <= ALIVE_S else LoopState.LATE


def data_age(age_s: float | None, max_age_s: float) -> DataAge:
    """Fresh while not older than the settings allow (`metrics.max_age_s`)."""
    if age_s is None:
        return DataAge.NONE
    return DataAge.FRESH if age_s <= max_age_s else DataAge.OLD


def metric_card(
    series: Series, metric: str, target: Target | None, window_s: float = CARD_WINDOW_S
) -> MetricCard:
    """The mean over the last `window_s` seconds of data against the target: no single sample speaks."""
    values = np.empty(0)
    newest = series.newest_ms
    if newest is not None and metric in series.values:
        part = series.between(newest + 1 - round(window_s * 1000), newest + 1)
        values = part.values[metric][np.isfinite(part.values[metric])]
    value = float(values.mean()) if len(values) else None
    standing, gap, limit, at_most = _against(value, target)
    return MetricCard(
        metric=metric, value=value, target=target, standing=standing, gap=gap, limit=limit,
        at_most=at_most, samples=len(values),
    )  # fmt: skip


def _against(value: float | None, target: Target | None) -> tuple[Standing, float | None, float | None, bool]:
    """(standing, gap, the limit that speaks, whether it is an upper one)."""
    if target is None:
        return Standing.UNKNOWN, None, None, True
    at_most = target.down_is_good
    limit = target.max if at_most else target.min
    if value is None:
        return Standing.UNKNOWN, None, limit, at_most
    if target.max is not None and value > target.max:
        return Standing.MISSED, value - target.max, target.max, True
    if target.min is not None and value < target.min:
        return Standing.MISSED, target.min - value, target.min, False
    return Standing.MET, 0.0, limit, at_most


def worst(cards: Sequence[MetricCard]) -> MetricCard | None:
    """The card furthest off target in units of the target's scale; without one off, the first with data."""
    missed = [c for c in cards if c.standing is Standing.MISSED and c.target is not None]
    if missed:
        return max(missed, key=lambda c: (c.gap or 0.0) / (c.target.scale if c.target else 1.0))
    return next((c for c in cards if c.value is not None), None)


# ------------------------------------------------------------------------------- many at once
def share_s(usual_s: float, sessions: int) -> float:
    """For how long sessions share one look at the files. Units: seconds.

    The more there are the longer, so that the looks of a second, and the pictures made from them, stay few.
    """
    return max(usual_s, min(SLOT_S, SLOT_S * sessions / MANY))
