"""Lanes on a device that can run out of memory: in this process, on a stand-in for the model."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import sleep

import pytest

from engines import lanes
from engines.link import Link, connect_to
from tests.processes import until
from tests.test_engine_server import StubEngine, row, stub_server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch grows after two good ones, not after 64."""
    monkeypatch.setattr(lanes._Limit.__init__, "__defaults__", (2, 0))


def batches(engine: StubEngine, link: Link, pool: ThreadPoolExecutor) -> list[int]:
    """How many rows went together, of many that came together."""
    before = sum(len(model.calls) for model in engine.loaded)
    list(pool.map(lambda number: row(link, number), range(64)))
    return [rows for model in engine.loaded for rows in model.calls][before:]


def set_memory(engine: StubEngine, rows: int) -> None:
    engine.rows = rows
    for model in engine.loaded:
        model.rows = rows


def test_a_batch_that_was_halved_grows_again_once_there_is_memory(tmp_path: Path) -> None:
    with stub_server(tmp_path, rows=2) as (engine, link), ThreadPoolExecutor(16) as pool:
        until(lambda: max(batches(engine, link, pool)) == 2)
        set_memory(engine, 8)
        until(lambda: max(batches(engine, link, pool)) == 8)


def test_where_memory_stays_short_larger_batches_are_tried_less_and_less(tmp_path: Path) -> None:
    with stub_server(tmp_path, rows=2) as (engine, link), ThreadPoolExecutor(16) as pool:
        for _ in range(20):
            batches(engine, link, pool)
        reloads = len(engine.loaded)
        assert 2 < reloads < 20
        for _ in range(20):
            batches(engine, link, pool)
        assert len(engine.loaded) - reloads < reloads, "each out of memory costs the model a reload"


def test_a_child_knows_how_long_it_waited_for_the_device(tmp_path: Path) -> None:
    """While somebody else's row ran; not while its own did."""
    with stub_server(tmp_path, rows=8) as (engine, busy), ThreadPoolExecutor(2) as pool:
        assert row(busy, 1) == 1
        (model,) = engine.loaded
        waiting = Link(partial(connect_to, tmp_path / "stub", int), slots=1)
        before = busy.waited_seconds
        model.begun.clear()
        model.go_on.clear()
        ours = pool.submit(row, busy, 2)
        assert model.begun.wait(20)
        theirs = pool.submit(row, waiting, 3)
        until(lambda: waiting._asked)
        sleep(0.5)
        model.go_on.set()
        assert (ours.result(20), theirs.result(20)) == (2, 3)
        assert waiting.waited_seconds >= 0.3
        assert busy.waited_seconds - before < 0.3
        waiting.close()


def test_a_batch_that_was_not_full_says_nothing_about_memory() -> None:
    limit = lanes._Limit(4)
    for _ in range(10):
        limit.went_well(3)
    assert limit.rows == 4
