"""Threads of the API by what they wait for. The database has anyio's default ones.

Storage, Redis and readiness have their own: a slow store holds up uploads and downloads, and nobody else.
A purge holds a connection of the database while it deletes from storage, so only a few run at once.
"""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

P = ParamSpec("P")
T = TypeVar("T")
_END = object()


class Threads:
    """How many calls of each kind may wait at once."""

    def __init__(self) -> None:
        self.storage = CapacityLimiter(32)
        self.redis = CapacityLimiter(8)
        self.ready = CapacityLimiter(2)
        self.purges = CapacityLimiter(2)


async def in_thread(limiter: CapacityLimiter, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    return await run_sync(partial(call, *args, **named), limiter=limiter)


async def pieces_of(limiter: CapacityLimiter, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each read in a thread. Closes the file, or the store's answer, also where nobody reads on."""
    try:
        while (piece := await in_thread(limiter, next, pieces, _END)) is not _END:
            assert isinstance(piece, bytes)
            yield piece
    finally:
        if isinstance(pieces, Generator):
            pieces.close()
