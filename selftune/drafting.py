"""What an edit of the settings would mean, before anything is written: rows, senses, problems, three sides.

Answers "what changes, by how many steps, does it loosen a bound, is the result valid?". Pure: texts and
values in, values out; `revising.py` saves. Source: dashboard.md (forms), contract.md (settings).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from selftune.config import SETTINGS_FILE, Settings, advice, dotted, edit, parse, split_path
from selftune.domain import Problem, SettingsError

Value = float | int | None
Changes = Mapping[str, Value]

TIMINGS: Mapping[str, str] = {
    "observe_window_s": "s",
    "settle_s": "s",
    "min_samples": "samples",
    "cooldown_s": "s",
    "history_s": "s",
}
RULE_KEYS = ("init", "min", "max", "lr", "weight")


class Topic(StrEnum):
    """What a setting is about (`draft.topic_<value>` in the catalogue)."""

    TARGET = "target"
    GOOD = "good"
    WARN = "warn"
    METRIC_WEIGHT = "metric_weight"
    BOUND = "bound"
    STEP = "step"
    INIT = "init"
    RULE_WEIGHT = "rule_weight"
    DIRECTION = "direction"
    TIMING = "timing"
    HARD = "hard"


class Sense(StrEnum):
    """Which way a change goes; LOOSER lets the loop, or a harm, go further than before."""

    TIGHTER = "tighter"
    LOOSER = "looser"
    PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One changed setting. `steps`: the difference in steps of the rule's present lr, for values of a rule.

    `subject` is the metric or the rule, "" for a timing; `side` is `max` or `min` where there are two.
    """

    path: str
    topic: Topic
    subject: str
    side: str
    old: Value
    new: Value
    sense: Sense
    steps: float | None = None

    @property
    def needs_signature(self) -> bool:
        """True for what an operator may not save alone: looser bounds, longer steps, any hard limit."""
        return self.topic is Topic.HARD or (
            self.sense is Sense.LOOSER and self.topic in (Topic.BOUND, Topic.STEP)
        )


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An edit looked at. With `problems` there is no result, and `after`, `settings` are None.

    `doubts`: what would be valid but doubtful, and was not before.
    """

    before: str
    after: str | None
    old: Settings
    settings: Settings | None
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()
    doubts: tuple[Problem, ...] = ()

    @property
    def unsigned(self) -> tuple[Row, ...]:
        """Rows that wait for a reviewer's signature."""
        return tuple(r for r in self.rows if r.needs_signature)

    @property
    def savable(self) -> bool:
        return bool(self.rows) and self.after is not None and not self.unsigned


@dataclass(frozen=True, kw_only=True)
class Sides:
    """One setting on the three sides of a conflict; `clash` when both changed it, and not alike."""

    path: str
    base: Value
    theirs: Value
    yours: Value

    @property
    def clash(self) -> bool:
        return self.base != self.theirs != self.yours != self.base


@dataclass(frozen=True, kw_only=True)
class Work:
    """A person's edit under way: the bytes it was begun on, the changes so far, where it stands.

    `changes` None: the form is open; else they are being looked at. `kept`: what the form shows again.
    `restores`, `restored`, `left`: which revision is gone back to, its name, what stays for want of a way.
    `theirs`: the file of a conflict. `turn` counts the forms, so that each has fields of its own.
    `tried`: the backtest of just these changes, '' without one.
    """

    base: bytes
    changes: Changes | None = None
    kept: Changes = field(default_factory=dict)
    restores: str | None = None
    restored: str = ""
    left: tuple[str, ...] = ()
    theirs: bytes | None = None
    conflict: bool = False
    turn: int = 0
    tried: str = ""


# ----------------------------------------------------------------------------- what may be edited
def values_of(s: Settings) -> dict[str, Value]:
    """Every setting that the page edits, as path -> the value in force (defaults filled in)."""
    found: dict[str, Value] = {}
    for m, t in s.targets.items():
        for side, limit in (("max", t.max), ("min", t.min)):
            if limit is not None:
                found[dotted(("targets", m, side))] = limit
        found[good_path(s, m)] = -s.good[m] if t.down_is_good else s.good[m]
        warn = s.warn.get(m)
        for side in ("max", "min"):
            limit = getattr(warn, side) if warn else None
            if limit is not None or side == warn_side(s, m):
                found[dotted(("safety", "warn", m, side))] = limit
        found[dotted(("strategy", "objective_weights", m))] = s.weights.get(m, 0.0)
    for name, rule in s.rules.items():
        for key in RULE_KEYS:
            found[dotted(("rules", name, key))] = getattr(rule, key)
        found[dotted(("strategy", "direction", name))] = rule.direction
    return {**found, **{key: getattr(s, key) for key in TIMINGS}}


def good_path(s: Settings, metric: str) -> str:
    """Where the improvement that counts is written: a fall is negative under `max`, a rise under `min`."""
    return dotted(("safety", "good", metric, "max" if s.targets[metric].down_is_good else "min"))


def warn_side(s: Settings, metric: str) -> str:
    """The side of the harmful change: a rise warns through `min`, a fall through `max`."""
    return "min" if s.targets[metric].down_is_good else "max"


def hard_path(metric: str, side: str) -> str:
    """Where a hard limit is written."""
    return dotted(("safety", "hard", metric, side))


def hard_values(s: Settings) -> dict[str, Value]:
    """The hard limits, as path -> value: an edit of them is only ever proposed."""
    return {
        hard_path(m, side): value
        for m, limit in s.hard.items()
        for side, value in (("max", limit.max), ("min", limit.min))
        if value is not None
    }


