"""What every storage promises, asked of each: a recording is whole or absent, and a key leads nowhere else."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from config import Settings
from errors import FileMissing, StorageAway, StorageError
from storage import Storage, derived_key, is_key, new_key, open_storage
from storage.keys import MARKER
from storage.s3 import S3Storage
from tests.s3_server import CREDENTIALS, Bucket, s3_server, use_credentials

PART = 5 * 1024**2  # the least that S3 takes
PIECE = 1_000_003  # divides nothing
CONTENT = os.urandom(2 * PART + 3)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # moto says of every upload that it began in 2010


@dataclass(frozen=True)
class Place:
    storage: Storage
    everything: Callable[[], list[str]]  # names of all that lies there, unfinished too
    put_foreign: Callable[[str], object]  # what others keep there
    take_away: Callable[[], object]  # the whole place
    empty_one: Callable[[], Storage]  # another, which nobody has marked


@pytest.fixture(scope="module")
def new_bucket() -> Iterator[Callable[[], Bucket]]:
    with s3_server() as new_bucket:
        yield new_bucket


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "local":
        return local_place(tmp_path)
    use_credentials(monkeypatch, CREDENTIALS)
    return s3_place(request.getfixturevalue("new_bucket")())


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.storage


def local_place(data_dir: Path) -> Place:
    folder = data_dir / "audio"

    def everything() -> list[str]:
        found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        return [name for name in found if name != MARKER]

    def put_foreign(name: str) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")

    def empty_one() -> Storage:
        (data_dir / "elsewhere" / "audio").mkdir(parents=True)
        return open_storage(Settings(data_dir=data_dir / "elsewhere"))

    storage = open_storage(Settings(data_dir=data_dir))
    storage.mark()
    return Place(storage, everything, put_foreign, lambda: shutil.rmtree(folder), empty_one)


def s3_place(bucket: Bucket) -> Place:
    def everything() -> list[str]:
        return [key.removeprefix("audio/") for key in bucket.objects() + bucket.uploads()]

    def put_foreign(name: str) -> None:
        bucket.client.put_object(Bucket=bucket.name, Key=f"audio/{name}", Body=b"x")

    def empty_one() -> Storage:
        return S3Storage(bucket.name, "elsewhere", endpoint_url=bucket.endpoint_url, part_bytes=PART)

    storage = S3Storage(bucket.name, "audio", endpoint_url=bucket.endpoint_url, part_bytes=PART)
    storage.mark()
    return Place(storage, everything, put_foreign, bucket.delete, empty_one)


def store(storage: Storage, content: bytes = b"a recording") -> str:
    key = new_key()
    with storage.create(key) as writer:
        for start in range(0, len(content), PIECE):
            writer.write(content[start : start + PIECE])
        writer.commit()
    return key


def read(storage: Storage, key: str) -> bytes:
    with storage.local_path(key) as path:
        return path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 3])
def test_what_was_committed_is_read_byte_for_byte(storage: Storage, size: int) -> None:
    content = CONTENT[:size]
    key = store(storage, content)
    assert storage.exists(key)
    assert storage.size(key) == size
    assert read(storage, key) == content
    assert b"".join(storage.read(key)) == content


def test_one_write_may_bring_everything(storage: Storage) -> None:
    key = new_key()
    with storage.create(key) as writer:
        writer.write(b"")
        writer.write(CONTENT)
        writer.commit()
    assert read(storage, key) == CONTENT


@pytest.mark.parametrize("size", [1000, PART + 1])
def test_without_commit_nothing_remains(place: Place, size: int) -> None:
    key = new_key()
    with place.storage.create(key) as writer:
        writer.write(CONTENT[:size])
        assert not place.storage.exists(key), "nor is it seen before the commit"
    assert not place.storage.exists(key)
    assert place.everything() == []


@pytest.mark.parametrize("size", [1000, PART + 1])
def test_after_an_error_nothing_remains(place: Place, size: int) -> None:
    with suppress(ConnectionResetError), place.storage.create(new_key()) as writer:
        writer.write(CONTENT[:size])
        raise ConnectionResetError
    assert place.everything() == []


@pytest.mark.parametrize("size", [1000, PART + 1])
def test_a_derived_key_may_be_written_again_and_keeps_what_it_had_until_the_commit(place: Place, size: int) -> None:
    """Two may render the same result of a job at once, and one of them break off."""
    key = store(place.storage, b"old")
    with place.storage.create(key) as writer:
        writer.write(CONTENT[:size])
    assert read(place.storage, key) == b"old"
    with place.storage.create(key) as writer:
        writer.write(CONTENT[:size])
        writer.commit()
    assert read(place.storage, key) == CONTENT[:size]
    assert place.everything() == [key]


def test_an_error_after_the_commit_leaves_the_recording(storage: Storage) -> None:
    key = new_key()
    with suppress(ConnectionResetError), storage.create(key) as writer:
        writer.write(CONTENT)
        writer.commit()
        raise ConnectionResetError
    assert storage.size(key) == len(CONTENT)


def test_nothing_can_be_written_after_the_commit(storage: Storage) -> None:
    with storage.create(new_key()) as writer:
        writer.commit()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"more")
        with pytest.raises(ValueError, match="closed"):
            writer.commit()


def test_nothing_can_be_written_after_the_block(place: Place) -> None:
    with place.storage.create(new_key()) as writer:
        writer.write(b"some")
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")
    with pytest.raises(ValueError, match="closed"):
        writer.commit()
    assert place.everything() == []


def test_many_may_write_at_once(place: Place) -> None:
    begin = threading.Barrier(4)

    def write(number: int) -> str:
        begin.wait()
        return store(place.storage, bytes([number]) * (PART + number))

    with ThreadPoolExecutor(4) as threads:
        keys = list(threads.map(write, range(4)))
    for number, key in enumerate(keys):
        assert read(place.storage, key) == bytes([number]) * (PART + number)
    assert sorted(place.everything()) == sorted(keys)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 10), (3, 7), (9, 10), (4, None), (10, None), (500, None), (500, 600), (0, 500), (0, 0), (7, 3)],
)
def test_a_range_is_what_a_slice_would_be(storage: Storage, start: int, end: int | None) -> None:
    key = store(storage, b"0123456789")
    assert b"".join(storage.read(key, start, end)) == b"0123456789"[start:end]


def test_a_long_range_comes_in_pieces(storage: Storage) -> None:
    key = store(storage, CONTENT)
    pieces = list(storage.read(key, 17, PART + 17))
    assert b"".join(pieces) == CONTENT[17 : PART + 17]
    assert max(map(len, pieces)) <= 1024**2


def test_a_range_may_be_left_in_the_middle(storage: Storage) -> None:
    key = store(storage, CONTENT)
    for _ in range(100):  # more than connections are kept
        pieces = storage.read(key)
        assert next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    assert read(storage, key) == CONTENT


def test_a_range_begins_at_0_or_later(storage: Storage) -> None:
    with pytest.raises(ValueError, match="0 or later"):
        storage.read(store(storage), -1)


def test_a_recording_deleted_in_the_block_is_read_to_its_end(storage: Storage) -> None:
    """The file is open: so does a local disk behave, and nobody should find another truth elsewhere."""
    key = store(storage, CONTENT)
    with storage.local_path(key) as path, path.open("rb") as file:
        storage.delete(key)
        assert file.read() == CONTENT


def test_a_file_may_be_opened_twice_in_the_block(storage: Storage) -> None:
    with storage.local_path(store(storage, CONTENT)) as path:
        with path.open("rb") as first:
            assert first.read(10) == CONTENT[:10]
            assert path.read_bytes() == CONTENT
        assert path.stat().st_size == len(CONTENT)


def test_deleting_twice_is_harmless(place: Place) -> None:
    key = store(place.storage)
    place.storage.delete(key)
    place.storage.delete(key)
    assert not place.storage.exists(key)
    assert place.everything() == []


def test_a_recording_that_is_gone_is_missing(storage: Storage) -> None:
    key = new_key()
    with pytest.raises(FileMissing, match="no longer"), storage.local_path(key):
        pass
    with pytest.raises(FileMissing, match="no longer"):
        storage.size(key)


@pytest.mark.parametrize(("start", "end"), [(0, None), (10, 20), (5, 5)])
def test_a_range_of_what_is_gone_is_missing_at_once(storage: Storage, start: int, end: int | None) -> None:
    with pytest.raises(FileMissing, match="no longer"):
        storage.read(new_key(), start, end)


@pytest.mark.parametrize("method", ["exists", "size", "delete", "read", "local_path", "create"])
def test_a_storage_that_is_away_is_not_taken_for_a_missing_recording(place: Place, method: str) -> None:
    key = store(place.storage)
    place.take_away()
    with pytest.raises(StorageError) as error:
        store(place.storage) if method == "create" else _enter(getattr(place.storage, method)(key))
    assert not isinstance(error.value, FileMissing)
    assert error.value.retryable
    assert "/" not in str(error.value), "nor is its place told"
    assert "bucket-" not in str(error.value)


@pytest.mark.parametrize("method", ["exists", "size", "read", "local_path"])
def test_an_empty_place_where_the_storage_should_be_is_away(place: Place, method: str) -> None:
    """A mount point whose volume is not mounted; the wrong folder of a bucket."""
    key = store(place.storage)
    empty = place.empty_one()
    assert not empty.is_marked()
    with pytest.raises(StorageAway, match="is away"):
        _enter(getattr(empty, method)(key))


def test_a_marked_storage_is_known_again(place: Place) -> None:
    assert place.storage.is_marked()
    place.storage.mark()
    assert place.storage.is_marked()


GOOD = "ab/ab3de5f7-0000-4000-8000-0123456789ab"
BAD = [
    "", "/", ".", "..", "../x", "ab/..", "ab/../../etc/passwd", "/etc/passwd", f"/{GOOD}", f"../{GOOD}", f"{GOOD}/..",
    f"{GOOD}\n", f"\n{GOOD}", f"{GOOD}\0", GOOD.replace("/", "\0"), GOOD.replace("/", "//"), GOOD.replace("/", "\\"),
    GOOD.upper(), GOOD[3:], f"cd/{GOOD[3:]}", f"{GOOD}.part", GOOD.replace("0", "\u0660"), f"{GOOD} ", "ab/my song.mp3",
]  # fmt: skip


@pytest.mark.parametrize("key", BAD)
def test_a_key_never_leaves_the_storage(place: Place, key: str) -> None:
    assert not is_key(key)
    storage = place.storage
    for attempt in (storage.exists, storage.size, storage.delete, storage.local_path, storage.create, storage.read):
        with pytest.raises(ValueError, match="Not a key"):
            _enter(attempt(key))
    with pytest.raises(ValueError, match="Not a key"):
        storage.presigned_url(key, filename="a", media_type="text/plain", expires_s=60)
    assert place.everything() == []


def _enter(result: object) -> None:
    if hasattr(result, "__enter__"):
        result.__enter__()


def test_keys_are_new_each_time_and_accepted() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(map(is_key, keys))
    assert is_key(GOOD)


def test_a_derived_key_is_always_the_same_and_no_other() -> None:
    jobs = [UUID(int=number) for number in range(100)]
    keys = {derived_key(job, name) for job in jobs for name in ("result.srt", "result.json", "")}
    assert len(keys) == 300
    assert all(map(is_key, keys))
    assert derived_key(jobs[0], "result.srt") in keys
    assert derived_key(UUID(int=0), "result.srt") == "ad/ad2994e5-a2eb-55ae-9f8b-0d63ce2f918f", "nor in another release"


def test_there_is_room(storage: Storage) -> None:
    assert storage.free_bytes() > 0


def test_recordings_are_listed_by_the_moment_of_their_commit(place: Place) -> None:
    keys = {store(place.storage) for _ in range(3)}
    place.put_foreign("ab/not ours.txt")
    place.put_foreign("README")
    hour, now = timedelta(hours=1), datetime.now(UTC)
    listed = place.storage.committed_between
    assert set(listed(now - hour, now + hour)) == keys
    assert list(listed(LONG_AGO, now - hour)) == []
    assert list(listed(now + hour, now + 2 * hour)) == []


def test_what_is_being_written_is_not_listed(storage: Storage) -> None:
    with storage.create(new_key()) as writer:
        writer.write(CONTENT)
        assert list(storage.committed_between(LONG_AGO, datetime.now(UTC) + timedelta(days=1))) == []


def test_what_a_writer_left_can_be_discarded(place: Place) -> None:
    kept = store(place.storage, CONTENT)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with place.storage.create(new_key()) as writer:
        writer.write(CONTENT)
        assert place.storage.discard_unfinished(LONG_AGO) == 0, "it may still be written"
        assert place.storage.discard_unfinished(tomorrow) == 1
        assert place.everything() == [kept]
        with pytest.raises(StorageError):
            writer.commit()
    assert place.storage.discard_unfinished(tomorrow) == 0
    assert place.everything() == [kept]
