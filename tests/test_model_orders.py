"""Orders to workers: each that lives sees each new one once, and obeys them one after the other."""

from collections.abc import Iterator
from threading import Thread

import pytest
import structlog
from sqlalchemy import text

from config import Settings
from database import transaction
from engines import open_engine
from errors import ModelUnavailable
from jobs import orders
from jobs.orders import Wanted, Watch
from jobs.presence import Identity, Presence
from models import ModelOrder
from tests.api_client import rows
from tests.checker import database_away
from tests.model_pool_stub import Gate, Pool, StubEngine, fail_with, loaded, make_pool
from tests.processes import until
from worker import Orders, _obey_orders

CHILD = Identity("worker", "host", 1, 7, ("transcription.high",))


@pytest.fixture
def often(database: Settings) -> Settings:
    """Signs twenty times a second."""
    return database.model_copy(update={"lease_seconds": 0.3})


def place(size: str, wanted: Wanted) -> None:
    with transaction() as session:
        orders.place(session, size, wanted)


def unseen(watch: Watch) -> list[tuple[str, str]]:
    with transaction() as session:
        return [(one.size, one.wanted) for one in watch.unseen(session)]


@pytest.mark.usefixtures("database")
def test_what_was_ordered_before_the_first_look_is_not_for_who_looks() -> None:
    place("base", "loaded")
    watch = Watch()
    assert unseen(watch) == []
    place("small", "loaded")
    assert unseen(watch) == [("small", "loaded")]


@pytest.mark.usefixtures("database")
def test_each_order_is_seen_once_and_in_the_order_of_time() -> None:
    watch = Watch()
    unseen(watch)
    for size in ("small", "base"):
        place(size, "loaded")
    assert unseen(watch) == [("small", "loaded"), ("base", "loaded")]
    assert unseen(watch) == []
    place("base", "unloaded")
    place("small", "loaded")
    assert unseen(watch) == [("base", "unloaded"), ("small", "loaded")]


@pytest.mark.usefixtures("database")
def test_of_two_orders_for_one_model_between_two_looks_the_last_is_seen() -> None:
    watch = Watch()
    unseen(watch)
    place("base", "loaded")
    place("base", "unloaded")
    assert unseen(watch) == [("base", "unloaded")]


@pytest.mark.usefixtures("database")
def test_an_order_that_becomes_visible_late_is_seen_all_the_same() -> None:
    watch = Watch()
    unseen(watch)
    with transaction() as slow:
        orders.place(slow, "base", "loaded")
        place("small", "loaded")
        assert unseen(watch) == [("small", "loaded")]
    assert unseen(watch) == [("base", "loaded")]


# --- with the signs of life ----------------------------------------------------------------------------------------


def signs() -> int:
    return len(rows("SELECT id FROM processes"))


@pytest.fixture
def told(often: Settings) -> Iterator[list[tuple[str, str]]]:
    """What a process that signs is told."""
    place("base", "loaded")
    heard: list[tuple[str, str]] = []
    presence = Presence(CHILD, often, dict, lambda one: heard.append((one.size, one.wanted)))
    presence.start()
    until(signs)
    yield heard
    presence.stop()


def next_sign() -> None:
    with transaction() as session:
        session.execute(text("UPDATE processes SET seen_at = now() - interval '1 h'"))
    until(lambda: rows("SELECT id FROM processes WHERE seen_at > now() - interval '1 minute'"))


def test_whoever_is_seen_alive_is_told_of_new_orders_once(told: list[tuple[str, str]]) -> None:
    place("small", "loaded")
    until(lambda: told)
    for _ in range(3):
        next_sign()
    assert told == [("small", "loaded")]


def test_an_absence_of_the_database_costs_no_order(told: list[tuple[str, str]]) -> None:
    with database_away():
        pass
    next_sign()
    place("small", "unloaded")
    until(lambda: told == [("small", "unloaded")])


def test_orders_that_cannot_be_read_do_not_make_the_process_look_dead(told: list[tuple[str, str]]) -> None:
    """As before a migration: the table is not there."""
    with transaction() as session:
        session.execute(text("ALTER TABLE model_orders RENAME TO elsewhere"))
    next_sign()
    with transaction() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO model_orders"))
    place("small", "loaded")
    until(lambda: told == [("small", "loaded")])


# --- in a worker child ---------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture
def pool(engine: StubEngine) -> Pool:
    return make_pool(engine)


@pytest.fixture
def given(pool: Pool) -> Orders:
    """Orders of a child that holds its models itself."""
    queue = Orders()
    fake = open_engine(Settings(engine="fake"))
    Thread(target=_obey_orders, args=(queue, pool, fake), daemon=True).start()
    return queue


def an_order(size: str, wanted: Wanted) -> ModelOrder:
    return ModelOrder(size=size, wanted=wanted)


def test_a_model_is_loaded_before_anybody_needs_it_and_unloaded(given: Orders, pool: Pool, engine: StubEngine) -> None:
    given.put(an_order("alias", "loaded"))
    until(lambda: loaded(pool) == ["base"] and not pool.get_stats()["loaded"][0]["in_use"])
    given.put(an_order("alias", "unloaded"))
    until(lambda: engine.closes == ["base"])
    assert loaded(pool) == []


def test_what_was_ordered_last_holds_though_loading_takes_long(given: Orders, pool: Pool, engine: StubEngine) -> None:
    gate = engine.during_load = Gate()
    given.put(an_order("base", "loaded"))
    assert gate.begun.wait(20)
    given.put(an_order("base", "unloaded"))
    gate.go_on.set()
    until(lambda: engine.closes == ["base"])


@pytest.mark.parametrize("error", [ModelUnavailable("It is not cached."), RuntimeError("a bug")])
def test_a_load_that_fails_is_told_and_the_next_order_is_obeyed(
    given: Orders, pool: Pool, engine: StubEngine, error: Exception
) -> None:
    engine.during_load = lambda: fail_with(error)
    with structlog.testing.capture_logs() as logs:
        given.put(an_order("/models/mine", "loaded"))
        until(lambda: logs)
    reason = str(error) if isinstance(error, ModelUnavailable) else "RuntimeError"
    assert logs[0].items() >= {"event": "pool.order_failed", "size": "mine", "reason": reason}.items()
    engine.during_load = lambda: None
    given.put(an_order("base", "loaded"))
    until(lambda: loaded(pool) == ["base"])
