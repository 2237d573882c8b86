"""Targets and bounds: look, edit, preview what would change, save with a reason, go back to an older state.

Thin: what may be saved, and whether it is saved, is the core's to say (drafting.py, revising.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import streamlit as st

from selftune import deskwork, reviewing, revising, trying, ui
from selftune.access import Action
from selftune.chart_kit import Say, clock_text
from selftune.config import dotted, parse
from selftune.desk import Now
from selftune.domain import LockHeld, Refused, SettingsError, StaleSnapshot, StorageError, Target
from selftune.drafting import (
    TIMINGS,
    Draft,
    Topic,
    Value,
    Work,
    draft,
    good_path,
    hard_path,
    hard_values,
    three_sides,
    towards,
    warn_side,
)
from selftune.governing import Request
from selftune.markup import block, safe
from selftune.picture import Picture
from selftune.reach import reach
from selftune.revising import Conflict, Fate, Revision, revisions, sha256, text_of
from selftune.revision_text import (
    DIRECTIONS,
    exact,
    hard_html,
    reach_change,
    reaches_html,
    revision_html,
    rows_html,
    settings_html,
    sides_html,
)
from selftune.runtime import Root
from selftune.settings import Settings
from selftune.view import Visitor

ui.require()

REVIEW = Path(__file__).parent / "review.py"
DESK = "targets_desk"
SHOWN_REVISIONS = 20


def main() -> None:
    """The page, top to bottom."""
    now, glance = ui.now(), deskwork.glance()
    say = ui.words(now)
    p = glance.picture
    if glance.problems or p is None or p.snap.settings_problem is not None:
        locked(now, glance.fault, p, say)
        return
    work = desk(p)
    if work.conflict:
        conflict(work, p, say)
    elif work.changes is not None:
        preview(work, p, now, say)
    else:
        overview(work, p, now, say)


# ------------------------------------------------------------------------------- the session's edit
def desk(p: Picture) -> Work:
    """This session's edit; a new one on the file as it is now."""
    found = st.session_state.get(DESK)
    if isinstance(found, Work):
        return found
    return put(Work(base=p.snap.records.settings or b""))


def put(work: Work) -> Work:
    """Keeps the edit for the next run."""
    st.session_state[DESK] = work
    return work


def go(work: Work | None) -> None:
    """On with this edit (None: a new one) at once."""
    if work is None:
        st.session_state.pop(DESK, None)
    else:
        put(work)
    st.rerun()


def keep_trial(work: Work, run_id: str) -> None:
    """On with the same edit, and the backtest that was started for it."""
    go(replace(work, tried=run_id))


# ------------------------------------------------------------------------------- looking
def overview(work: Work, p: Picture, now: Now, say: Say) -> None:
    """The form, or for who may not save the same as text; then what was saved before."""
    st.title(say("targets.title"))
    st.write(say("targets.lead"))
    ui.live(partial(live_part, sha256(work.base)), key="targets_live")
    if deskwork.may(Action.EDIT):
        form(work, p, say)
    else:
        st.html(block(f"<p><b>{safe(say('targets.viewer'))}</b></p>{settings_html(p.settings, say)}"))
    st.header(say("targets.hard_head"))
    st.html(block(hard_html(p.settings, say)))
    history(work, p, now, say)


def live_part(base: str) -> None:
    """How often the targets are met, and whether the file is still the one that the form shows."""
    now, p = ui.now(), deskwork.glance().picture
    say = ui.words(now)
    if p is None:
        return
    if p.snap.records.version.settings != base and deskwork.may(Action.EDIT):
        with st.container(border=True, key="targets_moved"):
            st.write(say("targets.stale_form"))
            if st.button(say("targets.reload_button"), key="targets_reload"):
                go(None)
    st.header(say("targets.reach_head"))
    found = {m: reach(p.snap.coarse, t) for m, t in p.settings.targets.items()}
    known = [r for r in found.values() if r.share is not None]
    st.html(block(reaches_html(found, say, ui.look(now).colours)))
    span = max((r.span_s for r in known), default=None)
    st.write(say("targets.reach_span", span_s=span) if span is not None else say("targets.reach_span_none"))


