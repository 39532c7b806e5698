"""Corrections of a transcript: beside what the machine said, by whoever may see the job, in every format on request."""

import io
import json
import zipfile
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import Client, Response

from config import Settings
from jobs.states import Status
from tests.api_client import WAV, rows
from tests.callers import key_of
from tests.checker import complete, job_in
from tests.test_api_read import complete as complete_with
from tests.test_api_read import submitted


@pytest.fixture
def job_id(client: Client, settings: Settings) -> str:
    """Completed, with the segments `one` and `two`."""
    job_id = submitted(client)
    complete_with(job_id, settings, "one", "two")
    return job_id


def correct(client: Client, job_id: str, text: object, segment: object = 0, **headers: Any) -> Response:
    return client.patch(f"/transcribe/{job_id}/segments/{segment}", json={"text": text}, **headers)


def test_a_correction_stands_beside_what_the_machine_said(client: Client, job_id: str) -> None:
    answer = correct(client, job_id, "  won \n")
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["text"], answer.json()["corrected_text"]) == (0, "one", "won")
    for body in (
        client.get(f"/transcribe/{job_id}").json()["result"],
        client.get(f"/transcribe/{job_id}/segments").json(),
    ):
        assert [(one["text"], one["corrected_text"]) for one in body["segments"]] == [("one", "won"), ("two", None)]


@pytest.mark.parametrize("text", [None, "one", " one "])
def test_null_and_the_words_of_the_machine_take_it_back(client: Client, job_id: str, text: str | None) -> None:
    correct(client, job_id, "won")
    assert correct(client, job_id, text).json()["corrected_text"] is None
    assert rows("SELECT text, corrected_text FROM transcript_segments WHERE number = 0") == [(" one", None)]


def test_files_say_what_the_machine_said_unless_asked_for_the_corrections(client: Client, job_id: str) -> None:
    correct(client, job_id, "won, one")
    for kind in ("txt", "srt", "vtt", "tsv", "json"):
        url = f"/transcribe/{job_id}/result?format={kind}"
        plain, corrected = client.get(url).text, client.get(f"{url}&corrected=true").text
        assert plain == client.get(f"{url}&corrected=false").text
        assert "one" in plain
        assert "won, one" in corrected
        assert kind == "json" or "won" not in plain
    assert (json.loads(plain)["text"], json.loads(plain)["word_count"]) == ("one two", 2)
    assert (json.loads(corrected)["text"], json.loads(corrected)["word_count"]) == ("won, one two", 3)


def test_a_segment_that_was_never_said_leaves_the_files(client: Client, job_id: str) -> None:
    assert correct(client, job_id, "").json()["corrected_text"] == ""
    assert client.get(f"/transcribe/{job_id}/result?format=txt&corrected=true").text == "two\n"


def test_an_archive_of_a_batch_holds_them_on_request(client: Client, settings: Settings) -> None:
    answer = client.post("/transcribe/batch", files=[("files", ("talk.wav", WAV))]).json()
    (job,) = answer["jobs"]
    complete(UUID(job["job_id"]), " hello", settings)
    correct(client, job["job_id"], "hullo")
    for query, said in (("", "hello\n"), ("&corrected=true", "hullo\n")):
        content = client.get(f"/batches/{answer['batch_id']}/results?format=txt{query}").content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.read("talk.txt").decode() == said


@pytest.mark.parametrize(
    "body",
    [
        {"text": "a\0b"},
        {"text": "\ud800"},
        {"text": 7},
        {"text": "x" * 5001},
        {},
        {"text": "x", "start": 1},
        [],
        None,
    ],
)
def test_a_text_that_cannot_be_kept_is_refused(client: Client, job_id: str, body: object) -> None:
    content = json.dumps(body)
    answer = client.patch(
        f"/transcribe/{job_id}/segments/0", content=content, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option"), content
    assert rows("SELECT count(*) FROM transcript_segments WHERE corrected_text IS NOT NULL") == [(0,)]


def test_the_longest_text_fits_and_so_does_any_letter(client: Client, job_id: str) -> None:
    for text in ("x" * 5000, "<b>ünï 日本 🎧</b>\nsecond line"):
        assert correct(client, job_id, text).json()["corrected_text"] == text


@pytest.mark.parametrize(("segment", "status"), [(2, 404), (2**31 - 1, 404), (2**31, 422), (-1, 422), ("x", 422)])
def test_a_segment_that_is_not_there_is_not_found(client: Client, job_id: str, segment: object, status: int) -> None:
    assert correct(client, job_id, "x", segment).status_code == status


@pytest.mark.parametrize("status", [status for status in Status if status != Status.COMPLETED])
def test_only_a_completed_job_is_corrected(client: Client, settings: Settings, status: Status) -> None:
    answer = correct(client, str(job_in(status, settings).id), "x")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_only_its_owner_and_an_admin_correct_a_job(client: Client, settings: Settings) -> None:
    alice, bob = key_of(settings, "alice", role="user"), key_of(settings, "bob", role="user")
    boss = key_of(settings, "boss", role="admin")
    answer = client.post("/transcribe/", files={"file": ("talk.wav", WAV)}, headers=alice)
    job_id = answer.json()["job_id"]
    complete(UUID(job_id), " hello", settings)
    refused, unknown = correct(client, job_id, "x", headers=bob), correct(client, str(uuid4()), "x", headers=bob)
    assert (refused.status_code, refused.json()["detail"]) == (404, unknown.json()["detail"])
    assert correct(client, job_id, "x").status_code == 401
    assert correct(client, job_id, "hullo", headers=alice).status_code == 200
    assert correct(client, job_id, "hallo", headers=boss).json()["corrected_text"] == "hallo"


def test_a_purge_takes_the_corrections_along(client: Client, job_id: str) -> None:
    correct(client, job_id, "won")
    assert client.delete(f"/transcribe/{job_id}?purge=true").status_code == 204
    assert rows("SELECT count(*) FROM transcript_segments") == [(0,)]
    assert correct(client, job_id, "x").status_code == 404
