"""/asr and /detect-language: what clients of whisper-asr-webservice send, byte for byte, and what they read of it."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import update

import errors
from api.uploads import WAV_HEADER
from config import Settings
from database import transaction
from jobs import cancel
from jobs.states import notify
from models import Job
from tests.api_client import WAV, files_below, rows
from tests.checker import fail, finish, job_now, take
from tests.openai_service import Service, count, newest, running, say
from tests.processes import until

PCM = bytes(range(256)) * 20
# As requests 2.34 sends `post(url, files={"audio_file": pcm})`, which is what Bazarr does.
BOUNDARY = "3f072f75aac527f1b5641afa93ebeef4"
HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="audio_file"; filename="audio_file"\r\n\r\n'.encode()
HEADERS = {
    "User-Agent": "Subliminal/2.2",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
    "Connection": "keep-alive",
    "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
}


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with running(settings) as service:
        yield service


def bazarr(service: Service, target: str, sound: bytes = PCM) -> tuple[int, http.client.HTTPMessage, bytes]:
    body = HEAD + sound + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    with closing(connection):
        connection.request("POST", target, body, HEADERS)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def post(service: Service, path: str = "/asr", wav: bytes = WAV, **query: Any) -> httpx.Response:
    files = {"audio_file": ("talk.wav", wav, "audio/wav")}
    return httpx.post(f"{service.url}{path}", params=query, files=files, timeout=30)


def answer_to(service: Service, *texts: str, **query: Any) -> httpx.Response:
    answer = service.clients.submit(post, service, **query)
    until(lambda: service.waiting() or answer.done(), 10)
    service.complete(*texts)
    return answer.result(timeout=20)


# As Bazarr asks


def test_bazarr_gets_subtitles_for_the_sound_that_it_sends(service: Service, data_dir: Path) -> None:
    target = "/asr?task=translate&language=fr&output=srt&encode=false&video_file=%2Ftv%2FN%C3%A4me+S01E01.mkv"
    answer = service.clients.submit(bazarr, service, target)
    until(service.waiting, 10)
    service.complete(" one")
    status, headers, body = answer.result(timeout=20)
    assert status == 200
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Asr-Engine"] == "faster_whisper"
    assert 'filename="audio_file.srt"' in headers["Content-Disposition"]
    assert body == b"1\n00:00:00,000 --> 00:00:00,500\none\n"
    job = job_now(newest())
    assert (job.filename, job.task, job.language, job.priority) == ("Näme S01E01.mkv.wav", "translate", "fr", "high")
    (stored,) = files_below(data_dir / "audio")
    assert stored.read_bytes() == WAV_HEADER + PCM
    assert job.size_bytes == len(WAV_HEADER + PCM)


def test_what_is_called_headerless_and_has_a_header_stays_as_it_is(service: Service, data_dir: Path) -> None:
    answer = service.clients.submit(bazarr, service, "/asr?encode=false", WAV)
    until(service.waiting, 10)
    assert [path.read_bytes() for path in files_below(data_dir / "audio")] == [WAV]
    assert job_now(newest()).filename == "audio_file.wav"
    service.complete(" one")
    assert answer.result(timeout=20)[2] == b"one\n"


def test_bazarr_is_told_the_language_as_soon_as_it_is_known_and_the_rest_is_not_done(service: Service) -> None:
    answer = service.clients.submit(bazarr, service, "/detect-language?encode=false")
    until(service.waiting, 10)
    fence = take(newest(), service.settings).fence
    detected(fence.job_id, "ht", 0.93)
    status, _, body = answer.result(timeout=20)
    assert status == 200
    expected = {"detected_language": "haitian creole", "language_code": "ht", "confidence": 0.93}
    assert json.loads(body) == expected
    job = job_now(fence.job_id)
    assert (job.status, job.delete_after_s) == ("cancelled", 3600)


def detected(job_id: Any, code: str, probability: float) -> None:
    """As an attempt's first checkpoint."""
    with transaction() as session:
        found = {"detected_language": code, "language_probability": probability, "progress": 10.0}
        session.execute(update(Job).where(Job.id == job_id).values(**found))
        notify(session, session.get_one(Job, job_id), relay=False)


def test_the_button_that_tests_an_address_sees_a_version_without_a_key(service: Service) -> None:
    assert "version" in httpx.get(f"{service.url}/status").json()


# The language


def test_equal_questions_for_the_language_share_a_job_and_its_end(service: Service) -> None:
    asked = [service.clients.submit(post, service, "/detect-language") for _ in range(4)]
    until(lambda: service.waiting() == 4, 20)
    assert count() == 1
    job_id = take(newest(), service.settings).fence.job_id
    detected(job_id, "de", 0.8)
    assert {one.result(timeout=20).json()["language_code"] for one in asked} == {"de"}
    assert job_now(job_id).status == "cancelled"


def test_nobody_who_wants_the_text_is_attached_to_a_job_that_is_stopped_for_its_language(service: Service) -> None:
    service.clients.submit(post, service, "/detect-language")
    until(lambda: service.waiting() == 1, 10)
    service.clients.submit(post, service)
    until(lambda: service.waiting() == 2, 10)
    assert count() == 2


def test_a_recording_in_which_nothing_is_said_has_no_language(service: Service) -> None:
    answer = answer_to(service, path="/detect-language")
    assert answer.json() == {"detected_language": "undetermined", "language_code": "und", "confidence": 0.0}


