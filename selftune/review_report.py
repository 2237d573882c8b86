"""One review as one HTML file, Korean first, then English: evidence, the change, the loan, who signed.

Holds everything inside and asks nobody for anything, like every report; no Streamlit.
"""

from __future__ import annotations

import re
from html import escape
from zoneinfo import ZoneInfo

from selftune import __version__, catalogue
from selftune.acting import iso
from selftune.chart_kit import Say, clock_text
from selftune.config import edit
from selftune.domain import SettingsError
from selftune.governing import State, What
from selftune.markup import STYLE, facts, safe
from selftune.picture import Picture
from selftune.readiness import Readiness
from selftune.report import ALONE, PAGE_STYLE
from selftune.review_text import (
    asked_html,
    edit_html,
    items_html,
    moved_html,
    signatures_html,
    state_html,
    summary,
    track_html,
)
from selftune.standing import Standing, flip_of


def file_name(p: Picture, now: Standing | None) -> str:
    """A name for the report's file that every system takes."""
    ident = re.sub(r"[^A-Za-z0-9_-]", "", now.request.id)[:40] if now is not None else "evidence"
    return f"selftune-review-{clock_text(p.snap.now_ms, p.settings.timezone)[:5]}-{ident}.html"


def review_html(p: Picture, found: Readiness, now: Standing | None) -> bytes:
    """The report; without a request the evidence alone."""
    words, zone = catalogue.load(), ZoneInfo(p.settings.timezone)
    says = [Say(language, words, zone) for language in catalogue.LANGUAGES]
    sections = "".join(
        f'<section lang="{say.language}"><div class="sx">{body(p, found, now, say)}</div></section>'
        for say in says
    )
    ko, en = (title(now, say) for say in says)
    foot = f"selftune {__version__} · {escape(iso(p.snap.now_ms, zone))} · {safe(p.settings.digest)}"
    return (
        f'<!doctype html><html lang="ko"><head><meta charset="utf-8">{ALONE}'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(ko)}</title>{PAGE_STYLE}{STYLE}</head><body>"
        f'<h1>{escape(ko)} / <span lang="en">{escape(en)}</span></h1>{sections}'
        f"<footer>{foot}</footer></body></html>"
    ).encode()


def title(now: Standing | None, say: Say) -> str:
    """What the report is about."""
    edit = now is not None and now.request.what is What.EDIT
    return say("review.report_title_edit" if edit else "review.report_title")


def body(p: Picture, found: Readiness, now: Standing | None, say: Say) -> str:
    """Everything that somebody signs, top to bottom; the print view shows the same."""
    arming = now is None or now.request.what is What.ARMING
    parts = []
    if now is not None:
        parts += [state_html(now, say), moved_html(now.moved, say), asked_html(now, say)]
        parts += [f"<h2>{safe(say('review.sign_head'))}</h2>", signatures_html(now, say)]
    parts.append(f"<h2>{safe(say('review.change_head'))}</h2>")
    parts.append(change_html(p, now, say))
    prints = [(say("review.print_head"), f"<code>{safe(p.settings.digest)}</code>")]
    if now is not None and now.request.evidence:
        prints.append((say("review.evidence_digest"), f"<code>{safe(now.request.evidence)}</code>"))
    parts.append(facts(prints))
    if arming:
        then = now.request if now is not None else None
        parts += [
            f"<h2>{safe(say('review.evidence_head'))}</h2>",
            f"<p><b>{safe(summary(found, say))}</b></p>",
        ]
        parts += [items_html(found, say, then=then), f"<h2>{safe(say('review.track_head'))}</h2>"]
        parts.append(track_html(found.track, say))
    return "".join(parts)


def change_html(p: Picture, now: Standing | None, say: Say) -> str:
    """The exact lines that change."""
    if now is not None and now.request.what is What.EDIT:
        return edit_html(p, now.request, say)
    diff = flip_text(p, now)
    if not diff:
        return f"<p>{safe(say('review.no_flip'))}</p>"
    used = now is not None and now.state is State.USED
    said = safe(say("review.changed" if used else "review.change"))
    return f"<p>{said}</p><pre><code>{escape(diff)}</code></pre>"


def flip_text(p: Picture, now: Standing | None = None) -> str:
    """The lines of the settings file that would change, or that a used request has changed.

    '' when none would, or the file cannot be read as it is.
    """
    try:
        before = p.snap.records.settings or b""
        if (
            now is not None
            and now.state is State.USED
            and now.request.data.get("after") != now.request.data.get("before")
        ):
            before = edit(before.decode("utf-8"), {"strategy.dry_run": True}).encode("utf-8")
        return flip_of(before)[1]
    except (SettingsError, UnicodeDecodeError):
        return ""
