"""Hours of a quiet recording are decoded, listened to and cut within the memory that minutes take."""

import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

RATE = 16_000
MARGIN_MB = 50  # the heap settles within 20; the shortest of the long ones, held as float32, would be 90
READ = """
import sys
from pathlib import Path
from audio.decode import open_audio
from audio.split import windows
decoder = 0

def peak_mb(pid):  # VmHWM: ru_maxrss begins with the peak of the process that forked this one
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0)

def blocks(audio):
    global decoder
    for block in audio.blocks():
        decoder = max(decoder, peak_mb(audio._child.pid))
        yield block

with open_audio(Path(sys.argv[1])) as audio:
    cut = [window.position_s for window in windows(blocks(audio), vad=sys.argv[2] == "vad")]
print(peak_mb("self"), decoder, len(cut))
"""


def quiet_recording(path: Path, *, minutes: int) -> Path:
    """Faint noise, with a loud second each minute that is no speech."""
    minute = np.random.default_rng(0).integers(-3, 4, 60 * RATE, dtype=np.int16)
    minute[:RATE] *= 1000
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        for _ in range(minutes):
            out.writeframes(minute.tobytes())
    return path


def peaks_mb(path: Path, mode: str) -> tuple[float, float, int]:
    """Of a fresh process and of its decoder; and how many windows were cut."""
    done = subprocess.run(
        (sys.executable, "-c", READ, str(path), mode),
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    own, decoder, count = done.stdout.split()
    return float(own), float(decoder), int(count)


@pytest.mark.parametrize(("mode", "minutes"), [("vad", 25), ("all", 60)])
def test_hours_take_no_more_memory_than_minutes(tmp_path: Path, mode: str, minutes: int) -> None:
    short_own, short_decoder, _ = peaks_mb(quiet_recording(tmp_path / "short.wav", minutes=2), mode)
    long_own, long_decoder, count = peaks_mb(quiet_recording(tmp_path / "long.wav", minutes=minutes), mode)
    assert long_own - short_own < MARGIN_MB
    assert long_decoder - short_decoder < MARGIN_MB
    assert mode == "vad" or count >= minutes * 2, "all of it was read"


def test_the_measure_sees_a_recording_that_is_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = READ.replace("windows(blocks(audio), ", "windows(list(blocks(audio)), ")
    monkeypatch.setitem(globals(), "READ", held)
    short_own, _, _ = peaks_mb(quiet_recording(tmp_path / "short.wav", minutes=2), "all")
    long_own, _, _ = peaks_mb(quiet_recording(tmp_path / "long.wav", minutes=25), "all")
    assert long_own - short_own > MARGIN_MB
