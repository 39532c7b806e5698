"""Quotas: jobs that wait and audio of a day, exact also for those who send everything at once."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

import errors
from access import quota
from access.caller import Caller
from access.quota import USUAL_BYTES_A_SECOND
from app import create_app
from config import Settings
from database import transaction
from jobs import claim
from tests.api_client import WAV, files_below, rows, wav_of_silence
from tests.callers import key_of
from tests.checker import many_jobs

HOUR = 3600
ANYBODY = Caller(owner="key:1", name="somebody", role="user")


@pytest.fixture
def api(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


def post(client: TestClient, header: dict[str, str], body: bytes = WAV, **more: str) -> int:
    return client.post("/transcribe/", files={"file": ("a.wav", body)}, headers=header | more).status_code


def test_concurrent_submissions_take_exactly_the_room_there_is(api: TestClient, settings: Settings) -> None:
    header = key_of(settings, quota_waiting_jobs=5)
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: post(api, header), range(24)))
    assert statuses == {202: 5, 429: 19}
    assert rows("SELECT count(*) FROM transcription_jobs") == [(5,)]
    assert len(files_below(settings.storage_dir)) == 5  # what was refused leaves nothing behind


def test_a_refusal_says_what_is_wrong_and_when_to_come_again(api: TestClient, settings: Settings) -> None:
    header = key_of(settings, quota_waiting_jobs=1)
    assert post(api, header) == 202
    refused = api.post("/transcribe/", files={"file": ("a.wav", WAV)}, headers=header)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert "1 jobs waiting" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0


def test_room_is_free_again_when_a_job_starts(api: TestClient, settings: Settings) -> None:
    header = key_of(settings, quota_waiting_jobs=1)
    job_id = api.post("/transcribe/", files={"file": ("a.wav", WAV)}, headers=header).json()["job_id"]
    assert post(api, header) == 429
    assert claim.claim(UUID(job_id), claimed_by="host:1:2", settings=settings) is not None
    assert post(api, header) == 202


def test_callers_do_not_take_each_others_room(api: TestClient, settings: Settings) -> None:
    one, other = (key_of(settings, name, quota_waiting_jobs=1) for name in ("one", "other"))
    assert [post(api, header) for header in (one, other, one, other)] == [202, 202, 429, 429]


def test_a_batch_is_taken_whole_or_not_at_all(api: TestClient, settings: Settings) -> None:
    header = key_of(settings, quota_waiting_jobs=3)

    def batch(count: int) -> int:
        files = [("files", (f"{number}.wav", WAV)) for number in range(count)]
        return api.post("/transcribe/batch", files=files, headers=header).status_code

    assert [batch(2), batch(2), batch(1), batch(1)] == [202, 429, 202, 429]
    assert rows("SELECT count(*) FROM transcription_jobs") == [(3,)]


def test_a_request_sent_again_with_its_key_needs_no_room(api: TestClient, settings: Settings) -> None:
    header = key_of(settings, quota_waiting_jobs=1) | {"Idempotency-Key": "sent-twice-to-be-sure"}
    assert [post(api, header), post(api, header)] == [202, 202]
    assert rows("SELECT count(*) FROM transcription_jobs") == [(1,)]


def test_audio_of_a_day_is_estimated_by_its_bytes_until_it_is_known(api: TestClient, settings: Settings) -> None:
    minute = wav_of_silence(60)
    estimated_s = len(minute) / USUAL_BYTES_A_SECOND
    header = key_of(settings, quota_audio_hours_per_day=2.5 * estimated_s / HOUR)
    assert [post(api, header, minute) for _ in range(3)] == [202, 202, 429]
    set_audio(seconds=1.0)  # a worker has looked: they are much shorter
    assert post(api, header, minute) == 202


def set_audio(seconds: float) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE transcription_jobs SET audio = jsonb_build_object('duration', :s)"), {"s": seconds}
        )


def use(session_hours: float, hours_ago: float, owner: str = ANYBODY.owner) -> None:
    """A job of long ago, with so much audio."""
    statement = """
        INSERT INTO transcription_jobs
            (id, owner, filename, storage_key, size_bytes, sha256, model_size, audio, created_at)
        VALUES (gen_random_uuid(), :owner, 'a', gen_random_uuid()::text, 1, '', 'tiny',
                jsonb_build_object('duration', CAST(:s AS float)), now() - :ago * interval '1 hour')"""
    with transaction() as session:
        session.execute(text(statement), {"owner": owner, "s": session_hours * HOUR, "ago": hours_ago})


def check(caller: Caller, hours: float) -> None:
    with transaction() as session:
        quota.check(session, caller, jobs=1, size_bytes=int(hours * HOUR * USUAL_BYTES_A_SECOND))


def test_audio_counts_for_24_hours(database: Settings) -> None:
    caller = replace(ANYBODY, quota_audio_s_per_day=3 * HOUR)
    use(2, hours_ago=25)
    use(2, hours_ago=23)
    use(2, hours_ago=1, owner="key:2")
    check(caller, 1)
    with pytest.raises(errors.QuotaExceeded, match=r"3 hours of audio in 24 hours; 2\.0 are used") as refused:
        check(caller, 1.1)
    assert HOUR * 0.9 < refused.value.retry_after_s <= HOUR  # when the oldest leaves the window


def test_a_recording_longer_than_the_quota_is_refused_also_as_the_first(database: Settings) -> None:
    with pytest.raises(errors.QuotaExceeded) as refused:
        check(replace(ANYBODY, quota_audio_s_per_day=HOUR), 2)
    assert refused.value.retry_after_s == 24 * HOUR


def test_who_has_no_quota_is_not_counted(database: Settings) -> None:
    use(10_000, hours_ago=1)
    check(ANYBODY, 10_000)


def test_far_below_its_quota_nobody_waits_for_another(settings: Settings) -> None:
    """Two transactions of one caller at once; near the quota the second one would wait for the first."""
    far = Caller("key:a", "a", "user", quota_waiting_jobs=quota.UNDER_WAY + 10)
    near = Caller("key:b", "b", "user", quota_waiting_jobs=10)
    for caller, waits in ((far, False), (near, True)):
        with transaction() as first:
            quota.check(first, caller, jobs=1, size_bytes=1)
            locks = rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
            assert locks == [(int(waits),)]


def test_the_last_places_are_given_out_one_by_one_however_large_the_quota(settings: Settings) -> None:
    caller = Caller("key:a", "a", "user", quota_waiting_jobs=quota.UNDER_WAY + 2)
    many_jobs(quota.UNDER_WAY + 1, owner="key:a")
    with transaction() as session:
        quota.check(session, caller, jobs=1, size_bytes=1)
        with pytest.raises(errors.QuotaExceeded):
            quota.check(session, caller, jobs=2, size_bytes=1)
