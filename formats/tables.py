"""Transcripts for reading and for programs: txt, tsv. A line for each segment; times as they are."""

from collections.abc import Iterable

from formats.cues import Timed, lines_of, whole_ms


def render_txt(segments: Iterable[Timed]) -> str:
    return "".join(f"{' '.join(lines)}\n" for segment in segments if (lines := lines_of(segment)))


def render_tsv(segments: Iterable[Timed]) -> str:
    """Columns as openai/whisper has them, times in ms: for programs, so nothing is cut, merged or left out."""
    rows = ["start\tend\ttext"]
    for segment in segments:
        text = " ".join(part.strip() for part in segment.text.replace("\t", " ").splitlines() if part.strip())
        rows.append(f"{whole_ms(segment.start)}\t{whole_ms(segment.end)}\t{text}")
    return "\n".join(rows) + "\n"
