"""Stock faster-whisper in a process of its own: `python -m bench.accuracy.stock TASKS`, a JSON file of what to hear.

Each answer is a file, written whole as soon as it is there: a run that was ended goes on with the recordings that
remain. Nothing here is scored.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BATCH = 8
WINDOW_S = 30
Json = dict[str, Any]
Transcribe = Callable[[str, str | None], tuple[Iterable[Any], Any]]


def sequential(folder: str, asked: Json) -> Transcribe:
    from faster_whisper import WhisperModel

    whisper = WhisperModel(folder, device="cpu", compute_type=asked["compute_type"], cpu_threads=asked["threads"])
    options = {"vad_filter": asked["vad"], **_both(asked)}

    def transcribe(path: str, language: str | None) -> tuple[Iterable[Any], Any]:
        found: tuple[Iterable[Any], Any] = whisper.transcribe(path, language=language, **options)
        return found

    return transcribe


def batched(folder: str, asked: Json) -> Transcribe:
    from faster_whisper import BatchedInferencePipeline, WhisperModel, decode_audio

    whisper = WhisperModel(folder, device="cpu", compute_type=asked["compute_type"], cpu_threads=asked["threads"])
    pipeline = BatchedInferencePipeline(whisper)

    def transcribe(path: str, language: str | None) -> tuple[Iterable[Any], Any]:
        options: Json = {"batch_size": BATCH, "vad_filter": asked["vad"], **_both(asked)}
        sound = decode_audio(path)
        if not asked["vad"]:  # the pipeline asks for the windows then
            seconds = len(sound) / 16_000
            starts = range(0, max(1, int(seconds)), WINDOW_S)
            options["clip_timestamps"] = [{"start": s, "end": min(s + WINDOW_S, seconds)} for s in starts]
        found: tuple[Iterable[Any], Any] = pipeline.transcribe(sound, language=language, **options)
        return found

    return transcribe


def _both(asked: Json) -> Json:
    return {"beam_size": asked["beam_size"], "word_timestamps": asked["words"]}


KINDS: dict[str, Callable[[str, Json], Transcribe]] = {"sequential": sequential, "batched": batched}


def hear(transcribe: Transcribe, path: str, language: str | None) -> Json:
    begun = time.perf_counter()
    found, info = transcribe(path, language)
    segments = [_segment(segment) for segment in found]
    taken = time.perf_counter() - begun
    return {
        "language": info.language,
        "probability": info.language_probability,
        "text": "".join(segment["text"] for segment in segments).strip(),
        "segments": segments,
        "seconds": round(taken, 3),
    }


def _segment(segment: Any) -> Json:
    words = [{"word": word.word, "start": float(word.start), "end": float(word.end)} for word in segment.words or ()]
    return {"start": float(segment.start), "end": float(segment.end), "text": segment.text, "words": words}


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text())
    transcribe = KINDS[work["kind"]](work["folder"], work["asked"])
    for number, task in enumerate(work["tasks"], start=1):
        answer = hear(transcribe, task["path"], task["language"])
        part = Path(f"{task['out']}.{os.getpid()}")
        part.write_text(json.dumps(answer, ensure_ascii=False))
        part.replace(task["out"])
        print(f"{work['kind']} {number}/{len(work['tasks'])} {Path(task['path']).name}", flush=True)


if __name__ == "__main__":
    main()
