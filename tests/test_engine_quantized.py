"""8-bit copies of float models: the same numbers, and never in anybody's way."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.weights import Shape, make
from config import Settings
from engines import memory, quantized
from engines.model_file import holds_wide_weights, variables
from engines.whisper import WhisperLoader
from tests.processes import until

SMALL = Shape(width=64, layers=1, heads=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of float16, as the hub has them."""
    return make(SMALL, tmp_path_factory.mktemp("float16"), length=5)


@pytest.fixture
def settings(tmp_path: Path, original: Path) -> Settings:
    return Settings(device="cpu", data_dir=tmp_path, model_allowed_paths=str(original), min_free_disk_mb=0)


def said(folder: Path) -> tuple[list[int], float]:
    import ctranslate2

    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="int8", intra_threads=1)
    mel = np.random.default_rng(0).standard_normal((1, 80, 3000), np.float32)
    (found,) = model.generate(
        ctranslate2.StorageView.from_array(mel), [[50258, 50259, 50359]], beam_size=1, return_scores=True
    )
    return found.sequences_ids[0], found.scores[0]


def test_a_copy_says_bit_for_bit_what_the_original_says(original: Path, settings: Settings) -> None:
    quantized.make_copy(original, settings)
    copy = quantized.files_to_load(original, "int8", settings)
    assert copy != original
    assert said(copy) == said(original)
    assert not holds_wide_weights(copy / "model.bin")
    assert (copy / "model.bin").stat().st_size < 0.6 * (original / "model.bin").stat().st_size


def test_a_copy_takes_as_much_memory_as_the_original_says_it_will(original: Path, settings: Settings) -> None:
    quantized.make_copy(original, settings)
    copy = quantized.files_to_load(original, "int8", settings)
    expected = memory.model_bytes(original / "model.bin", "int8")
    assert memory.model_bytes(copy / "model.bin", "int8") == pytest.approx(expected, rel=0.1)


def test_the_first_load_makes_the_copy_that_the_next_one_takes(original: Path, settings: Settings) -> None:
    loader = WhisperLoader(settings, is_shared=False)
    loader.load(str(original), "int8").close()
    until(lambda: quantized.files_to_load(original, "int8", settings) != original, within_s=20)
    again = loader.load(str(original), "int8")
    assert again.facts()["folder"] == str(original)  # tokenizer and all are still the original's
    again.close()


def test_a_copy_of_a_changed_original_is_not_used(original: Path, settings: Settings, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for file in original.iterdir():
        (mine / file.name).write_bytes(file.read_bytes())
    quantized.make_copy(mine, settings)
    assert not quantized.needs_copy(mine, "int8", settings)
    os.utime(mine / "model.bin", (0, 0))
    assert quantized.files_to_load(mine, "int8", settings) == mine
    assert quantized.needs_copy(mine, "int8", settings)


def test_a_writer_that_was_killed_leaves_nothing_that_would_be_loaded(original: Path, settings: Settings) -> None:
    quantized.make_copy(original, settings)
    copy = quantized.files_to_load(original, "int8", settings)
    (copy / "of").unlink()  # written last
    (copy / "model.bin").write_bytes(b"half")
    assert quantized.files_to_load(original, "int8", settings) == original
    quantized.make_copy(original, settings)
    assert said(quantized.files_to_load(original, "int8", settings)) == said(original)


@pytest.mark.parametrize("compute_type", ["float32", "float16", "int16"])
def test_other_types_take_the_original(original: Path, settings: Settings, compute_type: str) -> None:
    quantized.make_copy(original, settings)
    assert quantized.files_to_load(original, compute_type, settings) == original
    assert not quantized.needs_copy(original, compute_type, settings)


def test_who_wants_no_copies_gets_none(original: Path, settings: Settings) -> None:
    none = settings.model_copy(update={"model_quantized_copies": False})
    quantized.make_copy(original, settings)
    assert quantized.files_to_load(original, "int8", none) == original
    assert not quantized.needs_copy(original, "int8", none)


def test_a_full_disk_or_a_folder_that_may_not_be_written_costs_the_copy_only(
    original: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.quantized.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    quantized.make_copy(original, settings)
    (tmp_path / "a-file").touch()
    quantized.make_copy(original, settings.model_copy(update={"model_cache_dir": tmp_path / "a-file"}))
    assert quantized.files_to_load(original, "int8", settings) == original


def test_an_8_bit_model_needs_no_copy(settings: Settings) -> None:
    from engines.catalog import DEMO_DIR

    assert not quantized.needs_copy(DEMO_DIR, "int8", settings)


def test_a_file_is_read_variable_by_variable(original: Path) -> None:
    with (original / "model.bin").open("rb") as file:
        found = {one.name: one for one in variables(file)}
    weight = found[b"encoder/conv1/weight"]
    assert (weight.shape, weight.type, weight.stored) == ((64, 80, 3), "float16", 64 * 80 * 3 * 2)
    assert not weight.is_wide_weight
    assert found[b"decoder/embeddings/weight"].is_wide_weight
    assert not replace(weight, shape=(64, 240), type="int8").is_wide_weight