def locked(now: Now, fault: str | None, p: Picture | None, say: Say) -> None:
    """The file is not valid: where and how to mend it, the last valid settings, no editing."""
    st.title(say("targets.title_locked"))
    if fault:
        st.html(block(f"<p>{safe(fault)}</p>"))
    ui.settings_problems(now, say)
    st.write(say("targets.locked"))
    good, when = (p.settings, None) if p is not None else (revising.last_good(now.root) or (None, None))
    if good is None:
        st.write(say("targets.locked_none"))
        return
    if when is not None:
        st.html(block(f"<p>{safe(say('targets.locked_since', when=when))}</p>"))
    st.html(
        block(settings_html(good, say), f"<h2>{safe(say('targets.hard_head'))}</h2>", hard_html(good, say))
    )


# ------------------------------------------------------------------------------- the form
def form(work: Work, p: Picture, say: Say) -> None:
    """Every setting of this page as a field; nothing is written by it."""
    base = parse(work.base)
    with st.form(f"targets_{work.turn}", enter_to_submit=False, border=False):
        fields = Fields(work=work, say=say)
        st.header(say("targets.metrics_head"))
        for m, target in base.targets.items():
            metric_fields(fields, base, m, target)
        st.header(say("targets.rules_head"))
        for name in base.rules:
            rule_fields(fields, base, name, p.life.values.get(name))
        st.header(say("targets.timings_head"))
        for key, column in zip(TIMINGS, st.columns(len(TIMINGS), vertical_alignment="bottom"), strict=True):
            with column:
                fields.number(say(f"targets.timing_{key}"), key, getattr(base, key), step=10.0)
        sent = st.form_submit_button(say("targets.preview_button"), type="primary", icon=":material/preview:")
    if not sent:
        return
    if not fields.changes:
        st.warning(say("targets.nothing"), icon=":material/edit_off:")
        return
    go(replace(work, changes=fields.changes, kept=fields.changes, tried=""))


@dataclass
class Fields:
    """The fields of one form; `changes` collects what differs from the settings that were shown."""

    work: Work
    say: Say
    changes: dict[str, Value] = field(default_factory=dict)

    def number(
        self, label: str, path: str, base: Value, *, step: float, sign: int = 1, help: str | None = None
    ) -> None:
        """A number; with `sign` -1 the field shows the size of a negative value."""
        whole = isinstance(base, int)
        base = float(f"{base:.12g}") if isinstance(base, float) else base  # 0.03 x 0.28 is 0.0084
        start = self.work.kept.get(path, base)
        shown = None if start is None else (int(start) if whole else float(start) * sign)
        found = st.number_input(
            label, value=shown, step=int(step) if whole else step, format="%d" if whole else "%g",
            help=help, key=f"targets_{self.work.turn}_{path}",
        )  # fmt: skip
        value = None if found is None else (int(found) if whole else float(found) * sign)
        if value != base:
            self.changes[path] = value

    def choice(self, label: str, path: str, base: int) -> None:
        """Which way of a rule is meant to help."""
        start = int(self.work.kept.get(path, base) or 0)
        options = list(DIRECTIONS)
        found = st.selectbox(
            label, options, index=options.index(start), format_func=lambda d: self.say(DIRECTIONS[d]),
            key=f"targets_{self.work.turn}_{path}",
        )  # fmt: skip
        if found != base:
            self.changes[path] = found


