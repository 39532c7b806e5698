"""/v1 by hand: what OpenAI's own client hides from its users. Errors, parameters, formats, streams, shared jobs."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from uuid import UUID

import httpx
import pytest

import api.waiting
import errors
from access import keys
from app import create_app
from config import Settings
from database import transaction
from jobs import cancel, claim
from jobs.progress import Fence
from tests.api_client import WAV, files_below
from tests.checker import fail, finish, job_now, result_of, take
from tests.openai_service import PATH, Fields, Service, count, newest, refusal, running, say, serving
from tests.processes import until

VERBOSE = {"response_format": "verbose_json"}


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with running(settings) as service:
        yield service


# Parameters


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"sampling": "1"}, "sampling", "unknown_parameter"),
        ({"x[]": ["1", "2"]}, "x[]", "unknown_parameter"),
        ({"prompt[]": "x"}, "prompt[]", "unknown_parameter"),
        ({"include[]": "logprobs"}, "include", "unsupported_parameter"),
        ({"known_speaker_names[]": "Ann"}, "known_speaker_names", "unsupported_parameter"),
        ({"known_speaker_references[]": "data:"}, "known_speaker_references", "unsupported_parameter"),
        ({"languages[]": ["en", "de"]}, "languages", "unsupported_parameter"),
        ({"response_format": "diarized_json"}, "response_format", "invalid_value"),
        ({"response_format": "srt", "stream": "true"}, "response_format", "invalid_value"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "invalid_value"),
        *(
            ({"timestamp_granularities": wrong, **VERBOSE}, "timestamp_granularities", "invalid_value")
            for wrong in ("word,second", '["word"', '["second"]', "[1]", "[[]]", "[" * 5000)
        ),
        ({"timestamp_granularities[]": "second", **VERBOSE}, "timestamp_granularities", "invalid_value"),
        ({"temperature": "1.5"}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"stream": "perhaps"}, "stream", "invalid_value"),
        ({"language": "klingon"}, "language", "invalid_value"),
        ({"prompt": "a\0b"}, "prompt", "invalid_value"),
        ({"prompt": "x" * 3000}, "prompt", "invalid_value"),
        ({"model": "tiny.en", "language": "de"}, "language", "invalid_value"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_named_and_nothing_is_stored(
    client: httpx.Client, data_dir: Path, fields: Fields, param: str, code: str
) -> None:
    data = {name: value for name, value in ({"model": "tiny"} | fields).items() if value is not None}
    error = refusal(client.post(PATH, files={"file": ("a.wav", WAV)}, data=data), 400)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert (count(), files_below(data_dir / "audio")) == (0, [])


def test_a_request_without_a_recording_says_how_to_send_one(client: httpx.Client) -> None:
    for parts in ({"file": (None, "")}, {"model": (None, "x")}):
        assert refusal(client.post(PATH, files=parts), 400)["param"] == "file"
    assert "@" in refusal(client.post(PATH, files={"file": (None, "a.wav")}), 400)["message"]
    error = refusal(client.post(PATH, json={"model": "tiny"}), 400)
    assert "multipart/form-data" in error["message"]
    assert refusal(client.post(PATH, files={"audio": ("a.wav", WAV)}), 400)["param"] == "audio"


def test_an_unknown_model_is_not_found_with_the_code_that_clients_look_for(client: httpx.Client) -> None:
    posted = client.post(PATH, files={"file": ("a.wav", WAV)}, data={"model": "gpt-9"})
    for answer in (posted, client.get("/v1/models/gpt-9"), client.get("/v1/models/some/path")):
        assert refusal(answer, 404)["code"] == "model_not_found"


def test_a_model_that_cannot_translate_is_the_parameter_at_fault(client: httpx.Client) -> None:
    answer = client.post("/v1/audio/translations", files={"file": ("a.wav", WAV)}, data={"model": "turbo"})
    assert refusal(answer, 400)["param"] == "model"


def test_models_are_listed_with_the_name_that_openai_gives_its_own(client: httpx.Client) -> None:
    models = client.get("/v1/models").json()
    assert models["object"] == "list"
    assert {"whisper-1", "tiny", "large-v3", "distil-large-v3.5"} <= {model["id"] for model in models["data"]}
    for model in models["data"]:
        assert client.get(f"/v1/models/{model['id']}").json() == model
        assert (model["object"], type(model["created"])) == ("model", int)


def test_every_option_reaches_the_job(service: Service) -> None:
    service.answer_to(
        model="whisper-1",
        language=" German ",
        prompt="Guten Tag",
        response_format="verbose_json",
        temperature="0.2",
        **{
            "timestamp_granularities[]": ["segment", "word"],
            "keywords[]": ["Berg", "Tal"],
            "chunking_strategy": "auto",
        },
        hotwords="Kraftwerk",
        vad_filter="false",
        user="u-1",
    )
    job = job_now(newest())
    assert (job.model_size, job.language, job.task, job.priority) == ("base", "de", "transcribe", "high")
    assert job.options == {
        "word_timestamps": True,
        "initial_prompt": "Guten Tag",
        "hotwords": "Kraftwerk Berg Tal",
        "vad_filter": False,
        "temperature": 0.2,
        "beam_size": 5,
        "languages": [],
        "vad_threshold": None,
        "audio_track": None,
        "channels": "mix",
        "condition_on_previous_text": False,
    }


def test_what_is_left_empty_or_zero_is_as_if_not_sent(service: Service) -> None:
    fields = {"language": "", "prompt": "", "temperature": "0", "response_format": "", "stream": "false"}
    assert service.answer_to(" one", **fields).json()["text"] == "one"
    job = job_now(newest())
    assert (job.language, job.options["temperature"], job.options["initial_prompt"]) == (None, None, None)


# Errors


def test_everything_that_goes_wrong_below_v1_has_openais_shape(settings: Settings, client: httpx.Client) -> None:
    assert refusal(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert refusal(client.get(PATH), 405)["type"] == "invalid_request_error"
    big = client.post(PATH, files={"file": ("a.wav", WAV + bytes(1024**2))}, data={"model": "tiny"})
    assert refusal(big, 413)["code"] == "too_large"
    text = client.post(PATH, files={"file": ("notes.docx", b"hello " * 100)}, data={"model": "tiny"})
    assert refusal(text, 400)["code"] == "unsupported_media"
    assert client.get("/nothing").headers["content-type"] == "application/problem+json"


def test_a_wrong_key_and_too_many_requests_are_said_as_openai_says_them(settings: Settings) -> None:
    with transaction() as session:
        _, token = keys.create(session, keys.KeyRequest("one", rate_limit_per_minute=1), settings)
    with serving(create_app(settings)) as url, httpx.Client(base_url=url) as http:
        error = refusal(http.get("/v1/models", headers={"Authorization": "Bearer sk-wrong"}), 401)
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        mine = {"Authorization": f"Bearer {token}"}
        assert http.get("/v1/models", headers=mine).status_code == 200
        refused = http.get("/v1/models", headers=mine)
        error = refusal(refused, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) > 0


def test_a_service_with_too_much_to_do_says_when_to_come_again(service: Service) -> None:
    service.app.state.admission._settings = service.settings.model_copy(update={"min_free_disk_mb": 10**9})
    refused = service.post()
    assert refusal(refused, 503)["type"] == "server_error"
    assert refused.headers["retry-after"] == "30"


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.UndecodableAudio("It is broken."), 400, "invalid_request_error", "undecodable_audio"),
        (errors.AudioTooLong("It is long."), 400, "invalid_request_error", "audio_too_long"),
        (errors.FileMissing("It is not here."), 500, "server_error", "file_missing"),
    ],
    ids=lambda value: value.code if isinstance(value, errors.ServiceError) else "",
)
@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_job_that_fails_is_an_error_that_is_not_tried_again(
    service: Service, stream: str, error: errors.ServiceError, status: int, kind: str, code: str
) -> None:
    waiting = service.begin(stream=stream)
    assert fail(take(newest(), service.settings).fence, error, service.settings)
    answer = waiting.result(timeout=20)
    said = refusal(answer, status)
    assert (said["type"], said["code"], said["message"]) == (kind, code, str(error))
    assert answer.headers["x-should-retry"] == "false"


def test_a_job_that_is_cancelled_is_a_conflict(service: Service) -> None:
    waiting = service.begin()
    with transaction() as session:
        cancel.cancel(session, newest())
    answer = waiting.result(timeout=20)
    assert refusal(answer, 409)["code"] == "cancelled"
    assert answer.headers["x-should-retry"] == "false"


# Formats


def test_json_has_the_text_and_the_seconds_that_were_heard(service: Service) -> None:
    answer = service.answer_to(" one", " two")
    assert answer.json() == {"text": "one two", "usage": {"type": "duration", "seconds": 2}}


@pytest.mark.parametrize(
    ("name", "media_type", "content"),
    [
        ("text", "text/plain", "one"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:00,500\none\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\none\n"),
    ],
)
def test_a_text_format_is_that_text(service: Service, name: str, media_type: str, content: str) -> None:
    answer = service.answer_to(" one", response_format=name)
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert answer.text == content


@pytest.mark.parametrize(
    ("granularities", "has_segments", "has_words"),
    [
        ({}, True, False),
        ({"timestamp_granularities[]": "segment"}, True, False),
        ({"timestamp_granularities[]": "word"}, False, True),
        ({"timestamp_granularities[]": ["word", "segment"]}, True, True),
        ({"timestamp_granularities": ["segment", "word"]}, True, True),
        ({"timestamp_granularities": "word", "timestamp_granularities[]": "segment"}, True, True),
        ({"timestamp_granularities": '["word", "segment"]'}, True, True),
        ({"timestamp_granularities[]": '["word"]'}, False, True),
        ({"timestamp_granularities": "word,segment"}, True, True),
        ({"timestamp_granularities[]": " word , segment "}, True, True),
        ({"timestamp_granularities": ["word,", ""]}, False, True),
        ({"timestamp_granularities": "[]"}, True, False),
        ({"timestamp_granularities[0]": "word", "timestamp_granularities[1]": ""}, False, True),
    ],
    ids=str,
)
def test_verbose_json_has_what_was_asked_for(
    service: Service, granularities: Fields, has_segments: bool, has_words: bool
) -> None:
    answer = service.answer_to(" one", response_format="verbose_json", **granularities).json()
    assert {key: answer[key] for key in ("task", "language", "duration", "text", "usage")} == {
        "task": "transcribe", "language": "english", "duration": 1.5, "text": "one",
        "usage": {"type": "duration", "seconds": 2},
    }  # fmt: skip
    assert answer.get("words") == ([{"word": "one", "start": 0.0, "end": 0.4}] if has_words else None)
    segment = {
        "id": 0, "seek": 0, "start": 0.0, "end": 0.5, "text": " one", "tokens": [50364, 472], "temperature": 0.0,
        "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.01,
    }  # fmt: skip
    assert answer.get("segments") == ([segment] if has_segments else None)
    assert job_now(newest()).options["word_timestamps"] is has_words


def test_a_translation_is_a_job_to_translate_and_its_text_is_english(service: Service) -> None:
    answer = service.answer_to(" one", path="/v1/audio/translations", response_format="verbose_json", language="fr")
    assert (answer.json()["task"], answer.json()["language"]) == ("translate", "english")
    assert (job_now(newest()).task, job_now(newest()).language) == ("translate", "fr")


@pytest.mark.parametrize(
    ("name", "content"), [("text", ""), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("json", None), ("verbose_json", None)]
)
def test_a_recording_without_speech_is_an_empty_transcript(service: Service, name: str, content: str | None) -> None:
    waiting = service.begin(response_format=name)
    fence = take(newest(), service.settings).fence
    result = result_of(fence, "")
    result.language = result.language_probability = result.confidence = None
    assert claim.finish(fence, result, patience_s=5)
    answer = waiting.result(timeout=20)
    assert answer.status_code == 200
    assert answer.text == content or answer.json()["text"] == ""
    if name == "verbose_json":
        assert (answer.json()["language"], answer.json()["segments"]) == ("", [])


# Streams


@contextmanager
def streaming(service: Service, **fields: str) -> Iterator[Iterator[str]]:
    """Blocks of an event stream, as they come."""
    files = {"file": ("a.wav", WAV)}
    data = {"model": "tiny", "stream": "true", **fields}
    with (
        httpx.Client(base_url=service.url, timeout=30) as http,
        http.stream("POST", PATH, files=files, data=data) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = answer.iter_lines()
        yield (line for line in lines if line)


def event(line: str) -> Fields:
    assert line.startswith("data: ")
    found: Fields = json.loads(line.removeprefix("data: "))
    return found


def begun(service: Service, first: str) -> "Future[None]":
    """A worker that takes the job as soon as it is there, and says the first words."""

    def work() -> None:
        until(count, 10)
        until(service.waiting, 10)
        say(take(newest(), service.settings).fence.job_id, 0, first)

    return service.clients.submit(work)


def fence_of(job_id: UUID) -> Fence:
    return Fence(job_id, job_now(job_id).attempt)


def test_text_is_streamed_while_the_job_still_runs_and_adds_up(service: Service) -> None:
    begun(service, "  one ")
    with streaming(service) as lines:
        assert event(next(lines)) == {"type": "transcript.text.delta", "delta": "one"}
        job = job_now(newest())
        assert job.status == "processing"
        segment = event(next(lines))
        assert segment["type"] == "transcript.text.segment"
        assert (segment["id"], segment["start"], segment["end"], segment["text"]) == ("0", 0, 0.5, "  one ")
        for number, text in enumerate(("\n", " two\n three", " "), start=1):
            say(job.id, number, text)
        assert finish(fence_of(job.id), "one \n two\n three")
        events = [event(line) for line in lines]
    done = events.pop()
    assert done["type"] == "transcript.text.done"
    assert done["usage"] == {"type": "duration", "seconds": 2}
    deltas = [one["delta"] for one in events if one["type"] == "transcript.text.delta"]
    assert "one" + "".join(deltas) == done["text"] == "one \n two\n three"


def test_a_stream_says_that_it_lives_while_nothing_happens(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.waiting, "HEARTBEAT_S", 0.05)
    with streaming(service) as lines:
        assert next(lines).startswith(":")
        assert next(lines).startswith(":")
        service.complete(" one")
        events = [event(line) for line in lines if not line.startswith(":")]
    assert [one["type"].rpartition(".")[2] for one in events] == ["delta", "segment", "done"]


def test_a_failure_in_mid_stream_is_an_event(service: Service) -> None:
    begun(service, " one")
    with streaming(service) as lines:
        assert event(next(lines))["delta"] == "one"
        assert fail(fence_of(newest()), errors.UndecodableAudio("The end is missing."), service.settings)
        last = [event(line) for line in lines][-1]
    assert last == {
        "type": "error",
        "error": {
            "message": "The end is missing.",
            "type": "invalid_request_error",
            "param": None,
            "code": "undecodable_audio",
        },
    }


def test_a_stream_that_the_service_ends_itself_is_told_to_come_again(service: Service) -> None:
    begun(service, " one")
    with streaming(service) as lines:
        next(lines)
        service.app.state.server.should_exit = True
        last = [event(line) for line in lines][-1]
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "unavailable")


def test_the_document_describes_the_form_and_every_answer(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in (PATH, "/v1/audio/translations"):
        operation = paths[path]["post"]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["required"] == ["file", "model"]
        assert {"file", "timestamp_granularities[]", "stream", "hotwords"} <= form["properties"].keys()
        kinds = [kind.partition(";")[0] for kind in operation["responses"]["200"]["content"]]
        texts = ["application/json", "application/x-subrip", "text/event-stream", "text/plain", "text/vtt"]
        assert sorted(kinds) == texts
        assert "422" not in operation["responses"]
        known = takewhile(str.isdecimal, operation["responses"])
        assert {"200", "400", "401", "404", "409", "413", "429", "503"} <= set(known)
