"""What the story promised, what was seen, and the report that says so: report.md, report.json, shots/.

Answers "which promises were kept?". Decides nothing; an entry is kept or not by the caller's word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One thing that must hold. `seen`: the figure or the record that says so. `at_s`: of the load."""

    chapter: str
    text: str
    kept: bool
    seen: str
    at_s: float


@dataclass
class Report:
    """Everything to tell, in order; written anew after each entry, so that a cut-off run leaves it too."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    promises: list[Promise] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, promise: Promise) -> None:
        self.promises.append(promise)
        print(
            f"{promise.at_s:5.0f} s  {'ok    ' if promise.kept else 'BROKEN'}  {promise.text}: {promise.seen}"
        )
        self.write()

    def picture(self, file: str, says: str) -> None:
        self.pictures.append((file, says))

    @property
    def broken(self) -> list[Promise]:
        return [p for p in self.promises if not p.kept]

    def write(self) -> None:
        """Both forms of the report."""
        data = {
            "kept": not self.broken,
            "promises": [asdict(p) for p in self.promises],
            "facts": self.facts,
            "pictures": [file for file, _ in self.pictures],
        }
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (self.folder / "report.json").write_text(text + "\n", encoding="utf-8")
        (self.folder / "report.md").write_text(self._markdown(), encoding="utf-8")

    def _markdown(self) -> str:
        n = len(self.broken)
        head = (
            f"{len(self.promises)} promises, all kept." if not n else f"{n} of {len(self.promises)} broken."
        )
        lines = ["# A real service, tuned", "", head, ""]
        chapter = None
        for p in self.promises:
            if p.chapter != chapter:
                chapter = p.chapter
                lines += ["", f"## {chapter}", "", "| at | promise | seen | |", "| ---: | --- | --- | --- |"]
            cells = (f"{p.at_s:.0f} s", p.text, p.seen, "kept" if p.kept else "**broken**")
            lines.append("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
        lines += ["", "## Figures", "", *_facts(self.facts), ""]
        if self.pictures:
            lines += ["## Pictures", ""]
            lines += [f"![{says}]({file})\n" for file, says in self.pictures]
        return "\n".join(lines) + "\n"


def _facts(facts: Mapping[str, Any]) -> list[str]:
    return [f"- {name}: {value}" for name, value in facts.items()]
