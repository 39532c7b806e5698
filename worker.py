"""The worker process: Celery's main, and what each prefork child needs. Drains on SIGTERM.

The parent never loads a model and never touches the GPU: a model loaded before a fork hangs the child for ever.
A worker of the webhooks queue alone has threads instead of children, and knows no engine.
"""

import fcntl
import gc
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import time
from typing import TYPE_CHECKING, Any

from celery import signals

import errors
from celery_app import app
from config import Settings, get_settings, memory_folder, set_environment
from database import init_db
from jobs.cordons import Watch
from jobs.presence import Identity, Presence, new_birth
from jobs.routing import WEBHOOKS
from models import ModelOrder
from telemetry.events import emit
from telemetry.logs import configure_logs

if TYPE_CHECKING:  # the parent imports them before the fork only where there are engine servers
    from engines import Engine
    from jobs.breaker import Breaker
    from model_pool import ModelPool
    from storage import Storage

Orders = SimpleQueue[ModelOrder]
YIELD = 5  # niceness: whoever submits and polls on a busy machine is answered first
FOLDER, JUST_MADE_S = "whisper-queue-worker-", 60
THREAD_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    settings = get_settings()
    settings.require_servers()
    configure_logs(level=settings.log_level, fmt=settings.log_format, process="worker")
    signals.setup_logging.connect(lambda **_: None, weak=False)  # configure_logs has done it
    if settings.queues == (WEBHOOKS,):
        _deliver_webhooks(settings)
    else:
        _transcribe(settings)


def _deliver_webhooks(settings: Settings) -> None:
    pid = os.getpid()
    from telemetry import metrics, traces
    from telemetry.exporter import start_exporter

    presence = Presence(Identity("worker", socket.gethostname(), pid, pid, settings.queues), settings, dict)
    presence.start()
    metrics.start()
    traces.start(settings, "worker-webhooks")
    start_exporter(settings)
    try:
        app.worker_main(_arguments(settings, pool="threads", concurrency=settings.webhook_concurrency))
    finally:
        presence.stop()


def _transcribe(settings: Settings) -> None:
    from engines.supervisor import engine_servers

    os.nice(YIELD)
    with _own_folder() as folder:
        drain_file = Path(folder) / "drain"  # exists once this process was told to stop; children look for it
        set_environment(
            OMP_WAIT_POLICY="PASSIVE",
            OPENBLAS_NUM_THREADS="1",  # numpy's products are small: more threads make them slower
            **dict.fromkeys(THREAD_POOLS, str(settings.threads_per_child)),
        )
        counters = settings.prometheus_multiproc_dir or folder
        set_environment(PROMETHEUS_MULTIPROC_DIR=counters)  # before anybody imports the client that reads it
        from telemetry.exporter import exporter_process

        settings = settings.model_copy(update={"prometheus_multiproc_dir": counters})
        with exporter_process(settings), engine_servers(settings, Path(folder)) as servers:
            if servers:
                _import_for_children()
            _connect_signals(settings, drain_file, servers)
            app.worker_main(_arguments(settings, pool="prefork", concurrency=settings.celery_concurrency))