def metric_fields(f: Fields, s: Settings, m: str, target: Target) -> None:
    """Target, what counts as better, what warns, weight: of one metric."""
    say, falls = f.say, target.down_is_good
    sides = [(k, v) for k, v in (("max", target.max), ("min", target.min)) if v is not None]
    warn, side = s.warn.get(m), warn_side(s, m)
    other = "max" if side == "min" else "min"
    warns = [side, *([other] if warn is not None and getattr(warn, other) is not None else [])]
    hard = [k for k in ("max", "min") if (k == "max") is falls or hard_path(m, k) in hard_values(s)]
    with st.container(border=True, key=f"targets_metric_{f.work.turn}_{m}"):
        plain = "" if say.metric(m) == m else f"{safe(say.metric(m))} "  # a name of their own needs no second
        st.html(block(f"<h3>{plain}<code>{safe(m)}</code></h3>"))
        columns = iter(st.columns(len(sides) + len(warns) + len(hard) + 2, vertical_alignment="bottom"))
        for k, v in sides:
            with next(columns):
                f.number(say(f"targets.field_{k}"), dotted(("targets", m, k)), v, step=0.01)
        with next(columns):
            sign, way = (-1, "fall") if falls else (1, "rise")
            help_good = say("targets.field_good_help")
            f.number(say(f"targets.field_good_{way}"), good_path(s, m), s.good[m] * sign, step=0.001,
                     sign=sign, help=help_good)  # fmt: skip
        for k in warns:
            with next(columns):
                sign, way = (1, "rise") if k == "min" else (-1, "fall")
                limit = getattr(warn, k) if warn else None
                path = dotted(("safety", "warn", m, k))
                f.number(say(f"targets.field_warn_{way}"), path, limit, step=0.005, sign=sign,
                         help=say("targets.field_warn_help"))  # fmt: skip
        for k in hard:
            with next(columns):
                limit = getattr(s.hard[m], k) if m in s.hard else None
                f.number(say(f"targets.field_hard_{k}"), hard_path(m, k), limit, step=0.01,
                         help=say("targets.field_hard_help"))  # fmt: skip
        with next(columns):
            path = dotted(("strategy", "objective_weights", m))
            f.number(say("targets.field_weight"), path, s.weights.get(m, 0.0), step=0.1,
                     help=say("targets.field_weight_help"))  # fmt: skip


def rule_fields(f: Fields, s: Settings, name: str, value: float | None) -> None:
    """Bounds, step, first value, direction, weight: of one rule."""
    say, rule = f.say, s.rules[name]
    with st.container(border=True, key=f"targets_rule_{f.work.turn}_{name}"):
        now = f" · {safe(say('targets.rule_now', value=exact(value)))}" if value is not None else ""
        st.html(block(f"<h3><code>{safe(name)}</code>{now}</h3>"))
        columns = st.columns(6, vertical_alignment="bottom")
        plain = (("lo", "min"), ("hi", "max"), ("lr", "lr"), ("init", "init"))
        for column, (label, key) in zip(columns, plain, strict=False):
            helped = say(f"targets.field_{'bound' if label in ('lo', 'hi') else label}_help")
            with column:
                f.number(say(f"targets.field_{label}"), dotted(("rules", name, key)), getattr(rule, key),
                         step=rule.lr / 2 if key == "lr" else rule.lr, help=helped)  # fmt: skip
        with columns[4]:
            f.choice(say("targets.field_direction"), dotted(("strategy", "direction", name)), rule.direction)
        with columns[5]:
            path = dotted(("rules", name, "weight"))
            f.number(say("targets.field_rule_weight"), path, rule.weight, step=0.1)


# ------------------------------------------------------------------------------- preview and save
def preview(work: Work, p: Picture, now: Now, say: Say) -> None:
    """What would change and what it means; then the reason and the save, or why not."""
    st.title(say("targets.title_preview"))
    looked = draft(work.base.decode("utf-8"), work.changes or {})
    if work.restores is not None:
        restoring(work, say)
    st.header(say("targets.rows_head", n=len(looked.rows)))
    st.html(block(rows_html(looked.rows, say, p.life.values, looked.settings, reaches(looked, p, say))))
    verdict(looked, say)
    if p.snap.records.version.settings != sha256(work.base):
        st.warning(say("targets.stale_form"), icon=":material/sync_problem:")
    if looked.after is not None and looked.rows:
        trying.panel(looked.after, work.tried, now, say, started=partial(keep_trial, work))
    if looked.savable:
        consequences(p, say)
        why = deskwork.reason_form(say, key=f"targets_why_{work.turn}", button=say("targets.save_button"))
        if why is not None:
            save(work, why, say)
    elif looked.unsigned and looked.after is not None:
        why = deskwork.reason_form(say, key=f"targets_ask_{work.turn}", button=say("targets.propose_button"))
        if why is not None:
            propose(work, why, say)
    with st.container(horizontal=True):
        if st.button(say("targets.back_button"), icon=":material/arrow_back:", key="targets_back"):
            go(replace(work, changes=None, restores=None, restored="", left=(), turn=work.turn + 1))
        if st.button(say("targets.drop_button"), key="targets_drop"):
            go(None)


