"""Requests to the service, and its refusals as failures with a next step. The only place that knows httpx.

A call is tried again on 429, 502 to 504 and network errors, for as long as its patience lasts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from threading import Event
from typing import Any

import httpx

from transcribe_client.failures import Failure, Refused, Stopped, Unreachable
from transcribe_client.settings import Settings, is_loopback
from transcribe_client.subtitles import SUBTITLE_OPTIONS
from transcribe_client.wording import duration, plain

TIMEOUT = httpx.Timeout(30, connect=10)
UPLOAD_TIMEOUT = httpx.Timeout(60, connect=10, read=300)  # its last byte sent, a large recording is still being stored
LATER = (502, 503, 504)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0
OPTION_OF = {"initial_prompt": "--prompt", "vad_filter": "--vad", "delete_after_seconds": "--delete-after"}
OPTIONS = frozenset(  # fields of POST /transcribe/ that are options here, of other names or the same
    "model_size language task priority word_timestamps initial_prompt hotwords vad_filter temperature beam_size "
    "languages vad_threshold audio_track channels condition_on_previous_text "
    "webhook_url metadata delete_after_seconds run_at".split()
)

Job = dict[str, Any]  # as GET /transcribe/{job_id} has it, or GET /jobs/
Body = Callable[[], dict[str, Any]]


class Api:
    """Shared by all threads of a command."""

    def __init__(self, settings: Settings, *, patience_s: float = 0, stop: Event | None = None) -> None:
        self.server = settings.server.value
        self.patience_s = patience_s
        self._key = settings.key
        self._stop = stop or Event()
        headers = {"Authorization": f"Bearer {self._key.value}"} if self._key.value else {}
        self._client = httpx.Client(
            base_url=self.server,
            headers=headers,
            timeout=TIMEOUT,
            trust_env=not is_loopback(self.server),  # a proxy of the environment is not for this machine
        )

    @classmethod
    def like(cls, other: "Api") -> "Api":
        """To the same service, over the same connections, but without patience."""
        twin = copy(other)
        twin.patience_s = 0
        return twin

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        return _json(self.call("GET", path, params=_given(params)))

    def post(self, path: str, **params: Any) -> Any:
        return _json(self.call("POST", path, params=_given(params)))

    def upload(self, path: str, body: Body, **options: Any) -> httpx.Response:
        return self.call("POST", path, body=body, timeout=UPLOAD_TIMEOUT, **options)

    def call(
        self, method: str, path: str, *, body: Body = dict, ok: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        """`body` makes what is sent, anew for each try; `ok`: statuses of 400 and more that are answers."""
        waited_s, wait_s = 0.0, FIRST_WAIT_S
        while True:
            try:
                return self._once(method, path, ok, **options, **body())
            except (Unreachable, Refused) as failure:
                if isinstance(failure, Refused) and failure.status != 429 and failure.code != "in_flight":
                    raise
                pause_s = wait_s if failure.retry_after_s is None else failure.retry_after_s
                if waited_s + pause_s > self.patience_s:
                    raise
            if self._stop.wait(pause_s):
                raise Stopped
            waited_s, wait_s = waited_s + pause_s, min(2 * wait_s, LONGEST_WAIT_S)

    def _once(self, method: str, path: str, ok: tuple[int, ...], **options: Any) -> httpx.Response:
        with _translated(self.server):
            response = self._client.request(method, path, **options)
        if response.status_code < 300 or response.status_code in ok:
            return response
        raise self._failure(response)

    def _failure(self, response: httpx.Response) -> Failure:
        status, problem = response.status_code, _problem(response)
        fields = tuple(item.get("field", "") for item in problem.get("errors") or ())
        message = _message(problem) or f"{self.server} answered {status} {response.reason_phrase}."
        after_s = _retry_after(response)
        if status in LATER:
            hint = "It may be starting, or have too much to do. Try again in a while."
            return Unreachable(message, hint=hint, retry_after_s=after_s)
        if status >= 500:
            return Failure(message, hint=f"Request id: {response.headers.get('x-request-id', 'none')}")
        hint, code = self._hint(response, known=bool(problem)), problem.get("code", "")
        return Refused(message, hint=hint, status=status, code=code, fields=fields, retry_after_s=after_s)

    def _hint(self, response: httpx.Response, *, known: bool) -> str:
        status = response.status_code
        if status < 400:
            return (
                f"It sends elsewhere: {plain(response.headers.get('location', ''))}. Give that address with --server."
            )
        if status == 429:
            return f"It may be asked again in {duration(_retry_after(response) or 0)}."
        if not known:
            return (
                f"Is {self.server} the address of a transcription service? `transcribe config` shows where it is from."
            )
        if status == 401:
            given = f"The key is from {self._key.source}." if self._key.value else "No key was given."
            return f"{given} Set TRANSCRIBE_KEY, or give --key."
        return {
            403: "This needs an operator's key.",
            404: "`transcribe list` shows the jobs that there are.",
        }.get(status, "")


@contextmanager
def _translated(server: str) -> Iterator[None]:
    """httpx's errors as ours."""
    try:
        yield
    except httpx.ConnectError as error:
        hint = "Is it running? `make run` starts one; --server or TRANSCRIBE_SERVER names another."
        raise Unreachable(f"{server} cannot be reached: {plain(error)}.", hint=hint) from error
    except httpx.LocalProtocolError as error:
        raise Failure("The recording has changed while it was sent.", hint="Try again when it is complete.") from error
    except httpx.TimeoutException as error:
        raise Unreachable(f"{server} does not answer in time.", hint="Try again later.") from error
    except httpx.TransportError as error:
        raise Unreachable(f"The connection to {server} broke: {plain(error) or type(error).__name__}.") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise Failure(f"{plain(server)} is not an address that can be asked.") from error


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    if response.headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        return {}
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(problem: Mapping[str, Any]) -> str:
    """Each option by its name here."""
    fields = problem.get("errors") or ()
    named = [(_option(str(item.get("field", ""))), str(item.get("message", ""))) for item in fields]
    return plain("; ".join(f"{name}: {text}" for name, text in named) or problem.get("detail", ""))


def _option(field: str) -> str:
    return OPTION_OF.get(field, f"--{field.replace('_', '-')}") if field in OPTIONS | SUBTITLE_OPTIONS else field


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _json(response: httpx.Response) -> Any:
    if response.status_code == 204:
        return None
    try:
        return response.json()
    except ValueError:
        hint = "`transcribe config` shows where the address is from."
        raise Failure("The answer is not JSON: that is no transcription service.", hint=hint) from None
