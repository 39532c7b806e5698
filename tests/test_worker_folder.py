"""A worker keeps sockets and counters in memory: nothing of it may stay there for ever."""

import os
from pathlib import Path

import pytest

import worker


def test_the_folder_of_a_killed_worker_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "memory_folder", lambda: str(tmp_path))
    killed, new = tmp_path / "whisper-queue-worker-killed", tmp_path / "whisper-queue-worker-new"
    for folder in (killed, new):
        folder.mkdir()
        (folder / "lock").touch()
        (folder / "engine-0").touch()
    os.utime(killed / "lock", (0, 0))
    with worker._own_folder() as living:
        os.utime(Path(living) / "lock", (0, 0))
        with worker._own_folder() as other:
            assert other != living
            assert Path(living).is_dir()
            assert not killed.exists()
            assert new.is_dir(), "its maker may not hold the lock yet"
        assert not Path(other).exists()
    assert not Path(living).exists()
