"""What an edit would mean: the rows, what needs a signature, what is refused, three sides, the way back."""

from __future__ import annotations

import pytest

from selftune.config import edit, parse
from selftune.drafting import Sense, Topic, draft, three_sides, towards, values_of
from tests.conftest import SHIPPED

TEXT = SHIPPED.read_text(encoding="utf-8")


def test_a_change_is_one_row_and_one_scalar() -> None:
    d = draft(TEXT, {"targets.risk_band.max": 0.28, "targets.phase_diff.max": 0.05})
    assert [(r.path, r.old, r.new, r.topic) for r in d.rows] == [
        ("targets.risk_band.max", 0.30, 0.28, Topic.TARGET)
    ]
    assert d.after is not None and d.savable
    changed = [(a, b) for a, b in zip(TEXT.splitlines(), d.after.splitlines(), strict=True) if a != b]
    assert len(changed) == 1 and changed[0][1] == changed[0][0].replace("0.30", "0.28")


@pytest.mark.parametrize(
    ("path", "new", "sense", "signature"),
    [
        ("rules.risk_max.max", 0.39, Sense.TIGHTER, False),
        ("rules.risk_max.max", 0.45, Sense.LOOSER, True),
        ("rules.risk_max.min", 0.22, Sense.TIGHTER, False),
        ("rules.risk_max.min", 0.10, Sense.LOOSER, True),
        ("rules.risk_max.lr", 0.01, Sense.TIGHTER, False),
        ("rules.risk_max.lr", 0.05, Sense.LOOSER, True),
        ("targets.risk_band.max", 0.4, Sense.LOOSER, False),
        ("targets.creative_band.min", 0.2, Sense.LOOSER, False),
        ("safety.good.phase_diff.max", -0.01, Sense.TIGHTER, False),
        ("safety.warn.entropy_rate.min", 0.05, Sense.LOOSER, False),
        ("safety.warn.risk_band.min", 0.02, Sense.TIGHTER, False),
        ("strategy.direction.risk_max", 1, Sense.PLAIN, False),
        ("cooldown_s", 300, Sense.PLAIN, False),
    ],
)
def test_which_way_it_goes(path: str, new: float, sense: Sense, signature: bool) -> None:
    d = draft(TEXT, {path: new})
    assert [(r.sense, r.needs_signature) for r in d.rows] == [(sense, signature)]
    assert d.savable is not signature and not d.problems


def test_steps_are_counted_in_the_present_lr() -> None:
    (row,) = draft(TEXT, {"rules.risk_max.max": 0.36}).rows
    assert row.steps == pytest.approx(-2)


def test_a_hard_limit_always_needs_a_signature() -> None:
    d = draft(TEXT, {"safety.hard.risk_band.max": 0.45})
    assert d.rows[0].needs_signature and not d.savable


@pytest.mark.parametrize(
    "path",
    ["strategy.dry_run", "governance.approvals_required", "governance.manual_apply", "timezone",
     "targets.risk_band.range", "targets.nobody.max", "rules.risk_max.max.more", "rules"],
)  # fmt: skip
def test_other_keys_cannot_be_edited_here(path: str) -> None:
    d = draft(TEXT, {path: 0})
    assert [p.code for p in d.problems] == ["revise_not_here"] and not d.savable and d.after is None


def test_an_entry_cannot_be_taken_out() -> None:
    d = draft(TEXT, {"safety.warn.entropy_rate.min": None})
    assert [p.code for p in d.problems] == ["revise_cannot_clear"]


def test_fields_that_do_not_fit_each_other_are_told_with_line_and_key() -> None:
    d = draft(TEXT, {"rules.risk_max.max": 0.3})
    (problem,) = d.problems
    assert problem.code == "init_outside" and problem.key == "rules.risk_max.init" and problem.line
    assert d.rows and not d.savable


def test_new_doubts_only() -> None:
    assert [x.code for x in draft(TEXT, {"observe_window_s": 60}).doubts]
    old = {x.code for x in draft(TEXT, {"targets.risk_band.max": 0.29}).doubts}
    assert not old


def test_nothing_changed_is_nothing_to_save() -> None:
    d = draft(TEXT, dict(values_of(parse(TEXT))))
    assert not d.rows and not d.savable and d.after == TEXT


def test_three_sides_of_a_conflict() -> None:
    theirs = edit(TEXT, {"targets.risk_band.max": 0.27, "cooldown_s": 200})
    sides = {s.path: s for s in three_sides(TEXT, theirs, {"targets.risk_band.max": 0.28, "settle_s": 25})}
    assert set(sides) == {"targets.risk_band.max", "cooldown_s", "settle_s"}
    clash = sides["targets.risk_band.max"]
    assert (clash.base, clash.theirs, clash.yours, clash.clash) == (0.30, 0.27, 0.28, True)
    assert not sides["cooldown_s"].clash and not sides["settle_s"].clash
    same = three_sides(TEXT, theirs, {"targets.risk_band.max": 0.27})
    assert not any(s.clash for s in same)


def test_the_way_back_touches_what_the_page_edits_and_nothing_else() -> None:
    later = edit(
        TEXT, {"targets.risk_band.max": 0.27, "strategy.dry_run": False, "safety.warn.risk_band.min": 0.1}
    )
    back = towards(parse(later), parse(TEXT))
    assert back == {"targets.risk_band.max": 0.30, "safety.warn.risk_band.min": None}
    assert towards(parse(TEXT), parse(TEXT)) == {}


def test_names_with_dots_are_one_key() -> None:
    text = TEXT.replace("risk_band", '"p95.ms"')
    d = draft(text, {'targets."p95.ms".max': 0.2})
    assert [r.subject for r in d.rows] == ["p95.ms"] and d.savable
