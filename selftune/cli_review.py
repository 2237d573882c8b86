"""The review from a shell: request, approve, refuse, list.

Answers "who asks or signs, and what came of it?" through reviewing.py, like the page. Where accounts exist
the name must be one with the right role, proven by its password; the OS account is recorded beside the name
in any case.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selftune import cli_users, governing, reviewing
from selftune.acting import iso
from selftune.cli_hands import account
from selftune.cli_words import Voice
from selftune.domain import JsonDict, Reason, Refused, Role
from selftune.governing import State, What
from selftune.picture import Picture
from selftune.reviewing import Terms
from selftune.revising import Conflict
from selftune.runtime import Root
from selftune.standing import Standing, requests, standing

WHATS = ("request", "approve", "refuse", "list")
REFUSED = 4


def arguments(add: Callable[..., Any], run: Callable[..., int], voice: Voice) -> None:
    """Register the command."""
    sub = add("review", run)
    sub.add_argument("what", choices=WHATS, help=voice.text("cli.help.review_what"))
    sub.add_argument("request", nargs="?", metavar="REQUEST", help=voice.text("cli.help.review_id"))
    sub.add_argument("--actor", default=account(), metavar="WHO", help=voice.text("cli.help.actor"))
    sub.add_argument("--reason", default="", metavar="TEXT", help=voice.text("cli.help.reason"))
    sub.add_argument("--comment", default="", metavar="TEXT", help=voice.text("cli.help.review_comment"))
    sub.add_argument("--changes", type=int, metavar="N", help=voice.text("cli.help.review_changes"))
    sub.add_argument("--displacement", type=float, metavar="S", help=voice.text("cli.help.review_steps"))
    sub.add_argument("--hours", type=float, metavar="H", help=voice.text("cli.help.review_hours"))
    cli_users.password_argument(sub, voice)


def run(path: Path, voice: Voice, a: argparse.Namespace) -> int:
    """One act of the review; what was written goes to stdout as JSON, what it means to stderr."""
    root = Root(path)
    acts: dict[str, Callable[[Root, Voice, argparse.Namespace], int]] = {
        "request": _request, "approve": _approve, "refuse": _refuse, "list": _list,
    }  # fmt: skip
    try:
        return acts[a.what](root, voice, a)
    except cli_users.Misused as wrong:
        voice.say(wrong.key, **wrong.params)
        return cli_users.USAGE
    except Conflict:
        voice.say("cli.review.conflict")
        return REFUSED


def _request(root: Root, voice: Voice, a: argparse.Namespace) -> int:
    loan = Picture(root.snapshot()).settings.governance.loan
    terms = Terms(
        changes=loan.changes if a.changes is None else a.changes,
        displacement=loan.displacement if a.displacement is None else a.displacement,
        hours=loan.hours if a.hours is None else a.hours,
    )
    role = cli_users.proven(root.path, voice, a, Role.OPERATOR)
    asked = reviewing.request(root, terms, actor=a.actor, role=role, why=a.reason, os=account())
    now = standing(root.path, Picture(root.snapshot()), asked)
    voice.json(_json(now, root))
    voice.say("cli.review.asked", id=asked.id, until_ms=asked.until_ms, need=now.needed)
    return 0


def _approve(root: Root, voice: Voice, a: argparse.Namespace) -> int:
    role = cli_users.proven(root.path, voice, a, Role.REVIEWER)
    comment = a.comment or a.reason
    signed = reviewing.approve(root, _which(root, a), actor=a.actor, role=role, comment=comment, os=account())
    voice.json({"id": signed.id, "request": signed.request.id, "left": signed.left, "done": signed.done})
    done = "armed" if signed.request.what is What.ARMING else "saved"
    voice.say(f"cli.review.{done if signed.done else 'approved'}", actor=a.actor, n=signed.left)
    return 0


def _refuse(root: Root, voice: Voice, a: argparse.Namespace) -> int:
    role = cli_users.proven(root.path, voice, a, Role.REVIEWER)
    why = a.reason or a.comment
    asked = reviewing.refuse(root, _which(root, a), actor=a.actor, role=role, why=why, os=account())
    voice.json({"request": asked.id, "refused": True})
    voice.say("cli.review.refused", actor=a.actor)
    return 0


def _which(root: Root, a: argparse.Namespace) -> str:
    """The request that was named, else the newest one that nothing has ended yet."""
    if a.request:
        return str(a.request)
    found = [r for r in requests(Picture(root.snapshot())) if not r.over]
    if not found:
        raise Refused(Reason("sign.none_open"))
    return found[-1].id


def _list(root: Root, voice: Voice, a: argparse.Namespace) -> int:
    p = Picture(root.snapshot())
    found = [standing(root.path, p, r) for r in requests(p)]
    voice.json([_json(now, root) for now in found])
    if not found:
        voice.say("cli.review.list_none")
    for now in found:
        r = now.request
        voice.say("cli.review.line", id=r.id, state=voice.text(f"review.state_{now.state.value}"), who=r.by,
                  n=len(r.signatures), need=now.needed)  # fmt: skip
        for why in now.moved:
            voice.tell(f"  · {voice.sentence(why)}")
    return 0


def _json(now: Standing, root: Root) -> JsonDict:
    """One request as the command prints it."""
    r, zone = now.request, root.zone
    return {
        "id": r.id, "what": r.what.value, "state": now.state.value, "ts": iso(r.ts_ms, zone), "by": r.by,
        "reason": r.reason, "settings": r.settings, "evidence": r.evidence or None, "loan": dict(r.loan),
        "grades": dict(now.grades or r.grades), "needed": now.needed, "until": iso(r.until_ms, zone),
        "blocked": governing.blocking(now.grades) if now.state is State.OPEN else [],
        "signatures": [{"by": s.by, "ts": iso(s.ts_ms, zone), "comment": s.comment} for s in r.signatures],
        "refused": {"by": r.refused.by, "reason": r.refused.data.get("reason")} if r.refused else None,
        "moved": [w.as_json() for w in now.moved], "used": r.used,
    }  # fmt: skip