def restoring(work: Work, say: Say) -> None:
    """What going back to an older state touches, and what it leaves."""
    lines = [say("targets.restored", when=work.restored), say("targets.restore_what")]
    if work.left:
        lines.append(say("targets.restore_left", keys=list(work.left)))
    st.html(block("".join(f"<p>{safe(x)}</p>" for x in lines)))


def reaches(looked: Draft, p: Picture, say: Say) -> dict[str, str]:
    """For each changed target, how often the history at hand would have met it."""
    if looked.settings is None:
        return {}
    old, new, coarse = looked.old.targets, looked.settings.targets, p.snap.coarse
    return {
        r.path: reach_change(reach(coarse, old[r.subject]), reach(coarse, new[r.subject]), say)
        for r in looked.rows
        if r.topic is Topic.TARGET and r.subject in new
    }


def verdict(looked: Draft, say: Say) -> None:
    """What stands against saving, or deserves a look."""
    parts = (("problems", looked.problems), ("doubts", looked.doubts))
    for name, found in parts:
        if found:
            lines = "".join(f"<li>{safe(deskwork.problem_text(x, say))}</li>" for x in found)
            head = safe(say(f"targets.{name}_head"))
            with st.container(border=True, key=f"targets_{name}"):
                st.html(block(f'<div role="alert"><h3>{head}</h3><ul>{lines}</ul></div>'))
    if looked.unsigned:
        body = f"<h3>{safe(say('targets.signature_head'))}</h3><p>{safe(say('targets.signature'))}</p>"
        with st.container(border=True, key="targets_signature"):
            st.html(block(f'<div role="alert">{body}</div>'))


def consequences(p: Picture, say: Say) -> None:
    """What saving does to the mode, and that it moves no rule."""
    st.write(say("targets.after_save"))
    if p.mode.loan is not None and p.mode.ended is None and not p.mode.stopped:
        st.warning(say("targets.disarms"), icon=":material/lock_reset:")
    elif p.mode.live:
        st.warning(say("targets.no_arming"), icon=":material/bolt:")


def save(work: Work, why: str, say: Say) -> None:
    """The write itself, with the identity and the role of this very moment."""
    visitor = ui.current_identity()
    if visitor is None:
        deskwork.refuse([say("desk.nobody")])
        return
    try:
        done = deskwork.office().through(
            Action.EDIT,
            lambda root: revising.save(
                root, work.base, work.changes or {}, actor=visitor.name, role=visitor.role, why=why,
                restores=work.restores,
            ),
            role=deskwork.role_of(visitor),
        )  # fmt: skip
    except Conflict as moved:
        go(replace(work, conflict=True, theirs=moved.theirs))
    except Refused as no:
        deskwork.refuse(deskwork.refusal(no, say))
    except SettingsError as error:
        deskwork.refuse([deskwork.problem_text(x, say) for x in error.problems])
    except LockHeld as held:
        deskwork.refuse([say("desk.lock_held", since=held.since)])
    except StaleSnapshot:
        deskwork.refuse([say("desk.stale_snapshot")])
    except StorageError as error:
        deskwork.refuse([say("desk.storage", error=str(error))])
    else:
        st.session_state.pop(DESK, None)
        deskwork.done(say("targets.saved", n=len(done.draft.rows)))


