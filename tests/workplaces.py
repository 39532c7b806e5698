"""What a worker child has at hand, for tests that run attempts in their own process."""

from collections.abc import Callable

from config import Settings
from engines import open_engine
from jobs.attempt import Workplace
from jobs.breaker import Breaker
from jobs.cordons import Watch
from model_pool import ModelPool
from storage import open_storage
from tests.checker import WORKER


def workplace(settings: Settings, probe: Callable[[], None] = lambda: None) -> Workplace:
    """With a storage that is there, and one model at a time."""
    engine, storage = open_engine(settings), open_storage(settings)
    storage.mark()
    pool = ModelPool(engine, size=1, max_size=1)
    breaker = Breaker(probe, lambda: False)
    return Workplace(settings, storage, pool, engine, WORKER, lambda: False, breaker, Watch("host:1"))
