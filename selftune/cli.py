"""The commands: arguments in, one exit code out. Results on stdout, words for people on stderr.

Answers "what may be typed?" (docs/operating.md). Decides nothing: every command asks the same functions
as the loop and the dashboard. No traceback ever reaches a screen.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from selftune import __version__, cli_backtest, cli_check, cli_hands, cli_review, cli_users
from selftune.catalogue import LANGUAGES
from selftune.cli_status import screen
from selftune.cli_words import INTERRUPTED, Voice, utf8_streams, voice_for
from selftune.demo import run_demo
from selftune.domain import Proposal, Role, SelftuneError
from selftune.files import read_small, replace
from selftune.ledger import must_be_readable
from selftune.picture import Picture
from selftune.plan import Act
from selftune.runtime import Root, data_root
from selftune.status import look
from selftune.suggesting import suggestion
from selftune.sweep import SweepReport, sweep

FAULTS = "logs/selftune-faults.log"
FAULTS_BYTES = 1_000_000
LONGEST_S = 30 * 86_400.0  # of the demo: a month at 5 Hz is 700 MB
NOT_FOUND, USAGE = 3, 2


@dataclass(frozen=True, kw_only=True)
class Call:
    """One command as typed: the data root, the voice, the arguments."""

    path: Path
    voice: Voice
    args: argparse.Namespace


# ----------------------------------------------------------------------------- the commands
def suggest(call: Call) -> int:
    """One suggestion or the reasons why not, on record and on stdout. 3 without a usable row."""
    root, seen = Root(call.path), list[Picture]()

    def wanted(p: Picture) -> tuple[Act, ...]:
        seen.append(p)
        return (suggestion(p, root.zone),)

    plan, done = root.hand(wanted, actor="selftune")
    act = plan.acts[0]
    for line in _suggested(act, call.voice):  # before stdout: a reader that closes it early still hears it
        call.voice.tell(line)
    call.voice.json(done.lines[0])
    usable = any(np.isfinite(v).any() for v in seen[-1].snap.series.values.values())
    return 0 if usable else NOT_FOUND


def _suggested(act: Act, voice: Voice) -> list[str]:
    """The one sentence for people; one a proposal where several rules may move together."""
    if not act.proposals:
        return [voice.text("cli.suggest.hold", why=voice.sentence(act.reasons[0]))]
    lines = [_proposed(x, voice) for x in act.proposals]
    return [voice.text("cli.suggest.stands", said=line) for line in lines] if "stands" in act.data else lines


def _proposed(x: Proposal, voice: Voice) -> str:
    way = "raise" if x.new > x.old else "lower"
    why = x.reasons[0]
    observed, limit = why.params.get("observed"), why.params.get("limit")
    if why.code != "why.off_target" or observed is None or limit is None:
        return voice.text(
            f"cli.suggest.{way}.other", rule=x.rule, old=x.old, new=x.new, why=voice.sentence(why)
        )
    side = "high" if observed > limit else "low"
    return voice.text(
        f"cli.suggest.{way}.{side}",
        rule=x.rule,
        old=x.old,
        new=x.new,
        metric=why.params["metric"],
        observed=observed,
        limit=limit,
        gap=abs(observed - limit),
    )


def effects(call: Call) -> int:
    """Missing rows, quotes and warnings, written once; the summary on stdout. 3 without a sample."""
    root = Root(call.path)
    must_be_readable(root.snapshot().records)
    report = sweep(root, everything=call.args.all)
    for key, params in _swept(report):
        call.voice.say(key, **params)
    call.voice.json(report.as_json())
    return NOT_FOUND if report.no_data else 0


def _swept(report: SweepReport) -> list[tuple[str, dict[str, Any]]]:
    if report.no_data:
        return [("cli.effects.no_data", {})]
    n = {"rows": report.rows, "quotes": report.quotes, "warnings": report.warnings}
    said: list[tuple[str, dict[str, Any]]] = [
        ("cli.effects.wrote", n) if any(n.values()) else ("cli.effects.nothing", {})
    ]
    if report.waiting:
        said.append(("cli.effects.waiting", {"n": len(report.waiting)}))
    if report.skipped.get("no_samples"):
        said.append(("cli.effects.no_samples", {"n": report.skipped["no_samples"]}))
    if report.unknown_header:
        said.append(("cli.effects.unknown_header", {}))
    return said


def status(call: Call) -> int:
    """The picture, as the contract's JSON or as a short screen; 0 whenever it can answer."""
    seen = look(call.path)
    if not call.args.json:
        for line in screen(seen, call.voice):
            call.voice.out(line)
        return 0
    call.voice.json(seen.status)
    for problem in (*seen.problems, *seen.blind):
        call.voice.tell(call.voice.sentence(problem))
    return 0


