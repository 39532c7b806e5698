"""An untrusted recording reaches nothing but itself, and its decoder dies with whoever asked for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from audio.decode import DecodedAudio, open_audio
from config import Settings
from errors import DecoderCrashed
from tests.media import tone, wav_bytes

ROOT = Path(__file__).parents[1]
RATE = 16_000
HEADER = '{"duration": 1, "container": "wav", "codec": "pcm", "sample_rate": 16000, "channels": 1}'


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def our_decoders() -> list[psutil.Process]:
    """Decoders, and what stands in for one: other children serve other tests."""
    programs = {"decoder.py", "instead.py"}
    return [child for child in psutil.Process().children() if programs & {Path(word).name for word in child.cmdline()}]


@pytest.fixture
def long_recording(tmp_path: Path) -> Path:
    """Two minutes: more than a pipe holds, so that its decoder is still at work when something happens to it."""
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(tone(120, rate=RATE), RATE))
    return path


@pytest.fixture
def instead(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """A program to run in place of the decoder."""

    def write(body: str) -> tuple[str, ...]:
        script = tmp_path / "instead.py"
        script.write_text(f"import os, signal, sys, time\nHEADER = {HEADER!r}\n{body}")
        return (sys.executable, "-I", str(script))

    return write


def read_all(audio: DecodedAudio) -> int:
    return sum(len(block) for block in audio.blocks())


def test_the_decoder_can_open_neither_a_file_nor_a_socket_nor_dump_its_core() -> None:
    attempts = """
import resource, socket, sys
sys.path.insert(0, {root!r})
from audio.confine import confine
confine(memory_mb=512, parent=0)
for attempt in (lambda: open("/etc/hostname"), socket.socket, lambda: bytearray(600 << 20)):
    try:
        attempt()
    except (OSError, MemoryError) as error:
        print(type(error).__name__, getattr(error, "errno", None))
