"""The model hub's cache layout: where a model lies in it, and how files from elsewhere are put there. Asks nobody.

`models--OWNER--NAME/` holds `blobs/ETAG`, `snapshots/COMMIT/FILE` (links to blobs) and `refs/main`, which names the
commit. A hub that is reached later finds what it would have fetched.
"""

import re
from collections.abc import Iterable
from hashlib import sha1, sha256
from pathlib import Path
from uuid import uuid4

from errors import ModelUnavailable

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LARGE = ".bin"  # kept by git-lfs, whose etag is the SHA-256; of other files git's own hash of a blob


def repository_folder(cache: Path, repository: str) -> Path:
    return cache / f"models--{repository.replace('/', '--')}"


def snapshot(folder: Path) -> Path:
    """Of the commit that `main` was last. The hub's `local_files_only` would call a half-finished download complete."""
    try:
        return folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
    except OSError:
        return folder


def revision_of(folder: Path) -> str | None:
    """The hub's commit, where `folder` is a snapshot of its cache."""
    is_snapshot = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
    return folder.name if is_snapshot else None


def put_file(snapshot: Path, name: str, *, size: int, chunks: Iterable[bytes], expected: str) -> None:
    """Write a file as it is read. Raises ModelUnavailable, and keeps nothing, where its SHA-256 is not `expected`."""
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True, exist_ok=True)
    part = blobs / f"{uuid4().hex}.part"
    try:
        ours, gits = sha256(), sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                ours.update(chunk)
                gits.update(chunk)
        if ours.hexdigest() != expected:
            raise ModelUnavailable(other_than_published(name, ours.hexdigest(), expected))
        etag = ours.hexdigest() if name.endswith(_LARGE) else gits.hexdigest()
        part.replace(blobs / etag)
    finally:
        part.unlink(missing_ok=True)
    _link(snapshot / name, Path("..", "..", "blobs", etag))


def point_main_at(snapshot: Path) -> None:
    """The last step: from now on the model is found."""
    refs = snapshot.parent.parent / "refs"
    refs.mkdir(exist_ok=True)
    part = refs / f".{uuid4().hex}"  # never read as a branch: the hub looks for names it knows
    part.write_text(snapshot.name)
    part.replace(refs / "main")


def other_than_published(name: str, found: str, expected: str) -> str:
    return f"its {name} has the SHA-256 {found[:12]}…, but {expected[:12]}… is published for it"


def _link(link: Path, target: Path) -> None:
    part = link.with_name(f".{uuid4().hex}")
    part.symlink_to(target)
    part.replace(link)