@contextmanager
def _own_folder() -> Iterator[str]:
    """For sockets and counters, gone afterwards. What killed workers have left goes first: nobody holds its lock."""
    parent = Path(memory_folder() or tempfile.gettempdir())
    for left in parent.glob(f"{FOLDER}*/lock"):
        with suppress(OSError), left.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time() - left.stat().st_mtime > JUST_MADE_S:  # its maker may not hold it yet
                shutil.rmtree(left.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=parent) as folder, (Path(folder) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _import_for_children() -> None:
    """What every child needs, once in memory for all of them."""
    import jobs.attempt  # noqa: F401
    from engines.served import import_libraries

    import_libraries()
    gc.freeze()  # collections in the children do not touch, and so copy, what they share


def _arguments(settings: Settings, *, pool: str, concurrency: int) -> list[str]:
    return [
        "worker",
        f"--pool={pool}",
        f"--concurrency={concurrency}",
        f"--queues={','.join(settings.queues)}",
        f"--hostname=worker-{os.getpid()}@{socket.gethostname()}",
        f"--loglevel={settings.log_level}",
        "--without-mingle",
        "--without-gossip",
    ]


def _connect_signals(settings: Settings, drain_file: Path, servers: list[Path]) -> None:
    main_pid, born = os.getpid(), new_birth()

    def drain(**_: Any) -> None:
        drain_file.touch()

    def prepare_child(**_: Any) -> None:
        pid = os.getpid()
        identity = Identity("worker", socket.gethostname(), main_pid, pid, settings.queues, born)
        _prepare_child(settings, identity, drain_file, servers)

    signals.worker_shutting_down.connect(drain, weak=False)
    signals.worker_process_init.connect(prepare_child, weak=False)


def _prepare_child(settings: Settings, identity: Identity, drain_file: Path, servers: list[Path]) -> None:
    """After the fork: sign in, then equip, which imports for a second or more.

    A lease that runs out while no child of its worker is seen counts as the death of the whole worker.
    """
    from telemetry import metrics, traces

    init_db()
    configure_logs(level=settings.log_level, fmt=settings.log_format, process="worker")
    metrics.start(without=metrics.OF_THE_POOL if servers else ())  # the engine server's pool holds the weights
    traces.start(settings, "worker")
    equipment: list[_Equipment] = []  # until there is any, nothing is counted
    orders, cordon = Orders(), Watch(identity.worker)
    presence = Presence(
        identity,
        settings,
        lambda: equipment[0].stats() if equipment else {},
        orders.put,
        lambda: equipment[0].illness() if equipment else None,
        cordon,
    )
    presence.start()
    signals.worker_process_shutdown.connect(lambda **_: presence.stop(), weak=False)
    equipment.append(_equip(settings, identity, drain_file, servers, orders, cordon))


@dataclass(frozen=True, slots=True)
class _Equipment:
    """What a child says of itself with its signs of life."""

    stats: Callable[[], dict[str, Any]]
    breaker: "Breaker"

    def illness(self) -> dict[str, Any] | None:
        illness = self.breaker.illness
        return asdict(illness) if illness else None


def _equip(
    settings: Settings, identity: Identity, drain_file: Path, servers: list[Path], orders: Orders, cordon: Watch
) -> _Equipment:
    """Build what attempts need, without loading a model unless MODEL_WARMUP asks for it."""
    import tasks
    from engines import open_engine
    from jobs import attempt
    from jobs.breaker import Breaker
    from model_pool import ModelPool, install
    from storage import open_storage

    engine = open_engine(settings, servers, on_dead=lambda: os.kill(identity.main_pid, signal.SIGTERM))
    pool = ModelPool(
        engine,
        size=settings.model_pool_size,
        max_size=settings.model_pool_max_size,
        memory_bytes=0 if servers else settings.model_pool_memory_mb * 1024**2,
        allow_smaller=settings.allow_model_fallback,
    )
    install(pool)
    if settings.model_warmup:
        Thread(target=_warm_up, args=(pool, engine, settings), name="warm-up", daemon=True).start()
    Thread(target=_obey_orders, args=(orders, pool, engine), name="orders", daemon=True).start()
    storage = open_storage(settings)
    breaker = Breaker(partial(_probe, settings, storage, pool), drain_file.exists)
    work = attempt.Workplace(settings, storage, pool, engine, identity.name, drain_file.exists, breaker, cordon)
    tasks.equip(partial(attempt.run, work=work))
    return _Equipment(lambda: {"devices": engine.pool_stats(pool.get_stats())}, breaker)


def _probe(settings: Settings, storage: "Storage", pool: "ModelPool[Any]") -> None:
    """Try what every job needs: the store, the device and the default model. Raises what is wrong."""
    from storage import new_key

    storage.exists(new_key())  # raises where it is away
    with pool.acquire_model(settings.whisper_model_size):
        pass


def _warm_up(pool: "ModelPool[Any]", engine: "Engine", settings: Settings) -> None:
    """A failure here is only told: the first job meets it again and says so to its caller."""
    try:
        _warm(pool, engine, settings.whisper_model_size)
    except errors.ServiceError as error:
        emit("pool.warm_up_failed", reason=str(error))


def _warm(pool: "ModelPool[Any]", engine: "Engine", size: str) -> None:
    """On every device, and here."""
    engine.warm(size)
    with pool.acquire_model(size):
        pass


def _obey_orders(orders: Orders, pool: "ModelPool[Any]", engine: "Engine") -> None:
    """One after the other: what was ordered last is what holds in the end, whichever order took long."""
    while True:
        order = orders.get()
        try:
            _obey(order, pool, engine)
        except Exception as error:  # noqa: BLE001 the next order is obeyed all the same
            reason = str(error) if isinstance(error, errors.ServiceError) else type(error).__name__
            emit("pool.order_failed", size=order.size.rpartition("/")[2], wanted=order.wanted, reason=reason)


def _obey(order: ModelOrder, pool: "ModelPool[Any]", engine: "Engine") -> None:
    if order.wanted == "loaded":
        _warm(pool, engine, order.size)
    else:
        pool.unload(order.size)
        engine.unload(order.size)


if __name__ == "__main__":
    main()
