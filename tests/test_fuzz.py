"""Whatever is sent, and whatever a recording holds: an answer that is meant, nothing half done, nobody left behind.

The short form. `python -m bench.fuzz` runs the same with more examples and a seed of its choice (FUZZ_EXAMPLES).
"""

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from audio.decode import open_audio
from config import Settings
from errors import DecoderCrashed, MediaError
from jobs.submit import is_storable
from tests.api_client import WAV, files_below, rows
from tests.media import KINDS, can_encode, tone, write_media
from tests.raw_requests import Answer, request

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
pytestmark = [pytest.mark.timeout(0 if EXAMPLES else 120)]


def fuzz(short: int) -> settings:
    """The same examples every time, but for `bench.fuzz`, which names a seed."""
    return settings(
        max_examples=EXAMPLES or short,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # fixtures are shared by all examples, on purpose
    )


# Uploads

CAP = 1024 * 1024  # of a file, in the application under test
OPTIONS = (
    "model_size language task priority word_timestamps initial_prompt hotwords vad_filter temperature beam_size "
    "metadata"
).split()
VALUES = (
    "demo small /etc/passwd ../model en DE klingon translate high urgent true 0 -1 1e400 nan inf 99999999999999999999 "
    '{} [] null {"a":1e400} {"a":"\\u0000"} {"a":"\\ud800"}'
).split()
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)
values = (
    st.sampled_from(VALUES).map(str.encode)
    | st.binary(max_size=40)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.dictionaries(st.text(max_size=5), json_values, max_size=3).map(lambda value: json.dumps(value).encode())
    | st.integers(0, 5000).map(lambda size: b"9" * size)
)
filenames = st.sampled_from(
    [b"a.wav", b"../../passwd.mp3", b"C:\\music\\a.mp3", b"x" * 300 + b".wav", b"\xff\xfe.wav", b"a\0b.mp3", b"", b"."]
) | st.binary(max_size=20)  # fmt: skip
contents = st.sampled_from([WAV, b"", b"x", b"ID3", b"RIFF", b"\0" * 300, b"OggS" + bytes(CAP)]) | st.binary(
    max_size=300
)


@dataclass(frozen=True, slots=True)
class Sent:
    headers: list[tuple[bytes, bytes]]
    chunks: list[bytes]
    breaks_off: bool


@st.composite
def parts(draw: st.DrawFn, field: bytes) -> bytes:
    """Headers and content of one part."""
    is_file = draw(st.booleans())
    name = field if is_file else draw(st.sampled_from(OPTIONS).map(str.encode) | st.binary(max_size=12))
    words = [b"form-data", b'name="' + name + b'"']
    if is_file:
        words.append(b'filename="' + draw(filenames) + b'"')
    head = b"Content-Disposition: " + b"; ".join(words)
    odd = [
        b"",
        b"",
        b"X: y",
        b"Content-Disposition: form-data",
        b"Content-Type: text/plain; charset=utf-16",
        b"A" * 5000,
    ]
    extra = draw(
        st.sampled_from([*odd, b"Content-Transfer-Encoding: base64", b"Content-Length: 99999999", b": x", b"a"])
    )
    lines = draw(st.permutations([head, extra])) if extra else [head]
    content = draw(contents if is_file else values)
    if draw(st.integers(0, 9)) == 0:  # a form within the form
        content = b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n--b--\r\n"
    return b"\r\n".join([*lines, b"", content])


@st.composite
def requests(draw: st.DrawFn, field: bytes) -> Sent:
    boundary = draw(st.sampled_from([b"b", b"b", b"----WebKit7MA4YWxk", b"", b"x" * 300, b'"', b"\xe9"]))
    good = [boundary] * 8
    body = b"".join(
        b"--" + draw(st.sampled_from([*good, b"other"])) + b"\r\n" + part + b"\r\n"
        for part in draw(st.lists(parts(field), max_size=4))
    )
    body += draw(
        st.sampled_from([b"--" + boundary + b"--\r\n"] * 6 + [b"", b"--" + boundary, b"--" + boundary + b"--junk"])
    )
    if draw(st.integers(0, 4)) == 0:
        body = draw(damaged(body))
    kind = b"multipart/form-data; boundary=" + boundary
    kinds = [kind] * 8 + [b"multipart/mixed; boundary=b", b"multipart/form-data", b"text/plain", b"", b";=;boundary"]
    headers = [(b"content-type", draw(st.sampled_from(kinds)))]
    lengths = [b"%d" % len(body)] * 3 + [b"0", b"-1", b"1", b"9" * 12, b"9" * 5000, b"\xb2", b"abc", b""]
    if draw(st.booleans()):
        headers.append((b"content-length", draw(st.sampled_from(lengths))))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    return Sent(headers, chunks, breaks_off=draw(st.integers(0, 9)) == 0)


@pytest.fixture
def app(settings: Settings) -> ASGIApp:
    from app import create_app

    return create_app(settings.model_copy(update={"max_upload_size_mb": 1, "max_batch_files": 3}))


@fuzz(short=120)
@given(sent=requests(b"file"))
def test_no_request_to_submit_one_breaks_the_service(app: ASGIApp, data_dir: Path, sent: Sent) -> None:
    answer = request(app, "POST", "/transcribe/", sent.headers, sent.chunks, breaks_off=sent.breaks_off)
    check_answer(answer)
    check_storage(data_dir)
    if answer.status == 202:
        assert request(app, "GET", answer.headers["location"]).status == 200


