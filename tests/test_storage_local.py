"""Recordings as local files: durable, private, and nothing left of a write that failed."""

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from config import Settings
from errors import StorageAway, StorageError, StorageFull
from storage import Storage, new_key, open_storage
from storage.keys import MARKER
from storage.local import translated_errors

ROOT = Path(__file__).parents[1]
CONTENT = os.urandom(100_000)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(Settings(data_dir=tmp_path))
    storage.mark()
    return storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audio"


def store(storage: Storage, content: bytes = CONTENT) -> str:
    key = new_key()
    with storage.create(key) as writer:
        for start in range(0, len(content), 4096):
            writer.write(content[start : start + 4096])
        writer.commit()
    return key


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir() and path.name != MARKER]


def test_only_we_may_read_recordings(storage: Storage, folder: Path) -> None:
    old = os.umask(0)
    try:
        store(storage)
        with storage.create(new_key()) as writer:
            writer.write(CONTENT)
            for path in [folder, *folder.rglob("*")]:
                wanted = 0o700 if path.is_dir() else 0o600
                assert stat.S_IMODE(path.stat().st_mode) == wanted
    finally:
        os.umask(old)


def test_file_and_folders_are_synced_before_a_commit_returns(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", record)
    key = store(storage)
    assert synced[0].endswith(".part"), "first the content, under its temporary name"
    assert synced[1:] == [key[:2], folder.name], "then the rename, then the folder that may be new"


def test_a_commit_that_fails_after_the_rename_leaves_nothing(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("storage.local._sync_folder", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        store(storage)
    assert everything_in(folder) == []


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_after_an_error_of_the_disk_nothing_can_be_committed(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The system tells an fsync that failed to only one caller: the next would succeed."""

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with storage.create(new_key()) as writer:
        writer.write(CONTENT)
        with monkeypatch.context() as broken:
            broken.setattr(f"storage.local.os.{call}", fail)
            with pytest.raises(StorageError, match="Input/output error"):
                writer.write(CONTENT) if call == "write" else writer.commit()
        with pytest.raises(ValueError, match="closed"):
            writer.commit()
    assert everything_in(folder) == []


def test_a_full_disk_is_told_apart_and_no_path_is_told() -> None:
    full = Path("/dev/full")
    with pytest.raises(StorageFull, match="no room") as error, translated_errors():
        full.write_bytes(b"x")
    assert "/dev" not in str(error.value)
    with pytest.raises(StorageFull), translated_errors():
        raise OSError(122, "Disk quota exceeded")


def test_an_error_while_writing_is_a_storage_error_and_leaves_nothing(storage: Storage, folder: Path) -> None:
    """A limit on the size of files stands for a disk that fails half way."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
    try:
        with pytest.raises(StorageError, match="too large") as error:
            store(storage)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(folder) not in str(error.value)
    assert everything_in(folder) == []


def test_free_bytes_are_those_of_the_disk(storage: Storage, folder: Path) -> None:
    assert 0 < storage.free_bytes() < 2**60
    shutil.rmtree(folder)
    with pytest.raises(StorageError):
        storage.free_bytes()


def test_files_are_not_downloaded_but_through_us(storage: Storage) -> None:
    url = storage.presigned_url(store(storage), filename="a.wav", media_type="audio/wav", expires_s=60)
    assert url is None


def test_recordings_older_than_a_moment_are_listed(storage: Storage, folder: Path) -> None:
    old, new = store(storage), store(storage)
    now = datetime.now(UTC)
    _age(folder / old, now - timedelta(days=3))
    assert list(storage.committed_between(datetime.fromtimestamp(0, UTC), now - timedelta(days=1))) == [old]
    assert set(storage.committed_between(datetime.fromtimestamp(0, UTC), now + timedelta(days=1))) == {old, new}


def _age(path: Path, moment: datetime) -> None:
    os.utime(path, (moment.timestamp(), moment.timestamp()))


def test_what_a_killed_writer_left_can_be_discarded(storage: Storage, folder: Path) -> None:
    kept = store(storage)
    body = f"""
import os, sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from storage import new_key
from storage.local import LocalStorage
with LocalStorage(Path({str(folder)!r})).create(new_key()) as writer:
    writer.write(bytes(1000))
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run((sys.executable, "-c", body), check=False).returncode == -signal.SIGKILL
    assert len(everything_in(folder)) == 2
    now = datetime.now(UTC)
    assert list(storage.committed_between(datetime.fromtimestamp(0, UTC), now + timedelta(days=1))) == [kept], (
        "it was never a recording"
    )
    assert storage.discard_unfinished(now - timedelta(days=1)) == 0, "it may still be written"
    assert storage.discard_unfinished(now + timedelta(days=1)) == 1
    assert everything_in(folder) == [folder / kept]


def test_nothing_is_written_below_an_empty_mount_point(tmp_path: Path) -> None:
    """It would be hidden as soon as the volume is mounted."""
    (tmp_path / "audio").mkdir()
    with pytest.raises(StorageAway, match="marker"):
        store(open_storage(Settings(data_dir=tmp_path)))
    assert not any((tmp_path / "audio").iterdir())


def test_opening_a_storage_makes_nothing(tmp_path: Path) -> None:
    storage = open_storage(Settings(data_dir=tmp_path / "not-mounted"))
    with pytest.raises(StorageAway):
        storage.exists(new_key())
    assert not (tmp_path / "not-mounted").exists()


def test_a_file_of_which_nobody_reads_a_piece_is_closed(storage: Storage) -> None:
    key = store(storage)
    mine = psutil.Process()
    before = mine.num_fds()
    pieces = storage.read(key)
    assert mine.num_fds() == before + 1
    del pieces
    assert mine.num_fds() == before
