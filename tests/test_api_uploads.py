"""Bodies that no honest client sends: refused in words, at once, and nothing of them stays."""

from pathlib import Path

import pytest
from starlette.types import ASGIApp

from api.uploads import MAX_FIELD_BYTES
from config import Settings
from tests.api_client import WAV, files_below, rows
from tests.raw_requests import Answer, request

FORM = (b"content-type", b"multipart/form-data; boundary=b")
END = b"--b--\r\n"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + WAV + b"\r\n"


@pytest.fixture
def app(settings: Settings) -> ASGIApp:
    """The API with a cap of 1 MiB for a file."""
    from app import create_app

    return create_app(settings.model_copy(update={"max_upload_size_mb": 1}))


def field(name: bytes, value: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value + b"\r\n"


def refused(answer: Answer, status: int, data_dir: Path) -> str:
    """The detail of a refusal that left nothing behind."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert files_below(data_dir / "audio") == []
    assert rows("SELECT count(*) FROM transcription_jobs") == [(0,)]
    return str(answer.json()["detail"])


def test_a_boundary_of_any_length_is_answered(app: ASGIApp, data_dir: Path) -> None:
    header = (b"content-type", b"multipart/form-data; boundary=" + b"x" * 300)
    assert "boundary" in refused(request(app, "POST", "/transcribe/", [header], [FILE + END]), 422, data_dir)


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5000])
def test_a_length_beyond_all_numbers_is_too_large(app: ASGIApp, data_dir: Path, length: str) -> None:
    headers = [FORM, (b"content-length", length.encode())]
    refused(request(app, "POST", "/transcribe/", headers, [FILE + END]), 413, data_dir)


@pytest.mark.parametrize("length", [b"\xb2", b"-1", b"abc", b""])
def test_a_length_that_is_no_number_is_not_believed(app: ASGIApp, length: bytes) -> None:
    assert request(app, "POST", "/transcribe/", [FORM, (b"content-length", length)], [FILE + END]).status == 202


@pytest.mark.parametrize("sent", [0, 40, 200, len(FILE), len(FILE + END)])
def test_a_client_that_hangs_up_is_no_failure_of_the_service(app: ASGIApp, data_dir: Path, sent: int) -> None:
    """Raised, it would be a crash in the operator's log for every upload that is broken off."""
    answer = request(app, "POST", "/transcribe/", [FORM], [(FILE + END)[:sent]], breaks_off=True)
    assert "ended early" in refused(answer, 422, data_dir)


def test_the_names_of_fields_count_too(app: ASGIApp, data_dir: Path) -> None:
    names = b"".join(field(b"%d" % number + b"x" * 900) for number in range(100))
    assert str(MAX_FIELD_BYTES) in refused(
        request(app, "POST", "/transcribe/", [FORM], [names + FILE + END]), 422, data_dir
    )


def test_empty_fields_without_end_are_not_collected(app: ASGIApp, data_dir: Path) -> None:
    fields = b"".join(field(b"%d" % number) for number in range(2000))
    assert str(MAX_FIELD_BYTES) in refused(request(app, "POST", "/transcribe/", [FORM], [fields + END]), 422, data_dir)


def test_what_follows_the_end_counts_against_the_cap(app: ASGIApp, data_dir: Path) -> None:
    """Without a Content-Length, or with a wrong one, a body could go on for ever."""
    endless = [FILE + END, *[bytes(100_000)] * 20]
    refused(request(app, "POST", "/transcribe/", [FORM], endless), 413, data_dir)


@pytest.mark.parametrize("depth", [300, 2700])
def test_metadata_nested_too_deep_is_refused(app: ASGIApp, data_dir: Path, depth: int) -> None:
    """Accepted, it could never be shown again; and Python's own JSON reader gives up before its end."""
    metadata = b'{"a":' * depth + b"1" + b"}" * depth
    answer = request(app, "POST", "/transcribe/", [FORM], [field(b"metadata", metadata) + FILE + END])
    assert "metadata" in refused(answer, 422, data_dir)


# Names, and parts without one


def part(disposition: str, content: bytes = WAV) -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"


def names() -> list[str]:
    return [name for (name,) in rows("SELECT filename FROM transcription_jobs ORDER BY created_at")]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("name=file; filename=\"plain.wav\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.wav", "naïve €.wav"),
        ("name=file; filename*=utf-8'en'na%C3%AFve.wav; filename=plain.wav", "naïve.wav"),
        ("name=file; filename*=UTF-8''only.wav", "only.wav"),
        ("name=file; filename*=iso-8859-1''na%EFve.wav", "naïve.wav"),
        ("name=file; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd.wav", "passwd.wav"),
        ("name=file; filename=plain.wav; filename*=koi8-r''%CE.wav", "plain.wav"),  # not a charset of RFC 8187
        ("name=file; filename=plain.wav; filename*=broken", "plain.wav"),
        ("name=file; filename=\"a; filename*=UTF-8''b.wav\"", "a; filename*=UTF-8''b.wav"),
        ('name=file; filename="nai\u0308ve.wav"', "na\u00efve.wav"),  # as macOS writes it
        ("name=file", "unnamed"),
    ],
)
def test_a_recording_is_called_as_its_headers_say(app: ASGIApp, disposition: str, name: str) -> None:
    assert request(app, "POST", "/transcribe/", [FORM], [part(disposition) + END]).status == 202
    assert names() == [name]


