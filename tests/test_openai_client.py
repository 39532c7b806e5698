"""The package `openai` as people have it, against the whole service with the bundled model."""

import asyncio
import io
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionTextSegmentEvent,
    TranscriptionVerbose,
    Translation,
    TranslationVerbose,
)

from config import Settings
from errors import UndecodableAudio
from jobs.progress import Fence
from stack.running import Stack
from tests.checker import fail, take
from tests.conftest import ROOT
from tests.openai_service import newest, running, say
from tests.processes import until
from tests.speech import word_error_rate

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]
SAMPLES = ROOT / "demo" / "samples"
ENGLISH = SAMPLES / "english.wav"
SEVEN = "one two three four five six seven"
KEY = "sk-3f9a41c07d52e86b"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, whisper_model_size="demo", lease_seconds=4, log_format="json", api_key=KEY) as started:
        yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{stack.url}/v1", api_key=KEY, timeout=60, max_retries=0) as client:
        yield client


def jobs_of(stack: Stack, filename: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{stack.url}/jobs/", params={"q": filename}, headers={"X-API-Key": KEY})
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_a_recording_becomes_text(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(file=ENGLISH, model="whisper-1")
    assert isinstance(answer, Transcription)
    assert word_error_rate(SEVEN, answer.text) <= 0.15, answer.text
    assert answer.usage is not None
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == int(answer.usage.seconds) > 1


def test_a_client_that_awaits_gets_the_same(stack: Stack) -> None:
    async def ask() -> Transcription:
        async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, timeout=60) as client:
            return await client.audio.transcriptions.create(
                file=ENGLISH, model="demo", language="en", prompt="Counting."
            )

    assert word_error_rate(SEVEN, asyncio.run(ask()).text) <= 0.15


def test_verbose_json_is_all_that_its_type_promises(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        file=ENGLISH,
        model="demo",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        temperature=0,
    )
    checked = TranscriptionVerbose.model_validate(answer.to_dict())
    assert (checked.language, checked.duration > 1) == ("english", True)
    assert checked.words
    assert checked.segments
    assert [word.word for word in checked.words] == checked.text.split()
    assert "".join(segment.text for segment in checked.segments).strip() == checked.text
    assert checked.segments[0].tokens
    assert 0 <= checked.words[0].start < checked.words[-1].start < checked.words[-1].end


def test_other_formats_are_plain_text(client: OpenAI) -> None:
    text = client.audio.transcriptions.create(file=ENGLISH, model="demo", response_format="text")
    srt = client.audio.transcriptions.create(file=ENGLISH, model="demo", response_format="srt")
    vtt = client.audio.transcriptions.create(file=ENGLISH, model="demo", response_format="vtt")
    assert word_error_rate(SEVEN, text) <= 0.15
    assert srt.startswith("1\n00:00:0")
    assert vtt.startswith("WEBVTT\n\n00:00:0")


def test_silence_is_an_empty_text(client: OpenAI) -> None:
    assert client.audio.transcriptions.create(file=SAMPLES / "silence.mp3", model="demo").text == ""


def test_a_stream_begins_before_its_job_has_ended_and_adds_up(client: OpenAI, stack: Stack) -> None:
    recording = ("streamed.webm", (SAMPLES / "english-minute.webm").read_bytes())
    stream = client.audio.transcriptions.create(file=recording, model="demo", stream=True)
    first = next(iter(stream))
    assert [job["status"] for job in jobs_of(stack, "streamed.webm")] == ["processing"]
    events = [first, *stream]
    deltas = [event.delta for event in events if isinstance(event, TranscriptionTextDeltaEvent)]
    segments = [event for event in events if isinstance(event, TranscriptionTextSegmentEvent)]
    done = events[-1]
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert len(deltas) > 1
    assert "".join(deltas) == done.text
    for event in segments:
        TranscriptionTextSegmentEvent.model_validate(event.to_dict())
    assert [event.start for event in segments] == sorted(event.start for event in segments)


def test_a_stream_can_be_awaited(stack: Stack) -> None:
    async def ask() -> list[str]:
        async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, timeout=60) as client:
            stream = await client.audio.transcriptions.create(file=ENGLISH, model="demo", stream=True)
            return [event.type async for event in stream]

    kinds = asyncio.run(ask())
    assert kinds[0] == "transcript.text.delta"
    assert kinds[-1] == "transcript.text.done"


def test_a_stream_that_breaks_off_raises_what_broke_it(settings: Settings) -> None:
    def begin() -> Fence:
        until(service.waiting, 10)
        fence = take(newest(), settings).fence
        say(fence.job_id, 0, " one")
        return fence

    with running(settings) as service, OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client:
        worker = service.clients.submit(begin)
        events = iter(client.audio.transcriptions.create(file=ENGLISH, model="tiny", stream=True))
        assert next(events).type == "transcript.text.delta"
        fail(worker.result(timeout=10), UndecodableAudio("The end is missing."), settings)
        with pytest.raises(openai.APIError, match="The end is missing") as raised:
            list(events)
    assert (raised.value.code, raised.value.type) == ("undecodable_audio", "invalid_request_error")


def test_speech_is_translated(client: OpenAI) -> None:
    recording = SAMPLES / "german.mp3"
    with pytest.deprecated_call():  # as OpenAI says of their own
        verbose = client.audio.translations.create(file=recording, model="whisper-1", response_format="verbose_json")
        plain = client.audio.translations.create(file=recording, model="whisper-1")
    assert TranslationVerbose.model_validate(verbose.to_dict()).language == "english"
    assert isinstance(plain, Translation)
    assert plain.text


def test_models_are_listed_and_found(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"whisper-1", "demo", "large-v3"} <= set(names)
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_errors_are_the_ones_people_catch(client: OpenAI, stack: Stack) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.audio.transcriptions.create(file=ENGLISH, model="gpt-9")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.audio.transcriptions.create(file=ENGLISH, model="demo", temperature=7)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.audio.transcriptions.create(file=ENGLISH, model="demo", include=["logprobs"])
    assert unsupported.value.param == "include"
    with (
        OpenAI(base_url=f"{stack.url}/v1", api_key="sk-wrong") as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id


def test_a_recording_that_cannot_be_decoded_is_sent_once(client: OpenAI, stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError) as broken:
        client.with_options(max_retries=2).audio.transcriptions.create(file=("broken.mp3", b"invalid\n"), model="demo")
    assert broken.value.code == "undecodable_audio"
    assert len(jobs_of(stack, "broken.mp3")) == 1


def test_a_client_that_loses_patience_and_tries_again_leaves_one_job(client: OpenAI, stack: Stack) -> None:
    impatient = client.with_options(timeout=0.5, max_retries=20)
    answer = impatient.audio.transcriptions.create(file=("slow.wav", minutes_of_speech()), model="demo")
    assert answer.text
    (job,) = jobs_of(stack, "slow.wav")
    assert job["status"] == "completed"
    assert attached(stack.data_dir / "logs" / "api.log", job["job_id"]) >= 1


def minutes_of_speech() -> bytes:
    """One and a half: more than any machine transcribes before the client loses its patience."""
    with wave.open(str(ENGLISH)) as recording, io.BytesIO() as file:
        times = 90 * recording.getframerate() // recording.getnframes()
        with wave.open(file, "wb") as longer:
            longer.setparams(recording.getparams())
            longer.writeframes(recording.readframes(recording.getnframes()) * times)
        return file.getvalue()


def attached(log: Path, job_id: str) -> int:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and job_id in line]
    return sum(line["event"] == "job.attached" for line in lines)
