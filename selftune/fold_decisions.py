"""What one decision means: suggestions, verdicts, confirmations, harm with its bars and pauses, releases.

The other half of the fold (`fold_events` has the working state). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from selftune.domain import Decision, Phase, Verdict, verdict_of
from selftune.fold_events import EventFold, text_or_none
from selftune.lives import OURS, Bar, Change, Pause, Suggestion

HARM_MEMORY_S = 24 * 3600.0  # loop.md: consecutive proven harm of one rule within 24 h
PAUSES_S = (3600.0, 6 * 3600.0, inf)  # then until a person releases it
BAR_S = 30 * 60.0  # doubling ...
BAR_MAX_S = 24 * 3600.0  # ... up to a day
REST_S = 30 * 60.0  # a rule whose harm was "not ours" rests
# ways back that say nothing about gain
NOT_FRUITLESS = frozenset({"blind", "loan_end", "regime", "look", "disturbed", "clock_back", "lost"})


@dataclass
class Fold(EventFold):
    """Both halves: rule events and decisions, in the order of the story."""

    def decision(self, d: Decision) -> None:
        if d.id in self.lost:  # nothing of it came true; it is listed as an orphan until it is abandoned
            if d.act == "restore":
                self._never_restored()
            return
        if d.kind in ("suggest", "cycle"):
            self._cycle(d)
        elif d.kind == "verdict":
            self._verdict(d)
        elif d.kind == "manual":
            self._manual(d)
        if isinstance(d.data.get("harm"), Mapping):
            self._harm(d, d.data["harm"])

    def _cycle(self, d: Decision) -> None:
        if d.kind == "cycle":
            self.last_said[channel(d.act, d.data.get("cause"))] = d
        if d.applied:
            self._spend(d)
        else:
            self._suggest(d)
        if d.act == "return" and d.applied:
            self._returned(d)
        if d.act == "look":
            self.excursion = replace(self.excursion, reversal_used=True) if self.excursion else None
        if d.data.get("cause") == "hard_limit" or d.act == "emergency":
            self.last_hard_at_ms = d.at_ms

    def _returned(self, d: Decision) -> None:
        """A return that was written: the steps it undoes are over, an excursion without gain is counted."""
        undoes = d.data.get("undoes")
        if isinstance(undoes, list):
            self._end_steps((str(u) for u in undoes), Phase.ROLLED_BACK)
        if d.data.get("scope") == "excursion" and d.data.get("cause") not in NOT_FRUITLESS:
            self._fruitless(d)

    def _fruitless(self, d: Decision) -> None:
        self.fruitless += 1
        self.fruitless_at_ms = d.at_ms

    def _spend(self, d: Decision) -> None:
        if isinstance(d.data.get("evidence"), str):
            self.spent.add(d.data["evidence"])

    def _suggest(self, d: Decision) -> None:
        if d.act not in (None, "step", "suggest", "renew"):
            return
        proposals = d.data.get("proposals")
        for n, p in enumerate(proposals if isinstance(proposals, list | tuple) else ()):
            if not (isinstance(p, Mapping) and _finite(p.get("old")) and _finite(p.get("new"))):
                continue
            stands = d.data.get("stands")
            known = self.suggestions.get(stands) if isinstance(stands, str) else None
            if known is not None:
                self.suggestions[known.id] = replace(known, at_ms=d.at_ms, renewed=known.renewed + 1)
                continue
            own = d.id if n == 0 else f"{d.id}:{p.get('rule')}"  # one decision may propose several rules
            self.suggestions[own] = Suggestion(
                id=own,
                decision=d.id,
                kind=d.kind,
                rule=str(p.get("rule")),
                old=float(p["old"]),
                new=float(p["new"]),
                at_ms=d.at_ms,
                config=text_or_none(d.data.get("digest")),
                evidence=text_or_none(d.data.get("evidence")),
            )

    def _verdict(self, d: Decision) -> None:
        change = self.changes.get(str(d.data.get("change"))) if d.data.get("change") else None
        if d.act == "evaluate" and change is not None:
            verdict = verdict_of(d.data.get("verdict"))
            ended = change.ended
            if change.kind not in OURS and verdict is Verdict.IMPROVED:
                ended = Phase.CONFIRMED
            self._put(replace(change, verdict=verdict, verdict_at_ms=d.at_ms, ended=ended, recorded=True))
        elif d.act == "supersede" and change is not None:
            self._put(replace(change, ended=change.ended or Phase.SUPERSEDED, recorded=True))
        elif d.act == "reobserve" and change is not None:
            start = round(_number(d.data.get("from_ms"))) or change.window_from_ms
            self._put(replace(change, window_from_ms=start, reobserved_at_ms=d.at_ms))
        elif d.act == "excursion" and self.excursion is not None:
            spent = d.data.get("spent", True)  # without enough quiet pairs nothing was tested
            self.excursion = replace(
                self.excursion,
                looks=self.excursion.looks + (1 if spent else 0),
                looks_since_last=self.excursion.looks_since_last + 1,
            )
        elif d.act == "confirm":
            self._confirm(d)
        elif d.act == "look":
            self._look_over(d)
        elif d.act == "verified" and change is not None:
            self._verified(change, d)
        elif d.act == "regime":
            self._regime(d)

    def _look_over(self, d: Decision) -> None:
        restored = d.data.get("result") == "restore"
        proven = restored and d.data.get("proven") is not False  # older records do not say: proven
        if self.look is not None:
            ended = Phase.CONFIRMED if proven else Phase.KEPT if restored else Phase.ROLLED_BACK
            self.looked = self._end_steps(self.look.steps, ended)
            if proven:
                self._clear_harm(self.look.left)
        self.look = None
        if proven:
            self.fruitless = 0
        elif restored or d.data.get("cause") not in NOT_FRUITLESS:  # kept is no gain that was proven
            self._fruitless(d)

    def _never_restored(self) -> None:
        """The look before said "restore", but the values stayed at the anchor: its steps are gone."""
        for step in self.looked:
            self._put(replace(self.changes[step], ended=Phase.ROLLED_BACK))

    def _clear_harm(self, rules: Iterable[str]) -> None:
        """A confirmation ends the row of consecutive harms of its rules."""
        for rule in rules:
            self.harms.pop(rule, None)
            self.pauses.pop(rule, None)

    def _confirm(self, d: Decision) -> None:
        anchor = d.data.get("anchor")
        if isinstance(anchor, Mapping):
            for rule, value in anchor.items():
                if rule in self.anchor and _finite(value):
                    self.anchor[rule] = self.settings.rules[rule].clip(float(value))
        improved = d.data.get("basis") == "improved"
        if improved:
            self.fruitless = 0
            self._clear_harm(self.excursion.displaced if self.excursion else ())
        elif d.data.get("basis") == "equal":
            self._fruitless(d)
        self.last_confirm_ts_ms = d.ts_ms
        self._shrink(Phase.CONFIRMED if improved else Phase.KEPT)

    def _verified(self, change: Change, d: Decision) -> None:
        result = str(d.data.get("result"))
        self._put(replace(change, verified=result))
        if result != "not_ours":
            return
        harm = self.harm_of.get(change.decision or "")
        if harm is not None:
            rule, sign, at, before = harm
            self.harms[rule] = [h for h in self.harms.get(rule, []) if h != at]
            self.pauses.pop(rule, None)
            self.bars.pop((rule, sign), None)
            if before is not None:
                self.bars[rule, sign] = before
            self.rests[rule] = int(d.at_ms + REST_S * 1000)

    def _regime(self, d: Decision) -> None:
        self.regime += 1
        self.regime_from_ms = round(_number(d.data.get("from_ms"))) or d.ts_ms
        self.harms.clear()
        self.pauses = {r: p for r, p in self.pauses.items() if p.until_at_ms == inf}
        self.bars.clear()
        self.fruitless = 0
        if self.excursion is not None:
            self.excursion = replace(self.excursion, contrast_ok=False)
        if self.look is not None:
            self.look = replace(self.look, disturbed=True)

    def _harm(self, d: Decision, harm: Mapping[str, Any]) -> None:
        rule, sign = str(harm.get("rule")), round(_number(harm.get("sign")))
        if rule not in self.settings.rules or sign == 0:
            return
        recent = [h for h in self.harms.get(rule, []) if d.at_ms - h <= HARM_MEMORY_S * 1000]
        recent.append(d.at_ms)
        self.harms[rule] = recent
        self.harm_of[d.id] = (rule, sign, d.at_ms, self.bars.get((rule, sign)))
        over = len(recent) - self.settings.rollback_limit
        if over >= 0:
            until = d.at_ms + PAUSES_S[min(over, len(PAUSES_S) - 1)] * 1000
            self.pauses[rule] = Pause(rule=rule, until_at_ms=until, harms=len(recent))
        times = self.bars[rule, sign].times + 1 if (rule, sign) in self.bars else 1
        length_s = min(BAR_MAX_S, BAR_S * 2.0 ** (times - 1))
        beyond = float(harm["anchor"]) if _finite(harm.get("anchor")) else self.anchor[rule]
        self.bars[rule, sign] = Bar(
            rule=rule, sign=sign, beyond=beyond, until_at_ms=d.at_ms + length_s * 1000, times=times
        )

    def _manual(self, d: Decision) -> None:
        of = d.data.get("of")
        known = self.suggestions.get(of) if isinstance(of, str) else None
        if d.act == "release":
            rule = str(d.data.get("rule"))
            self.pauses.pop(rule, None)
            self.harms.pop(rule, None)
            self.rests.pop(rule, None)
            for sign in (-1, 1):  # who frees a rule frees it whole: a bar may last longer than its pause
                self.bars.pop((rule, sign), None)
        elif d.act == "apply" and d.applied:
            self._spend(d)
            if known is not None:
                self.suggestions[known.id] = replace(known, ended=Phase.APPLIED)
        elif known is not None and d.act == "reject":
            self.suggestions[known.id] = replace(known, ended=Phase.REJECTED)
        elif known is not None and d.act == "expire":
            self.suggestions[known.id] = replace(known, ended=Phase.EXPIRED)
        elif known is not None and d.act == "snooze":
            until = d.at_ms + _number(d.data.get("for_s")) * 1000
            self.suggestions[known.id] = replace(known, ended=Phase.REJECTED, snoozed_until_at_ms=until)


def _finite(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and -inf < x < inf


def _number(x: object) -> float:
    """The number that a record holds; 0 for anything else."""
    return float(x) if isinstance(x, int | float) and _finite(x) else 0.0


def channel(act: str | None, cause: object) -> str:
    """What a cycle's record talks about: exploring (a hold or a step), or one kind of way back."""
    return "explore" if act in (None, "hold", "step") else f"{act}/{cause}"
