"""What a person does from a shell: apply, reject, rollback, stop, resume, release.

Answers "who wants what, and why?" and hands it to hands.py through the same commit as everybody's.
Stop works whatever state the settings are in.
"""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftune import hands, proposed
from selftune.book import Batch, DecisionDraft
from selftune.cli_words import DEFAULT_ZONE, Voice
from selftune.domain import InputError, Problem, Role, SettingsError
from selftune.ledger import FileLedger
from selftune.picture import Picture
from selftune.plan import Act, Plan
from selftune.runtime import Root
from selftune.status import stopped_by
from selftune.wording import number, plain

SHELL_ROLE = Role.OPERATOR.value  # whoever has a shell here may do what an operator may
FOLDERS = ("configs", "controls", "logs")
COMMANDS = ("apply", "reject", "rollback", "stop", "resume", "release")

Wanted = Callable[[Picture], tuple[Act, ...]]


def arguments(add: Callable[..., Any], run: Callable[..., int], voice: Voice) -> None:
    """Register the commands of a person."""
    subs = {name: add(name, run) for name in COMMANDS}
    subs["apply"].add_argument("decision", metavar="DECISION", help=voice.text("cli.help.decision"))
    subs["apply"].add_argument("--rule", metavar="R", help=voice.text("cli.help.rule"))
    subs["reject"].add_argument("decision", metavar="DECISION", help=voice.text("cli.help.decision"))
    which = subs["rollback"].add_mutually_exclusive_group()
    which.add_argument("--event", metavar="KEY", help=voice.text("cli.help.event"))
    which.add_argument("--rule", metavar="NAME", help=voice.text("cli.help.rule"))
    subs["release"].add_argument("rule", metavar="RULE", help=voice.text("cli.help.rule"))
    for sub in subs.values():
        sub.add_argument("--actor", default=account(), metavar="WHO", help=voice.text("cli.help.actor"))
        sub.add_argument("--reason", default="", metavar="TEXT", help=voice.text("cli.help.reason"))


def run(command: str, path: Path, voice: Voice, args: argparse.Namespace) -> int:
    """One act of a person; what was written goes to stdout as JSON, what it means to stderr."""
    try:
        root = Root(path)
    except SettingsError:
        if command == "stop":
            return _stop_without_settings(path, voice, args.actor, args.reason)
        raise
    if command == "stop" and (stop := stopped_by(root.ledger.read().governance)) is not None:
        voice.say("cli.hand.stopped_already", by=stop.by)
        return 0
    plan, done = root.hand(_from_shell(_wanted(command, args)), actor=args.actor)
    _say(command, plan, voice, args)
    for line in done.lines:
        voice.json(line)
    return 0


def _wanted(command: str, a: argparse.Namespace) -> Wanted:
    who = {"actor": a.actor, "reason": a.reason}
    acts: dict[str, Wanted] = {
        "apply": lambda p: (
            proposed.carry_out(p, a.decision, **who)
            if proposed.names_one(p, a.decision)
            else hands.apply(p, a.decision, rule=a.rule, **who)
        ),
        "reject": lambda p: hands.reject(p, a.decision, **who),
        "rollback": lambda p: hands.rollback(p, event=a.event, rule=a.rule, **who),
        "stop": lambda p: hands.stop(p, role=SHELL_ROLE, **who),
        "resume": lambda p: hands.resume(p, role=SHELL_ROLE, **who),
        "release": lambda p: hands.release(p, a.rule, **who),
    }
    return acts[command]


def _from_shell(wanted: Wanted) -> Wanted:
    """The same acts, with the OS account on record beside the name: a name after --actor proves nobody."""
    said = {"os": account()}

    def acts(p: Picture) -> tuple[Act, ...]:
        return tuple(
            replace(a, data={**a.data, **said}, governance=tuple({**g, **said} for g in a.governance))
            for a in wanted(p)
        )

    return acts


def _say(command: str, plan: Plan, voice: Voice, args: argparse.Namespace) -> None:
    """What was done, in words."""
    moves = [m for act in plan.acts if act.write for m in act.moves]
    text = ", ".join(f"{plain(m.rule)} {number(m.old)} → {number(m.new)}" for m in moves) or None
    first = plan.acts[0]
    rule = first.data.get("rule") or getattr(args, "rule", None)
    voice.say(f"cli.hand.{command}", moves=text, rule=rule, actor=args.actor)


def _stop_without_settings(path: Path, voice: Voice, actor: str, reason: str) -> int:
    """Stop needs no settings: the record alone keeps every loop of this root in dry run.

    Raises: InputError for a folder that is no data root.
    """
    if not any((path / folder).is_dir() for folder in FOLDERS):
        # a mistyped --root must not be told that the tuning has stopped
        raise InputError(Problem(code="not_a_root", file=str(path)))
    ledger = FileLedger(path, timezone=DEFAULT_ZONE)
    if (stop := stopped_by(ledger.read().governance)) is not None:
        voice.say("cli.hand.stopped_already", by=stop.by)
        return 0
    data = {
        "kind": "mode",
        "act": "stop",
        "mode": "dry_run",
        "reasons": [{"code": "mode.stopped", "params": {"by": actor}}],
        "actor": actor,
        "why": reason,
        "to": "dry_run",
        "os": account(),
    }
    record = {"kind": "stop", "by": actor, "role": SHELL_ROLE, "reason": reason, "os": account()}
    done = ledger.commit(
        Batch(decisions=(DecisionDraft(data=data),), governance=(record,), governance_first=True), expect=None
    )
    for line in done.lines:
        voice.json(line)
    voice.say("cli.hand.stop_without_settings")
    return 0


def account() -> str:
    """The OS account, as the default actor. The system's word comes before LOGNAME's: anybody sets that."""
    try:
        return _by_the_system() or getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def _by_the_system() -> str | None:
    """The name of this process's user; None where the system knows none (a container's number, Windows)."""
    try:
        import pwd
    except ImportError:
        return None
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None