def demo(call: Call) -> int:
    """Only the plant."""
    a, voice = call.args, call.voice
    report = run_demo(
        call.path, seconds=a.seconds, seed=a.seed, fast=a.fast, say=lambda r: voice.tell(voice.sentence(r))
    )
    voice.json({"root": str(report.root), "rows": report.rows, "last_ms": report.last_ms})
    voice.say("cli.demo.next", root=shlex.quote(str(report.root)))
    return 0


def loop(call: Call) -> int:
    """The unattended loop."""
    run = importlib.import_module("selftune.loop").run_loop
    call.voice.say("cli.loop.once" if call.args.once else "cli.loop.started", root=str(call.path))
    return int(run(call.path, once=call.args.once, say=call.voice.tell))


def up(call: Call) -> int:
    """Dashboard and loop, with the plant where there are no metrics."""
    a = call.args
    module = importlib.import_module("selftune.up")
    for why in module.notices(call.path, host=a.host, role=Role(a.role), demo=a.demo or a.live):
        call.voice.tell(call.voice.sentence(why))
    return int(
        module.run_up(
            call.path,
            host=a.host,
            port=a.port,
            role=Role(a.role),
            demo=a.demo or a.live,
            live=a.live,
            lang=a.lang,
            say=call.voice.tell,
        )
    )


def check(call: Call) -> int:
    """Every file examined, on request mended."""
    return cli_check.run(call.path, call.voice, repair=call.args.repair)


def hand(call: Call) -> int:
    """A person's act."""
    return cli_hands.run(call.args.command, call.path, call.voice, call.args)


def review(call: Call) -> int:
    """The switch-off of practice mode: ask, sign, send back."""
    return cli_review.run(call.path, call.voice, call.args)


def users(call: Call) -> int:
    """Accounts and roles."""
    return cli_users.run(call.path, call.voice, call.args)


def backtest(call: Call) -> int:
    """Settings and policies tried on the record, on a model of it, or on the plant."""
    return cli_backtest.run(call.path, call.voice, call.args)


# ----------------------------------------------------------------------------- the parser
class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in the user's language, with the nearest command."""

    voice: Voice

    def format_help(self) -> str:
        """The help with its headings in the user's language too."""
        text = super().format_help()
        for own, key in (
            ("usage:", "usage"),
            ("positional arguments:", "arguments"),
            ("options:", "options"),
        ):
            text = re.sub(f"^{own}", self.voice.text(f"cli.help.{key}"), text, count=1, flags=re.MULTILINE)
        return text

    def error(self, message: str) -> NoReturn:
        """One sentence, a hint, exit 2."""
        key, params = _usage(message)
        self.voice.say(key, **params)
        self.voice.say("cli.usage.hint")
        raise SystemExit(USAGE)


_USAGE: tuple[tuple[str, str], ...] = (
    (
        r"argument (?:command|COMMAND): invalid choice: '?(?P<found>.*?)'? \(choose from (?P<choices>.*)\)",
        "command",
    ),
    (r"the following arguments are required: (?P<found>.*)", "missing"),
    (r"unrecognized arguments: (?P<found>.*)", "unrecognized"),
    (
        r"argument (?P<name>[^:]*): invalid choice: '?(?P<found>.*?)'? \(choose from (?P<choices>.*)\)",
        "choice",
    ),
    (r"argument (?P<name>[^:]*): expected one argument", "needs_value"),
    (r"argument (?P<name>[^:]*): not allowed with argument (?P<found>.*)", "not_together"),
    (r"argument (?P<name>[^:]*): invalid \w+ value: '?(?P<found>.*?)'?$", "value"),
)


def _usage(message: str) -> tuple[str, dict[str, Any]]:
    """The catalogue's key and parameters for argparse's own message."""
    for pattern, kind in _USAGE:
        match = re.match(pattern, message, re.DOTALL)
        if match is None:
            continue
        params: dict[str, Any] = match.groupdict()
        if "choices" in params:
            params["choices"] = params["choices"].replace("'", "")
        if kind == "command":
            close = difflib.get_close_matches(params["found"], params["choices"].split(", "), n=1)
            params["nearest"] = close[0] if close else None
        return f"cli.usage.{kind}", params
    return "cli.usage.other", {"detail": message}


