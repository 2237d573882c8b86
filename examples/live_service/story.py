"""The whole story, unattended: a real service is watched, lent to the loop, tuned, disturbed and given back.

    make example            or    python -m examples.live_service.story [--folder logs/example]

Three copies of one service stand under the same load: one that selftune tunes, one that nobody touches,
and from the shift of the load on one that keeps the values of that moment. Everything that is promised is
checked; the exit code is 0 only when every promise was kept. Afterwards report.md, report.json and shots/
lie in the folder, and `python -m selftune --root logs/example/tuned up` shows it all once more.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.live_service import actors, chapters
from examples.live_service.actors import Person
from examples.live_service.report import Promise, Report
from examples.live_service.stage import (
    APPROVALS,
    CHECKOUT,
    DECISIONS,
    HISTORY,
    Missed,
    Stage,
    fetched,
    free_port,
    seconds,
    selftune,
    until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LOOP = "selftune"  # how the loop signs its events


class Story:
    """The stage, the people and the report, and what every chapter asks of them."""

    def __init__(self, stage: Stage, browser: Browser, report: Report) -> None:
        self.stage, self.browser, self.report = stage, browser, report
        self.chapter = ""
        self.tuned, self.untouched, self.left = stage.tuned, stage.untouched, stage.left
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.passwords: dict[str, str] = {}

    # ------------------------------------------------------------------------- promising
    def promise(self, text: str, kept: bool, seen: object) -> None:
        """One promise with what was seen."""
        now_s = self.stage.now_s
        self.report.add(Promise(chapter=self.chapter, text=text, kept=kept, seen=str(seen), at_s=now_s))

    def happens(
        self, text: str, what: Callable[[], Any], within_s: float, seen: Callable[[Any], object] = str
    ) -> Any:
        """A promise that something happens in time; what it gave. Raises: Missed when it does not."""
        try:
            found = until(what, within_s, text)
        except Missed as no:
            self.promise(text, False, no)
            raise
        self.promise(text, True, seen(found))
        return found

    def start_selftune(self) -> None:
        """Accounts, then dashboard and loop beside the tuned service, as a user would start them."""
        for name, role in chapters.PEOPLE.items():
            self.passwords[name] = secrets.token_urlsafe(16)
            argv = selftune(
                "--root", self.tuned.root, "users", "add", name, "--role", role, "--password-stdin"
            )
            done = subprocess.run(
                argv, input=self.passwords[name], capture_output=True, text=True, check=False
            )
            self.promise(
                f"there is an account for {name}", done.returncode == 0, done.stderr.partition("\n")[0]
            )
        self.stage.start(selftune("--root", self.tuned.root, "up", "--port", self.port), "up")
        until(lambda: fetched(f"{self.url}/healthz"), 60, "the dashboard answers")

    @contextmanager
    def person(self, name: str) -> Iterator[Person]:
        """`name` at the dashboard, signed in, as long as the block lasts."""
        with actors.at_the_dashboard(self.browser, self.url) as someone:
            someone.sign_in(name, self.passwords[name])
            yield someone

    def picture(self, someone: Person, name: str, says: str) -> None:
        """The page as it stands, into the report."""
        someone.picture(self.stage.folder / "shots" / f"{name}.png")
        self.report.picture(f"shots/{name}.png", says)

    # ------------------------------------------------------------------------- looking
    def decisions(self, since: float = 0.0, **wanted: object) -> list[dict[str, Any]]:
        """Decisions with these fields from this wall second on, oldest first."""
        return [
            d for d in self.tuned.lines(DECISIONS)
            if seconds(d["ts"]) >= since and all(d.get(k) == v for k, v in wanted.items())
        ]  # fmt: skip

    def moves(self, since: float = 0.0, actor: str = LOOP) -> list[dict[str, Any]]:
        """Rule events of the loop (or of `actor`) from this wall second on."""
        events = self.tuned.lines(HISTORY)
        return [e for e in events if e["actor"] == actor and seconds(e["ts"]) >= since]

    def steps(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Of those the steps forward: no way back, no look."""
        return [e for e in self.moves(since) if e["kind"] == "change"]

    def governance(self, kind: str, since: float = 0.0) -> list[dict[str, Any]]:
        """Records of this kind in the governance chain."""
        return [g for g in self.tuned.lines(APPROVALS) if g["kind"] == kind and seconds(g["ts"]) >= since]

    def mode(self) -> str:
        return str(self.tuned.beat().get("mode"))

    def watched(self) -> dict[str, Any] | None:
        """The loop's newest step while it waits for its verdict; a step back to the reference gets none."""
        steps = [d for d in self.decisions(kind="cycle", act="step") if d.get("applied")]
        judged = {d.get("change") for act in ("evaluate", "supersede") for d in self.decisions(act=act)}
        return steps[-1] if steps and steps[-1]["id"] not in judged else None


# ----------------------------------------------------------------------------- telling it
def tell(folder: Path, wanted: Sequence[str]) -> int:
    """Every chapter in turn; 0 when every promise was kept."""
    begun = time.monotonic()
    with actors.chromium() as browser, Stage(folder, **chapters.LOAD) as stage:
        story = Story(stage, browser, Report(folder))
        for chapter in chapters.ORDER:
            if wanted and chapter.__name__ not in wanted:
                continue
            story.chapter = (chapter.__doc__ or "").splitlines()[0]
            try:
                chapter(story)
            except Missed:
                continue  # already among the broken promises
            except actors.Failed as error:
                story.promise("the pages do what a person asks", False, error)
        story.report.facts["whole run"] = f"{time.monotonic() - begun:.0f} s"
        story.report.write()
        print(f"{folder / 'report.md'}: {len(story.report.broken)} of {len(story.report.promises)} broken")
        return 1 if story.report.broken else 0


def main(argv: Sequence[str] | None = None) -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--folder", type=Path, default=CHECKOUT / "logs" / "example")
    ask.add_argument(
        "--only", nargs="*", default=(), help="chapters to tell, for whoever works on one of them"
    )
    args = ask.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything we started ends with us
    try:
        return tell(args.folder.resolve(), args.only)
    except Missed as no:
        print(no, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
