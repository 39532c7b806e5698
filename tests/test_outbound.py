"""A recording is fetched whole or refused, whatever the server claims, sends or redirects to."""

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from config import VERSION
from errors import AddressRefused, Cancelled, FetchFailed, FetchRefused, ServiceError
from outbound import Fetched, Outbound
from tests.far_server import (
    CONTENT,
    LOOPBACK,
    Exchange,
    Play,
    Sink,
    breaking,
    far_server,
    fetch,
    listener,
    post,
    redirect,
    say_nothing,
    serve_content,
)


@pytest.fixture(scope="module")
def outbound() -> Outbound:
    return Outbound(LOOPBACK, resume_wait_s=0.001)


def test_a_recording_comes_whole_with_its_size_and_hash(outbound: Outbound) -> None:
    sink = Sink()
    with far_server(serve_content) as server:
        fetched = fetch(outbound, server.url("/a/talk%20one.wav?token=x#part"), sink)
        assert fetched == Fetched(None, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
        assert [exchange.path for exchange in server.seen] == ["/a/talk%20one.wav?token=x"]
    assert sink.content == CONTENT
    assert sink.progress[-1] == (len(CONTENT), len(CONTENT))
    assert sink.progress == sorted(sink.progress)


def test_the_request_says_who_asks_and_wants_nothing_compressed(outbound: Outbound) -> None:
    with far_server(serve_content) as server:
        fetch(outbound, server.url())
        seen = server.seen[0].headers
    assert seen["User-Agent"] == f"whisper-queue/{VERSION}"
    assert seen["Accept-Encoding"] == "identity"
    assert seen["Host"] == f"127.0.0.1:{server.port}"
    assert not any(name in seen for name in ("Range", "If-Range", "Cookie", "Authorization", "Content-Length"))


def test_a_recording_of_unknown_length_comes_whole(outbound: Outbound) -> None:
    def play(exchange: Exchange) -> None:
        exchange.begin(200, Transfer_Encoding="chunked")
        for start in range(0, len(CONTENT), 50_000):
            piece = CONTENT[start : start + 50_000]
            exchange.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        exchange.wfile.write(b"0\r\n\r\n")

    sink = Sink()
    with far_server(play) as server:
        assert fetch(outbound, server.url(), sink).size_bytes == len(CONTENT)
    assert sink.content == CONTENT
    assert sink.progress[-1] == (len(CONTENT), None)


def test_a_slow_recording_comes_whole_as_long_as_it_does_not_stall(outbound: Outbound) -> None:
    def play(exchange: Exchange) -> None:
        exchange.begin(200, 40)
        for _ in range(40):
            exchange.server.closing.wait(0.03)
            exchange.wfile.write(b"x")

    with far_server(play) as server:
        assert fetch(outbound, server.url(), stall_s=0.8).size_bytes == 40


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('attachment; filename="call 7.mp3"', "call 7.mp3"),
        ("inline; filename=call.mp3", "call.mp3"),
        ('attachment; FileName = "a\\"b.wav"', 'a"b.wav'),
        ("attachment; filename=\"plain.wav\"; filename*=UTF-8''%e2%82%ac%20rates.wav", "€ rates.wav"),
        ("attachment; filename*=iso-8859-1'en'%A3.wav; filename=plain.wav", "£.wav"),
        ("attachment; filename*=utf-7''x.wav; filename=plain.wav", "plain.wav"),
        ("attachment; filename*=UTF-8''%ff.wav", "\ufffd.wav"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\calls\\\\7.wav"', "7.wav"),
        ("attachment; filename*=UTF-8''a%0d%0ab%00.wav", "ab.wav"),
        (f'attachment; filename="{"a" * 300}.wav"', "a" * 251 + ".wav"),
        ('attachment; filename=".."', None),
        ('attachment; filename=""', None),
        ("attachment", None),
        ("attachment; filename", None),
    ],
)
def test_the_name_is_the_servers_but_only_a_name(outbound: Outbound, disposition: str, filename: str | None) -> None:
    with far_server(lambda exchange: exchange.answer(200, b"x", Content_Disposition=disposition)) as server:
        assert fetch(outbound, server.url()).filename == filename


def test_an_empty_recording_without_a_name_comes_as_such(outbound: Outbound) -> None:
    with far_server(lambda exchange: exchange.answer(200)) as server:
        fetched = fetch(outbound, server.url("/"))
    assert (fetched.filename, fetched.size_bytes) == (None, 0)


def test_many_threads_share_one_door(outbound: Outbound) -> None:
    with far_server(serve_content) as server, ThreadPoolExecutor(8) as pool:
        fetched = list(pool.map(lambda _: fetch(outbound, server.url()), range(16)))
    assert {each.sha256 for each in fetched} == {hashlib.sha256(CONTENT).hexdigest()}


def test_a_claimed_length_over_the_cap_is_refused_before_a_byte_is_taken(outbound: Outbound) -> None:
    sink = Sink()

    def play(exchange: Exchange) -> None:
        exchange.begin(200, 1001)
        exchange.drip()

    with far_server(play) as server, pytest.raises(FetchRefused, match="1000 bytes"):
        fetch(outbound, server.url(), sink, max_bytes=1000)
    assert sink.content == b""


def test_a_recording_that_is_as_large_as_allowed_passes(outbound: Outbound) -> None:
    with far_server(serve_content) as server:
        assert fetch(outbound, server.url(), max_bytes=len(CONTENT)).size_bytes == len(CONTENT)


