"""The usual small service: FastAPI, one model, one lock around a whole transcription. What ours is measured against.

`python -m bench.peer PORT MODEL FOLDER`; MODEL "-" loads none (for uploads alone).
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile

OPTIONS: dict[str, Any] = {
    "language": "en",
    "beam_size": 1,
    "temperature": 0.0,
    "vad_filter": True,
    "condition_on_previous_text": False,  # as ours; with earlier text in the prompt the bench's models end at once
}


def build(model: str, folder: Path) -> FastAPI:
    app, lock = FastAPI(), Lock()
    whisper = _load(model)

    @app.post("/asr")
    def transcribe(file: UploadFile) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile(dir=folder) as copy:
            shutil.copyfileobj(file.file, copy)
            copy.flush()
            with lock:
                segments, info = whisper.transcribe(copy.name, **OPTIONS)
                found = [{"start": one.start, "end": one.end, "text": one.text} for one in segments]
        return {"text": "".join(one["text"] for one in found), "segments": found, "duration": info.duration}

    @app.post("/upload")
    def upload(file: UploadFile) -> dict[str, Any]:
        """A copy that is safe on disk, and its hash: what a service that promises not to lose it must do."""
        with tempfile.NamedTemporaryFile(dir=folder) as copy:
            shutil.copyfileobj(file.file, copy)
            copy.flush()
            os.fsync(copy.fileno())
            with Path(copy.name).open("rb") as again:
                return {"sha256": hashlib.file_digest(again, "sha256").hexdigest()}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _load(model: str) -> Any:
    if model == "-":
        return None
    from faster_whisper import WhisperModel

    return WhisperModel(model, device="cpu", compute_type="int8")


def main() -> None:
    port, model, folder = sys.argv[1:]
    uvicorn.run(build(model, Path(folder)), port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
