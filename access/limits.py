"""Rate limits per caller: a moving window of a minute, counted in Redis, exact across processes.

While Redis is away the operator's setting decides; it is then asked again only every few seconds.
"""

from dataclasses import dataclass
from math import ceil
from threading import Lock
from time import monotonic
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import errors
from access.caller import Caller
from config import Settings
from telemetry.events import emit

REDIS_TIMEOUT_S = 0.5
ASKED_AGAIN_S = 5.0

WINDOW_US = 60_000_000
# Requests of the last minute by their time, Redis's own: one round trip, and no two hosts' clocks to disagree.
# The library `limits` reads the whole window for each request (ADR 0008).
MOVING_WINDOW = """
local limit, window, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local used, allowed = redis.call('ZCARD', KEYS[1]), 0
if used < limit then
    redis.call('ZADD', KEYS[1], now, name)
    redis.call('PEXPIRE', KEYS[1], window / 1000)
    used, allowed = used + 1, 1
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {allowed, used, first[2] + window - now}
"""


@dataclass(frozen=True, slots=True)
class Window:
    """How a caller stands after this request."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int  # seconds until a request is possible again, or the window is empty

    @property
    def headers(self) -> dict[str, str]:
        """draft-ietf-httpapi-ratelimit-headers, in the form that clients know."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }

    def raise_if_exceeded(self) -> None:
        if not self.allowed:
            message = f"This key may send {self.limit} requests a minute. Try again in {self.reset_s} s."
            raise errors.TooManyRequests(message, retry_after_s=self.reset_s)


class RateLimiter:
    """One an API process, shared by its threads."""

    def __init__(self, settings: Settings) -> None:
        self._fail_open = settings.rate_limit_fail_open
        url = settings.redis_url.get_secret_value()
        self._pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # redis-py would try four times: a frozen Redis would cost seconds
        )
        self._count = redis.Redis(connection_pool=self._pool).register_script(MOVING_WINDOW)
        self._lock = Lock()
        self._is_away = False
        self._asked_again_at = 0.0

    def hit(self, caller: Caller) -> Window:
        """Count one request. Raises Unavailable where Redis is away and RATE_LIMIT_FAIL_OPEN is false."""
        if self._may_ask():
            try:
                return self._counted(caller)
            except (redis.RedisError, OSError) as reason:
                self._note_away(reason)
        if not self._fail_open:
            raise errors.Unavailable("The rate limit cannot be counted at the moment. Try again in a few seconds.")
        limit = caller.rate_limit_per_minute
        return Window(allowed=True, limit=limit, remaining=limit, reset_s=0)

    def _may_ask(self) -> bool:
        """While Redis is away one request in a while finds out whether it still is; the others do not wait for it."""
        if not self._is_away:
            return True
        with self._lock:
            is_due = monotonic() >= self._asked_again_at
            if is_due:
                self._asked_again_at = monotonic() + ASKED_AGAIN_S
            return is_due

    def _counted(self, caller: Caller) -> Window:
        limit = caller.rate_limit_per_minute
        allowed, used, left_us = self._count(keys=[f"rate:{caller.owner}"], args=[limit, WINDOW_US, uuid4().hex])
        self._is_away = False
        reset_s = max(1, ceil(left_us / 1_000_000))
        return Window(allowed=bool(allowed), limit=limit, remaining=max(0, limit - used), reset_s=reset_s)

    def _note_away(self, reason: Exception) -> None:
        with self._lock:
            self._is_away, self._asked_again_at = True, monotonic() + ASKED_AGAIN_S
        self._pool.disconnect(inuse_connections=False)  # else each of them would fail once more when it is back
        emit("rate_limit.redis_away", reason=type(reason).__name__, fail_open=self._fail_open)
