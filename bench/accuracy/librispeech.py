"""LibriSpeech's test sets from OpenSLR, as a folder with a manifest. What was fetched is checked, and kept for ever.

Source: Panayotov et al. 2015, https://www.openslr.org/12 (CC BY 4.0).
"""

import json
import tarfile
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path

import av
import httpx
from platformdirs import user_cache_path

ADDRESS = "https://www.openslr.org/resources/12"
MD5 = {  # as published there
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
}
PIECE = 1 << 20


def corpus(name: str, *, address: str = ADDRESS, md5: str | None = None, cache: Path | None = None) -> Path:
    """A folder with manifest.json. Raises SystemExit where it cannot be had, or is not what was published."""
    home = cache or user_cache_path("whisper-queue") / "librispeech"
    folder = home / name
    if (folder / "manifest.json").is_file():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    archive = home / f"{name}.tar.gz"
    fetch(f"{address}/{name}.tar.gz", archive, md5 or MD5[name])
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    recordings = [entry for path in sorted(folder.rglob("*.trans.txt")) for entry in _spoken(path, folder, name)]
    if not recordings:
        raise SystemExit(f"{archive.name} holds no transcripts (*.trans.txt): it is no archive of LibriSpeech.")
    part = folder / "manifest.json.part"
    part.write_text(json.dumps(recordings, indent=1))
    part.replace(folder / "manifest.json")
    archive.unlink()
    return folder


def fetch(url: str, archive: Path, md5: str) -> None:
    """Goes on where an earlier fetch ended. An archive with another MD5 is deleted."""
    part = archive.with_name(f"{archive.name}.part")
    if not archive.exists():
        _append(url, part)
        part.replace(archive)
    with archive.open("rb") as file:
        found = file_digest(file, "md5").hexdigest()
    if found != md5:
        archive.unlink()
        raise SystemExit(f"{url} has the MD5 {found}, but {md5} was published: it was deleted; try again.")


def _append(url: str, part: Path) -> None:
    begun = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    try:
        with httpx.stream("GET", url, headers=headers, timeout=60, follow_redirects=True) as answer:
            if answer.status_code == 416:  # there is nothing after what is here
                return
            answer.raise_for_status()
            with part.open("ab" if answer.status_code == 206 else "wb") as file:
                for piece in answer.iter_bytes(PIECE):
                    file.write(piece)
    except httpx.HTTPError as error:
        why = str(error).partition("\n")[0]
        raise SystemExit(f"{url} cannot be fetched ({why}). What is there is kept: try again.") from error


def _spoken(transcript: Path, folder: Path, group: str) -> Iterator[dict[str, object]]:
    for line in transcript.read_text().splitlines():
        name, _, text = line.partition(" ")
        path = transcript.with_name(f"{name}.flac")
        yield {
            "id": name, "file": str(path.relative_to(folder)), "language": "en", "text": text.capitalize(),
            "group": group, "kind": "speech", "seconds": _seconds(path),
        }  # fmt: skip


def _seconds(path: Path) -> float:
    with av.open(path) as sound:
        return round((sound.duration or 0) / 1e6, 2)
