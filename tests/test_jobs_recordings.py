"""What a recording holds beside one voice: channels by themselves, several tracks, and what is told about them."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from uuid import UUID
from wave import open as open_wave

import numpy as np
import pytest
from sqlalchemy import update

from audio.split import Window
from config import Settings
from database import transaction
from engines.fake import encode_script
from jobs import attempt, read
from models import Job, Result
from storage import new_key
from tests.checker import check_invariants, job_now, new_job, wait_over
from tests.media import Track, silence, tone, wav_bytes, write_tracks
from tests.workplaces import workplace
from transcript import DecodeOptions, Segment


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


@pytest.fixture
def work(database: Settings, tmp_path: Path) -> attempt.Workplace:
    settings = database.model_copy(update={"engine": "fake", "data_dir": tmp_path, "lease_seconds": 3})
    return workplace(settings)


def submitted(work: attempt.Workplace, content: bytes, **options: object) -> UUID:
    key = new_key()
    with work.storage.create(key) as writer:
        writer.write(content)
        writer.commit()
    job_id = new_job(decode=DecodeOptions(vad_filter=False, **options))  # type: ignore[arg-type]
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(storage_key=key))
    return job_id


def conversation() -> bytes:
    """Three minutes of two channels that each say their own, and one that copies the second."""

    def samples(text: str) -> np.ndarray:
        with open_wave(BytesIO(encode_script({"text": text}, seconds=180))) as wave:
            return np.frombuffer(wave.readframes(wave.getnframes()), "<i2")

    one, two = samples("one"), samples("another voice that says more " * 8)
    return wav_bytes(np.stack([one, two, two]), 16_000)


def heard(job_id: UUID) -> list[tuple[float, int | None, str]]:
    with transaction() as session:
        return [(row.start, row.channel, row.text) for row in read.segments(session, job_id)]


def result_of(job_id: UUID) -> Result:
    with transaction() as session:
        return session.get_one(Result, job_id)


def test_each_channel_is_transcribed_by_itself_in_the_order_of_time_and_a_copy_is_left_out(
    work: attempt.Workplace,
) -> None:
    job_id = submitted(work, conversation(), channels="separate")
    attempt.run(job_id, work)
    assert job_now(job_id).status == "completed"
    rows = heard(job_id)
    assert [start for start, _, _ in rows] == sorted(start for start, _, _ in rows)
    assert {channel for _, channel, _ in rows} == {0, 1}
    assert all(text.strip().startswith("one" if channel == 0 else "another") for _, channel, text in rows)
    assert len(rows) >= 12, "six windows of each"
    audio = job_now(job_id).audio
    assert audio is not None
    assert audio["apart"] == 3


def test_channels_that_are_mixed_have_no_number(work: attempt.Workplace) -> None:
    job_id = submitted(work, encode_script({"text": "at"}, seconds=40))
    attempt.run(job_id, work)
    assert {channel for _, channel, _ in heard(job_id)} == {None}


def test_an_attempt_that_fails_between_channels_loses_and_repeats_nothing(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, disturbed = (submitted(work, conversation(), channels="separate") for _ in range(2))
    attempt.run(undisturbed, work)
    really, calls = attempt._Attempt._recognise, list[int]()

    def recognise(self: attempt._Attempt, group: list[Window]) -> list[Segment]:
        calls.append(len(group))
        segments = really(self, group)
        if len(calls) == 3:
            raise RuntimeError("only this once, after both channels were heard")
        return segments

    monkeypatch.setattr(attempt._Attempt, "_recognise", recognise)
    attempt.run(disturbed, work)
    assert job_now(disturbed).status == "pending"
    assert 0 < len(heard(disturbed)) < len(heard(undisturbed))
    wait_over(disturbed)
    attempt.run(disturbed, work)
    assert job_now(disturbed).status == "completed"
    assert heard(disturbed) == heard(undisturbed)


def test_a_silent_first_track_gives_way_and_the_result_says_so(work: attempt.Workplace, tmp_path: Path) -> None:
    path = write_tracks(
        tmp_path / "film.mkv",
        Track(silence(2, rate=48_000), default=True), Track(tone(2, rate=48_000), language="eng"),
        muxer="matroska", film_s=2,
    )  # fmt: skip
    job_id = submitted(work, path.read_bytes())
    attempt.run(job_id, work)
    job = job_now(job_id)
    assert job.audio is not None
    assert (job.status, job.audio["track"], len(job.audio["tracks"])) == ("completed", 1, 2)
    assert "audio_track_silent" in [warning["code"] for warning in result_of(job_id).warnings]


def test_a_track_that_is_not_there_fails_the_job_at_once_and_says_which_are(
    work: attempt.Workplace, tmp_path: Path
) -> None:
    path = write_tracks(tmp_path / "film", Track(tone(1, rate=48_000), language="eng"), muxer="matroska")
    job_id = submitted(work, path.read_bytes(), audio_track="de")
    attempt.run(job_id, work)
    job = job_now(job_id)
    assert (job.status, job.error_code) == ("failed", "no_such_track")
    assert "0 (en)" in (job.error_message or "")
