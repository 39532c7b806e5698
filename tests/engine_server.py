"""A real engine server for tests, kept alive by its supervisor."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config import inherited_environment
from engines.supervisor import start_supervisor


@contextmanager
def engine_server(**environment: object) -> Iterator[Path]:
    """The path of its socket. Settings by their names in capitals."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine"
        told = {"DATA_DIR": folder, **{name: str(value) for name, value in environment.items()}}
        process = start_supervisor(path, "cpu", {**inherited_environment(), **told})
        try:
            yield path
        finally:
            process.kill()
            process.wait()
