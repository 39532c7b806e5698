"""How far a transcript is from what was said."""

import re


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """Word edits from one to the other, and the number of words said."""
    expected, got = words(said), words(heard)
    row = list(range(len(got) + 1))
    for number, word in enumerate(expected, start=1):
        before, row[0] = row[0], number
        for at, other in enumerate(got, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != other))
    return row[-1], len(expected)


def word_error_rate(said: str, heard: str) -> float:
    wrong, count = word_errors(said, heard)
    return wrong / max(1, count)
