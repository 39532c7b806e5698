"""Keys of stored recordings: made here, never taken from a caller, so that no file name of theirs reaches a disk."""

import re
from uuid import UUID, uuid4, uuid5

MARKER = ".whisper-queue"  # its name in the store; no key looks like it
AWAY = f"The storage is away, or it is another one: its marker {MARKER} is missing. Mount it, or correct its address."
_KEY = re.compile(r"(?P<folder>[0-9a-f]{2})/(?P=folder)[0-9a-f]{6}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def new_key() -> str:
    """`ab/` and a UUID that begins with `ab`: 256 folders, so that none grows long."""
    return _key_of(uuid4())


def derived_key(base: UUID, name: str) -> str:
    """The same key each time: what is made of a job can be found and deleted without being recorded."""
    return _key_of(uuid5(base, name))


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def checked_key(text: str) -> str:
    if not is_key(text):
        raise ValueError("Not a key of this storage. This is a bug.")
    return text


def _key_of(uuid: UUID) -> str:
    return f"{str(uuid)[:2]}/{uuid}"
