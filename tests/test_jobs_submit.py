"""A job is accepted whole or not at all, exactly as it was asked for, or refused with every problem named."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

import errors
from config import MODEL_SIZES, Settings
from database import transaction
from jobs import read
from jobs.states import NOTIFY_CHANNEL
from jobs.submit import JobRequest, Upload, decode_options, open_batch, submit, validate
from languages import LANGUAGES, MULTI
from models import Job
from tests.checker import calm, check_invariants, events_of, job_now, new_job, other_connection
from transcript import DecodeOptions

UPLOAD = Upload("a.wav", "audio/a", 10, "f" * 64)


@pytest.fixture
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


def problems(request: JobRequest, settings: Settings | None = None) -> list[str]:
    """The fields that are refused."""
    try:
        validate(request, settings or Settings())
    except errors.InvalidOption as refusal:
        return [field for field, _ in refusal.problems]
    return []


def asked(model: str = "tiny", **options: Any) -> JobRequest:
    return JobRequest(model, decode=DecodeOptions(**options))


def test_a_job_holds_what_was_asked(books: None) -> None:
    decode = DecodeOptions("de", "translate", word_timestamps=True, initial_prompt="é\n", temperature=0.2, beam_size=1)
    request = JobRequest("small", "high", decode, {"order": [1, None, "ü"]})
    with transaction() as session:
        job_id = submit(session, UPLOAD, request, request_id="r-1").id
    job = job_now(job_id)
    assert (job.filename, job.storage_key, job.size_bytes, job.sha256) == ("a.wav", "audio/a", 10, "f" * 64)
    assert (job.model_size, job.priority, job.meta, job.request_id) == (
        "small",
        "high",
        {"order": [1, None, "ü"]},
        "r-1",
    )
    assert decode_options(job) == decode
    assert (job.status, job.attempt, job.progress, job.batch_id) == ("pending", 0, 0, None)


optional_text = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
decodes = st.builds(
    DecodeOptions,
    language=st.none() | st.sampled_from([MULTI, *sorted(LANGUAGES)]),
    languages=st.lists(st.sampled_from(sorted(LANGUAGES)), max_size=3).map(tuple),
    vad_threshold=st.none() | st.floats(0.01, 0.99),
    audio_track=optional_text,
    channels=st.sampled_from(["mix", "separate"]),
    condition_on_previous_text=st.booleans(),
    task=st.sampled_from(["transcribe", "translate"]),
    word_timestamps=st.booleans(),
    initial_prompt=optional_text,
    hotwords=optional_text,
    vad_filter=st.booleans(),
    temperature=st.none() | st.floats(0, 1),
    beam_size=st.integers(1, 10),
)


def test_every_option_comes_back_from_the_database_as_it_was(books: None) -> None:
    @calm
    @given(decodes)
    def comes_back(decode: DecodeOptions) -> None:
        assert decode_options(job_now(new_job(decode=decode))) == decode

    comes_back()


def test_a_submit_that_is_not_committed_leaves_nothing_and_wakes_nobody(books: None) -> None:
    with other_connection() as cursor:
        cursor.execute(f"LISTEN {NOTIFY_CHANNEL}")
        with transaction() as session:
            submit(session, UPLOAD, asked())
            session.rollback()
        cursor.execute("SELECT 1")
        assert not cursor.connection.notifies
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_the_commit_of_a_submit_wakes_the_relay(books: None) -> None:
    with other_connection() as cursor:
        cursor.execute(f"LISTEN {NOTIFY_CHANNEL}")
        job_id = new_job()
        cursor.execute("SELECT 1")
        assert [notice.payload for notice in cursor.connection.notifies] == ["pending"]
    (event,) = events_of(job_id)
    assert (event.attempt, event.from_status, event.to_status) == (0, None, "pending")


def test_a_batch_keeps_its_jobs_in_order_and_what_it_refused(books: None) -> None:
    refused = [{"filename": "x.txt", "code": "unsupported_media", "detail": "no"}]
    with transaction() as session:
        batch_id = open_batch(session, refused=refused).id
        sent = [submit(session, Upload(f"{n}", "k", 1, ""), asked(), batch_id=batch_id).id for n in range(5)]
    with transaction() as session:
        batch, jobs = read.batch_jobs(session, batch_id)
    assert batch.refused == refused
    assert [job.id for job in jobs] == sent


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (asked("huge"), ["model_size"]),
        (asked(""), ["model_size"]),
        (asked("/etc/model"), ["model_size"]),
        (asked(language="xx"), ["language"]),
        (asked(language="English"), ["language"]),
        (asked("tiny.en", language="de"), ["language"]),
        (asked("tiny.en", task="translate"), ["task"]),
        (asked("turbo", task="translate"), ["task"]),
        (asked("distil-large-v3", task="translate"), ["task"]),
        (asked("huge", language="xx"), ["model_size", "language"]),
        (asked("base.en", language="de", task="translate"), ["language", "task"]),
    ],
    ids=lambda value: "" if isinstance(value, JobRequest) else "+".join(value),
)
def test_a_request_that_cannot_be_met_is_refused_with_every_field_named(
    request_: JobRequest, fields: list[str]
) -> None:
    assert problems(request_) == fields


@pytest.mark.parametrize("model", MODEL_SIZES)
def test_every_model_of_the_contract_is_accepted(model: str) -> None:
    assert problems(asked(model)) == []
    assert problems(asked(model, language="en")) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_that_whisper_knows_is_accepted(language: str) -> None:
    assert problems(asked("small", language=language, task="translate")) == []


@pytest.mark.parametrize(
    ("path", "is_allowed"),
    [
        ("{0}/mine\0", False),
        ("{0}/one", True),
        ("{0}/deep/er", True),
        ("{0}/../outside", False),
        ("{0}-neighbour/one", False),
        ("{0}/link", False),
        ("/", False),
    ],
)
def test_a_model_path_must_lie_below_a_folder_that_the_operator_allows(
    tmp_path: Any, path: str, is_allowed: bool
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link").symlink_to("/etc")
    settings = Settings(model_allowed_paths=f"/nowhere:{folder}")
    assert (problems(asked(path.format(folder)), settings) == []) == is_allowed


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("metadata", JobRequest("tiny", metadata={"a": "\0"})),
        ("metadata", JobRequest("tiny", metadata={"\0": 1})),
        ("metadata", JobRequest("tiny", metadata={"a": [{"b": "\ud800"}]})),
        ("metadata", JobRequest("tiny", metadata={"a": float("nan")})),
        ("initial_prompt", asked(initial_prompt="\0")),
        ("hotwords", asked(hotwords="\ud800")),
    ],
    ids=["NUL", "NUL as key", "half a surrogate", "not a number", "NUL in the prompt", "half a surrogate in hotwords"],
)
def test_what_the_database_cannot_hold_is_refused_and_not_an_error_of_ours(field: str, request_: JobRequest) -> None:
    assert problems(request_) == [field]
