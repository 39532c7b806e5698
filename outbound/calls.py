"""The two calls that we make for callers: POST a webhook, fetch a recording. HTTP/1.1, redirects in our own hands.

Keeps nothing between two calls: no connection, no cookie, no cache.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpcore
import httpx

from config import VERSION
from errors import FetchFailed, FetchRefused
from outbound.addresses import Network, parsed_url, redirected
from outbound.download import Download, Fetched
from outbound.wire import Broken, Clock, Guard, Resolve, network_errors, resolve

MOST_REDIRECTS = 5
MOST_RESUMES = 5  # of one recording
BODY_HEAD = 64 * 1024  # bytes of the answer to a POST that are read

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body_head: bytes  # as sent, cut at BODY_HEAD or where the time was over


class Outbound:
    """Safe for threads: every call has its own connection, and nothing is kept between two."""

    def __init__(
        self,
        allow: Sequence[Network] = (),
        *,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        resume_wait_s: float = 0.2,
    ) -> None:
        self._allow = tuple(allow)
        self._resolve = resolve
        self._tls = tls or httpcore.default_ssl_context()
        self._resume_wait_s = resume_wait_s

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """Raises AddressRefused or FetchFailed. Any status is an answer; redirects are not followed."""
        target = parsed_url(url, self._allow)
        with self._answer("POST", target, headers, body, Clock(timeout_s)) as response:
            return Answer(response.status, _headers_of(response), _head_of(response))

    def fetch(
        self,
        url: str,
        write: Callable[[bytes], None],
        *,
        max_bytes: int,
        on_progress: Callable[[int, int | None], None],
        check: Callable[[], None] | None = None,
        stall_s: float = 30,
    ) -> Fetched:
        """Raises AddressRefused, FetchRefused, FetchFailed, and whatever `write` and `check` raise.

        `write` gets the recording's bytes in order, each once; `on_progress` how many, and of how many if that is
        known; `check` runs before each piece and while waiting. Nothing may take longer than `stall_s` to go on.
        """
        target = parsed_url(url, self._allow)
        check = check or _go_on
        download = Download(write, max_bytes, on_progress, check)
        for wait in (self._resume_wait_s * 2**resume for resume in range(MOST_RESUMES)):
            try:
                return self._fetch_rest(target, download, stall_s)
            except Broken:
                if not download.can_resume:
                    raise
            _pause(wait, check)
        return self._fetch_rest(target, download, stall_s)

    def _fetch_rest(self, target: httpx.URL, download: Download, stall_s: float) -> Fetched:
        clock = Clock(stall_s)
        with self._followed(target, download.range_headers(), clock) as response:
            download.start(response.status, _headers_of(response))
            for piece in _pieces_of(response):
                download.take(piece)
                clock.restart(stall_s)
        return download.finish()

    @contextmanager
    def _followed(self, url: httpx.URL, headers: Mapping[str, str], clock: Clock) -> Iterator[httpcore.Response]:
        for _ in range(MOST_REDIRECTS + 1):
            with self._answer("GET", url, headers, b"", clock) as response:
                location = _headers_of(response).get("location")
                if response.status not in _REDIRECTS or location is None:
                    yield response
                    return
            url = redirected(url, location, self._allow)
        raise FetchRefused(f"The server redirects more than {MOST_REDIRECTS} times. Give the recording's own address.")

    @contextmanager
    def _answer(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes, clock: Clock
    ) -> Iterator[httpcore.Response]:
        request = httpcore.Request(
            method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=_request_headers(url, headers, body if method == "POST" else None),
            content=body,
        )
        guard = Guard(self._allow, self._resolve, clock)
        with httpcore.ConnectionPool(ssl_context=self._tls, network_backend=guard) as pool:
            with network_errors():
                response = pool.handle_request(request)
            try:
                yield response
            finally:
                response.close()


def _request_headers(url: httpx.URL, headers: Mapping[str, str], body: bytes | None) -> list[tuple[str, str]]:
    ours = {"user-agent": f"whisper-queue/{VERSION}", "accept": "*/*", "accept-encoding": "identity"}
    given = {name.lower(): value for name, value in headers.items()}
    framing = {"host": url.netloc.decode("ascii"), "connection": "close"}
    if body is not None:
        framing["content-length"] = str(len(body))
    return list((ours | given | framing).items())


def _headers_of(response: httpcore.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, value in response.headers:
        name = raw_name.decode("latin-1").lower()
        headers[name] = f"{headers[name]}, {_text(value)}" if name in headers else _text(value)
    return headers


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _pieces_of(response: httpcore.Response) -> Iterator[bytes]:
    with network_errors():
        yield from response.iter_stream()


def _head_of(response: httpcore.Response) -> bytes:
    head = bytearray()
    with suppress(FetchFailed):  # the status has arrived: a body that breaks off or never ends takes nothing from it
        for piece in _pieces_of(response):
            head += piece
            if len(head) >= BODY_HEAD:
                break
    return bytes(head[:BODY_HEAD])


def _pause(seconds: float, check: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.1))


def _go_on() -> None:
    return
