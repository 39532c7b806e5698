"""Models are found where they may be, fetched only where that is allowed, and a machine without the hub has one too."""

import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import MODEL_SIZES, Settings
from engines import catalog
from errors import ModelUnavailable
from tests.weights_play import COMMIT, FILES, Asked, hub_of

ROOT = Path(__file__).parents[1]


def settings_for(cache: Path, **values: object) -> Settings:
    return Settings.model_validate({"model_cache_dir": cache, "model_download": False, **values})


def make_model(folder: Path, *, without: str = "") -> Path:
    folder.mkdir(parents=True)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        if name != without:
            (folder / name).write_bytes(b"{}")
    return folder


def make_cached(cache: Path, repository: str, *, without: str = "") -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return make_model(folder / "snapshots" / COMMIT, without=without)


def test_the_table_of_repositories_is_faster_whispers() -> None:
    from faster_whisper.utils import _MODELS

    assert {size: catalog.REPOSITORIES[catalog.canonical(size)] for size in _MODELS} == _MODELS
    assert {*_MODELS, "demo"} == set(MODEL_SIZES)


def test_a_cached_size_is_found_without_a_download(tmp_path: Path) -> None:
    folder = make_cached(tmp_path, "mobiuslabsgmbh/faster-whisper-large-v3-turbo")
    settings = settings_for(tmp_path)
    assert catalog.is_cached("turbo", settings)
    assert catalog.locate("large-v3-turbo", settings) == folder


@pytest.mark.parametrize("missing", ["model.bin", "config.json", "tokenizer.json"])
def test_a_download_that_was_cut_off_is_not_cached(tmp_path: Path, missing: str) -> None:
    make_cached(tmp_path, "Systran/faster-whisper-tiny", without=missing)
    assert not catalog.is_cached("tiny", settings_for(tmp_path))


def test_with_downloads_off_the_message_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"MODEL_DOWNLOAD is off.*python -m engines\.catalog small"):
        catalog.locate("small", settings_for(tmp_path))


def test_a_size_that_nobody_knows_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="enormous"):
        catalog.locate("enormous", settings_for(tmp_path, model_download=True))


def test_a_path_is_taken_only_below_an_allowed_folder(tmp_path: Path) -> None:
    mine = make_model(tmp_path / "allowed" / "mine")
    other = make_model(tmp_path / "secret" / "other")
    settings = settings_for(tmp_path, model_allowed_paths=f"{tmp_path}/nothing:{tmp_path}/allowed")
    assert catalog.locate(str(mine), settings) == mine.resolve()
    for path in (other, mine / ".." / ".." / "secret" / "other", tmp_path / "allowed" / "none"):
        assert not catalog.is_cached(str(path), settings)
        with pytest.raises(ModelUnavailable, match="MODEL_ALLOWED_PATHS") as caught:
            catalog.locate(str(path), settings)
        assert "secret" not in str(caught.value)


def test_a_link_out_of_an_allowed_folder_is_not_followed(tmp_path: Path) -> None:
    make_model(tmp_path / "secret")
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
    settings = settings_for(tmp_path, model_allowed_paths=str(tmp_path / "allowed"))
    assert not catalog.is_cached(str(tmp_path / "allowed" / "link"), settings)


def test_without_allowed_folders_no_path_is_taken(tmp_path: Path) -> None:
    assert not catalog.is_cached(str(make_model(tmp_path / "mine")), settings_for(tmp_path))


# --- the default ---------------------------------------------------------------------------------------------------


def test_the_configured_model_is_used_where_it_is_cached(tmp_path: Path) -> None:
    make_cached(tmp_path, "Systran/faster-whisper-tiny")
    assert catalog.resolve_default(settings_for(tmp_path, whisper_model_size="tiny")) == ("tiny", None)


@pytest.mark.parametrize(
    ("size", "reason"), [("tiny", "MODEL_DOWNLOAD is off"), ("/some/where", "MODEL_ALLOWED_PATHS")]
)
def test_the_bundled_model_is_used_where_the_configured_one_cannot_be(tmp_path: Path, size: str, reason: str) -> None:
    used, warning = catalog.resolve_default(settings_for(tmp_path, whisper_model_size=size))
    assert used == "demo"
    assert warning
    assert reason in warning
    assert "\n" not in warning


@pytest.fixture
def hub() -> Iterator[Asked]:
    with hub_of(FILES | {"README.md": b""}) as server:
        yield server


def run_catalog(*sizes: str, hub_port: int, cache: Path, **values: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads where the hub is when it is imported."""
    told = {"HF_ENDPOINT": f"http://127.0.0.1:{hub_port}", "MODEL_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "engines.catalog", *sizes],
        cwd=ROOT,
        env=os.environ | told | values,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_set_up_fetches_the_default_model_and_prints_its_size(hub: Asked, tmp_path: Path) -> None:
    port = hub.server_port
    done = run_catalog(hub_port=port, cache=tmp_path, WHISPER_MODEL_SIZE="tiny", HF_TOKEN="hf_secret")
    assert (done.returncode, done.stdout) == (0, "tiny\n")
    assert done.stderr == ""
    assert {token for path, token in zip(hub.asked, hub.tokens, strict=True) if "faster-whisper-tiny" in path} == {
        "Bearer hf_secret"
    }
    assert catalog.is_cached("tiny", settings_for(tmp_path)), "the cache has another layout now"
    assert not list(tmp_path.rglob("README.md"))
    hub.asked.clear()
    again = run_catalog(hub_port=port, cache=tmp_path, WHISPER_MODEL_SIZE="tiny")
    assert again.stdout == "tiny\n"
    assert hub.asked == []


def test_a_download_shows_its_progress_on_a_terminal(hub: Asked, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    told = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "MODEL_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "engines.catalog", "tiny"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | told, stderr=theirs) as process:
        assert process.wait(60) == 0
    os.set_blocking(ours, False)
    assert b"Fetching" in os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)


def test_the_engine_of_the_fault_tests_needs_no_model() -> None:
    assert catalog.resolve_default(Settings(engine="fake", whisper_model_size="small")) == ("small", None)


def test_the_set_up_without_a_hub_prints_demo_and_one_line_why(tmp_path: Path) -> None:
    done = run_catalog(hub_port=9, cache=tmp_path, WHISPER_MODEL_SIZE="base", MODEL_SOURCES="hub")
    assert done.stdout == "demo\n"
    assert done.stderr.count("\n") == 1
    assert "hub cannot be reached" in done.stderr


def test_a_model_named_on_the_command_line_that_cannot_be_fetched_is_an_error_in_one_line(tmp_path: Path) -> None:
    done = run_catalog("tiny", hub_port=9, cache=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "Model 'tiny' could not be fetched. The model hub cannot be reached: check the connection.\n"