# ----------------------------------------------------------------------------- a draft
def draft(before: str, changes: Changes, *, file: str = SETTINGS_FILE) -> Draft:
    """What `changes` would make of the text `before`; values that are in force already are no change.

    Raises: SettingsError when `before` itself is not valid.
    """
    old = parse(before, file=file)
    known = {**values_of(old), **hard_values(old)}
    wanted = {p: v for p, v in changes.items() if p not in known or v != known[p]}
    rows = tuple(_row(p, v, known.get(p), old) for p, v in wanted.items() if _topic(p) is not None)
    problems = tuple(_refusals(wanted, known, file))
    if problems:
        return Draft(before=before, after=None, old=old, settings=None, rows=rows, problems=problems)
    try:
        after = edit(before, dict(wanted.items()), file=file)
        new = parse(after, file=file)
    except SettingsError as error:
        return Draft(before=before, after=None, old=old, settings=None, rows=rows, problems=error.problems)
    told = {(d.code, d.key) for d in advice(old, file=file)}
    doubts = tuple(d for d in advice(new, file=file) if (d.code, d.key) not in told)
    return Draft(before=before, after=after, old=old, settings=new, rows=rows, doubts=doubts)


def _refusals(wanted: Changes, known: Changes, file: str) -> list[Problem]:
    """What cannot be edited here at all: other keys, and taking an entry out of the file."""
    found = []
    for path, value in wanted.items():
        topic = _topic(path)
        if topic is None or (path not in known and topic is not Topic.HARD):
            found.append(Problem(code="revise_not_here", file=file, key=path))
        elif value is None:
            found.append(Problem(code="revise_cannot_clear", file=file, key=path))
    return found


def _topic(path: str) -> Topic | None:
    keys = split_path(path)
    if path in TIMINGS:
        return Topic.TIMING
    match keys:
        case ("targets", _, "max" | "min"):
            return Topic.TARGET
        case ("safety", "good", _, "max" | "min"):
            return Topic.GOOD
        case ("safety", "warn", _, "max" | "min"):
            return Topic.WARN
        case ("safety", "hard", _, "max" | "min"):
            return Topic.HARD
        case ("strategy", "objective_weights", _):
            return Topic.METRIC_WEIGHT
        case ("strategy", "direction", _):
            return Topic.DIRECTION
        case ("rules", _, "min" | "max"):
            return Topic.BOUND
        case ("rules", _, "lr"):
            return Topic.STEP
        case ("rules", _, "init"):
            return Topic.INIT
        case ("rules", _, "weight"):
            return Topic.RULE_WEIGHT
    return None


def row_of(path: str, new: Value, old: Value, settings: Settings) -> Row | None:
    """The row of one setting; None for a path that no page edits, or a value that is no number."""
    if _topic(path) is None or any(
        isinstance(v, bool) or not isinstance(v, int | float | None) for v in (old, new)
    ):
        return None
    return _row(path, new, old, settings)


def _row(path: str, new: Value, old: Value, settings: Settings) -> Row:
    keys, topic = split_path(path), _topic(path)
    assert topic is not None  # the caller left the others out
    subject = {"targets": 1, "rules": 1, "safety": 2, "strategy": 2}.get(keys[0])
    name = keys[subject] if subject is not None else ""
    side = keys[-1] if keys[-1] in ("max", "min") else ""
    steps = None
    if topic in (Topic.BOUND, Topic.INIT) and old is not None and new is not None and name in settings.rules:
        steps = (new - old) / settings.rules[name].lr
    return Row(
        path=path, topic=topic, subject=name, side=side, old=old, new=new, steps=steps,
        sense=_sense(topic, side, old, new),
    )  # fmt: skip


def _sense(topic: Topic, side: str, old: Value, new: Value) -> Sense:
    """LOOSER: more room for the rule, an easier target, less of a change that counts or warns."""
    if new is None or new == old or topic in (Topic.INIT, Topic.METRIC_WEIGHT, Topic.RULE_WEIGHT):
        return Sense.PLAIN
    if topic in (Topic.DIRECTION, Topic.TIMING):
        return Sense.PLAIN
    if old is None:
        return Sense.TIGHTER  # a warning or a limit where there was none
    if topic is Topic.STEP:
        return Sense.LOOSER if new > old else Sense.TIGHTER
    if topic in (Topic.GOOD, Topic.WARN):  # both signs: what counts is how large a change it takes
        larger = abs(new) > abs(old)
        return Sense.LOOSER if larger == (topic is Topic.WARN) else Sense.TIGHTER
    upper = side == "max"
    return Sense.LOOSER if (new > old) == upper else Sense.TIGHTER


# ----------------------------------------------------------------------------- a conflict, a restore
def three_sides(base: str, theirs: str, changes: Changes) -> tuple[Sides, ...]:
    """Every setting that they or you changed since `base`. Raises: SettingsError when a text is not valid."""
    was, now = values_of(parse(base)), values_of(parse(theirs))
    sides = (
        Sides(path=p, base=was.get(p), theirs=now.get(p), yours=changes.get(p, was.get(p)))
        for p in {**was, **now, **changes}
    )
    return tuple(s for s in sides if s.theirs != s.base or s.yours != s.base)


def towards(now: Settings, past: Settings) -> dict[str, Value]:
    """The changes that bring the editable settings of `now` back to those of `past`; the rest stays."""
    then = values_of(past)
    return {p: then[p] for p, v in values_of(now).items() if p in then and then[p] != v}
