"""The chapters of the story, in order; each says what is promised, lets it happen and looks at the records.

The plan is in seconds since the load began; the loan ends at `LOAN_END_S` whatever happened before.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from examples.live_service import checks
from examples.live_service.stage import HISTORY, SETTINGS, fetched, seconds, until
from selftune.config import parse

if TYPE_CHECKING:
    from examples.live_service.story import Story

PRACTICE_S, SHIFT_S, FOLLOWED_S, LOAN_END_S = 90.0, 430.0, 750.0, 1000.0
LAST_S = 90.0  # what counts as the end of a stretch
LOAD = {"rate": 60.0, "shift_at": SHIFT_S, "shift_rate": 120.0}  # requests a second
RULE = "cache_ttl_s"
WORSE, FORBIDDEN = 2.6, 6.2  # what somebody sets by hand: answers too old for the target; far too old
HARD_WITHIN_S = 25.0  # the answers must grow old first, then the mean of some seconds must be beyond
OPERATOR, REVIEWER, SOMEBODY = "kim", "lee", "park"
PEOPLE = {OPERATOR: "operator", REVIEWER: "reviewer"}  # park has a shell, and no account


def practice(story: Story) -> None:
    """Practice: it watches and suggests, and moves nothing"""
    story.start_selftune()
    story.happens("the loop looks", lambda: story.decisions(), 60, lambda d: f"{len(d)} decisions")
    story.happens(
        "it suggests a step for the service",
        lambda: [d for d in story.decisions() if d.get("proposals")],
        180,
        lambda d: _step(d[0]),
    )
    story.stage.wait_for(PRACTICE_S)
    story.promise(
        "no rule was moved", not story.tuned.lines(HISTORY), f"{len(story.tuned.lines(HISTORY))} events"
    )
    story.promise("the mode is practice", story.mode() == "dry_run", story.mode())


def _step(decision: dict[str, Any]) -> str:
    p = decision["proposals"][0]
    return f"{p['rule']} {p['old']:g} → {p['new']:g}"


def review(story: Story) -> None:
    """Review: an operator asks, a reviewer signs, in real browsers"""
    hours = (LOAN_END_S - story.stage.now_s) / 3600
    with story.person(OPERATOR) as kim:
        asked = kim.request_review("며칠 보고 싶지만 오늘은 십여 분만 빌립니다", changes=40, hours=hours)
        story.picture(kim, "1_request", "The request as the operator sees it")
    story.promise("the request is on record", bool(story.governance("request")), asked)
    with story.person(REVIEWER) as lee:
        lee.open(f"/review?req={asked}")
        story.picture(lee, "2_review", "The evidence as the reviewer reads it")
        said = lee.sign_review(asked, "근거를 읽었습니다. 예제이고 빌리는 시간이 짧아 승인합니다")
    arms = story.governance("arm")
    story.promise("the reviewer's signature lends live mode", len(arms) == 1, said)
    settings = parse((story.tuned.root / SETTINGS).read_bytes())
    story.promise("dry_run is false in the file", settings.dry_run is False, settings.dry_run)
    story.happens("the loop is live", lambda: story.mode() == "live", 30)


def better(story: Story) -> None:
    """Live: it ends nearer to its targets than the service that nobody touches"""
    story.happens("the loop moves a rule", story.steps, 120, lambda e: _event(e[0]))
    story.stage.wait_for(SHIFT_S)
    end = time.time()
    found = checks.beside(story.tuned, story.untouched, end - LAST_S, end)
    story.promise("the score is higher, beyond chance", found.lo > 0, found)
    story.report.facts["before the shift, against the untouched one"] = str(found)
    _means(story, "before the shift", end)
    changed = {e["rule"]: e["new"] for e in story.moves()}
    story.report.facts["rules before the shift"] = ", ".join(f"{r} {v:g}" for r, v in changed.items())
    story.promise("nobody touched the other service", not story.untouched.lines(HISTORY), "no rule event")


def _event(e: dict[str, Any]) -> str:
    return f"{e['rule']} {e['old']:g} → {e['new']:g}"


def _means(story: Story, when: str, end: float) -> None:
    for side in (story.tuned, story.untouched, story.left):
        found = checks.means(side, end - LAST_S, end)
        if found:
            text = ", ".join(f"{m} {x:.3g}" for m, x in found.items())
            story.report.facts[f"{side.name}, {when}"] = text


def follows(story: Story) -> None:
    """The load shifts: it follows, and a kill in mid-observation loses nothing"""
    story.stage.leave_a_copy()
    begun = time.time()
    story.happens("it moves a rule again", lambda: story.steps(begun), 120, lambda e: _event(e[0]))
    _killed(story, begun)
    story.stage.wait_for(FOLLOWED_S)
    end = time.time()
    found = checks.beside(story.tuned, story.left, end - LAST_S, end)
    story.promise(
        "it is nearer to its targets than with the values from before the shift", found.lo > 0, found
    )
    story.report.facts["after the shift, against the values from before it"] = str(found)
    found = checks.beside(story.tuned, story.untouched, end - LAST_S, end)
    story.report.facts["after the shift, against the untouched one"] = str(found)
    _means(story, "after the shift", end)


def _killed(story: Story, since: float) -> None:
    """kill -9 while a step is being watched; the next loop judges it, once."""
    step = until(story.watched, 120, "a step is being watched")
    time.sleep(4)
    pid = int(story.tuned.beat()["pid"])
    os.kill(pid, signal.SIGKILL)
    killed = time.time()
    story.happens(
        "the loop was killed in mid-observation and is back",
        lambda: story.tuned.beat().get("pid") not in (None, pid),
        60,
        lambda _: f"{time.time() - killed:.1f} s later",
    )
    story.happens(
        "the step that was being watched gets its one verdict",
        lambda: story.decisions(act="evaluate", change=step["id"]),
        90,
        lambda d: d[0]["verdict"],
    )
    lost = checks.faults(story.tuned)
    story.promise("nothing is lost or doubled", not lost, lost or "every event has its one decision")


def worse(story: Story) -> None:
    """Somebody sets a worse value: watched, judged, and taken back on the page"""
    until(lambda: story.watched() is None, 60, "nothing is being watched")
    before = story.tuned.value(RULE)
    at = story.tuned.write_rule(RULE, WORSE, actor=SOMEBODY, note="거절이 더 줄 것 같아서")
    verdict = story.happens(
        "it is judged like any change",
        lambda: [d for d in story.decisions(at, act="evaluate") if d.get("origin") != "loop"],
        120,
        lambda d: f"{d[0]['verdict']} after {seconds_after(d[0], at):.0f} s",
    )[0]
    story.promise("the verdict is WORSENED", verdict["verdict"] == "WORSENED", verdict["verdict"])
    story.happens("a rollback is proposed", lambda: story.decisions(at, act="propose_rollback"), 30, _cause)
    with story.person(OPERATOR) as kim:
        kim.open("/suggestions")
        story.picture(kim, "3_rollback", "The proposed rollback, before anybody accepts it")
        undone = [e for e in story.moves(at) if e["rule"] == RULE]
        story.promise("the loop leaves the rule to a person", not undone, f"{len(undone)} events of the loop")
        said = kim.accept_rollback("측정 결과를 보니 되돌리는 것이 맞습니다")
    back = story.moves(at, OPERATOR)[-1]
    kept = (back["kind"], back["old"], back["new"]) == ("rollback", WORSE, before)
    story.promise("accepted on the page, the value from before is in force", kept, f"{_event(back)}: {said}")


def _cause(found: list[dict[str, Any]]) -> str:
    return str(found[0].get("cause"))


def seconds_after(record: dict[str, Any], at: float) -> float:
    return seconds(record["ts"]) - at


def forbidden(story: Story) -> None:
    """Somebody breaks the hard limit: put back at once, and the loan stops until a person resumes it"""
    time.sleep(20)  # the answers' ages settle after the last rollback
    before = story.tuned.value(RULE)
    at = story.tuned.write_rule(RULE, FORBIDDEN, actor=SOMEBODY, note="CPU를 아껴 보려고")
    back = story.happens(
        "it is put back at once",
        lambda: [e for e in story.moves(at) if e["rule"] == RULE],
        HARD_WITHIN_S,
        lambda e: f"{_event(e[0])}, {seconds_after(e[0], at):.1f} s after the hand",
    )[0]
    story.promise("to the value from before", back["new"] == before, f"{back['new']:g}")
    causes = [d.get("cause") for d in story.decisions(at) if back["id"] in (d.get("applied") or ())]
    story.promise("because of the hard limit", causes == ["hard_limit"], causes)
    ended = story.happens(
        "a breach ends live mode", lambda: story.governance("disarm", at), 60, lambda g: g[0]["reason"]
    )[0]
    story.promise("and says why", ended["reason"] == "loan.breach", ended["reason"])
    with story.person(OPERATOR) as kim:
        kim.open("/")
        story.picture(kim, "4_breach", "The first page after the breach")
        said = kim.resume("누가 왜 바꾸었는지 확인했습니다")
    story.promise("an operator takes the loan up again", bool(story.governance("resume", at)), said)
    story.happens("the loop is live again", lambda: story.mode() == "live", 30)


def ends(story: Story) -> None:
    """The loan runs out: back to practice by itself"""
    at = time.time()
    left = max(0.0, LOAN_END_S - story.stage.now_s)
    ended = story.happens(
        "the loan ends on its date",
        lambda: story.governance("disarm", at),
        left + 60,
        lambda g: g[-1]["reason"],
    )[-1]
    story.promise("because its time is over", ended["reason"] == "loan.expired", ended["reason"])
    story.promise("the loop ended it, nobody had to", ended["by"] == "selftune", ended["by"])
    story.happens("the mode is practice", lambda: story.mode() == "dry_run", 30)
    time.sleep(15)
    later = [e for e in story.moves() if seconds_after(e, at) > seconds_after(ended, at) + 2]
    story.promise("after that no rule is moved", not later, f"{len(later)} events")


PAGES = (
    ("/", "overview", "The first page, afterwards"),
    ("/trends?from={begun}&to={now}", "trends", "Every change and what it did"),
    ("/history", "history", "The history, everybody's changes in one list"),
    ("/review", "review_after", "How the loan ended"),
    ("/suggestions", "suggestions", "What it suggests now, in practice again"),
    ("/targets", "targets", "Targets and bounds"),
    ("/?lang=en", "overview_en", "The first page in English"),  # last: the language stays
)


def _utc(at: float) -> str:
    """Wall seconds as the address of a page writes them."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def afterwards(story: Story) -> None:
    """Afterwards: every step can be read on the pages, and every file is whole"""
    with story.person(OPERATOR) as kim:
        for path, name, says in PAGES:
            kim.open(path.format(begun=_utc(story.stage.started), now=_utc(time.time())))
            story.picture(kim, f"5_{name}", says)
        kim.open("/history")
        rows = kim.page.locator("[class*='st-key-row_']").all_inner_texts()
    for who in (SOMEBODY, OPERATOR, "selftune"):
        n = sum(who in row for row in rows)
        story.promise(f"the history page shows what {who} did", n > 0, f"{n} rows on the first page")
    for side in (story.tuned, story.untouched):
        code, last = checks.check_says(side)
        story.promise(f"check finds the root of the {side.name} service whole", code == 0, last)
    lost = checks.faults(story.tuned)
    story.promise(
        "nothing is lost or doubled in the end", not lost, lost or "every event has its one decision"
    )
    healthy = fetched(f"{story.url}/healthz") is not None
    story.promise("the dashboard still answers", healthy, story.url)


ORDER: tuple[Callable[[Story], None], ...] = (
    practice, review, better, follows, worse, forbidden, ends, afterwards,
)  # fmt: skip