@fuzz(short=120)
@given(sent=requests(b"files"))
def test_no_request_to_submit_many_breaks_the_service(app: ASGIApp, data_dir: Path, sent: Sent) -> None:
    answer = request(app, "POST", "/transcribe/batch", sent.headers, sent.chunks, breaks_off=sent.breaks_off)
    check_answer(answer)
    check_storage(data_dir)
    if answer.status == 202:
        assert request(app, "GET", answer.headers["location"]).status == 200


def check_answer(answer: Answer) -> None:
    assert answer.status in (202, 413, 415, 422), answer.body
    if answer.status != 202:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status
        assert problem["code"]
        assert problem["detail"]
        assert len(answer.body) < 1_000_000, "what was wrong, not all that was sent"


def check_storage(data_dir: Path) -> None:
    """A file for each row, a row for each file, nothing unfinished."""
    folder = data_dir / "audio"
    stored = [path.relative_to(folder).as_posix() for path in files_below(folder)]
    assert stored == [
        key for (key,) in rows('SELECT storage_key FROM transcription_jobs ORDER BY storage_key COLLATE "C"')
    ]


# Recordings

SIZES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
NAMES = (
    b"RIFF fmt  data LIST moov trak mdia stsd stts stsc stsz stco mdhd tkhd elst ftyp mdat OggS OpusHead fLaC ID3 Xing "
    b"movi strh strf idx1"
).split(b" ")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The same with a few faults of the kinds that disks, networks and enemies make."""
    for _ in range(draw(st.integers(1, 4))):
        fault = draw(st.sampled_from([flipped, cut_off, shuffled, repeated, overwritten, resized, stretched]))
        content = fault(draw, content)
    return content


def at(draw: st.DrawFn, content: bytes) -> int:
    """A place; headers are worth more tries than sound."""
    return draw(st.integers(0, min(len(content), 400)) | st.integers(0, len(content)))


def flipped(draw: st.DrawFn, content: bytes) -> bytes:
    flip = bytearray(content)
    for _ in range(draw(st.integers(1, 20)) if content else 0):
        flip[at(draw, content) % len(content)] ^= 1 << draw(st.integers(0, 7))
    return bytes(flip)


def cut_off(draw: st.DrawFn, content: bytes) -> bytes:
    return content[: at(draw, content)]


def shuffled(draw: st.DrawFn, content: bytes) -> bytes:
    first, second, third = sorted(at(draw, content) for _ in range(3))
    return content[:first] + content[second:third] + content[first:second] + content[third:]


def repeated(draw: st.DrawFn, content: bytes) -> bytes:
    start, end = sorted(at(draw, content) for _ in range(2))
    return content[:end] + content[start:end] * draw(st.integers(1, 3)) + content[end:]


def overwritten(draw: st.DrawFn, content: bytes) -> bytes:
    place, value = at(draw, content), draw(st.sampled_from(SIZES))
    number = struct.pack(draw(st.sampled_from(["<I", ">I", "<Q", ">Q"])), value)
    return content[:place] + number + content[place + len(number) :]


def resized(draw: st.DrawFn, content: bytes) -> bytes:
    """Another size before or after the name of a chunk, a box or a page."""
    places = [content.find(name) for name in NAMES if name in content]
    if not places:
        return overwritten(draw, content)
    place = max(0, draw(st.sampled_from(places)) + draw(st.sampled_from([-4, 4, 8, 12])))
    number = struct.pack(draw(st.sampled_from(["<I", ">I"])), draw(st.sampled_from(SIZES)))
    return content[:place] + number + content[place + 4 :]


def stretched(draw: st.DrawFn, content: bytes) -> bytes:
    place = at(draw, content)
    return content[:place] + bytes(draw(st.integers(1, 5000))) + content[place:]


LIMITS = Settings(max_audio_hours=0.5, decode_memory_mb=512, decode_stall_seconds=30)
LONGEST = 1800 * 16_000  # samples


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Half a second of sound in every container."""
    folder = tmp_path_factory.mktemp("good")
    return {
        ending: write_media(folder / f"good.{ending}", tone(0.5), kind=ending).read_bytes()
        for ending, kind in KINDS.items()
        if can_encode(kind)
    }


def decoders_left() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if any(word.endswith("decoder.py") for word in child.cmdline())]


@fuzz(short=40)
@given(data=st.data())
def test_no_recording_breaks_the_decoder(good: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    content = good[data.draw(st.sampled_from(sorted(good)), "kind")]
    path, repair = tmp_path / "recording", data.draw(st.booleans(), "repair")
    path.write_bytes(data.draw(damaged(content), "content"))
    samples, refusal = outcome(path, repair=repair)
    assert samples <= LONGEST
    assert "bug" not in refusal
    assert "The decoder failed" not in refusal, "an exception that the decoder did not expect"
    assert decoders_left() == []


def outcome(path: Path, *, repair: bool) -> tuple[int, str]:
    """Samples, and what was said if that was not all. Anything but an error of ours is raised."""
    samples = 0
    try:
        with open_audio(path, repair=repair, settings=LIMITS) as audio:
            assert is_storable(audio.info.as_json())
            for block in audio.blocks():
                samples += len(block)
    except (MediaError, DecoderCrashed) as error:
        return samples, str(error)
    return samples, ""
