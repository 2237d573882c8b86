"""What the first screen says: how things stand in one sentence, and what waits for a person.

Answers "is anything asked of me?" from the shared picture; asks the core and decides nothing. No
Streamlit, no text: keys of the catalogue with their slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftune.cards import quiet, rollback_cards, standing_cards
from selftune.coarse import Coarse
from selftune.domain import Reason
from selftune.objective import objective_score
from selftune.picture import Picture
from selftune.plan import Plan
from selftune.settings import Settings
from selftune.standing import waiting
from selftune.timeline import paused_rules
from selftune.view import BannerView, DataAge, LoopState
from selftune.whereabouts import watches, where

SCORE_STEP_MS = 300_000
SCORE_POINTS = 40  # of a short history at least, down to the bins themselves


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that waits for a person: `need.<kind>` with `params` (and `reason`), and where it is settled.

    `page`: name of the page ('' = here); `query`: its parameters; `command`: what to type in a shell.
    `urgent` ones stand first.
    """

    kind: str
    urgent: bool = False
    page: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class Doing:
    """What the loop is doing: `doing.<kind>` with `params`."""

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoreLine:
    """The objective score over the past. Shape: `t_ms` and `score` equally long; None = not known."""

    t_ms: Sequence[int]
    score: Sequence[float | None]

    @property
    def covers_s(self) -> float:
        """How far back the line reaches. Units: seconds."""
        return (self.t_ms[-1] - self.t_ms[0]) / 1000 if len(self.t_ms) > 1 else 0.0


def doing(p: Picture, plan: Plan, banner: BannerView) -> Doing:
    """What goes on at this moment, the weightiest first."""
    if banner.stopped:
        return Doing(kind="stopped")
    if banner.loop in (LoopState.STOPPED, LoopState.NONE):
        return Doing(kind="loop_dead")
    if banner.data is not DataAge.FRESH:
        return Doing(kind="blind")
    watched = watches(p)
    if watched:
        w = watched[0]
        whole = (w.due_ms - w.at_ms) / 1000
        kind = "judging" if w.stage == "judging" else "watching"
        return Doing(kind=kind, params={"left_s": round(w.left_s), "whole_s": round(whole)})
    cards = standing_cards(p)
    if cards:
        return Doing(kind="suggested", params={"n": len(cards)})
    at = where(p)
    if not at.home:
        return Doing(kind="away", params={"steps": at.steps, "max_steps": at.max_steps})
    why = quiet(p, plan)
    if why.kind == "until":
        return Doing(kind="until", params={"until_ms": why.until_ms})
    return Doing(kind="met" if why.kind == "met" else "looking")


def needs(p: Picture | None, banner: BannerView) -> tuple[Need, ...]:
    """Everything that waits for a person, the urgent first."""
    found = [*_of_the_house(banner), *(_of_the_picture(p) if p is not None else ())]
    return tuple(sorted(found, key=lambda n: not n.urgent))


def _of_the_house(banner: BannerView) -> list[Need]:
    found = []
    if banner.fault:
        found.append(Need(kind="fault", urgent=True))
    if banner.settings_broken:
        found.append(Need(kind="settings", urgent=True, command="python -m selftune check"))
    if banner.chain_broken:
        found.append(Need(kind="chain", urgent=True, page="history"))
    if banner.loan is not None and banner.loan.ended_ms is not None:
        about = {"at_ms": banner.loan.ended_ms}
        found.append(Need(kind="loan_over", page="review", params=about, reason=banner.loan.why))
    if banner.data is DataAge.OLD:
        found.append(Need(kind="stale", urgent=True, params={"age_s": round(banner.data_age_s or 0)}))
    if banner.loop in (LoopState.STOPPED, LoopState.NONE):
        found.append(Need(kind="loop", urgent=True, command="python -m selftune up"))
    return found


def _of_the_picture(p: Picture) -> list[Need]:
    found = [Need(kind="hard", urgent=True, page="trends", reason=b.reason) for b in p.breaches]
    for crit in p.crits[-3:]:
        query = {"e": crit.effect} if crit.effect else {}
        found.append(Need(kind="crit", urgent=True, page="history", query=query, params={"note": crit.note}))
    for r in waiting(p):
        found.append(Need(kind="review", page="review", query={"req": r.id}, params={"who": r.by}))
    for back in rollback_cards(p):
        what = ", ".join(m.rule for m in back.moves)
        kind = "emergency" if back.urgent else "rollback"
        who = {} if back.urgent else {"who": back.actor}
        about = {"what": what, **who}
        found.append(Need(kind=kind, urgent=back.urgent, page="suggestions", params=about))
    for card in standing_cards(p):
        params = {"rule": card.rule.name, "old": card.old, "new": card.new, "until_ms": card.until_ms}
        found.append(Need(kind="suggestion", page="suggestions", query={"d": card.id}, params=params))
    for rest in paused_rules(p):
        found.append(Need(kind="paused", page="history", params={"rule": rest.rule}))
    return found


def score_line(coarse: Coarse, settings: Settings, step_ms: int | None = None) -> ScoreLine:
    """The score of each stretch of `step_ms` of the coarse history, at the middle of the stretch.

    Without `step_ms` five minutes, and shorter ones while there are few of them.
    """
    if not len(coarse):
        return ScoreLine(t_ms=(), score=())
    if step_ms is None:
        whole_ms = int(coarse.start_ms[-1] - coarse.start_ms[0])
        fine = whole_ms // SCORE_POINTS // coarse.bin_ms * coarse.bin_ms
        step_ms = max(coarse.bin_ms, min(SCORE_STEP_MS, fine))
    starts, first = np.unique(coarse.start_ms // step_ms * step_ms, return_index=True)
    means = {}
    for m in settings.targets:
        count = coarse.count.get(m, np.zeros(len(coarse), np.int64))
        total = np.where(count > 0, np.nan_to_num(coarse.mean.get(m, np.zeros(len(coarse)))) * count, 0.0)
        n, s = np.add.reduceat(count, first), np.add.reduceat(total, first)
        means[m] = np.divide(s, n, out=np.full(len(s), np.nan), where=n > 0)
    scores = [
        objective_score(settings, {m: float(x[i]) if np.isfinite(x[i]) else None for m, x in means.items()})
        for i in range(len(starts))
    ]
    return ScoreLine(t_ms=(starts + step_ms // 2).tolist(), score=scores)
