"""Parts of the command `transcribe` on their own: names of files, figures for people, what is tried again."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path, PurePath
from threading import Event

import pytest

from api.schemas import TranscribeOptions
from api.sniff import COMMON
from api.subtitles import SubtitleFields
from app import create_app
from config import Settings
from formats import FORMATS, READABLE
from tests.client_play import Person, hush
from tests.far_server import Exchange, far_server
from tests.openai_service import serving
from transcribe_client import outputs, wording
from transcribe_client import settings as client_settings
from transcribe_client.api import OPTIONS, Api
from transcribe_client.failures import Failure, Misuse, Refused, Unreachable, worst
from transcribe_client.following import Follower
from transcribe_client.inputs import SUFFIXES, Recording, found
from transcribe_client.ledger import KEPT, TRIMMED_AT, Ledger
from transcribe_client.options import Asked, Format
from transcribe_client.sending import Sender, Transfer
from transcribe_client.subtitles import TAKEN, Subtitles
from transcribe_client.watch import Inbox

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def told(server: str, key: str = "") -> client_settings.Settings:
    nowhere = Path("nowhere")
    where, who = (client_settings.Setting(value, "here") for value in (server, key))
    return client_settings.Settings(where, who, nowhere, file_exists=False, formats=[], submit={})


@contextmanager
def asking(play: Callable[[Exchange], None], *, patience_s: float = 0) -> Iterator[tuple[Api, list[Exchange]]]:
    with far_server(play) as far:
        api = Api(told(far.url("")), patience_s=patience_s)
        try:
            yield api, far.seen
        finally:
            api.close()


def test_what_the_service_knows_is_known_here() -> None:
    assert SUFFIXES == COMMON
    assert TranscribeOptions.model_fields.keys() == OPTIONS
    assert {one.value for one in Format} == {*FORMATS, "json"}
    assert {name: set(taken) for name, taken in TAKEN.items()} == {
        name: set(taken) for name, (_, taken) in READABLE.items()
    }
    assert SubtitleFields.model_fields.keys() == {one.name for one in fields(Subtitles)}


def test_each_format_is_asked_for_with_the_options_that_it_takes() -> None:
    chosen = Subtitles(max_line_width=42, word_level=True)
    assert [chosen.query(name) for name in ("txt", "srt", "vtt", "lrc")] == [
        {"format": "txt"},
        {"format": "srt", "max_line_width": "42"},
        {"format": "vtt", "max_line_width": "42", "word_level": "true"},
        {"format": "lrc", "word_level": "true"},
    ]
    assert Subtitles().query("srt") == {"format": "srt"}


def test_times_of_words_are_asked_for_where_a_format_needs_them() -> None:
    timed = {"word_timestamps": "true"}
    assert (
        Subtitles(highlight_words=True).with_words({"task": "translate"}, ["txt", "srt"])
        == {"task": "translate"} | timed
    )
    assert Subtitles(highlight_words=True).with_words({}, ["txt", "lrc"]) == {}
    assert Subtitles(max_line_width=42).with_words({}, ["srt"]) == {}


@pytest.mark.parametrize(
    ("places", "chosen"),
    [
        (["a.wav", "b/a.wav"], ["a", "b/a"]),
        (["a.wav", "a.mp3"], ["a.wav", "a.mp3"]),
        (["a.wav", "A.wav", "a.wav"], ["a.wav", "A.wav (2)", "a.wav (3)"]),
        (["talk.v2.wav", "noending"], ["talk.v2", "noending"]),
    ],
)
def test_no_two_recordings_have_one_place(places: list[str], chosen: list[str]) -> None:
    recordings = [Recording(name, name, PurePath(name)) for name in places]
    assert [place.as_posix() for place in outputs.places(recordings)] == chosen
    endings = [file.name for place in chosen for _, file in outputs.targets(Path("out"), PurePath(place), ["srt"])]
    assert endings == [f"{PurePath(place).name}.srt" for place in chosen]


def test_a_recording_that_is_named_twice_is_taken_once(tmp_path: Path) -> None:
    path = hush(tmp_path / "in" / "a.WAV")
    arguments = [str(tmp_path / "in"), str(path), str(tmp_path / "*" / "*.WAV"), "https://example.com/../a%2Fb.mp3?x"]
    recordings = found(arguments)
    assert [(one.name, one.place.as_posix()) for one in recordings] == [("a.WAV", "a.WAV"), ("b.mp3", "b.mp3")]


def test_a_file_is_taken_once_when_it_has_stopped_changing(tmp_path: Path) -> None:
    now = 0.0
    inbox = Inbox(tmp_path, settle_s=5, clock=lambda: now)

    def taken(at: float) -> list[str]:
        nonlocal now
        now = at
        return [one.name for one, _ in inbox.complete()]

    path = hush(tmp_path / "a.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "a.srt").write_text("a result")
    assert [taken(0), taken(4)] == [[], []]
    with path.open("ab") as file:
        file.write(b"more")
    assert [taken(6), taken(10), taken(11), taken(20)] == [[], [], ["a.wav"], []]
    hush(path, 7)
    assert [taken(21), taken(26), taken(40)] == [[], ["a.wav"], []]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match=r"a\.txt"):
        outputs.write(tmp_path / "a.txt", b"text")
    outputs.write(tmp_path / "deep" / "b.txt", b"text")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b.txt"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59, "59 s"), (125, "2 min 05 s"), (11_100, "3 h 05 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_shown_in_two_units(seconds: float, shown: str) -> None:
    assert wording.duration(seconds) == shown


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604_800), ("1h30m", 5400), ("1.5 h", 5400), ("90s", 90)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert wording.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d7", "7 years", "1h and a bit", "-2h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="is not a duration"):
        wording.seconds_of(text)


def test_moments_are_durations_back_or_dates() -> None:
    assert wording.moment_of("2h", NOW) == NOW - timedelta(hours=2)
    assert wording.moment_of("2026-01-31T12:00+00:00") == NOW
    with pytest.raises(Misuse, match="neither a duration nor a date"):
        wording.moment_of("yesterday")


def test_times_are_told_from_now() -> None:
    told = [wording.ago(NOW - timedelta(seconds=s), NOW) for s in (1, 185, 7300, 100_000, -185)]
    assert told == ["just now", "3 min ago", "2 h ago", "1 day ago", "in 3 min"]
    assert [wording.ordinal(number) for number in (1, 2, 3, 4, 11, 12, 21, 113)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "113th",
    ]  # fmt: skip


def test_a_file_name_cannot_command_the_terminal() -> None:
    assert wording.plain("a\x1b[2J\n\udcff.wav") == "a�[2J�?.wav"


def test_the_worst_exit_code_of_many_recordings_is_told() -> None:
    assert [worst(codes) for codes in ([], [1, 4], [4, 3, 1], [1])] == [0, 4, 3, 1]


def test_options_are_fields_of_the_form_and_what_is_not_given_is_not_sent() -> None:
    assert Asked().fields() == {}
    asked = Asked(vad=False, delete_after="1d", metadata=["a=1=2", '{"b": [2]}', "a=3"], prompt="x", temperature=0.0)
    assert asked.fields() == {
        "vad_filter": "false",
        "delete_after_seconds": "86400",
        "metadata": '{"a": "3", "b": [2]}',
        "initial_prompt": "x",
        "temperature": "0.0",
    }


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_service_is_asked_again_when_it_says_so(status: int) -> None:
    answers = chain([(status, {"Retry_After": "0"})] * 2, repeat((200, {})))

    def play(exchange: Exchange) -> None:
        code, headers = next(answers)
        exchange.answer(code, b"{}", **headers)

    with asking(play, patience_s=5) as (api, seen):
        assert api.get("/jobs/") == {}
    assert len(seen) == 3


def test_a_wait_that_is_longer_than_the_patience_is_not_begun() -> None:
    with (
        asking(lambda exchange: exchange.answer(429, b"", Retry_After="86400"), patience_s=300) as (api, seen),
        pytest.raises(Refused, match="answered 429") as refused,
    ):
        api.get("/jobs/")
    assert (refused.value.hint, len(seen)) == ("It may be asked again in 1 d 0 h.", 1)


def test_a_recording_that_is_too_large_is_refused_and_not_sent_for_ever(settings: Settings, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(50_000_000)
    with serving(create_app(settings.model_copy(update={"max_upload_size_mb": 1}))) as url:
        done = Person(tmp_path, url).runs("submit", large)
    assert (done.returncode, done.stdout) == (4, "")
    assert "larger than 1 MiB" in done.stderr


def test_what_is_no_transcription_service_is_recognised() -> None:
    with asking(lambda exchange: exchange.answer(200, b"<html>")) as (api, _), pytest.raises(Failure, match="not JSON"):
        api.get("/jobs/")
    with asking(lambda exchange: exchange.answer(404, b"<html>")) as (api, _), pytest.raises(Refused) as unknown:
        api.get("/jobs/")
    assert "the address of a transcription service?" in unknown.value.hint
    moved = {"Location": "https://elsewhere/"}
    with asking(lambda one: one.answer(308, b"", **moved)) as (api, _), pytest.raises(Refused) as elsewhere:
        api.get("/jobs/")
    assert "https://elsewhere/. Give that address with --server." in elsewhere.value.hint


def test_a_connection_that_breaks_is_a_service_that_cannot_be_reached() -> None:
    with asking(lambda one: one.connection.shutdown(socket.SHUT_RDWR)) as (api, _), pytest.raises(Unreachable):
        api.get("/jobs/")


def test_many_jobs_are_followed_by_pages_of_a_list_and_none_is_forgotten(tmp_path: Path) -> None:
    names = [f"job{number:03}" for number in range(130)]
    stamp = NOW.isoformat()
    listed = [{"job_id": name, "status": "completed", "progress": 100, "created_at": stamp} for name in names[:-10]]

    def get(path: str, **params: object) -> object:
        asked.append(path)
        if path != "/jobs/":
            return {"job_id": path.rpartition("/")[2], "status": "processing", "progress": 1, "created_at": stamp}
        start = 100 if params["after"] else 0
        rows = listed[start : start + 100]
        return {"data": rows, "has_more": start == 0, "last_id": rows[-1]["job_id"]}

    asked: list[str] = []
    api = Api(told("http://127.0.0.1:1"))
    api.get = get  # type: ignore[method-assign]
    follower = Follower(api)
    for name in names:
        follower.add({"job_id": name, "status": "pending", "progress": 0, "created_at": stamp})
    assert set(follower.look()) >= set(names[:-10]) - {path.rpartition("/")[2] for path in asked}
    assert asked.count("/jobs/") == 2
    assert {f"/transcribe/{name}" for name in names[-10:]} <= set(asked)
    api.close()


def test_the_ledger_survives_half_a_line_and_stays_small(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state" / "jobs.jsonl")
    ledger.note("k", "old", "a.wav")
    ledger.note("k", "new", "a.wav")
    with (tmp_path / "state" / "jobs.jsonl").open("a") as file:
        file.write('{"key": "x"}\nnothing\n')
        file.writelines(f'{{"key": "{number}", "job": "{number}"}}\n' for number in range(TRIMMED_AT))
        file.write('{"key": "half')
    again = Ledger(tmp_path / "state" / "jobs.jsonl")
    again.load()
    assert (again.job_of("k"), again.job_of("7"), ledger.job_of("k")) == ("new", "7", "new")
    assert len((tmp_path / "state" / "jobs.jsonl").read_text().splitlines()) == KEPT
    assert again.last(1) == [(str(TRIMMED_AT - 1), "")]


def test_a_key_is_the_same_for_the_same_content_name_options_and_server(tmp_path: Path) -> None:
    path, same, other = (hush(tmp_path / folder / "a.wav", number) for folder, number in (("x", 0), ("y", 0), ("z", 1)))

    def key(path: Path, server: str = "http://127.0.0.1:1", **fields: str) -> str:
        api = Api(told(server))
        sender = Sender(api, Ledger(tmp_path / "jobs"), fields, Event())
        try:
            return sender._digest(Recording("a", path.name, PurePath("a"), path=path), Transfer())
        finally:
            api.close()

    assert key(path) == key(same)
    different = [key(path), key(other), key(path, language="en"), key(path, server="http://127.0.0.1:2")]
    assert len({*different, key(path.rename(tmp_path / "b.wav"))}) == 5
