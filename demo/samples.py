"""Writes `samples/`: small recordings with their true words and times, made by espeak-ng."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from demo.measure import Recording, Studio
from demo.phrases import Phrase
from demo.speech import RATE, Voice

FORMATS = {
    "mp3": ["-c:a", "libmp3lame", "-b:a", "32k"],
    "ogg": ["-c:a", "libvorbis", "-q:a", "0"],
    "m4a": ["-c:a", "aac", "-b:a", "32k"],
    "webm": ["-c:a", "libopus", "-b:a", "12k"],
    "wav": ["-c:a", "pcm_s16le"],
}
ENGLISH_MINUTE = (
    "good morning|this is the first recording|one two three four five six seven|"
    "the weather is nice today|please open the window|"
    "eight nine ten eleven twelve thirteen fourteen|my friend found the old book yesterday|"
    "there are twenty one trees in the garden|the quick brown fox jumps over the lazy dog|"
    "monday january seventeen|the coffee is warm and good|forty two|"
    "the teacher wanted the big red box|fifty five sixty six seventy seven|"
    "please transcribe this recording|what time is it|ten twenty thirty forty fifty|"
    "see you tomorrow|thank you very much|goodbye"
).split("|")
TALKS: dict[str, tuple[str, str, list[str]]] = {
    "english.wav": ("en", "en-us", ["one two three four five six seven"]),
    "british.m4a": ("en", "en", ["hello world", "this is a test", "twenty one twenty two"]),
    "german.mp3": ("de", "de", ["guten morgen", "eins zwei drei vier fünf", "vielen dank"]),
    "french.ogg": ("fr", "fr", ["bonjour le monde", "un deux trois quatre cinq", "au revoir"]),
    "spanish.webm": ("es", "es", ["buenos días", "uno dos tres cuatro cinco", "muchas gracias"]),
    "english-minute.webm": ("en", "en-us", ENGLISH_MINUTE),
}


def write(recording: Recording, file: Path) -> None:
    body = (recording.samples.clip(-1, 1) * 32767).astype(np.int16).tobytes()
    raw = ["-f", "s16le", "-ar", str(RATE), "-ac", "1", "-i", "-"]
    exact = ["-fflags", "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1"]
    options = FORMATS[file.suffix[1:]]
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *raw, *options, *exact, str(file)]
    subprocess.run(command, input=body, check=True)
    file.with_suffix(".txt").write_text("".join(f"{part.text}\n" for part in recording.spoken))


def entry(recording: Recording) -> dict[str, object]:
    return {
        "language": recording.language,
        "duration": round(len(recording.samples) / RATE, 2),
        "phrases": [{"start": round(p.start, 2), "end": round(p.end, 2), "text": p.text} for p in recording.spoken],
    }


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    studio = Studio()
    made: dict[str, object] = {}
    for name, (language, voice, texts) in TALKS.items():
        parts = [(Phrase(language, text, text, text), Voice(voice)) for text in texts]
        pause = 0.8 if len(parts) < 9 else 1.4
        pauses = [0.3] + [pause] * (len(parts) - 1)
        recording = studio.record(parts, pauses, tail=0.5)
        write(recording, folder / name)
        made[name] = entry(recording)
    silence = Recording("en", np.zeros(5 * RATE, np.float32))
    write(silence, folder / "silence.mp3")
    made["silence.mp3"] = entry(silence)
    text = json.dumps(made, indent=1, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "samples")
