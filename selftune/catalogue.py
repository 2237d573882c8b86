"""The sentences of both languages, read from `selftune/words/` and merged.

Each module keeps its own words in `words/<lang>.d/<module>.yaml`: flat keys, templates of `wording.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import yaml

from selftune.domain import InputError, Problem
from selftune.wording import Catalogue

LANGUAGES = ("ko", "en")
WORDS = Path(__file__).resolve().parent / "words"
# BaseLoader makes every scalar text (`yes`, `0.1`), and has libyaml's speed where it is built in.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@lru_cache(maxsize=4)
def load(folder: Path = WORDS) -> Catalogue:
    """Language -> key -> template, merged over the folder, read once per process.

    Of two files that say one key the first wins; a test on `conflicts` keeps the shipped words free of
    them. Raises: InputError when a file is no flat mapping of texts.
    """
    return MappingProxyType({lang: MappingProxyType(_merge(folder, lang)) for lang in LANGUAGES})


def files(folder: Path, lang: str) -> list[Path]:
    """The word files of one language, in the order in which they are merged."""
    return [p for p in (folder / f"{lang}.yaml",) if p.exists()] + sorted(
        (folder / f"{lang}.d").glob("*.yaml")
    )


def conflicts(folder: Path, lang: str) -> list[str]:
    """`key (file)` of every key that a later file says differently."""
    merged = _merge(folder, lang)
    return [f"{k} ({p.name})" for p in files(folder, lang) for k, v in _read(p).items() if merged[k] != v]


def _merge(folder: Path, lang: str) -> dict[str, str]:
    merged: dict[str, str] = {}
    for path in files(folder, lang):
        merged = {**_read(path), **merged}
    return merged


def _read(path: Path) -> Mapping[str, str]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # our own, shipped file
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            Problem(code="words_unreadable", file=str(path), params={"found": str(error)})
        ) from error
    if data in (None, ""):
        return {}
    if not isinstance(data, dict) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in data.items()
    ):
        raise InputError(Problem(code="words_not_flat", file=str(path)))
    return data
