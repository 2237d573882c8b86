"""What the commands say, and where: results on stdout, words for people on stderr, in one language.

Answers "how is this said in a terminal?". Never decides, never touches a ledger.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from selftune.book import SETTINGS
from selftune.catalogue import LANGUAGES, load
from selftune.config import check
from selftune.domain import (
    FileUnreadable,
    GuardCheck,
    InputError,
    LockHeld,
    Problem,
    Reason,
    Refused,
    SelftuneError,
    StaleSnapshot,
    StorageError,
    UnknownId,
)
from selftune.files import read_small
from selftune.records import render as render_record
from selftune.wording import Catalogue, render, sentence, unsteered

_HELD = {"loop.lock": "cli.loop_held", "demo.lock": "cli.demo_held"}
SETTINGS_BYTES = 256 * 1024
INTERRUPTED = 130  # exit code of what a person broke off
DEFAULT_ZONE = "Asia/Seoul"
_LANGUAGE_LINE = re.compile(rb"^language:\s*['\"]?(ko|en)\b", re.MULTILINE)
_ZONE_LINE = re.compile(rb"^timezone:\s*['\"]?([\w/+-]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One language, one time zone, the two streams."""

    lang: str
    zone: tzinfo = field(default_factory=lambda: ZoneInfo(DEFAULT_ZONE))
    words: Catalogue = field(default_factory=load)

    def text(self, key: str, **params: Any) -> str:
        """The sentence of the catalogue's `key`."""
        return render(key, params, self.lang, self.words, zone=self.zone)

    def sentence(self, item: Reason | Problem | GuardCheck) -> str:
        """The sentence of a reason, a problem or a guard."""
        return sentence(item, self.lang, self.words, zone=self.zone)

    def say(self, key: str, **params: Any) -> None:
        """One line for people."""
        self.tell(self.text(key, **params))

    def tell(self, line: str) -> None:
        """A line for people, as it is."""
        print(line, file=sys.stderr, flush=True)

    def out(self, line: str) -> None:
        """A line of the result."""
        print(line, flush=True)

    def json(self, data: Any) -> None:
        """The result as JSON; what is not finite is null, as in the files."""
        plain = json.loads(render_record(data))
        print(unsteered(json.dumps(plain, ensure_ascii=False, indent=2)), flush=True)

    # ------------------------------------------------------------------------ errors
    def error(self, error: SelftuneError) -> None:
        """Why it was not done, one line each."""
        for line in self._lines(error):
            self.tell(line)

    def _lines(self, error: SelftuneError) -> Sequence[str]:
        if isinstance(error, InputError):
            return [self.sentence(p) for p in error.problems]
        if isinstance(error, Refused):
            why = [self.sentence(r) for r in error.reasons]
            # a slot is cut where it grows long; this one holds a whole sentence, made plain already
            head = self.text("cli.refused", why="@why@").replace("@why@", why[0])
            return [head, *(f"  · {w}" for w in why[1:])]
        if isinstance(error, UnknownId):
            return [self.sentence(error.reason)]
        if isinstance(error, LockHeld):
            return [
                self.text(
                    _HELD.get(error.lock, "cli.lock_held"),
                    lock=error.lock,
                    pid=error.pid,
                    host=error.host,
                    since=error.since,
                )
            ]
        if isinstance(error, StaleSnapshot):
            return [self.text("cli.stale", detail=str(error))]
        if isinstance(error, FileUnreadable):
            return [self.sentence(p) for p in error.problems]
        if isinstance(error, StorageError):
            return [self.text("cli.storage", detail=str(error))]
        return [self.text("cli.fault", detail=str(error))]


def voice_for(root: Path, lang: str | None) -> Voice:
    """The voice of `--lang`, else of the settings' `language`, as far as they can be read; else Korean."""
    raw = read_small(root / SETTINGS, SETTINGS_BYTES) or b""
    settings, _ = check(raw, SETTINGS)
    if settings is not None:
        return Voice(lang=lang or settings.language, zone=ZoneInfo(settings.timezone))
    found = _LANGUAGE_LINE.search(raw)  # a slip elsewhere in the file does not change its language
    named = found.group(1).decode() if found else LANGUAGES[0]
    return Voice(lang=lang or named, zone=_zone(raw))


def _zone(raw: bytes) -> tzinfo:
    found = _ZONE_LINE.search(raw)
    try:
        return ZoneInfo(found.group(1).decode() if found else DEFAULT_ZONE)
    except (ValueError, OSError, LookupError):
        return ZoneInfo(DEFAULT_ZONE)


def utf8_streams() -> None:
    """Both streams in UTF-8 whatever the console's code page is; what cannot be shown is escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
