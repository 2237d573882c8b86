"""How `check` speaks: what is fine or doubtful on stdout, what cannot be used on stderr, one exit code."""

from __future__ import annotations

from pathlib import Path

from selftune.checkup import Checkup, Finding, Level, checkup, repair
from selftune.cli_words import Voice
from selftune.domain import Problem

_SIGN = {Level.OK: "✓", Level.ABSENT: "–", Level.WARNING: "!"}


def run(path: Path, voice: Voice, *, repair: bool) -> int:
    """Examine the root, mend first if asked; the contract's exit code."""
    if repair:
        mended = _repair(path, voice)
        if not mended:
            voice.say("cli.check.nothing_to_mend")
    found = checkup(path)
    for f in found.findings:
        if f.level in _SIGN:
            voice.out(f"{_SIGN[f.level]} {_line(f, voice)}")
        else:
            voice.tell(_line(f, voice))
    voice.out(_summary(found, voice))
    return found.exit_code


def _repair(path: Path, voice: Voice) -> bool:
    done = repair(path)
    for reason in done:
        voice.tell(voice.sentence(reason))
    return bool(done)


def _line(f: Finding, voice: Voice) -> str:
    """A problem says its own place; everything else is put behind the file's name."""
    if isinstance(f.item, Problem):
        return voice.sentence(f.item)
    params = dict(f.item.params)
    if f.item.code == "check.rejects":
        params["what"] = voice.text(f"reject.{params['reason']}", n=params["n"])
    if f.item.code.startswith("reject."):
        return f"{f.file}: " + voice.text("check.rows_rejected", what=voice.sentence(f.item))
    if "file" in params:
        return voice.text(f.item.code, **params)
    return f"{f.file}: " + voice.text(f.item.code, **params)


def _summary(found: Checkup, voice: Voice) -> str:
    warnings, bad = len(found.of(Level.WARNING)), len(found.of(Level.SETTINGS, Level.FILE))
    if bad:
        return voice.text("cli.check.bad", n=bad)
    return voice.text("cli.check.doubtful", n=warnings) if warnings else voice.text("cli.check.fine")