def _parser(voice: Voice) -> Parser:
    Parser.voice = voice
    top = Parser(
        prog="python -m selftune", description=voice.text("cli.help"), add_help=False, allow_abbrev=False
    )
    _common(top, voice, default=None)
    top.add_argument("--version", action="version", version=__version__, help=voice.text("cli.help.version"))
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    def add(name: str, run: Callable[[Call], int]) -> Parser:
        sub: Parser = commands.add_parser(
            name, help=voice.text(f"cli.help.{name}"), description=voice.text(f"cli.help.{name}"),
            add_help=False, allow_abbrev=False,
        )  # fmt: skip
        _common(sub, voice, default=argparse.SUPPRESS)  # --root and --lang may also stand behind the command
        sub.set_defaults(run=run)
        return sub

    add("suggest", suggest)
    if importlib.util.find_spec("selftune.loop"):
        add("loop", loop).add_argument("--once", action="store_true", help=voice.text("cli.help.once"))
    add("effects", effects).add_argument("--all", action="store_true", help=voice.text("cli.help.all"))
    cli_backtest.arguments(add, backtest, voice)
    cli_hands.arguments(add, hand, voice)
    cli_review.arguments(add, review, voice)
    cli_users.arguments(add, users, voice)
    add("status", status).add_argument("--json", action="store_true", help=voice.text("cli.help.json"))
    add("check", check).add_argument("--repair", action="store_true", help=voice.text("cli.help.repair"))
    if importlib.util.find_spec("selftune.up"):
        _up_arguments(add("up", up), voice)
    plant = add("demo", demo)
    plant.add_argument("--seconds", type=_seconds, metavar="N", help=voice.text("cli.help.seconds"))
    plant.add_argument("--seed", type=int, default=0, metavar="S", help=voice.text("cli.help.seed"))
    plant.add_argument("--fast", action="store_true", help=voice.text("cli.help.fast"))
    return top


def _seconds(text: str) -> float:
    """A length of time. Raises: ValueError for what is none."""
    value = float(text)
    if not 0 < value <= LONGEST_S:
        raise ValueError(text)
    return value


def _common(parser: Parser, voice: Voice, *, default: Any) -> None:
    parser.add_argument("--root", metavar="DIR", default=default, help=voice.text("cli.help.root"))
    parser.add_argument("--lang", choices=LANGUAGES, default=default, help=voice.text("cli.help.lang"))
    parser.add_argument("-h", "--help", action="help", help=voice.text("cli.help.help"))


def _up_arguments(parser: Parser, voice: Voice) -> None:
    parser.add_argument("--host", default="127.0.0.1", help=voice.text("cli.help.host"))
    parser.add_argument("--port", type=int, default=8501, help=voice.text("cli.help.port"))
    roles = [r.value for r in Role]
    parser.add_argument("--role", choices=roles, default=Role.VIEWER.value, help=voice.text("cli.help.role"))
    parser.add_argument("--demo", action="store_true", help=voice.text("cli.help.demo_up"))
    parser.add_argument("--live", action="store_true", help=voice.text("cli.help.live"))


def _peek(argv: Sequence[str], option: str) -> str | None:
    """The option's value wherever it stands: needed before the parser can speak."""
    found = None
    for i, arg in enumerate(argv):
        if arg == option and i + 1 < len(argv):
            found = argv[i + 1]
        elif arg.startswith(option + "="):
            found = arg.partition("=")[2]
    return found


# ----------------------------------------------------------------------------- the way in and out
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one command (contract.md, Commands)."""
    utf8_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    path = data_root(_peek(argv, "--root"))
    lang = _peek(argv, "--lang")
    voice = voice_for(path, lang if lang in LANGUAGES else None)
    try:
        return _run(argv, path, voice)
    except SelftuneError as error:
        voice.error(error)
        return error.exit_code
    except BrokenPipeError:
        _silence()
        return 0  # whoever read our output had enough of it
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the one catch of the command line: words on the screen, the rest in a file
        return _fault(error, path, voice)


def _run(argv: Sequence[str], path: Path, voice: Voice) -> int:
    parser = _parser(voice)
    try:
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help(sys.stderr)
            return USAGE
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else USAGE
    run: Callable[[Call], int] = args.run
    return run(Call(path=path, voice=voice, args=args))


def _silence() -> None:
    """Keep the interpreter from complaining about the closed pipe at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def _fault(error: Exception, path: Path, voice: Voice) -> int:
    """A fault of ours, in words; the details go into a file that never grows beyond 1 MB."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    text = f"{when} {' '.join(sys.argv[1:3])}\n{''.join(traceback.format_exception(error))}\n".encode(
        "utf-8", "replace"
    )
    log = path / FAULTS
    try:
        before = read_small(log, 2 * FAULTS_BYTES) or b""
        replace(log, (before + text)[-FAULTS_BYTES:], durable=False)
        voice.say("cli.fault_logged", error=f"{type(error).__name__}: {error}", file=str(log))
    except (SelftuneError, OSError):
        voice.say("cli.fault", detail=f"{type(error).__name__}: {error}")
    return 1
