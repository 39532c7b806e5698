"""The fake engine does what the recording says, and survives nothing that it should not."""

import io
import json
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import SAMPLE_RATE
from engines.fake import FakeEngine, decode_script, encode_script
from errors import EngineBroken, EngineError, OutOfMemory
from transcript import DecodeOptions

Audio = NDArray[np.float32]
OPTIONS = DecodeOptions(language="en")
ROOT = Path(__file__).parents[1]


def samples(recording: bytes) -> Audio:
    with wave.open(io.BytesIO(recording)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        data = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return data.astype(np.float32) / np.float32(32768)


def transcribe(script: dict[str, Any], *, size: str = "base", batch: int = 1) -> str:
    window = samples(encode_script(script))
    model = FakeEngine().load(size, "default")
    results = model.transcribe([window] * batch, OPTIONS)
    assert len(results) == batch
    return "".join(segment.text for segment in results[0])


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=60) | st.integers() | st.booleans(), max_size=8))
def test_a_script_survives_the_recording(script: dict[str, Any]) -> None:
    assert decode_script(samples(encode_script(script))) == (script, 0.0)


@settings(deadline=None)
@given(st.integers(0, 5 * SAMPLE_RATE), st.integers(-100, 100), st.integers(0, 2**32 - 1))
def test_a_script_is_found_wherever_the_window_was_cut_and_whatever_noise_was_added(
    start: int, offset: int, seed: int
) -> None:
    recording = samples(encode_script({"text": "hello"}, 8))
    noise = np.random.default_rng(seed).integers(-20, 21, len(recording)) + offset
    noisy = (recording + noise / 32768).astype(np.float32)
    found = decode_script(noisy[start:])
    assert found is not None
    script, start_s = found
    assert script == {"text": "hello"}
    assert start_s == pytest.approx(start / SAMPLE_RATE, abs=1e-9)


def test_audio_without_a_script_has_no_text() -> None:
    for window in (np.zeros(SAMPLE_RATE, np.float32), np.zeros(0, np.float32), samples(encode_script({}))):
        assert FakeEngine().load("base", "int8").transcribe([window], OPTIONS) == [()]


def test_later_windows_repeat_the_text_with_the_second_they_start_at() -> None:
    recording = samples(encode_script({"text": "hello"}, 70))
    windows = [recording[start : start + 30 * SAMPLE_RATE] for start in range(0, len(recording), 30 * SAMPLE_RATE)]
    found = FakeEngine().load("base", "int8").transcribe(windows, OPTIONS)
    assert [segment.text for (segment,) in found] == [" hello", " hello 30", " hello 60"]
    assert [(segment.start, segment.end) for (segment,) in found] == [(0.0, 30.0), (0.0, 30.0), (0.0, 10.0)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("oom", OutOfMemory),
        ("engine_error", EngineError),
        ("engine_broken", EngineBroken),
        ("memory_error", MemoryError),
        ("value_error", ValueError),
    ],
)
def test_it_raises_what_the_script_names(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        transcribe({"raise": kind})
    assert type(caught.value) is error


def test_a_fault_acts_in_the_window_that_holds_its_second() -> None:
    recording = samples(encode_script({"raise": "oom", "at": 40}, 60))
    model = FakeEngine().load("base", "int8")
    model.transcribe([recording[: 30 * SAMPLE_RATE]], OPTIONS)
    with pytest.raises(OutOfMemory):
        model.transcribe([recording[30 * SAMPLE_RATE :]], OPTIONS)


def test_a_fault_may_act_in_every_window() -> None:
    recording = samples(encode_script({"raise": "oom", "every": True}, 60))
    with pytest.raises(OutOfMemory):
        FakeEngine().load("base", "int8").transcribe([recording[30 * SAMPLE_RATE :]], OPTIONS)


def test_a_fault_may_be_meant_for_some_models_or_large_batches_only() -> None:
    script = {"text": "done", "raise": "oom", "only": ["medium"], "batch_above": 1}
    assert transcribe(script, size="small", batch=2) == " done"
    assert transcribe(script, size="medium", batch=1) == " done"
    with pytest.raises(OutOfMemory):
        transcribe(script, size="medium", batch=2)


def test_a_fault_with_times_stops_after_so_many_attempts(tmp_path: Path) -> None:
    script = {"text": "at last", "raise": "engine_error", "times": 2, "marker": str(tmp_path / "marker")}
    for _ in range(2):
        with pytest.raises(EngineError):
            transcribe(script)
    assert transcribe(script) == " at last"


def test_sleep_and_allocate_take_what_they_say() -> None:
    started = time.monotonic()
    assert transcribe({"text": "late", "sleep": 0.1, "allocate_mb": 8}) == " late"
    assert time.monotonic() - started >= 0.1


def test_memory_that_is_not_there_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory):
        transcribe({"allocate_mb": 2**40})


def test_a_slow_load_is_named_in_the_size() -> None:
    started = time.monotonic()
    FakeEngine().load("slow/0.05", "int8")
    assert time.monotonic() - started >= 0.05


CHILD = """
import json, signal, sys, threading, time
from tests.test_engine_fake import transcribe
signal.signal(signal.SIGALRM, lambda *args: None)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
ticks, over = 0, threading.Event()
def tick():
    global ticks
    while not over.wait(0.005):
        ticks += 1
thread = threading.Thread(target=tick)
thread.start()
while not ticks:
    time.sleep(0.001)
before, started = ticks, time.monotonic()
transcribe(json.loads(sys.argv[1]))
seconds, during = time.monotonic() - started, ticks - before
signal.setitimer(signal.ITIMER_REAL, 0)
over.set()
thread.join()
print(json.dumps([seconds, during]))
"""


def run_child(script: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, json.dumps(script)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_native_hang_lets_other_threads_run_and_ignores_signals() -> None:
    seconds, ticks = json.loads(run_child({"native_hang": 0.6}).stdout)
    assert seconds >= 0.6
    assert ticks > 3


def test_a_hang_that_holds_pythons_lock_stops_every_thread() -> None:
    seconds, ticks = json.loads(run_child({"gil_hang": 0.6}).stdout)
    assert seconds >= 0.6
    assert ticks <= 2


def test_a_segfault_and_an_exit_end_the_process() -> None:
    assert run_child({"segfault": True}).returncode == -11
    assert run_child({"exit": 7}).returncode == 7
