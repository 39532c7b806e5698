"""Bodies of recordings that come in: how many at once, and how fast at least. Slow clients would fill the memory."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from time import monotonic

import anyio
from fastapi import Request

import errors
from config import Settings

LOOK_EVERY_S = 30.0  # in which so many seconds' worth of the least rate must come


class Intake:
    """One an API process; used on its event loop alone."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_uploads_at_once
        self._least_bytes = settings.min_upload_bytes_per_second * LOOK_EVERY_S
        self._count = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """For one body. Raises Overloaded, before the first byte of it is read."""
        if self._count >= self._most:
            raise errors.Overloaded(
                f"{self._count} recordings are being uploaded, as many as are accepted at once. Try again later."
            )
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def chunks(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it comes. Raises TooSlow. Time in which the service works on a chunk does not count."""
        stream = request.stream()
        waited_s, received = 0.0, 0
        while True:
            started = monotonic()
            with anyio.move_on_after(LOOK_EVERY_S - waited_s) as limit:
                chunk = await anext(stream, None)
            if limit.cancelled_caught:
                chunk = b""
            if chunk is None:
                return
            waited_s += monotonic() - started
            received += len(chunk)
            if waited_s >= LOOK_EVERY_S:
                self._check(received)
                waited_s, received = 0.0, 0
            if limit.cancelled_caught:
                stream = request.stream()
            else:
                yield chunk

    def _check(self, received: int) -> None:
        if received < self._least_bytes:
            raise errors.TooSlow(
                f"The body came too slowly: {received} bytes in {LOOK_EVERY_S:g} s; at least "
                f"{self._least_bytes:g} are expected. Nothing was stored: send it over a faster line."
            )
