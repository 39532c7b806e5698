"""A process that ends with the one that started it, also when that is killed."""

import os
from threading import Event, Thread

_LOOK_EVERY_S = 0.5


def die_with_parent() -> None:
    """A thread looks who our parent is: unlike Linux's signal it works everywhere, and for parents with threads."""
    Thread(target=_watch, args=(os.getppid(),), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        Event().wait(_LOOK_EVERY_S)
    os._exit(0)
