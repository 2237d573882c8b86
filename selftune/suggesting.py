"""The one-shot suggestion: what the next small step would be, said once, whoever asks and however often.

Answers "what would you do now?" with the loop's own policy and evidence (cycle.py). Only what makes the
answer wrong holds it back; what merely paces the loop's own experiments is told beside it. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import tzinfo

from selftune.acting import guard_json
from selftune.cycle import ideas
from selftune.domain import GuardCheck, Hold, Proposal
from selftune.guards import check_step
from selftune.lifecycle import Suggestion
from selftune.picture import Picture
from selftune.plan import Act

PACING = frozenset(
    f"guard.{code}"
    for code in (
        "stopped", "lease", "policy", "pace", "history", "baseline", "no_quiet_time",
        "excursion_steps", "excursion_time", "loan_changes",
    )
)  # fmt: skip
"""Guards that say when the loop may try something, not whether a suggestion is sound."""


def suggestion(p: Picture, zone: tzinfo) -> Act:
    """One `suggest` decision: the proposals, or why there are none; never a rule event.

    `notes` in its data are guards that would keep the loop from trying it now. A proposal unchanged in
    rule and sign on the same evidence is the one that stands (`stands`: its first id).
    """
    failing = [c for c in p.checks if not c.passed]
    notes = [guard_json(c, zone) for c in failing if c.code in PACING]
    holding = tuple(c for c in failing if c.code not in PACING)
    if holding:
        return _hold(holding, Hold(reasons=tuple(c.reason for c in holding)), notes)
    idea = ideas(p)
    if isinstance(idea, Hold):
        return _hold((), idea, notes)
    refused = tuple(c for x in idea if not (c := check_step(p.situation, x)).passed)
    if refused:
        return _hold(refused, Hold(reasons=tuple(c.reason for c in refused)), notes)
    return _propose(p, idea, notes)


def _hold(guards: tuple[GuardCheck, ...], hold: Hold, notes: list[dict[str, object]]) -> Act:
    return Act(kind="suggest", act="hold", reasons=hold.reasons, guards=guards, data={"notes": notes})


def _propose(p: Picture, idea: tuple[Proposal, ...], notes: list[dict[str, object]]) -> Act:
    evidence = _evidence(p)
    data: dict[str, object] = {"evidence": evidence, "notes": notes}
    known = _standing(p, idea, evidence) if len(idea) == 1 else None
    if known is not None:
        said, same = known
        idea = (replace(same, new=said.new),)
        data["stands"] = said.id
    return Act(kind="suggest", act="suggest", reasons=idea[0].reasons, proposals=idea, data=data)


def _evidence(p: Picture) -> str | None:
    """Key of the Δ that speaks; None where the present windows do."""
    return p.evidence.key if p.evidence is not None and not p.evidence.spent else None


def _standing(
    p: Picture, idea: tuple[Proposal, ...], evidence: str | None
) -> tuple[Suggestion, Proposal] | None:
    """The newest suggestion on record for which the same still speaks, and the proposal that says so.

    Another rule may look a little better a minute later: nobody is told to turn one, then the other, while
    the policy would still take the step that it named first.
    """
    for s in reversed(p.life.suggestions):
        if s.kind != "suggest" and s.rule != idea[0].rule:
            continue
        if s.evidence != evidence or not s.stands(
            p.settings, p.life.values, p.snap.clock_ms, p.settings.digest
        ):
            continue
        now = idea if s.rule == idea[0].rule else ideas(p, only=s.rule)
        if isinstance(now, Hold) or len(now) != 1 or not check_step(p.situation, now[0]).passed:
            continue
        x = now[0]
        if s.rule == x.rule and s.old == x.old and (s.new > s.old) == (x.new > x.old):
            return s, x
    return None
