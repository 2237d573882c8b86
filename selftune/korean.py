"""Korean particles: which form follows a word (위상이 / 밴드가), also after digits and Latin letters.

Answers "does the word, as it is read aloud, end in a consonant?". Pure text, no sentences of its own.
"""

from __future__ import annotations

import re
from enum import IntEnum

# pair named in a template -> (after a consonant, after a vowel)
PARTICLES: dict[str, tuple[str, str]] = {
    "은는": ("은", "는"),
    "이가": ("이", "가"),
    "을를": ("을", "를"),
    "과와": ("과", "와"),
    "으로로": ("으로", "로"),
    "이라라": ("이라", "라"),
    "이에요예요": ("이에요", "예요"),
    "이어서여서": ("이어서", "여서"),
}
# the single form is a shorthand for its pair, so that `{rule:은}` and `{rule:은는}` mean the same
PAIR_OF: dict[str, str] = {
    **{pair: pair for pair in PARTICLES},
    **{form: pair for pair, forms in PARTICLES.items() for form in forms},
    "은/는": "은는", "이/가": "이가", "을/를": "을를", "와/과": "과와", "과/와": "과와", "와과": "과와",
    "으로/로": "으로로", "로/으로": "으로로", "는은": "은는", "가이": "이가", "를을": "을를",
}  # fmt: skip


class Ending(IntEnum):
    """How a word ends when read aloud; UNKNOWN when we cannot know (other scripts, nothing)."""

    UNKNOWN = -1
    VOWEL = 0
    CONSONANT = 1
    RIEUL = 2  # a consonant, but 로 follows it and not 으로


_DIGITS = {"1": Ending.RIEUL, "7": Ending.RIEUL, "8": Ending.RIEUL,
           "2": Ending.VOWEL, "4": Ending.VOWEL, "5": Ending.VOWEL, "9": Ending.VOWEL,
           "0": Ending.CONSONANT, "3": Ending.CONSONANT, "6": Ending.CONSONANT}  # fmt: skip
_LETTERS = {"l": Ending.RIEUL, "r": Ending.RIEUL, "m": Ending.CONSONANT, "n": Ending.CONSONANT}
_SYMBOLS = {"%": Ending.VOWEL, "℃": Ending.VOWEL, "°": Ending.VOWEL}  # 퍼센트, 도
_HANGUL_FIRST, _HANGUL_LAST, _FINALS, _FINAL_RIEUL = 0xAC00, 0xD7A3, 28, 8


def with_particle(word: str, pair: str) -> str:
    """`word` followed by the right form of `pair`; both forms, `은(는)`, where we cannot know."""
    after_consonant, after_vowel = PARTICLES[PAIR_OF[pair]]
    end = ending(word)
    if end is Ending.UNKNOWN:
        return f"{word}{after_consonant}({after_vowel})"
    takes_vowel_form = end is Ending.VOWEL or (end is Ending.RIEUL and after_vowel == "로")
    return word + (after_vowel if takes_vowel_form else after_consonant)


def ending(word: str) -> Ending:
    """How `word` ends when read aloud in Korean; closing brackets and quotes are not read."""
    word = re.sub(r"[\s\"'’”`)\]}>.,!?…]+$", "", word)
    if not word:
        return Ending.UNKNOWN
    last = word[-1]
    if _HANGUL_FIRST <= ord(last) <= _HANGUL_LAST:
        final = (ord(last) - _HANGUL_FIRST) % _FINALS
        return Ending.RIEUL if final == _FINAL_RIEUL else Ending(final > 0)
    if last in _SYMBOLS:
        return _SYMBOLS[last]
    if last in _DIGITS:
        return _number(word)
    if last.isascii() and last.isalpha():
        return _latin(word)
    return Ending.UNKNOWN


def _number(word: str) -> Ending:
    """십, 백, 천, 만, 억 end in consonants, but 조 (twelve zeros) does not."""
    whole = re.search(r"(?<![.\d])\d+$", word.replace(",", ""))
    if whole and re.fullmatch(r"[1-9]\d*?0{12,15}", whole.group()):
        return Ending.VOWEL
    return _DIGITS[word[-1]]


def _latin(word: str) -> Ending:
    """Letters are read one by one in a lone or capital word (`R` 알), else as loan words (`min` 민)."""
    tail = re.search(r"[A-Za-z]+$", word)
    assert tail is not None  # the caller has seen a letter at the end
    text = tail.group()
    if len(text) == 1 or text.isupper():
        return _LETTERS.get(text[-1].lower(), Ending.VOWEL)
    text = text.lower()
    sound = text[:-1] if re.search(r"[aeiou][mnl]e$|[bdgptk]le$", text) else text  # 타임, 테이블
    if sound.endswith("l"):
        return Ending.RIEUL
    if re.search(r"(?:[mn]|ng)$", sound) or re.search(r"(?<![aeiou])[aeiou](?:p|ck)$", sound):  # 스텝, 블록
        return Ending.CONSONANT
    return Ending.VOWEL
