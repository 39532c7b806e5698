"""Options of subtitles at every door of the service: results, batches, OpenAI's clients. The same rules everywhere."""

import io
import zipfile
from collections.abc import Iterator
from uuid import UUID

import pytest
from httpx import Client, Response

from config import Settings
from database import transaction
from models import Job, SegmentRow
from tests.api_client import WAV
from tests.checker import finish, job_now, take
from tests.openai_service import Fields, Service, newest, refusal, running

TEXT = " Hello there, my old friend. How are you today?"
NUMBERS = {"avg_logprob": -0.1, "no_speech_prob": 0.0, "compression_ratio": 1.0, "temperature": 0.0, "tokens": []}
IN_LINES = "1\n00:00:00,000 --> 00:00:01,500\nHello there,\nmy old friend.\n\n2\n00:00:01,500 --> 00:00:02,700\n"


def words_of(text: str) -> list[dict[str, object]]:
    """Each takes 0.3 s."""
    return [
        {"word": f" {word}", "start": round(number * 0.3, 1), "end": round(number * 0.3 + 0.3, 1), "probability": 1.0}
        for number, word in enumerate(text.split())
    ]


def complete(job_id: UUID, settings: Settings, *, has_words: bool = True, channel: int | None = None) -> None:
    fence = take(job_id, settings).fence
    words = words_of(TEXT) if has_words else None
    with transaction() as session:
        session.add(
            SegmentRow(
                job_id=job_id, number=0, start=0.0, end=2.7, text=TEXT, words=words, channel=channel, **NUMBERS
            )
        )  # fmt: skip
    finish(fence)


def submitted(client: Client, **options: str) -> UUID:
    answer = client.post("/transcribe/", files={"file": ("talk.wav", WAV)}, data=options)
    return UUID(answer.json()["job_id"])


def result(client: Client, job_id: UUID, **query: object) -> Response:
    return client.get(f"/transcribe/{job_id}/result", params=query)  # type: ignore[arg-type]


@pytest.fixture
def job_id(client: Client, settings: Settings) -> UUID:
    found = submitted(client, word_timestamps="true")
    complete(found, settings)
    return found


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with running(settings) as service:
        yield service


# Results


def test_a_result_has_the_lines_that_were_asked_for(client: Client, job_id: UUID) -> None:
    answer = result(client, job_id, format="srt", max_line_width=20, max_line_count=2)
    assert answer.text.startswith(IN_LINES)
    assert result(client, job_id, format="vtt", max_words_per_line=2).text.count("-->") == 5
    assert "<u>there,</u>" in result(client, job_id, format="srt", highlight_words=True).text
    assert "Hello <00:00:00.300>there," in result(client, job_id, format="vtt", word_level=True).text
    assert result(client, job_id, format="lrc", word_level=True).text.startswith("[00:00.00]<00:00.00>Hello <00:00.30>")


def test_an_option_left_empty_was_not_given(client: Client, job_id: UUID) -> None:
    plain = result(client, job_id, format="srt").text
    empty = dict.fromkeys(("max_line_width", "max_line_count", "max_words_per_line", "max_cue_seconds"), "")
    assert result(client, job_id, format="srt", highlight_words="", word_level="", **empty).text == plain


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"max_line_width": 9}, "max_line_width"),
        ({"max_line_width": 201}, "max_line_width"),
        ({"max_line_width": 42, "max_line_count": 11}, "max_line_count"),
        ({"max_words_per_line": 0}, "max_words_per_line"),
        ({"max_cue_seconds": 0.4}, "max_cue_seconds"),
        ({"max_cue_seconds": "nan"}, "max_cue_seconds"),
        ({"highlight_words": "perhaps"}, "highlight_words"),
        ({"max_line_count": 2}, "max_line_count"),
        ({"max_line_width": 42, "max_words_per_line": 3}, "max_words_per_line"),
        ({"format": "vtt", "highlight_words": True, "word_level": True}, "word_level"),
        ({"word_level": True}, "word_level"),
        ({"format": "txt", "max_line_width": 42}, "max_line_width"),
        ({"format": "lrc", "highlight_words": True}, "highlight_words"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_named(client: Client, job_id: UUID, query: Fields, named: str) -> None:
    answer = result(client, job_id, **({"format": "srt"} | query))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option"), answer.text
    assert [one["field"].split(".")[-1] for one in answer.json()["errors"]] == [named]


def test_without_times_of_words_lines_are_broken_and_only_words_cannot_be_marked(
    client: Client, settings: Settings
) -> None:
    job_id = submitted(client)
    complete(job_id, settings, has_words=False)
    assert result(client, job_id, format="srt", max_line_width=20, max_line_count=2).text.count("-->") == 2
    for option in ("highlight_words", "word_level"):
        answer = result(client, job_id, format="vtt", **{option: True})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, option)
        assert "word_timestamps=true" in answer.json()["detail"]


