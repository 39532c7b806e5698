"""Whether the files of a model are the published ones: by SHA-256, or by the name that the hub's cache gives a blob.

A stamp beside the snapshot says which files have been read already: a load need not hash 145 MB again.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import file_digest, sha1
from pathlib import Path

from errors import ModelUnavailable

_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def verify(snapshot: Path, published: Mapping[str, str]) -> None:
    """Raises ModelUnavailable where a file has another SHA-256 than `published` names. Reads each file once."""
    stamp, now = snapshot.parent.parent / ".verified" / snapshot.name, _state(snapshot, published)
    with suppress(OSError):
        if stamp.read_text() == now:
            return
    for name in damaged(snapshot, published):
        raise ModelUnavailable(f"its {name} has another SHA-256 than the {published[name][:12]}… published for it")
    with suppress(OSError):  # a cache that may not be written is read again next time
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(now)


def damaged(snapshot: Path, published: Mapping[str, str]) -> list[str]:
    return [name for name, expected in published.items() if _sha256(snapshot / name) != expected]


def damaged_blobs(snapshot: Path) -> list[str]:
    """Files whose blob is not what its name says: git-lfs's SHA-256, or git's own hash of a small file."""
    return [path.name for path in sorted(snapshot.iterdir()) if not _is_what_its_name_says(path.resolve())]


def discard(snapshot: Path, names: Iterable[str]) -> None:
    """The links and what they lead to."""
    for name in names:
        blob = (snapshot / name).resolve()
        (snapshot / name).unlink(missing_ok=True)
        blob.unlink(missing_ok=True)


def _is_what_its_name_says(blob: Path) -> bool:
    if _SHA256.fullmatch(blob.name):
        return _sha256(blob) == blob.name
    if _GIT.fullmatch(blob.name):
        data = blob.read_bytes()
        return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == blob.name
    return True


def _sha256(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _state(snapshot: Path, published: Mapping[str, str]) -> str:
    lines = []
    for name, expected in published.items():
        with suppress(FileNotFoundError):
            found = (snapshot / name).stat()
            lines.append(f"{name} {found.st_size} {found.st_mtime_ns} {expected}\n")
    return "".join(lines)
