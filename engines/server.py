"""The engine server: one process a device. It owns the device and the ModelPool, and batches the rows of all children.

`python -m engines.server SOCKET DEVICE`. Children connect with `engines.served`; `engines.supervisor` keeps it alive.
"""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import errors
from config import Settings, get_settings
from engines import memory
from engines.batcher import Row, Waited
from engines.foreign import translate
from engines.lanes import Lanes
from engines.processor import use_wide_vectors
from engines.raw import batch_key
from engines.whisper import WhisperLoader
from engines.wire import LOADING, QUEUED, Arena, Line
from model_pool import ModelPool
from parent import die_with_parent
from telemetry import metrics
from telemetry.events import emit
from telemetry.logs import configure_logs

Request = dict[str, Any]
STATS_WITHIN_S = 5.0


@dataclass(slots=True, eq=False)
class Child:
    line: Line
    arena: Arena
    waited: Waited = field(default_factory=Waited)

    def answer(self, request: Request, answer: dict[str, Any]) -> None:
        if "slot" in request:
            self.arena.set_state(request["slot"], QUEUED)
        try:
            self.line.send({"id": request["id"], **answer})
        except OSError:
            self.line.close()  # it is gone, or stopped: its thread in the server ends and forgets what it asked

    def refuse(self, request: Request, error: errors.ServiceError) -> None:
        self.answer(request, {"error": {"type": type(error).__name__, "message": str(error)}})


class Children:
    """All that are connected. Each sees in its arena whether a model is being opened. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._all = list[Child]()
        self._opening = 0

    def add(self, child: Child) -> None:
        with self._lock:
            self._all.append(child)
            child.arena.is_loading = self._opening > 0

    def remove(self, child: Child) -> None:
        with self._lock:
            self._all.remove(child)
            child.arena.is_loading = False

    @contextmanager
    def opening(self) -> Iterator[None]:
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            self._opening += by
            for child in self._all:
                child.arena.is_loading = self._opening > 0


class Server:
    def __init__(self, loader: WhisperLoader, pool: ModelPool[Any], lanes: Lanes, children: Children) -> None:
        self._loader = loader
        self._pool = pool
        self._lanes = lanes
        self._children = children
        self._counting = Lock()

    def start(self) -> None:
        self._lanes.start()

    def welcome(self, connection: socket.socket) -> None:
        """A child, on a thread of its own."""
        Thread(target=self._listen, args=(Line(connection),), name="child", daemon=True).start()

    def _listen(self, line: Line) -> None:
        """To everything that one child asks."""
        child = None
        try:
            child = Child(line, line.receive_arena())
            self._children.add(child)
            while True:
                self._take_in(child, line.receive())
        except (OSError, EOFError):
            return
        finally:
            line.close()
            if child is not None:
                self._children.remove(child)
                self._lanes.batcher.forget(child)

    def _take_in(self, child: Child, request: Request) -> None:
        match request["op"]:
            case "device":
                compute_type = self._loader.resolve("base", "default")[1]
                child.answer(request, {"compute_type": compute_type, "windows": self._loader.lanes * self._loader.most})
            case "ping":
                child.answer(request, {"waited": child.waited.take()})
            case "stats":
                Thread(target=self._tell_stats, args=(child, request), daemon=True).start()
            case "load":
                Thread(target=self._load, args=(child, request), daemon=True).start()
            case "unload":
                Thread(target=self._unload, args=(child, request), daemon=True).start()
            case _:
                child.waited.came()
                self._lanes.batcher.put(_row(child, request))

    def _load(self, child: Child, request: Request) -> None:
        try:
            with self._lanes.batcher.load(alone=request["alone"]):
                child.arena.set_state(request["slot"], LOADING)
                with self._pool.lease(request["size"], compute_type=request["compute_type"]) as lease:
                    answer = {**lease.model.facts(), "memory_bytes": lease.model.memory_bytes}
            child.answer(request, answer)  # once the lease is over: who then unloads the model finds it idle
        except Exception as error:  # noqa: BLE001 whoever asked must hear of it
            child.refuse(request, translate(error))

    def _unload(self, child: Child, request: Request) -> None:
        try:
            self._pool.unload(request["size"])
            child.answer(request, {})
        except Exception as error:  # noqa: BLE001 whoever asked must hear of it
            child.refuse(request, translate(error))

    def _tell_stats(self, child: Child, request: Request) -> None:
        """On a thread of its own, since a driver that hangs answers nothing about memory; and on no more than one."""
        if not self._counting.acquire(timeout=STATS_WITHIN_S):
            child.refuse(request, errors.EngineStalled("The device does not say how it is."))
            return
        try:
            child.answer(request, self._stats())
        except Exception as error:  # noqa: BLE001 whoever asked must hear of it
            child.refuse(request, translate(error))
        finally:
            self._counting.release()

    def _stats(self) -> dict[str, Any]:
        (stats,) = self._loader.pool_stats({**self._pool.get_stats(), **self._lanes.stats()})
        plain: dict[str, Any] = json.loads(json.dumps(stats, default=datetime.isoformat))
        return plain


def _row(child: Child, request: Request) -> Row:
    return Row(
        key=batch_key(request),
        job=child,
        length_s=request["length_s"],
        payload=(child, request),
        urgent=request["urgent"],
        alone=request["alone"],
    )


def open_server(settings: Settings, *, is_shared: bool) -> Server:
    use_wide_vectors()
    children = Children()
    loader = WhisperLoader(settings, is_shared=is_shared, opening=children.opening)
    pool = ModelPool(
        loader,
        size=settings.model_pool_size,
        max_size=settings.model_pool_max_size,
        memory_bytes=settings.model_pool_memory_mb * 1024**2,
    )
    return Server(loader, pool, Lanes(pool, count=loader.lanes, most=loader.most), children)


def serve(path: Path, settings: Settings) -> None:
    """On a socket at `path`, which must not be there yet, until the process ends."""
    server = open_server(settings, is_shared=True)
    server.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        emit("engine.serving", device=settings.device)
        while True:
            server.welcome(listener.accept()[0])


def main() -> None:
    memory.keep_freed()  # before the first thread: then all share one heap
    die_with_parent()
    path, device = sys.argv[1:]
    settings = get_settings()
    configure_logs(level=settings.log_level, fmt=settings.log_format, process="engine")
    metrics.start()
    serve(Path(path), settings.model_copy(update={"device": device}))


if __name__ == "__main__":
    main()