def test_a_recording_that_cannot_be_decoded_has_a_problem_and_no_language(service: Service) -> None:
    for path in ("/detect-language", "/asr"):
        answer = service.clients.submit(post, service, path)
        until(lambda: service.waiting() == 1, 10)
        fail(take(newest(), service.settings).fence, errors.UndecodableAudio("It is no audio."), service.settings)
        refused = answer.result(timeout=20)
        assert (refused.status_code, refused.json()["code"]) == (422, "undecodable_audio")
        assert refused.headers["content-type"] == "application/problem+json"
        until(lambda: service.waiting() == 0, 10)


def test_a_job_that_somebody_cancels_is_a_conflict(service: Service) -> None:
    answer = service.clients.submit(post, service)
    until(service.waiting, 10)
    with transaction() as session:
        cancel.cancel(session, newest())
    assert answer.result(timeout=20).status_code == 409


# The text


def test_json_is_what_their_clients_read(service: Service) -> None:
    answer = answer_to(service, " one", " two", output="json", word_timestamps="true", language="English")
    body = answer.json()
    assert list(body) == ["text", "segments", "language"]
    assert (body["text"], body["language"]) == (" one two", "en")
    first = body["segments"][0]
    assert (first["start"], first["end"], first["text"], first["tokens"]) == (0.0, 0.5, " one", [50364, 472])
    assert first["words"][0]["word"] == " one"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert 'filename="talk.wav.json"' in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (None, "one\ntwo\n"),
        ("txt", "one\ntwo\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\none\n\n00:00:01.000 --> 00:00:01.500\ntwo\n"),
        ("tsv", "start\tend\ttext\n0\t500\tone\n1000\t1500\ttwo\n"),
    ],
)
def test_the_text_comes_as_output_says(service: Service, output: str | None, text: str) -> None:
    query: dict[str, Any] = {} if output is None else {"output": output}
    assert answer_to(service, " one", " two", **query).text == text


def test_speakr_asks_for_speakers_and_gets_text_without(service: Service) -> None:
    """Its connector: every parameter that it can send."""
    speakr = {
        "encode": True,
        "task": "transcribe",
        "output": "json",
        "diarize": True,
        "enable_diarization": True,
        "return_speaker_embeddings": True,
        "min_speakers": 2,
        "max_speakers": 3,
    }
    body = answer_to(service, " one", **speakr).json()
    assert "speaker" not in body["segments"][0]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"language": "klingon"}, "language"),
        ({"task": "summarize"}, "task"),
        ({"output": "docx"}, "output"),
        ({"encode": "perhaps"}, "encode"),
    ],
)
def test_what_is_not_possible_is_refused(service: Service, query: dict[str, Any], field: str) -> None:
    refused = post(service, **query)
    assert refused.status_code == 422
    assert field in refused.json()["detail"]
    assert count() == 0


def test_parameters_left_empty_are_absent(service: Service) -> None:
    empty: dict[str, Any] = dict.fromkeys(
        "encode task language initial_prompt vad_filter word_timestamps output video_file".split(), ""
    )
    assert answer_to(service, " one", **empty).text == "one\n"
    job = job_now(newest())
    assert (job.task, job.language, job.filename) == ("transcribe", None, "talk.wav")
    assert (job.options["vad_filter"], job.options["initial_prompt"]) == (True, None)


def test_the_options_are_those_of_the_job(service: Service) -> None:
    given: dict[str, Any] = {
        "vad_filter": "false",
        "word_timestamps": "1",
        "initial_prompt": "Ann, Bob",
        "language": "nb",
    }
    answer_to(service, " one", **given)
    job = job_now(newest())
    assert job.language == "no"
    chosen = {name: job.options[name] for name in ("vad_filter", "word_timestamps", "initial_prompt", "beam_size")}
    assert chosen == {"vad_filter": False, "word_timestamps": True, "initial_prompt": "Ann, Bob", "beam_size": 5}


def test_a_recording_is_missed_where_another_field_bears_it(service: Service) -> None:
    answer = httpx.post(f"{service.url}/asr", files={"file": ("a.wav", WAV)})
    assert (answer.status_code, "audio_file" in answer.json()["detail"]) == (422, True)
    assert rows("SELECT count(*) FROM transcription_jobs") == [(0,)]


def test_a_client_that_comes_back_gets_the_text_of_its_first_request(service: Service) -> None:
    first = service.clients.submit(post, service)
    until(lambda: service.waiting() == 1, 10)
    second = service.clients.submit(post, service)
    until(lambda: service.waiting() == 2, 10)
    assert count() == 1
    fence = take(newest(), service.settings).fence
    say(fence.job_id, 0, " one")
    assert finish(fence, "one")
    assert [one.result(timeout=20).text for one in (first, second)] == ["one\n", "one\n"]


def test_a_name_of_any_kind_comes_back_in_a_header(service: Service) -> None:
    name = 'a "b"\r\n€.wav'
    files = {"audio_file": (name, WAV)}
    answer = service.clients.submit(httpx.post, f"{service.url}/asr", files=files, timeout=30)
    until(service.waiting, 10)
    service.complete(" one")
    assert quote("€.wav.txt") in answer.result(timeout=20).headers["content-disposition"]
