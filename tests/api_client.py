"""What the API's tests share: a small recording, and looks behind the scenes."""

import io
import wave
from pathlib import Path
from typing import Any

from sqlalchemy import text

from database import transaction
from storage.keys import MARKER


def wav_of_silence(seconds: float = 0.1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(2 * int(16_000 * seconds)))
    return buffer.getvalue()


WAV = wav_of_silence()


def rows(statement: str) -> list[tuple[Any, ...]]:
    with transaction() as session:
        return [tuple(row) for row in session.execute(text(statement)).all()]


def files_below(folder: Path) -> list[Path]:
    """All but the marker of the storage."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
