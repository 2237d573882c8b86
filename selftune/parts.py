"""The parts of a decision log that has grown too long: `name.0001.jsonl`, …, then the living file.

Each later file's first line names the part before it with its size and digest, so that a part that was
lost or edited shows. Nothing here writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from selftune.domain import JsonDict

ROTATED = "rotated"
_HEAD = 1 << 16  # the naming line is the first that is whole; a kill may have left half a line before it


def parts_of(path: Path) -> tuple[Path, ...]:
    """The parts that rotation put aside from `path` (`name.0001.jsonl`, …), oldest first."""
    return tuple(sorted(path.parent.glob(f"{path.stem}.[0-9][0-9][0-9][0-9]{path.suffix}")))


def described(part: Path) -> JsonDict:
    """`{file, bytes, sha256}` of a part as it is now. Raises: OSError."""
    digest, size = hashlib.sha256(), 0
    with open(part, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return {"file": part.name, "bytes": size, "sha256": digest.hexdigest()}


def named_by(path: Path) -> JsonDict | None:
    """What the file at `path` says of the part before it; None when it names none."""
    try:
        with open(path, "rb") as file:
            lines = file.read(_HEAD).split(b"\n")
    except OSError:
        return None
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("act") == ROTATED and isinstance(said.get("previous"), dict):
            return dict(said["previous"])
    return None


def lost_or_changed(path: Path) -> Iterator[tuple[str, str]]:
    """(`gone` or `changed`, the part's file name) of every part that is not what a later file says."""
    for file in (*parts_of(path), path):
        said = named_by(file)
        if said is None:
            continue
        part = path.with_name(Path(str(said.get("file"))).name)
        try:
            same = described(part) == said
        except OSError:
            yield "gone", part.name
        else:
            if not same:
                yield "changed", part.name


__all__ = ["ROTATED", "described", "lost_or_changed", "named_by", "parts_of"]