def test_a_correction_is_highlighted_by_its_characters(client: Client, job_id: UUID) -> None:
    client.patch(f"/transcribe/{job_id}/segments/0", json={"text": "Good bye."})
    answer = result(client, job_id, format="srt", highlight_words=True, corrected=True)
    assert "<u>Good</u> bye." in answer.text


def test_channels_are_named(client: Client, settings: Settings) -> None:
    job_id = submitted(client)
    complete(job_id, settings, channel=1)
    assert "\nChannel 2: Hello" in result(client, job_id, format="srt").text
    assert "\n<v Channel 2>Hello" in result(client, job_id, format="vtt", max_line_width=42).text


# Batches


def test_an_archive_has_the_lines_that_were_asked_for(client: Client, settings: Settings) -> None:
    answer = client.post("/transcribe/batch", files=[("files", ("talk.wav", WAV))]).json()
    complete(UUID(answer["jobs"][0]["job_id"]), settings, has_words=False)
    url = f"/batches/{answer['batch_id']}/results"
    query = "format=srt&format=txt&format=lrc&max_line_width=20&max_line_count=2"
    with zipfile.ZipFile(io.BytesIO(client.get(f"{url}?{query}").content)) as archive:
        assert "\nHello there,\nmy old friend.\n" in archive.read("talk.srt").decode()
        assert archive.read("talk.txt").decode() == f"{TEXT.strip()}\n"
        assert archive.read("talk.lrc").decode() == f"[00:00.00]{TEXT.strip()}\n[00:02.70]\n"
    for refused in ("format=txt&max_line_width=20", "format=srt&max_line_count=2", "format=srt&highlight_words=true"):
        assert client.get(f"{url}?{refused}").status_code == 422


# OpenAI's clients


def test_openais_clients_get_the_lines_that_they_ask_for_with_times_of_words(service: Service) -> None:
    answer = service.begin(response_format="srt", max_line_width="20", max_line_count="2")
    assert job_now(newest()).options["word_timestamps"] is True
    complete(newest(), service.settings)
    assert answer.result(timeout=20).text.startswith(IN_LINES)
    answer = service.begin(response_format="vtt", word_level="true")
    complete(newest(), service.settings)
    assert "Hello <00:00:00.300>there," in answer.result(timeout=20).text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "json", "max_line_width": "42"}, "max_line_width"),
        ({"response_format": "srt", "max_line_count": "2"}, "max_line_count"),
        ({"response_format": "srt", "max_line_width": "4"}, "max_line_width"),
        ({"response_format": "srt", "word_level": "true"}, "word_level"),
    ],
    ids=str,
)
def test_openais_clients_are_told_what_cannot_be(service: Service, fields: Fields, param: str) -> None:
    error = refusal(service.post(**fields), 400)
    assert (error["param"], error["code"]) == (param, "invalid_value")


def test_without_options_openais_clients_ask_for_no_times_of_words(service: Service) -> None:
    service.answer_to(" one", response_format="srt", max_line_width="")
    with transaction() as session:
        job = session.get_one(Job, newest())
        assert job.options["word_timestamps"] is False
