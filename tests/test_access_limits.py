"""Rate limits: exact, one for each caller; neither an outage nor a standstill of Redis slows the API."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from fastapi.testclient import TestClient

import errors
from access import limits
from access.limits import REDIS_TIMEOUT_S, RateLimiter
from app import create_app
from config import Settings
from stack.home import Home
from stack.redis import Redis
from tests.callers import key_of, limited, make_key
from tests.processes import until

ROOT = Path(__file__).parents[1]
HAMMER = """
import sys
from access.limits import RateLimiter
from config import get_settings
from tests.callers import limited
limiter = RateLimiter(get_settings())
limiter.hit(limited(1000, "key:warm-up"))
print("ready", flush=True)
sys.stdin.readline()
print(sum(limiter.hit(limited(100)).allowed for _ in range(60)))
"""


@pytest.fixture
def own_redis(data_dir: Path) -> Iterator[Redis]:
    """One that this test may stop and freeze."""
    with Redis(Home(data_dir)) as server:
        yield server


def limiter_of(settings: Settings, server: Redis | None = None, *, fail_open: bool = True) -> RateLimiter:
    told: dict[str, object] = {"rate_limit_fail_open": fail_open}
    if server is not None:
        told |= {"redis_url": Settings(redis_url=server.url).redis_url}
    return RateLimiter(settings.model_copy(update=told))


def test_eight_processes_together_let_through_exactly_the_limit(settings: Settings) -> None:
    pipe = subprocess.PIPE
    hammers = [
        subprocess.Popen((sys.executable, "-c", HAMMER), cwd=ROOT, env=os.environ, stdin=pipe, stdout=pipe, text=True)
        for _ in range(8)
    ]
    for hammer in hammers:
        assert hammer.stdout is not None
        assert hammer.stdout.readline() == "ready\n"
    started = time.monotonic()
    for hammer in hammers:
        assert hammer.stdin is not None
        hammer.stdin.write("go\n")
        hammer.stdin.flush()
    allowed = [int(hammer.communicate(timeout=60)[0]) for hammer in hammers]
    assert time.monotonic() - started < 50, "the minute was over before all had asked"
    assert sum(allowed) == 100


def test_a_window_says_how_a_caller_stands(settings: Settings) -> None:
    limiter = limiter_of(settings)
    stands = [limiter.hit(limited(3)) for _ in range(4)]
    assert [window.allowed for window in stands] == [True, True, True, False]
    assert [window.remaining for window in stands] == [2, 1, 0, 0]
    assert all(window.limit == 3 and 0 < window.reset_s <= 60 for window in stands)


def test_each_caller_has_a_window_of_its_own(settings: Settings) -> None:
    limiter = limiter_of(settings)
    assert [limiter.hit(limited(1, owner)).allowed for owner in ("key:a", "key:b", "oidc:a", "key:a")] == [
        True, True, True, False,
    ]  # fmt: skip


def test_answers_bear_the_limit_and_a_refusal_says_when_to_come_again(client: TestClient, settings: Settings) -> None:
    header = key_of(settings, rate_limit_per_minute=2)
    other = key_of(settings, rate_limit_per_minute=2)
    answers = [client.get("/jobs/", headers=header) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"2"}
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert client.get("/jobs/", headers=other).status_code == 200


def test_errors_bear_the_limit_too(client: TestClient, settings: Settings) -> None:
    header = key_of(settings, rate_limit_per_minute=5)
    assert client.get("/transcribe/nonsense", headers=header).headers["ratelimit-remaining"] == "4"


def test_who_has_no_limit_hears_of_none(client: TestClient, settings: Settings) -> None:
    answer = client.get("/jobs/", headers=key_of(settings))
    assert not [name for name in answer.headers if name.startswith("ratelimit")]


def test_the_setting_limits_keys_that_say_nothing(configure: Callable[..., Settings], settings: Settings) -> None:
    with TestClient(create_app(configure(rate_limit_per_minute=1)), base_url="http://127.0.0.1") as client:
        header = key_of(settings)
        assert [client.get("/jobs/", headers=header).status_code for _ in range(2)] == [200, 429]
        free = key_of(settings, rate_limit_per_minute=0)
        assert [client.get("/jobs/", headers=free).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("fail_open", [True, False])
def test_while_redis_is_away_the_operators_setting_decides_at_once(
    settings: Settings, own_redis: Redis, fail_open: bool
) -> None:
    limiter = limiter_of(settings, own_redis, fail_open=fail_open)
    assert limiter.hit(limited(1)).allowed
    own_redis.stop()
    started = time.monotonic()
    for _ in range(20):
        if fail_open:
            assert limiter.hit(limited(1)).allowed
        else:
            with pytest.raises(errors.Unavailable, match="cannot be counted"):
                limiter.hit(limited(1))
    assert time.monotonic() - started < 1


def test_over_http_an_outage_of_redis_is_503_where_the_operator_wants_it(settings: Settings, own_redis: Redis) -> None:
    strict = settings.model_copy(
        update={"rate_limit_fail_open": False, "redis_url": Settings(redis_url=own_redis.url).redis_url}
    )
    _, token = make_key(settings, rate_limit_per_minute=5)
    with TestClient(create_app(strict), base_url="http://127.0.0.1") as client:
        own_redis.stop()
        answer = client.get("/jobs/", headers={"X-API-Key": token})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "5"


def test_counting_goes_on_when_redis_is_back(
    settings: Settings, own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASKED_AGAIN_S", 0.2)
    limiter = limiter_of(settings, own_redis)
    own_redis.stop()
    assert limiter.hit(limited(1)).remaining == 1  # let through, uncounted
    own_redis.start()
    until(lambda: not limiter.hit(limited(1)).allowed, within_s=10)


def test_a_restart_of_redis_between_two_requests_is_not_noticed(settings: Settings, own_redis: Redis) -> None:
    """Its connections are found dead before they are used: no request goes uncounted."""
    limiter = limiter_of(settings, own_redis)
    assert limiter.hit(limited(2)).remaining == 1
    own_redis.restart()
    assert limiter.hit(limited(2)).remaining == 0  # the append-only file has kept the first
    assert not limiter.hit(limited(2)).allowed


def test_a_frozen_redis_costs_a_burst_of_requests_no_more_than_one_timeout(
    settings: Settings, own_redis: Redis
) -> None:
    limiter = limiter_of(settings, own_redis)
    limiter.hit(limited(1000))
    server = psutil.Process(own_redis.pid)
    server.suspend()
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(10) as pool:  # as many as the API has request threads
            allowed = list(pool.map(lambda _: limiter.hit(limited(1000)).allowed, range(200)))
        took = time.monotonic() - started
    finally:
        server.resume()
    assert all(allowed)
    assert took < 2 * REDIS_TIMEOUT_S


def test_while_redis_is_frozen_one_request_in_a_while_asks_and_the_others_do_not_wait(
    settings: Settings, own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = limiter_of(settings, own_redis)
    server = psutil.Process(own_redis.pid)
    server.suspend()
    try:
        limiter.hit(limited(1000))
        monkeypatch.setattr(limiter, "_asked_again_at", 0.0)  # the while is over

        def timed(_: int) -> float:
            started = time.monotonic()
            limiter.hit(limited(1000))
            return time.monotonic() - started

        with ThreadPoolExecutor(10) as pool:
            took = sorted(pool.map(timed, range(10)))
    finally:
        server.resume()
    assert took[-1] >= REDIS_TIMEOUT_S * 0.9
    assert took[-2] < REDIS_TIMEOUT_S / 2
