"""A connection that breaks is taken up where it broke, and bytes of two recordings are never joined."""

import hashlib
import re

import pytest

from errors import Cancelled, FetchFailed, FetchRefused
from outbound import Outbound
from tests.far_server import (
    CONTENT,
    LOOPBACK,
    Exchange,
    Play,
    Sink,
    breaking,
    far_server,
    fetch,
)

LONG_AGO = "Mon, 01 Jan 2024 00:00:00 GMT"


@pytest.fixture(scope="module")
def outbound() -> Outbound:
    return Outbound(LOOPBACK, resume_wait_s=0.001)


@pytest.mark.parametrize("cuts", [(1,), (100_000,), (70_000, 1, 70_000, 100_000, 299)])
def test_a_broken_connection_is_resumed_where_it_broke(outbound: Outbound, cuts: tuple[int, ...]) -> None:
    sink = Sink()
    with far_server(breaking(*cuts)) as server:
        fetched = fetch(outbound, server.url(), sink)
        ranges = [None, *(f"bytes={sum(cuts[:number])}-" for number in range(1, len(cuts) + 1))]
        assert server.headers("Range") == ranges
        assert server.headers("If-Range") == [None] + ['"1"'] * len(cuts)
    assert sink.content == CONTENT
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert sink.progress[-1] == (len(CONTENT), len(CONTENT))


def test_a_connection_that_breaks_for_the_sixth_time_fails(outbound: Outbound) -> None:
    with far_server(breaking(*[10] * 9)) as server:
        with pytest.raises(FetchFailed):
            fetch(outbound, server.url())
        assert len(server.seen) == 6


def test_a_server_that_is_silent_while_resuming_is_asked_again(outbound: Outbound) -> None:
    whole = breaking(1000)

    def play(exchange: Exchange) -> None:
        if len(exchange.server.seen) == 2:
            exchange.close_connection = True
        else:
            whole(exchange)

    sink = Sink()
    with far_server(play) as server:
        fetch(outbound, server.url(), sink)
    assert sink.content == CONTENT


def test_a_stalled_connection_is_resumed(outbound: Outbound) -> None:
    whole = breaking()

    def play(exchange: Exchange) -> None:
        if len(exchange.server.seen) > 1:
            return whole(exchange)
        exchange.begin(200, len(CONTENT), ETag='"1"')
        exchange.wfile.write(CONTENT[:5000])
        exchange.server.closing.wait()
        return None

    sink = Sink()
    with far_server(play) as server:
        fetch(outbound, server.url(), sink, stall_s=0.3)
    assert sink.content == CONTENT


def test_a_part_that_is_shorter_than_asked_is_followed_by_another(outbound: Outbound) -> None:
    def play(exchange: Exchange) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.headers["Range"] or "")
        if asked is None:
            return breaking(100_000)(exchange)
        start, end = int(asked[1]), min(int(asked[1]) + 100_000, len(CONTENT))
        span = f"bytes {start}-{end - 1}/{len(CONTENT)}"
        return exchange.answer(206, CONTENT[start:end], Content_Range=span, ETag='"1"')

    sink = Sink()
    with far_server(play) as server:
        fetch(outbound, server.url(), sink)
    assert sink.content == CONTENT


def test_a_date_serves_where_there_is_no_etag(outbound: Outbound) -> None:
    with far_server(breaking(5000, etag=None, Last_Modified=LONG_AGO)) as server:
        fetch(outbound, server.url())
        assert server.headers("If-Range") == [None, LONG_AGO]


@pytest.mark.parametrize(
    ("etag", "more"),
    [
        (None, {}),
        ('W/"1"', {}),
        ('"é"', {}),
        (None, {"Last_Modified": "Fri, 01 Jan 2100 00:00:00 GMT"}),
        (None, {"Last_Modified": "yesterday"}),
        (None, {"Last_Modified": "Mon, 01 Jan 2024 00:00:00 +99999999"}),
        ('"1"', {"Accept_Ranges": "none"}),
    ],
)
def test_what_cannot_be_recognized_again_is_not_resumed(
    outbound: Outbound, etag: str | None, more: dict[str, str]
) -> None:
    with far_server(breaking(5000, etag=etag, **more)) as server:
        with pytest.raises(FetchFailed):
            fetch(outbound, server.url())
        assert len(server.seen) == 1


def of_another(status: int = 206, body: bytes = b"y" * 200_000, **headers: str) -> Play:
    first = breaking(100_000, Last_Modified=LONG_AGO)

    def play(exchange: Exchange) -> None:
        if "Range" in exchange.headers:
            exchange.answer(status, body, **headers)
        else:
            first(exchange)

    return play


@pytest.mark.parametrize(
    "play",
    [
        of_another(200, b"y" * 300_000, ETag='"2"'),
        of_another(200, b"y" * 300_000, ETag='"1"'),
        of_another(416, b"", Content_Range="bytes */50000"),
        of_another(Content_Range="bytes 100000-299999/300000", ETag='"2"'),
        of_another(Content_Range="bytes 100000-299999/300000", Last_Modified="Mon, 01 Jan 2024 00:00:01 GMT"),
        of_another(Content_Range="bytes 100000-299999/300001", ETag='"1"'),
        of_another(Content_Range="bytes 0-199999/300000", ETag='"1"'),
        of_another(Content_Range="bytes 100001-299999/300000", ETag='"1"'),
        of_another(Content_Range="chars 100000-299999/300000", ETag='"1"'),
        of_another(Content_Type="multipart/byteranges; boundary=x", ETag='"1"'),
    ],
)
def test_bytes_of_two_recordings_are_never_joined(outbound: Outbound, play: Play) -> None:
    sink = Sink()
    with far_server(play) as server:
        with pytest.raises(FetchFailed) as caught:
            fetch(outbound, server.url(), sink)
        assert len(server.seen) == 2
    assert caught.value.retryable
    assert sink.content == CONTENT[:100_000]


def test_a_part_that_is_longer_than_the_recording_fails(outbound: Outbound) -> None:
    play = of_another(206, b"y" * 200_001, Content_Range="bytes 100000-299999/300000", ETag='"1"')
    with far_server(play) as server, pytest.raises(FetchFailed, match="changed"):
        fetch(outbound, server.url())


def test_the_cap_holds_over_all_parts_together(outbound: Outbound) -> None:
    sink = Sink()

    def play(exchange: Exchange) -> None:
        if "Range" in exchange.headers:
            return exchange.answer(206, b"y" * 500, Content_Range="bytes 900-1399/*", ETag='"1"')
        exchange.begin(200, Transfer_Encoding="chunked", ETag='"1"')
        exchange.wfile.write(b"384\r\n" + b"x" * 900 + b"\r\n")
        exchange.close_connection = True
        return None

    with far_server(play) as server, pytest.raises(FetchRefused):
        fetch(outbound, server.url(), sink, max_bytes=1000)
    assert sink.content == b"x" * 900


def test_a_cancelled_job_does_not_wait_for_the_next_try() -> None:
    patient, sink = Outbound(LOOPBACK, resume_wait_s=3600), Sink()

    def check() -> None:
        if len(sink.content) == 1000:  # all that comes before the connection breaks
            raise Cancelled

    with far_server(breaking(1000)) as server:
        with pytest.raises(Cancelled):
            fetch(patient, server.url(), sink, check=check)
        assert len(server.seen) == 1
