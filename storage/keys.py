"""Keys of stored recordings: made here, never taken from a caller, so that no file name of theirs reaches a disk."""

import re
from uuid import uuid4

_KEY = re.compile(r"(?P<folder>[0-9a-f]{2})/(?P=folder)[0-9a-f]{6}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def new_key() -> str:
    """`ab/` and a UUID that begins with `ab`: 256 folders, so that none grows long."""
    name = str(uuid4())
    return f"{name[:2]}/{name}"


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None