def test_a_batch_takes_files_without_names(app: ASGIApp) -> None:
    body = part("name=files") + part('name=files; filename="b.wav"') + part("name=files")
    assert request(app, "POST", "/transcribe/batch", [FORM], [body + END]).status == 202
    assert names() == ["unnamed", "b.wav", "unnamed"]


def test_a_forgotten_at_sign_is_named(app: ASGIApp, data_dir: Path) -> None:
    """`curl -F file=meeting.mp3` sends the name as the content."""
    answer = request(app, "POST", "/transcribe/", [FORM], [part("name=file", b"meeting.mp3") + END])
    assert "@" in refused(answer, 415, data_dir)


@pytest.mark.parametrize("disposition", ["name=file", 'name=file; filename=""'])
def test_a_field_for_a_file_that_was_left_empty_is_absent(app: ASGIApp, data_dir: Path, disposition: str) -> None:
    """As a page sends it where an address was typed instead."""
    empty = part(disposition, b"")
    assert "missing" in refused(request(app, "POST", "/transcribe/", [FORM], [empty + END]), 422, data_dir)
    assert request(app, "POST", "/transcribe/", [FORM], [empty + FILE + END]).status == 202
    assert names() == ["a.wav"]


EMPTY = "model_size language languages task priority word_timestamps initial_prompt hotwords vad_filter vad_threshold \
audio_track channels temperature beam_size metadata webhook_url delete_after_seconds url".split()


@pytest.mark.parametrize("path", ["/transcribe/", "/transcribe/batch"])
def test_fields_left_empty_are_absent(app: ASGIApp, path: str) -> None:
    file = FILE if path.endswith("/") else FILE.replace(b'"file"', b'"files"')
    body = b"".join(field(name.encode()) for name in EMPTY) + file + END
    assert request(app, "POST", path, [FORM], [body]).status == 202
    ((task, priority, meta),) = rows("SELECT task, priority, metadata FROM transcription_jobs")
    assert (task, priority, meta) == ("transcribe", "normal", {})


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (b"application/x-www-form-urlencoded", "url=https://1.1.1.1/a.wav&task=&beam_size=&metadata=&priority="),
        (b"application/json", '{"url": "https://1.1.1.1/a.wav", "task": "", "beam_size": null, "metadata": ""}'),
    ],
)
def test_fields_left_empty_are_absent_where_an_address_is_sent(app: ASGIApp, media_type: bytes, body: str) -> None:
    answer = request(app, "POST", "/transcribe/", [(b"content-type", media_type)], [body.encode()])
    assert answer.status == 202, answer.body