print(*(resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)))
"""
    done = subprocess.run(
        (sys.executable, "-c", attempts.format(root=str(ROOT))),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stdout.split("\n")[:4] == ["OSError 24", "OSError 24", "MemoryError None", "0 0"]


def test_the_decoder_has_a_bounded_amount_of_processor_time() -> None:
    spin = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom audio.confine import allow_cpu\nallow_cpu(1)\nwhile 1: 0"
    )
    done = subprocess.run((sys.executable, "-c", spin), check=False, timeout=60)
    assert done.returncode == -signal.SIGXCPU


def test_the_decoder_sees_no_secret_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: Callable[[str], tuple[str, ...]]
) -> None:
    monkeypatch.setenv("API_KEY", "a-secret-that-is-long-enough")
    program = instead("import json\nsys.exit(json.dumps({'code': 'x', 'message': ' '.join(sorted(os.environ))}))")
    with pytest.raises(DecoderCrashed) as error, open_audio(_any(tmp_path), program=program):
        pass
    assert "PATH" in str(error.value)
    assert set(str(error.value).split()) <= {"PATH", "LANG", "LD_LIBRARY_PATH", "LC_CTYPE"}


def test_the_decoder_starts_wherever_we_stand(
    long_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a module of a stranger')")
    monkeypatch.chdir(tmp_path)
    with open_audio(Path(long_recording.name)) as audio:
        assert next(audio.blocks()).any()


def test_recordings_are_decoded_side_by_side_in_threads(long_recording: Path) -> None:
    def decode() -> int:
        with open_audio(long_recording) as audio:
            return read_all(audio)

    with ThreadPoolExecutor(4) as pool:
        assert [job.result() for job in [pool.submit(decode) for _ in range(4)]] == [120 * RATE] * 4
    assert our_decoders() == []


def test_a_consumer_that_stops_early_leaves_no_process_behind(long_recording: Path) -> None:
    pipes = len(list(Path("/proc/self/fd").iterdir()))
    with open_audio(long_recording) as audio:
        next(audio.blocks())
        pid = audio._child.pid
        assert psutil.pid_exists(pid)
    assert is_gone(pid), "killed, and not even a zombie"
    assert len(list(Path("/proc/self/fd").iterdir())) == pipes


def test_a_consumer_that_fails_leaves_no_process_behind(long_recording: Path) -> None:
    def fail(audio: DecodedAudio) -> None:
        next(audio.blocks())
        raise LookupError

    with pytest.raises(LookupError), open_audio(long_recording) as audio:
        fail(audio)
    assert is_gone(audio._child.pid)


def test_whatever_the_decoder_started_goes_with_it(tmp_path: Path, instead: Callable[[str], tuple[str, ...]]) -> None:
    body = "child = os.fork()\nprint(HEADER if child else '', flush=True) if child else None\ntime.sleep(600)"
    with open_audio(_any(tmp_path), program=instead(body)) as audio:
        family = psutil.Process(audio._child.pid).children()
        assert len(family) == 1
    until(lambda: all(is_gone(process.pid) or process.status() == psutil.STATUS_ZOMBIE for process in family))


def test_a_decoder_killed_in_the_middle_is_a_crash_that_can_be_retried(long_recording: Path) -> None:
    with open_audio(long_recording) as audio:
        blocks = audio.blocks()
        next(blocks)
        os.kill(audio._child.pid, signal.SIGKILL)
        with pytest.raises(DecoderCrashed, match="was killed"):
            list(blocks)
    assert audio._child.pid
    assert is_gone(audio._child.pid)
    assert DecoderCrashed.retryable


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("print(HEADER, flush=True); os.kill(os.getpid(), signal.SIGXCPU)", "processor time"),
        ("print(HEADER); sys.exit(3)", "status 3"),
        ("sys.exit(0)", "without a word"),
        ("print('nonsense')", "did not say"),
        ("print('x' * 100000)", "did not say"),
        ("""print('{"unexpected": 1}')""", "did not say"),
        ("raise OSError('disk')", "status 1"),
    ],
)
def test_every_death_of_a_decoder_is_told_apart(
    tmp_path: Path, instead: Callable[[str], tuple[str, ...]], body: str, message: str
) -> None:
    with pytest.raises(DecoderCrashed, match=message), open_audio(_any(tmp_path), program=instead(body)) as audio:
        read_all(audio)


@pytest.mark.parametrize("body", ["pass", "print(HEADER, flush=True)", "os.close(1)", "os.close(1); os.close(2)"])
def test_a_decoder_that_stalls_is_killed(tmp_path: Path, instead: Callable[[str], tuple[str, ...]], body: str) -> None:
    program = instead(f"{body}\ntime.sleep(600)")
    settings = Settings(decode_stall_seconds=0.5)
    started = time.monotonic()
    with (
        pytest.raises(DecoderCrashed, match=r"nothing for 0\.5 s"),
        open_audio(_any(tmp_path), settings=settings, program=program) as audio,
    ):
        read_all(audio)
    assert time.monotonic() - started < 30
    assert our_decoders() == []


def test_a_stopped_decoder_is_killed_too(long_recording: Path) -> None:
    with open_audio(long_recording) as audio:
        blocks = audio.blocks()
        next(blocks)
        audio._child._stall_s = 0.2  # only now: to start may take longer on a busy machine
        os.kill(audio._child.pid, signal.SIGSTOP)
        with pytest.raises(DecoderCrashed, match="nothing for"):
            list(blocks)
    assert is_gone(audio._child.pid)


def test_a_decoder_that_shows_it_is_working_has_not_stalled(
    tmp_path: Path, instead: Callable[[str], tuple[str, ...]]
) -> None:
    """While it skips to a late start it writes no sound, only a sign a minute."""
    body = (
        "print(HEADER, flush=True)\nfor _ in range(20): time.sleep(0.1); os.write(2, b'\\n')\nos.write(1, bytes(32000))"
    )
    with open_audio(_any(tmp_path), program=instead(body)) as audio:
        audio._child._stall_s = 1
        assert read_all(audio) == RATE


def test_a_flood_on_stderr_neither_blocks_nor_fills_memory(
    tmp_path: Path, instead: Callable[[str], tuple[str, ...]]
) -> None:
    program = instead(
        "print(HEADER, flush=True)\nfor _ in range(500): os.write(2, bytes(10000))\nos.write(1, bytes(64))"
    )
    with open_audio(_any(tmp_path), program=program) as audio:
        assert read_all(audio) == 32
        assert len(audio._child.complaint) <= 4096


def test_a_program_that_is_not_there_is_a_crash(tmp_path: Path) -> None:
    with pytest.raises(DecoderCrashed, match="could not be started"), open_audio(_any(tmp_path), program=("/no/such",)):
        pass


def test_a_decoder_dies_with_its_parent_even_while_it_is_stopped(long_recording: Path) -> None:
    body = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from audio.decode import open_audio
with open_audio(Path({str(long_recording)!r})) as audio:
    print(audio._child.pid, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen((sys.executable, "-c", body), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        decoder = int(parent.stdout.readline())
        os.kill(decoder, signal.SIGSTOP)
        parent.kill()
        until(lambda: is_gone(decoder) or psutil.Process(decoder).status() == psutil.STATUS_ZOMBIE)


def test_a_decoder_whose_parent_is_already_gone_does_not_begin(long_recording: Path) -> None:
    """What `--parent` is for: the parent may die before the kernel was asked to tell us."""
    command = (sys.executable, "-I", str(ROOT / "audio" / "decoder.py"), "--parent", "1")
    with long_recording.open("rb") as media:
        done = subprocess.run(command, stdin=media, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_the_real_decoder_shows_that_it_works_while_it_skips(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(np.zeros((1, 200 * 8000), np.int16), 8000))
    command = (sys.executable, "-I", str(ROOT / "audio" / "decoder.py"), "--start", "190")
    with path.open("rb") as media:
        done = subprocess.run(command, stdin=media, capture_output=True, check=True, timeout=30)
    assert done.stderr == b"\n\n\n", "one sign a minute"
    assert len(done.stdout.partition(b"\n")[2]) == 10 * RATE * 2


def _any(folder: Path) -> Path:
    path = folder / "any"
    path.write_bytes(b"anything")
    return path
