"""Every hostile or odd recording through the whole service: a transcript or a clear error, and no worker falls."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
import pytest

from stack.running import Stack
from storage.keys import MARKER
from tests.conftest import ROOT
from tests.media import (
    Samples,
    mov_with_huge_table,
    noise,
    wav_bytes,
    write_media,
    write_silence_bomb,
    write_silent_film,
)
from tests.processes import until
from tests.speech import word_error_rate
from tests.traps import (
    PLAYLISTS,
    mkv_that_goes_on_in,
    mov_of_one_chunk,
    mov_with_compressed_header,
    mov_with_sound_elsewhere,
    mp3_of_silence,
    watched,
)

pytestmark = [pytest.mark.xdist_group("stack-media"), pytest.mark.timeout(300)]
SAMPLES = ROOT / "demo" / "samples"
SAID = "one two three four five six seven"
RATE = 16_000
HOURS = 0.1  # that are accepted
FINAL = ("completed", "failed", "cancelled")
SPOKEN, SILENT = "the words", "no words"
Job = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    content: bytes
    outcome: str  # SPOKEN, SILENT or an error's code
    filename: str = "talk.mp3"
    status: int = 202


@cache
def speech(rate: int = RATE) -> Samples:
    """demo/samples/english.wav as (1, n) samples."""
    with av.open(str(SAMPLES / "english.wav")) as container:
        to_rate = av.AudioResampler("s16", "mono", rate)
        frames = [*container.decode(audio=0), None]
        return np.concatenate([piece.to_ndarray() for frame in frames for piece in to_rate.resample(frame)], axis=1)


def spoken_wav(rate: int = RATE, channels: int = 1, claimed_bytes: int | None = None) -> bytes:
    return wav_bytes(np.tile(speech(rate), (channels, 1)), rate, claimed_bytes=claimed_bytes)


def spoken(folder: Path, ending: str) -> bytes:
    return write_media(folder / f"spoken.{ending}", speech(), rate=RATE).read_bytes()


def odd_but_whole(folder: Path) -> Iterator[tuple[str, Case]]:
    for rate in (8_000, 48_000, 192_000):
        yield f"{rate} Hz", Case(spoken_wav(rate), SPOKEN)
    yield "8 channels", Case(spoken_wav(channels=8), SPOKEN)
    yield "a claim of 100 hours", Case(spoken_wav(claimed_bytes=3_000_000_000), SPOKEN)
    yield "linked to a next file", Case(mkv_that_goes_on_in("other.mkv", spoken(folder, "mkv")), SPOKEN)
    yield "rubbish behind it", Case(spoken(folder, "mp3") + noise(0.5).tobytes(), SPOKEN)
    names = (
        "../../../etc/cron.d/job.wav",
        "a\nb\r\n\tc.wav",
        "x" * 300 + ".wav",
        "%03d.wav",
        "-i.wav",
        "http://a/b.wav",
    )
    for name in names:
        yield f"named {name[:30]!r}", Case(spoken_wav(), SPOKEN, filename=name)


def not_a_recording(folder: Path) -> Iterator[tuple[str, Case]]:
    yield "zero bytes", Case(b"", "invalid_option", status=422)
    yield "text under its own name", Case(b"text\n" * 100, "unsupported_media", "notes.txt", status=415)
    yield "text renamed", Case(b"text\n" * 100, "undecodable_audio")
    yield "chance", Case(np.random.default_rng(1).bytes(50_000), "undecodable_audio")
    yield "a film without its index", Case(spoken(folder, "mp4")[:2000], "undecodable_audio", "film.mp4")
    yield "a header and nothing", Case(spoken_wav()[:44], "undecodable_audio", "cut.wav")
    yield "no sound", Case(write_silent_film(folder / "silent.mp4").read_bytes(), "no_audio_stream", "film.mp4")


def bombs(folder: Path) -> Iterator[tuple[str, Case]]:
    opus = write_silence_bomb(folder / "bomb.ogg", 0.2, muxer="ogg", codec="libopus")
    flac = write_silence_bomb(folder / "bomb.mkv", 0.2)
    for name, content in (("opus", opus.read_bytes()), ("flac", flac.read_bytes())):
        yield f"silent {name}", Case(content, "audio_too_long")
    yield "10 hours of mp3", Case(mp3_of_silence(folder, 10), "audio_too_long")
    yield "10 hours from half a second", Case(mov_of_one_chunk(10), "audio_too_long", "bomb.mov")
    yield "minutes of silence", Case(mov_of_one_chunk(0.05), SILENT, "quiet.mov")
    yield "an inflating header", Case(mov_with_compressed_header(50, claimed=2000), "decoder_crashed", "bomb.mov")
    yield "a table that is not there", Case(mov_with_huge_table(60_000_000), "decoder_crashed", "bomb.mov")


def naming_others(folder: Path, targets: tuple[str, ...], bait: Path) -> Iterator[tuple[str, Case]]:
    for (kind, form), target in zip(
        PLAYLISTS.items(), cycle(targets), strict=False
    ):  # the decoder's tests try each pair
        yield kind, Case(form.format(target=target).encode(), "undecodable_audio")
    m3u8 = PLAYLISTS["hls"].format(target=targets[0]).encode()
    yield "a playlist under its own name", Case(m3u8, "unsupported_media", "list.m3u8", status=415)
    yield "sound in another file", Case(mov_with_sound_elsewhere(folder, bait.name), "undecodable_audio", "film.mov")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    limits: dict[str, Any] = {"max_audio_hours": HOURS, "decode_memory_mb": 512, "retry_base_seconds": 0.1}
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, whisper_model_size="demo", lease_seconds=4, **limits) as running:
        yield running


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def workers(stack: Stack) -> list[int]:
    """Every worker and each of its children; decoders are grandchildren."""
    mains = [stack.pid_of(name) for name in ("worker", "worker-retry")]
    return sorted(mains + [child.pid for main in mains for child in psutil.Process(main).children()])


def test_no_recording_takes_a_worker_down_or_reaches_beyond_itself(
    stack: Stack, listening: socket.socket, tmp_path: Path
) -> None:
    bait = tmp_path / "bait" / "other.wav"
    bait.parent.mkdir()
    bait.write_bytes(spoken_wav())
    targets = (f"http://127.0.0.1:{listening.getsockname()[1]}/a.ts", str(bait))
    cases = dict((*odd_but_whole(tmp_path), *not_a_recording(tmp_path), *bombs(tmp_path)))
    cases |= dict(naming_others(tmp_path, targets, bait))
    with httpx.Client(base_url=stack.url, timeout=60) as http, watched(bait.parent) as touched:
        finish(http, accept(http, "warm-up", Case(spoken_wav(), SPOKEN)))
        before = workers(stack)
        jobs = {name: accept(http, name, case) for name, case in cases.items()}
        wrong = {name: said for name, case in cases.items() if (said := told(http, jobs[name], case))}
        assert not wrong, json.dumps(wrong, indent=1)
        assert workers(stack) == before, "a worker or one of its children died"
        assert http.get("/admin/health").json()["status"] == "ok"
    assert touched == []
    with pytest.raises(BlockingIOError):
        listening.accept()
    stored = sorted(
        path.name for path in (stack.data_dir / "audio").rglob("*") if path.is_file() and path.name != MARKER
    )
    assert len(stored) == 1 + sum(case.status == 202 for case in cases.values())
    assert not [path for path in stack.data_dir.rglob("*") if path.suffix in (".wav", ".mov", ".mp3", ".part")]


def accept(http: httpx.Client, name: str, case: Case) -> str:
    """Its job, or the code of the refusal."""
    answer = http.post("/transcribe/", files={"file": (case.filename, case.content)}, data={"beam_size": "1"})
    assert answer.status_code == case.status, f"{name}: {answer.text}"
    return str(answer.json().get("job_id") or answer.json()["code"])


def finish(http: httpx.Client, job_id: str) -> Job:
    def look() -> Job | None:
        job: Job = http.get(f"/transcribe/{job_id}").json()
        return job if job["status"] in FINAL else None

    job = until(look, 120)
    assert job is not None
    return job


def told(http: httpx.Client, job_or_code: str, case: Case) -> str:
    """Empty where the outcome is the one that was expected; otherwise what it was."""
    if case.status != 202:
        return "" if job_or_code == case.outcome else job_or_code
    job = finish(http, job_or_code)
    if job["status"] == "failed":
        found = job["error"]["code"]
        assert job["error"]["message"]
        return "" if found == case.outcome else str(job["error"])
    text = job["result"]["text"]
    expected: dict[str, Callable[[], bool]] = {
        SPOKEN: lambda: word_error_rate(SAID, text) <= 0.3,
        SILENT: lambda: text == "",
    }
    return "" if expected.get(case.outcome, lambda: False)() else f"{job['status']}: {text!r}"
