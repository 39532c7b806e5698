"""One suite over every engine: what a worker relies on, whichever engine the settings name."""

import io
import math
import subprocess
import sys
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from config import Settings
from engines import SAMPLE_RATE, Engine, Model, open_engine
from engines.catalog import DEMO_DIR
from engines.fake import encode_script
from engines.whisper import WhisperLoader
from errors import EngineError, ModelUnavailable, OutOfMemory
from jobs.fallback import Fallback
from model_pool import ModelPool
from tests.engine_server import engine_server
from transcript import DecodeOptions, Segment

Audio = NDArray[np.float32]
ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "demo" / "samples"
OPTIONS = DecodeOptions(language="en", temperature=0.0, beam_size=1)
FALLING_BACK = replace(OPTIONS, temperature=None)


@dataclass(frozen=True, slots=True)
class Case:
    engine: Engine
    model: Model
    windows: list[Audio]  # the first holds words
    silence: Audio


def from_wav(data: bytes) -> Audio:
    with wave.open(io.BytesIO(data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / np.float32(32768)


def decoded(name: str) -> Audio:
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    with av.open(str(SAMPLES / name)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    data = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    return data.astype(np.float32) / np.float32(32768)


def cut(audio: Audio, *lengths_s: float) -> list[Audio]:
    """Windows of these lengths, one after the other."""
    ends = np.cumsum([int(length * SAMPLE_RATE) for length in lengths_s])
    return [part for part in np.split(audio, ends) if len(part)]


@cache
def fake_case() -> Case:
    engine = open_engine(Settings(engine="fake"))
    windows = cut(from_wav(encode_script({"text": "hello"}, 70)), 30, 12.5, 20)
    return Case(engine, engine.load("base", "default"), windows, np.zeros(SAMPLE_RATE, np.float32))


@cache
def whisper_case() -> Case:
    if not (DEMO_DIR / "model.bin").exists():
        pytest.skip("demo/model is not there")
    engine = open_engine(Settings(device="cpu", cpu_threads=1))
    minute = decoded("english-minute.webm")
    windows = [decoded("english.wav"), *cut(minute[: 40 * SAMPLE_RATE], 3.3, 30), decoded("german.mp3")]
    return Case(engine, engine.load("demo", "default"), windows, np.zeros(5 * SAMPLE_RATE, np.float32))


@pytest.fixture(scope="module")
def served() -> Iterator[Case]:
    """The same windows as faster-whisper gets in this process, through an engine server."""
    with engine_server() as path:
        engine = open_engine(Settings(), [path])
        yield replace(whisper_case(), engine=engine, model=engine.load("demo", "default"))


@pytest.fixture(scope="module", params=["fake", "faster-whisper", "served"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "served":
        found: Case = request.getfixturevalue("served")
        return found
    return fake_case() if request.param == "fake" else whisper_case()


@pytest.fixture(scope="module")
def whisper() -> Case:
    return whisper_case()


def text(segments: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in segments)


def assert_orderly(segments: tuple[Segment, ...], window: Audio) -> None:
    length_s = len(window) / SAMPLE_RATE
    for segment in segments:
        assert 0 <= segment.start < segment.end <= length_s + 0.001
        assert segment.text.strip()
        assert all(map(math.isfinite, (segment.avg_logprob, segment.no_speech_prob, segment.compression_ratio)))
        for word in segment.words or ():
            assert 0 <= word.start <= word.end <= length_s + 0.001
            assert type(word.start) is type(word.probability) is float
    assert all(one.start <= other.start for one, other in pairwise(segments))


def test_an_engine_names_model_and_type_the_same_way_twice(case: Case) -> None:
    once = case.engine.resolve("base", "default")
    assert case.engine.resolve(*once) == once
    assert "default" not in once


def test_an_engine_says_what_it_needs_and_what_is_free(case: Case) -> None:
    assert 0 < case.engine.estimate_bytes("base", "default") <= case.engine.free_bytes()
    assert case.engine.default_batch() >= 1


def test_a_model_says_what_it_is_and_what_it_takes(case: Case) -> None:
    assert (case.model.size, case.model.compute_type) == case.engine.resolve(case.model.size, "default")
    assert case.model.memory_bytes > 0


def test_each_window_gives_orderly_segments_inside_it(case: Case) -> None:
    for options in (OPTIONS, replace(OPTIONS, word_timestamps=True)):
        for window in case.windows:
            (segments,) = case.model.transcribe([window], options)
            assert_orderly(segments, window)
    assert text(case.model.transcribe([case.windows[0]], OPTIONS)[0])


def test_a_batch_gives_the_text_that_its_windows_give_alone(case: Case) -> None:
    windows = [*case.windows, case.silence, case.windows[0][:0], case.windows[0][:100]]
    together = case.model.transcribe(windows, OPTIONS)
    alone = [case.model.transcribe([window], OPTIONS)[0] for window in windows]
    assert list(map(text, together)) == list(map(text, alone))
    for segments, window in zip(together, windows, strict=True):
        assert_orderly(segments, window)


def test_no_windows_give_no_results(case: Case) -> None:
    assert case.model.transcribe([], OPTIONS) == []


def test_windows_without_sound_have_no_text(case: Case) -> None:
    for window in (case.silence, case.silence[:0], case.silence[:10]):
        assert case.model.transcribe([window], OPTIONS) == [()]
        assert case.model.transcribe([window, window], OPTIONS) == [(), ()]


def test_each_language_is_a_code_with_a_probability_and_the_likeliest_comes_first(case: Case) -> None:
    for window in (*case.windows, case.silence[:0]):
        found = case.model.detect_languages(window)
        assert all(2 <= len(code) <= 3 for code in found)
        assert sum(found.values()) == pytest.approx(1, abs=0.01)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_calls_from_several_threads_give_what_they_give_alone(case: Case) -> None:
    alone = [text(case.model.transcribe([window], OPTIONS)[0]) for window in case.windows]
    with ThreadPoolExecutor(4) as threads:
        together = threads.map(lambda window: text(case.model.transcribe([window], OPTIONS)[0]), case.windows)
        assert list(together) == alone


def test_a_pool_lends_an_engines_models_and_a_ladder_runs_on_them(case: Case) -> None:
    pool = ModelPool(case.engine, size=1, max_size=1)
    fallback = Fallback(pool, case.model.size, batch=2)
    found = list(fallback.map(lambda model, windows: model.transcribe(windows, OPTIONS), case.windows))
    assert list(map(text, found)) == [text(case.model.transcribe([one], OPTIONS)[0]) for one in case.windows]
    assert fallback.rung.size == case.model.size
    pool.close()


def held(engine: Engine, pool: ModelPool[Model]) -> set[str]:
    """What stands in /admin/models."""
    return {model["size"] for one in engine.pool_stats(pool.get_stats()) for model in one["loaded"]}


def test_a_model_is_warmed_and_unloaded_and_there_again_when_it_is_needed(case: Case) -> None:
    pool = ModelPool(case.engine, size=2, max_size=2)
    for _ in range(2):
        case.engine.warm(case.model.size)
        with pool.lease(case.model.size) as lease:
            found = lease.model.transcribe(case.windows[:1], OPTIONS)
        assert case.model.size in held(case.engine, pool)
        pool.unload(case.model.size)
        case.engine.unload(case.model.size)
        assert case.model.size not in held(case.engine, pool)
        assert list(map(text, found)) == [text(case.model.transcribe([case.windows[0]], OPTIONS)[0])]
    pool.close()


def test_a_model_may_be_closed_twice(case: Case) -> None:
    model = case.engine.load(case.model.size, "default")
    model.close()
    model.close()


# --- faster-whisper only -------------------------------------------------------------------------------------------


def test_a_batch_gives_the_words_and_the_retries_that_its_windows_give_alone(whisper: Case) -> None:
    windows = whisper.windows[:2]
    for options in (replace(OPTIONS, word_timestamps=True), FALLING_BACK):
        together = whisper.model.transcribe(windows, options)
        for window, found in zip(windows, together, strict=True):
            (alone,) = whisper.model.transcribe([window], options)
            if any(segment.temperature for segment in alone):
                continue  # drawn at random
            assert text(found) == text(alone)
            assert [word.word for one in found for word in one.words or ()] == [
                word.word for one in alone for word in one.words or ()
            ]


def test_a_batch_takes_prompt_and_hotwords_as_one_window_does(whisper: Case) -> None:
    options = replace(OPTIONS, initial_prompt="good morning ", hotwords="yesterday")
    windows = whisper.windows[:3]  # of English, and not cut within a word: otherwise a breath decides what is heard
    together = whisper.model.transcribe(windows, options)
    assert list(map(text, together)) == [text(whisper.model.transcribe([one], options)[0]) for one in windows]


def test_a_closed_model_says_that_it_was_closed(whisper: Case) -> None:
    model = whisper.engine.load("demo", "default")
    model.close()
    with pytest.raises(EngineError, match="closed"):
        model.transcribe(whisper.windows[:1], OPTIONS)


def test_a_language_that_nobody_knows_is_an_engine_error(whisper: Case) -> None:
    with pytest.raises(EngineError):
        whisper.model.transcribe(whisper.windows[:1], replace(OPTIONS, language="xx"))


def test_transcribing_without_a_language_is_a_bug_that_is_told(whisper: Case) -> None:
    with pytest.raises(EngineError, match="This is a bug"):
        whisper.model.transcribe(whisper.windows[:1], replace(OPTIONS, language=None))


def test_a_type_that_the_device_cannot_compute_in_says_what_to_set(whisper: Case) -> None:
    with pytest.raises(ModelUnavailable, match="COMPUTE_TYPE=default"):
        whisper.engine.load("demo", "float16")


def test_a_damaged_file_is_model_unavailable(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.bin"):
        (tmp_path / name).write_bytes(b"{}")
    engine = open_engine(Settings(device="cpu", model_allowed_paths=str(tmp_path)))
    with pytest.raises(EngineError) as caught:
        engine.load(str(tmp_path), "int8")
    assert str(tmp_path) not in str(caught.value)


def test_on_a_cpu_a_model_that_does_not_fit_is_out_of_memory_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(WhisperLoader, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(OutOfMemory, match="1 MB of memory are free"):
        open_engine(Settings(device="cpu")).load("demo", "default")


GIVES_BACK = """
import sys
from pathlib import Path
import numpy as np
from config import Settings
from engines import memory
from engines.whisper import WhisperLoader
from tests.processes import until

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

settings = Settings(device="cpu", cpu_threads=1, cpu_encoder="openvino", model_allowed_paths=sys.argv[1])
engine = WhisperLoader(settings, is_shared=False)
def load(size, compute_type):
    model = engine.load(size, compute_type)
    model._encode(np.zeros((80, 3000), np.float32))
    return model

for _ in range(3):
    load("demo", "default").close()  # what the libraries take for themselves
before = anonymous_bytes()
model = load(sys.argv[1] + "/large", sys.argv[2])
loaded = anonymous_bytes()
model.close()
def is_given_back():  # threads of the libraries free their part a moment after
    memory.trim()
    return anonymous_bytes() - before < 0.15 * (loaded - before)
until(is_given_back, 10)
print(model.memory_bytes, loaded - before)
"""


@pytest.mark.parametrize(("compute_type", "width"), [("float32", 512), ("int8", 1024)])
def test_closing_a_model_gives_its_memory_back_to_the_system(compute_type: str, width: int, tmp_path: Path) -> None:
    """The demo model is too small to see, so a larger one is written with its vocabulary."""
    write_model(tmp_path / "large", width=width)
    done = subprocess.run(
        [sys.executable, "-c", GIVES_BACK, str(tmp_path), compute_type],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    counted, taken = map(int, done.stdout.splitlines()[-1].split())
    assert counted > 100_000_000
    assert 0.9 * counted < taken < 2.5 * counted


def write_model(folder: Path, *, width: int) -> None:
    """A Whisper with one layer each way and weights of noise, in CTranslate2's own format."""
    import json
    import shutil

    from ctranslate2.specs import whisper_spec

    def fill(part: object, rows: int, columns: int) -> None:
        vars(part)["weight"] = np.ones((rows, columns), dtype=np.float32)
        vars(part)["bias"] = np.zeros(rows, dtype=np.float32)

    def norm(part: object) -> None:
        vars(part).update(gamma=np.ones(width, np.float32), beta=np.zeros(width, np.float32))

    def attend(part: object, *shapes: int) -> None:
        norm(vars(part)["layer_norm"])
        for linear, times in zip(vars(part)["linear"], shapes, strict=True):
            fill(linear, times * width, width)

    tokens = json.loads((DEMO_DIR / "vocabulary.json").read_text())
    spec = whisper_spec.WhisperSpec(1, 8, 1, 8)
    encoder, decoder = spec.encoder, spec.decoder
    for conv, inputs in ((encoder.conv1, 80), (encoder.conv2, width)):
        vars(conv).update(weight=np.ones((width, inputs, 3), np.float32), bias=np.zeros(width, np.float32))
    for part, positions in ((encoder, 1500), (decoder, 448)):
        norm(part.layer_norm)
        part.position_encodings.encodings = np.ones((positions, width), np.float32)
        for layer in part.layer:
            attend(layer.self_attention, 3, 1)
            norm(layer.ffn.layer_norm)
            fill(layer.ffn.linear_0, 4 * width, width)
            fill(layer.ffn.linear_1, width, 4 * width)
    attend(decoder.layer[0].attention, 1, 2, 1)
    decoder.embeddings.weight = np.ones((len(tokens), width), np.float32)
    decoder.projection.weight = decoder.embeddings.weight
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = spec.config.suppress_ids_begin = []
    spec.config.lang_ids, spec.config.alignment_heads = [50259], [[0, 0]]
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir()
    spec.save(str(folder))
    shutil.copy(DEMO_DIR / "tokenizer.json", folder)
