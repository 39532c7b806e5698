"""Bench 3: each stage before and around the model, ours against the stock way of doing it.

`python -m bench.stages`. Threads of BLAS and OpenMP are pinned to one, as in a worker's child.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from audio.ahead import Ahead
from audio.decode import open_audio
from audio.split import Window, windows
from audio.vad import speech_probabilities
from bench.clients import peer, post, service, submit
from bench.measure import Report, Side, compare, head, interleave, pinned_environment, timed, warm
from bench.models import FOLDER, copy_as_int8, model
from bench.queue import NO_VAD, occupied
from bench.queue import SETTINGS as FAKE
from bench.sounds import WINDOW, Samples, speech, write_wav
from config import get_settings, inherited_environment
from engines import open_engine
from tests.engine_server import engine_server

Stage = Callable[[Report, int], None]
SOUND_S = 300


def voice_detection(report: Report, rounds: int) -> None:
    from faster_whisper.vad import get_vad_model

    sound, stock = speech(SOUND_S), get_vad_model()
    padded = np.pad(sound, (0, 512 - len(sound) % 512))
    sides = {"audio/vad.py": timed(lambda: speech_probabilities(sound)), "stock": timed(lambda: stock(padded))}
    found = interleave(warm(sides), rounds=rounds)
    rate = {"work": SOUND_S, "unit": "x real time"}
    report.add(compare("voice detection, 300 s", found, ("audio/vad.py", "stock"), **rate, at_least=3.5))  # type: ignore[arg-type]
    pieces = np.split(sound[: SOUND_S // 30 * WINDOW], SOUND_S // 30)
    sides["in pieces of 30 s"] = timed(lambda: [speech_probabilities(piece) for piece in pieces])
    found = interleave(warm(sides), rounds=rounds)
    report.add(compare("the same, 30 s at a time", found, ("in pieces of 30 s", "stock"), **rate))  # type: ignore[arg-type]


def spectrogram(report: Report, rounds: int) -> None:
    from faster_whisper.feature_extractor import FeatureExtractor

    from engines.mel import extractor

    sound, stock, ours = speech(30), FeatureExtractor(), extractor()
    sides = {
        "engines/mel.py": timed(lambda: [ours(sound) for _ in range(10)]),
        "stock": timed(lambda: [stock(sound) for _ in range(10)]),
    }
    found = interleave(warm(sides), rounds=rounds)
    row = compare("log-mel, 30 s", found, ("engines/mel.py", "stock"), work=300, unit="x real time", at_least=1.5)
    report.add(row)


def loading(report: Report, rounds: int) -> None:
    import ctranslate2

    def load(folder: Path) -> Side:
        return timed(lambda: ctranslate2.models.Whisper(str(folder), compute_type="int8"))

    for size in ("base", "small"):
        folder = model(size)
        sides = {"8-bit copy": load(copy_as_int8(folder)), "float16 file": load(folder)}
        found = interleave(warm(sides), rounds=rounds)
        report.add(compare(f"load {size} as int8", found, ("8-bit copy", "float16 file"), at_least=5))


def decoding(report: Report, rounds: int) -> None:
    from faster_whisper.audio import decode_audio

    with tempfile.TemporaryDirectory() as folder:
        path = write_wav(Path(folder) / "a.wav", 600)
        sides = {
            "audio/decode.py": timed(lambda: consume(ours(path))),
            "stock decode_audio": timed(lambda: decode_audio(str(path))),
            "wave, in process": timed(lambda: plain_wave(path)),
        }
        found = interleave(warm(sides), rounds=rounds)
    for a, b in (
        ("audio/decode.py", "stock decode_audio"),
        ("wave, in process", "stock decode_audio"),
        ("wave, in process", "audio/decode.py"),
    ):
        report.add(compare("decode 10 min of 16 kHz WAV", found, (a, b), work=600, unit="x real time"))


def ours(path: Path) -> Iterator[Samples]:
    with open_audio(path) as audio:
        yield from audio.blocks()


def plain_wave(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        pcm = file.readframes(file.getnframes())
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def consume(items: Iterable[object]) -> None:
    for _ in items:
        pass


def upload(report: Report, rounds: int) -> None:
    """100 MB until it is safe: ours has a job in the database by then, the peer a copy on disk and its hash."""
    with tempfile.TemporaryDirectory() as name, service(**FAKE) as stack, peer() as theirs:
        folder = Path(name)
        path = folder / "large.wav"
        path.write_bytes(os.urandom(1 << 20) * 100)
        with occupied(stack.url, folder, 2):
            sides = {
                "streamed": timed(lambda: submit(stack.url, path, **NO_VAD)),
                "UploadFile + copy": timed(lambda: post(theirs, "/upload", path)),
            }
            found = interleave(warm(sides), rounds=rounds)
    sides_named = ("streamed", "UploadFile + copy")
    report.add(compare("upload 100 MB", found, sides_named, work=100, unit="MB/s", at_least=1.3))


def prefetch(report: Report, rounds: int) -> None:
    """One recording alone: decode, find speech and cut while the engine works, or between its batches."""
    from transcript import DecodeOptions

    options = DecodeOptions(language="en", beam_size=1, temperature=0.0)
    folder = model("tiny")
    with (
        tempfile.TemporaryDirectory() as name,
        engine_server(MODEL_ALLOWED_PATHS=FOLDER, LOG_LEVEL="WARNING") as socket,
    ):
        path = write_wav(Path(name) / "a.wav", 300)
        engine = open_engine(get_settings(), [socket])
        batch, recogniser = engine.default_batch(), engine.load(str(folder), "int8")

        def transcribe(groups: Iterator[list[Window]]) -> None:
            for group in groups:
                recogniser.transcribe([window.audio for window in group if len(window.audio)], options)

        sides = {
            "ahead": timed(lambda: transcribe(groups_ahead(path, batch))),
            "in turn": timed(lambda: transcribe(groups_in_turn(path, batch))),
        }
        found = interleave(warm(sides), rounds=rounds)
    report.add(compare("prelude, one job, tiny, 300 s", found, ("ahead", "in turn"), work=300, unit="x real time"))


def groups_ahead(path: Path, batch: int) -> Iterator[list[Window]]:
    with open_audio(path) as audio:
        stream = windows(audio.blocks(), vad=True)
        with Ahead(stream, room=2 * batch, interrupt=audio.interrupt) as ready:
            while group := ready.take(batch):
                yield group


def groups_in_turn(path: Path, batch: int) -> Iterator[list[Window]]:
    with open_audio(path) as audio:
        stream = windows(audio.blocks(), vad=True)
        while group := list(islice(stream, batch)):
            yield group


STAGES: dict[str, Stage] = {
    "vad": voice_detection,
    "mel": spectrogram,
    "load": loading,
    "decode": decoding,
    "upload": upload,
    "prefetch": prefetch,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.stages", description=__doc__)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", default="stages", help="of the file with the results")
    given = parser.parse_args()
    report = Report(given.name)
    print(head())
    for name in given.stages:
        STAGES[name](report, given.rounds)
    report.write()


def pinned() -> bool:
    """BLAS reads its number of threads when it is loaded: a process that was started otherwise is started again."""
    return inherited_environment().get("OMP_NUM_THREADS") == "1"


if __name__ == "__main__":
    if not pinned():
        again = (sys.executable, "-m", "bench.stages", *sys.argv[1:])
        sys.exit(subprocess.run(again, env=pinned_environment(), check=False).returncode)
    main()