def test_an_endless_body_is_refused_as_soon_as_it_passes_the_cap(outbound: Outbound) -> None:
    sink = Sink()

    def play(exchange: Exchange) -> None:
        exchange.begin(200, Transfer_Encoding="chunked")
        while not exchange.server.closing.is_set():
            exchange.wfile.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")

    with far_server(play) as server, pytest.raises(FetchRefused, match="50000 bytes"):
        fetch(outbound, server.url(), sink, max_bytes=50_000)
    assert len(sink.content) <= 50_000


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "gzip, identity"])
def test_a_compressed_answer_is_refused_not_unpacked(outbound: Outbound, coding: str) -> None:
    sink = Sink()
    with (
        far_server(lambda exchange: exchange.answer(200, CONTENT, Content_Encoding=coding)) as server,
        pytest.raises(FetchRefused, match="compresses"),
    ):
        fetch(outbound, server.url(), sink)
    assert sink.content == b""


@pytest.mark.parametrize("status", [204, 206, 300, 302, 304, 400, 401, 403, 404, 410, 416, 451])
def test_an_answer_that_will_not_change_refuses(outbound: Outbound, status: int) -> None:
    with (
        far_server(lambda exchange: exchange.begin(status, 0 if status > 304 else None)) as server,
        pytest.raises(FetchRefused, match=str(status)),
    ):
        fetch(outbound, server.url())


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_fails_for_now(outbound: Outbound, status: int) -> None:
    with (
        far_server(lambda exchange: exchange.answer(status)) as server,
        pytest.raises(FetchFailed, match=str(status)) as caught,
    ):
        fetch(outbound, server.url())
    assert caught.value.retryable


def test_what_writing_and_checking_raise_comes_through_as_it_is(outbound: Outbound) -> None:
    def full(piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    def cancelled() -> None:
        raise Cancelled

    with far_server(serve_content) as server:
        with pytest.raises(OSError, match="No space left"):
            outbound.fetch(server.url(), full, max_bytes=10**6, on_progress=lambda *_: None)
        with pytest.raises(Cancelled):
            fetch(outbound, server.url(), check=cancelled)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(outbound: Outbound, status: int) -> None:
    def play(exchange: Exchange) -> None:
        if exchange.path == "/talk.wav":
            exchange.answer(status, Location="../b/other.mp3?x=1#f")
        else:
            serve_content(exchange)

    with far_server(play) as server:
        assert fetch(outbound, server.url()).size_bytes == len(CONTENT)
        assert [exchange.path for exchange in server.seen] == ["/talk.wav", "/b/other.mp3?x=1"]


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "//10.0.0.1/a.wav",
        "http://[::1]:5432/",
        "http://2130706433/",
        "http://localhost.:6379/",  # allowed by name, but no name of ours may be looked up here
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "http://user:pass@127.0.0.1/",
        "http://127.0.0.1\\@10.0.0.1/",
        "http://[/",
        "http://10.0.0.1\t/",
        "/" + "a" * 3000,
    ],
)
def test_a_redirect_to_a_refused_address_is_refused(location: str) -> None:
    def resolve(host: str) -> Sequence[str]:
        return ["10.0.0.1"]

    with far_server(redirect(location)) as server:
        with pytest.raises(AddressRefused) as caught:
            fetch(Outbound(LOOPBACK, resolve=resolve), server.url())
        assert len(server.seen) == 1
    assert not re.search(r"10\.0|passwd", str(caught.value))


@pytest.mark.parametrize("hops", [5, 6])
def test_five_redirects_are_followed_and_no_more(outbound: Outbound, hops: int) -> None:
    def play(exchange: Exchange) -> None:
        number = int(exchange.path[1:])
        if number < hops:
            exchange.answer(302, Location=f"/{number + 1}")
        else:
            serve_content(exchange)

    with far_server(play) as server:
        if hops > 5:
            with pytest.raises(FetchRefused, match="more than 5"):
                fetch(outbound, server.url("/0"))
        else:
            assert fetch(outbound, server.url("/0")).size_bytes == len(CONTENT)
        assert len(server.seen) == 6


def test_a_redirect_loop_ends(outbound: Outbound) -> None:
    with far_server(redirect("/talk.wav")) as server, pytest.raises(FetchRefused):
        fetch(outbound, server.url())


def say_nonsense(exchange: Exchange) -> None:
    exchange.wfile.write(b"220 mail.internal ESMTP s3cret\r\n" * 10)
    exchange.close_connection = True


def hang_up(exchange: Exchange) -> None:
    exchange.close_connection = True


@pytest.mark.parametrize(
    "play",
    [
        say_nonsense,
        hang_up,
        say_nothing,
        lambda exchange: exchange.answer(404, b"s3cret"),
        lambda exchange: exchange.answer(500, b"s3cret"),
        lambda exchange: exchange.answer(302, Location="http://10.0.0.1/s3cret"),
        lambda exchange: exchange.answer(302, Location="http://127.0.0.1:1/s3cret"),
        lambda exchange: exchange.answer(200, CONTENT, Content_Encoding="s3cret"),
        breaking(*[100] * 6, etag='"s3cret"'),
        breaking(100, etag=None),
    ],
)
def test_what_went_wrong_is_told_without_addresses_or_secrets(outbound: Outbound, play: Play) -> None:
    with far_server(play) as server, pytest.raises(ServiceError) as caught:
        fetch(outbound, server.url("/talk.wav?token=s3cret"), stall_s=0.3)
    assert len(str(caught.value)) > 20
    assert not re.search(r"s3cret|\d\.\d|talk|mail|token|Errno", str(caught.value))


def test_a_closed_port_is_told_without_its_address(outbound: Outbound) -> None:
    with listener() as server:
        port = server.getsockname()[1]
    for call in (fetch, post):
        with pytest.raises(FetchFailed, match="could not be made") as caught:
            call(outbound, f"http://127.0.0.1:{port}/")
        assert not re.search(rf"127|{port}|Errno", str(caught.value))