def propose(work: Work, why: str, say: Say) -> None:
    """What an operator may not save alone goes to the reviewers, as a request with its own address."""

    def ask(root: Root, who: Visitor) -> Request | Conflict:
        try:
            return reviewing.propose(
                root, work.base, work.changes or {}, actor=who.name, role=who.role, why=why
            )
        except Conflict as moved:
            return moved

    asked = deskwork.through(Action.PROPOSE_LOOSER, ask, say)
    if isinstance(asked, Conflict):
        go(replace(work, conflict=True, theirs=asked.theirs))
    elif asked is not None:
        st.session_state.pop(DESK, None)
        deskwork.say_next(say("targets.proposed"))
        st.switch_page(str(REVIEW), query_params={"req": asked.id})


# ------------------------------------------------------------------------------- conflict
def conflict(work: Work, p: Picture, say: Say) -> None:
    """Base, theirs, yours; on from theirs, or away. Nothing was overwritten."""
    st.title(say("targets.title_conflict"))
    theirs = work.theirs
    try:
        valid = theirs is not None and parse(theirs) is not None
    except SettingsError:
        valid = False
    if theirs is None or not valid:
        st.write(say("targets.conflict_gone" if theirs is None else "targets.conflict_invalid"))
    else:
        st.write(say("targets.conflict"))
        changes = work.changes or {}
        sides = three_sides(work.base.decode("utf-8"), theirs.decode("utf-8"), changes)
        st.html(block(sides_html(sides, parse(work.base), say)))
        if all(s.theirs == s.base for s in sides):
            st.write(say("targets.conflict_bytes"))
        if st.button(say("targets.rebase_button"), type="primary", key="targets_rebase"):
            go(Work(base=theirs, changes=changes, kept=changes, turn=work.turn + 1))
    if st.button(say("targets.discard_button"), key="targets_discard"):
        go(None)


# ------------------------------------------------------------------------------- history
def history(work: Work, p: Picture, now: Now, say: Say) -> None:
    """What was saved from here, newest first; who may, can look at going back."""
    st.header(say("targets.history_head"))
    found = revisions(p.snap.records)
    if not found:
        st.write(say("targets.history_none"))
        return
    if not any(r.fate is Fate.IN_FORCE for r in found):
        st.write(say("targets.history_outside"))
    zone = p.settings.timezone
    for r in found[:SHOWN_REVISIONS]:
        with st.container(border=True, key=f"targets_rev_{r.id}"):
            st.html(block(revision_html(r, p.settings, say, zone)))
            if r.fate is Fate.REPLACED:
                restore_button(work, r, r.after, clock_text(r.ts_ms, zone), p, now, say)
    first = found[-1]
    with st.container(border=True, key="targets_rev_first"):
        st.html(block(f"<p><b>{safe(say('targets.history_first'))}</b></p>"))
        restore_button(work, first, first.before, say("targets.history_first"), p, now, say)


def restore_button(work: Work, r: Revision, sha: str, when: str, p: Picture, now: Now, say: Say) -> None:
    """Previews the older state's values on top of the file as it is now: the same way as any edit."""
    text = text_of(now.root, sha) if deskwork.may(Action.EDIT) else None
    if text is None or not st.button(
        say("targets.restore_button"), icon=":material/history:", key=f"targets_restore_{r.id}_{sha[:8]}"
    ):
        return
    try:
        back = towards(p.settings, parse(text))
    except SettingsError as error:
        deskwork.refuse([deskwork.problem_text(x, say) for x in error.problems])
        return
    changes = {k: v for k, v in back.items() if v is not None}
    if not changes:
        st.write(say("targets.restore_none"))
        return
    left = tuple(k for k, v in back.items() if v is None)
    go(
        Work(
            base=p.snap.records.settings or b"", changes=changes, kept=changes, restores=r.id, restored=when,
            left=left, turn=work.turn + 1,
        )
    )  # fmt: skip


ui.guarded(main)()
