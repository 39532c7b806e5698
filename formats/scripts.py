"""How languages write: where a sentence or a clause ends, what has no spaces between words, what must not be torn."""
# ruff: noqa: RUF001 marks of all scripts look like each other

import re
from unicodedata import category

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese.
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u31f0-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f"
    "\U00020000-\U0003ffff]"
)
# What no line may begin with (JIS X 4051: closing marks, small kana; vowels of Thai, Lao), and what none may end with.
CLOSING = set("""、。，．！？：；）」』】》〉〕］｝・…‥"'”’»،,.!?:;)]}%""") | set(
    "ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ々ゝゞヽヾะาำๅๆฯະາຳໆ"
)
OPENING = set("（「『【《〈〔［｛([{“‘«เแโใไເແໂໃໄ្")
CLAUSE = re.compile(r"""[,;:،，、；：–—-]["'”’»)\]]*$""")
SENTENCE = re.compile(r"""[.!?…。！？｡؟۔।॥]["'”’»)\]」』）]*$""")
INITIALS = re.compile(r"(?:[^\W\d]\.)+")  # "J.", "U.S."
ABBREVIATIONS = set("mr. mrs. ms. dr. prof. st. sr. jr. vs. bzw. nr. sra. mme.".split())


def is_unspaced(character: str) -> bool:
    return UNSPACED.match(character) is not None


def ends_clause(word: str) -> bool:
    return CLAUSE.search(word) is not None


def ends_sentence(word: str, following: str) -> bool:
    """`following`: the next word, which after an abbreviation often goes on in small letters."""
    if not SENTENCE.search(word) or following[0].islower():
        return False
    return word.lower() not in ABBREVIATIONS and not INITIALS.fullmatch(word)


def clusters(text: str) -> list[str]:
    """What must not be torn: a word of Latin letters, a character with its marks and with the punctuation beside it."""
    found: list[str] = []
    for character in text:
        if found and _sticks(found[-1][-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def _sticks(last: str, character: str) -> bool:
    if character in CLOSING or last in OPENING or category(character).startswith("M"):
        return True
    return not is_unspaced(last) and not is_unspaced(character)
