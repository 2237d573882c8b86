"""Streamlit glue of the pages on which people act: the shared office, who acts, how a refusal is said.

Nothing in here decides: the role, the guards and the commit are the office's.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar, cast

import streamlit as st

from selftune import access, ui
from selftune.access import Action
from selftune.chart_kit import Say
from selftune.domain import (
    InputError,
    LockHeld,
    Problem,
    Reason,
    Refused,
    Role,
    StaleSnapshot,
    StorageError,
    UnknownId,
)
from selftune.markup import block, safe
from selftune.office import Glance, Office
from selftune.picture import Picture
from selftune.plan import Act
from selftune.revising import Conflict
from selftune.runtime import Root
from selftune.view import Visitor
from selftune.wording import sentence

T = TypeVar("T")
ASKING, SAID = "deskwork_asking", "deskwork_said"


def office() -> Office:
    """The one office of this process for the data root in use."""
    return ui.shared().office


def glance() -> Glance:
    """The shared picture of this moment."""
    return office().glance()


# ------------------------------------------------------------------------------- what is being asked
def _state() -> MutableMapping[str, Any]:
    return cast("MutableMapping[str, Any]", st.session_state)


def ask(what: str, subject: str) -> None:
    """Opens a dialog at the next run; it stays open until it is answered or dismissed."""
    _state()[ASKING] = (what, subject)


def asked() -> tuple[str, str] | None:
    """(what, subject) of the dialog that is open."""
    found = _state().get(ASKING)
    return found if isinstance(found, tuple) else None


def answered() -> None:
    """Closes the dialog at the next run."""
    _state().pop(ASKING, None)


# ------------------------------------------------------------------------------- acting
def may(action: Action) -> bool:
    """True when the visitor's role may do this; asked again at the write."""
    visitor = ui.current_identity()
    return visitor is not None and access.may(visitor.role, action)


def act(action: Action, wanted: Callable[[Picture, str], tuple[Act, ...]], say: Say) -> bool:
    """Carries out what the visitor asked for; False when it was refused, with the reasons on the page.

    `wanted(picture, actor)` gives the acts. The identity and the role are those of this very moment.
    """
    done = told(say, lambda who: office().act(
        action, lambda p: wanted(p, who.name), actor=who.name, role=role_of(who)
    ))  # fmt: skip
    return done is not None


def through(action: Action, work: Callable[[Root, Visitor], T], say: Say) -> T | None:
    """What `work` gives with the shared root; None when it was refused, with the reasons on the page."""
    return told(say, lambda who: office().through(action, lambda root: work(root, who), role=role_of(who)))


def role_of(who: Visitor) -> Callable[[], Role]:
    """Asked in the core at the write: this very person's role then. Raises: Refused when they are out."""

    def now() -> Role:
        visitor = ui.current_identity()
        if visitor is None or visitor.name != who.name:
            raise Refused(Reason("access.nobody"))
        return visitor.role

    return now


def told(say: Say, do: Callable[[Visitor], T]) -> T | None:
    """What `do` gives for the visitor of this very moment, or None and why not, in words."""
    visitor = ui.current_identity()
    if visitor is None:
        refuse([say("desk.nobody")])
        return None
    try:
        return do(visitor)
    except (Refused, UnknownId) as no:
        refuse(refusal(no, say))
    except Conflict:
        refuse([say("cli.review.conflict")])
    except LockHeld as held:
        refuse([say("desk.lock_held", since=held.since)])
    except StaleSnapshot:
        refuse([say("desk.stale_snapshot")])
    except InputError as error:  # of the settings, or of what was asked
        refuse([problem_text(x, say) for x in error.problems])
    except StorageError as error:
        refuse([say("desk.storage", error=str(error))])
    return None


def refusal(no: Refused | UnknownId, say: Say) -> list[str]:
    """The sentences of a refusal."""
    return [say.why(r) for r in (no.reasons if isinstance(no, Refused) else (no.reason,))]


def problem_text(problem: Problem, say: Say) -> str:
    """One thing wrong in the settings as a sentence."""
    return sentence(problem, say.language, say.catalogue, zone=say.zone)


def refuse(lines: list[str]) -> None:
    """Says why nothing was done; the words are shown as text, never as markup."""
    say = ui.words(ui.now())
    body = "".join(f"<li>{safe(x)}</li>" for x in lines)
    with st.container(border=True, key="refused"):
        st.html(block(f'<div role="alert"><b>{safe(say("desk.refused"))}</b><ul>{body}</ul></div>'))


def done(text: str) -> None:
    """Closes the dialog, and the next run says what was done."""
    say_next(text)
    answered()
    st.rerun()


def say_next(text: str) -> None:
    """The next run, of whatever page, says what was done."""
    _state()[SAID] = text


def said() -> None:
    """What was just done, once."""
    text = _state().pop(SAID, None)
    if text:
        st.html(block(f'<div role="status">✓ {safe(text)}</div>'))


def reason_form(say: Say, *, key: str, button: str) -> str | None:
    """A field for the mandatory reason and a button; the reason once it is given, else None."""
    with st.form(key, enter_to_submit=False, border=False):
        reason = st.text_area(say("desk.reason"), key=f"{key}_why", max_chars=500, height=90)
        sent = st.form_submit_button(button, type="primary", key=f"{key}_send")
    if not sent:
        return None
    if not reason.strip():
        st.warning(say("desk.reason_missing"), icon=":material/edit_note:")
        return None
    return reason.strip()
