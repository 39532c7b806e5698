"""The encoder on OpenVINO: CTranslate2's numbers, and never in anybody's way."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.weights import Shape, make
from config import Settings
from engines import Model, memory, open_engine
from engines import encoder as encoders
from engines.catalog import DEMO_DIR
from engines.encoder import Encoder, open_encoder
from engines.model_file import weights, write_int8
from engines.whisper import WhisperLoader
from tests.test_engine_conformance import OPTIONS, ROOT, decoded, text, write_model

MODEL = DEMO_DIR / "model.bin"
WANTED = Settings(device="cpu", cpu_encoder="openvino")
CTRANSLATE2 = Settings(device="cpu", cpu_encoder="ctranslate2")
LANGUAGES = {"english.wav": "en", "british.m4a": "en", "german.mp3": "de", "french.ogg": "fr", "spanish.webm": "es"}
UNSEEN_S = 0.2  # a subtitle that is so much early or late looks in time; one step of Whisper's time is 0.02
Floats = NDArray[np.float32]


def mel(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((80, 3000), np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(MODEL, lanes=2, threads=1)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of float16 with twelve layers, some of whose weights are aliases of others."""
    return make(Shape(width=64, layers=12, heads=2), tmp_path_factory.mktemp("float16"), length=5)


def by_ctranslate2(folder: Path, one: Floats) -> Floats:
    import ctranslate2

    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="int8", intra_threads=1)
    return np.asarray(model.encode(ctranslate2.StorageView.from_array(one[None])))


def difference(one: Floats, other: Floats) -> float:
    """As a share of what they are."""
    assert one.shape == other.shape
    return float(np.abs(one - other).mean() / np.abs(other).mean())


def test_its_numbers_are_those_of_ctranslate2_but_for_rounding(encoder: Encoder, floats: Path) -> None:
    assert difference(encoder.encode(mel()), by_ctranslate2(DEMO_DIR, mel())) < 0.01
    other = Encoder(floats / "model.bin", lanes=1, threads=1)
    assert difference(other.encode(mel()), by_ctranslate2(floats, mel())) < 0.01


def test_a_float_model_and_its_copy_in_8_bits_give_the_same_numbers(floats: Path, tmp_path: Path) -> None:
    write_int8(floats / "model.bin", tmp_path / "model.bin")
    one, other = (Encoder(folder / "model.bin", lanes=1, threads=1).encode(mel()) for folder in (floats, tmp_path))
    assert np.array_equal(one, other)


def test_silence_is_encoded_and_no_division_by_zero_comes_out(encoder: Encoder) -> None:
    assert np.isfinite(encoder.encode(np.zeros((80, 3000), np.float32))).all()


def demo(settings: Settings) -> Model:
    return open_engine(settings).load("demo", "default")


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_text_is_the_one_that_ctranslate2_alone_hears(name: str) -> None:
    options = replace(OPTIONS, language=LANGUAGES[name], word_timestamps=True)
    ((ours,), (theirs,)) = (demo(one).transcribe([decoded(name)], options) for one in (WANTED, CTRANSLATE2))
    assert text(ours) == text(theirs) != ""
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.start, mine.end) == pytest.approx((other.start, other.end), abs=UNSEEN_S)


def test_many_windows_at_once_while_memory_is_given_back_come_out_as_they_do_alone(encoder: Encoder) -> None:
    alone = [encoder.encode(mel(seed)) for seed in range(4)]
    end = time.monotonic() + 3

    def work(seed: int) -> int:
        rounds = 0
        while time.monotonic() < end:
            assert np.array_equal(encoder.encode(mel(seed)), alone[seed])
            rounds += 1
        return rounds

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, seed) for seed in range(4)]
        while not all(one.done() for one in working):
            encoders.rest()
        assert min(one.result() for one in working) > 1


def loaded(settings: Settings) -> Any:
    return WhisperLoader(settings, is_shared=False).load("demo", "int8")


@pytest.mark.parametrize(("flags", "found"), [(encoders._USEFUL, True), ({"avx2"}, False), (set(), False)])
def test_by_default_it_is_used_on_processors_where_it_was_measured(
    flags: set[str], found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.encoder.cpu_flags", lambda: frozenset(flags))
    assert (open_encoder(MODEL, Settings(), lanes=1, threads=1) is not None) == found


def test_other_types_and_short_windows_are_left_to_ctranslate2() -> None:
    assert WhisperLoader(WANTED, is_shared=False).load("demo", "float32")._encoder is None
    model = loaded(WANTED)
    assert model._encode(mel()[:, :500].copy()).shape == (1, 250, 96)


def assert_ctranslate2_does_it(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    model = loaded(settings)
    assert model._encoder is None
    assert "engine.encoder_refused" in "".join(capfd.readouterr())
    assert model._encode(mel()).shape == (1, 1500, 96)


def test_without_openvino_ctranslate2_does_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "engines.encoder_graph", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert_ctranslate2_does_it(WANTED, capfd)


def test_where_memory_is_short_ctranslate2_does_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoders, "_needed_bytes", lambda *_: 70 * memory.MB)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "cpu_free_bytes", lambda: 120 * memory.MB)
        assert_ctranslate2_does_it(WANTED, capfd)
    assert_ctranslate2_does_it(WANTED.model_copy(update={"model_pool_memory_mb": 120}), capfd)


def test_a_model_whose_weights_are_of_another_kind_is_left_to_ctranslate2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoders, "weights", lambda *_: {})
    assert_ctranslate2_does_it(WANTED, capfd)


def test_what_would_report_to_the_maker_is_not_even_loaded() -> None:
    code = (
        "import sys; from pathlib import Path; from engines.encoder import Encoder\n"
        "Encoder(Path('demo/model/model.bin'), lanes=1, threads=1)\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)


def test_weights_that_share_their_bytes_share_their_scale(tmp_path: Path) -> None:
    write_model(tmp_path / "floats", width=64)  # all its matrices of a shape are one in the file
    write_int8(tmp_path / "floats" / "model.bin", tmp_path / "model.bin")
    found = weights(tmp_path / "model.bin", "encoder/")
    matrices = [name for name, values in found.items() if values.dtype == np.int8]
    assert len(matrices) == 4
    assert all(np.all(found[name] / found[f"{name}_scale"][:, None] == 1) for name in matrices)


def test_weights_are_found_by_all_their_names(floats: Path) -> None:
    found = weights(floats / "model.bin", "encoder/")
    assert {f"layer_{number}/ffn/layer_norm/gamma" for number in range(12)} <= found.keys()
    assert found["layer_11/ffn/layer_norm/gamma"].dtype == np.float32
    assert not [name for name in found if name.startswith(("encoder/", "decoder/"))]
