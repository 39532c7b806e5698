"""Where transcripts are written: one file a format, named after its recording, never two for one name, never half."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from transcribe_client.inputs import Recording

Target = tuple[str, Path]  # format, file


def places(recordings: Iterable[Recording]) -> list[PurePath]:
    """Where each one's results go, without an ending: `talk`; `talk.wav` where there is a talk.mp3 too; `talk (2)`."""
    listed = list(recordings)
    stems = Counter(_folded(one.place.with_suffix("")) for one in listed)
    used, chosen = set[str](), []
    for one in listed:
        bare = one.place.with_suffix("")
        chosen.append(_unused(bare if stems[_folded(bare)] == 1 else one.place, used))
        used.add(_folded(chosen[-1]))
    return chosen


def _unused(wanted: PurePath, used: set[str]) -> PurePath:
    number, place = 1, wanted
    while _folded(place) in used:
        number += 1
        place = wanted.with_name(f"{wanted.name} ({number})")
    return place


def _folded(place: PurePath) -> str:
    """Some file systems take A.srt and a.srt for one."""
    return str(place).casefold()


def targets(folder: Path, place: PurePath, formats: Sequence[str]) -> list[Target]:
    return [(name, folder / place.with_name(f"{place.name}.{name}")) for name in formats]


def write(path: Path, content: bytes) -> None:
    """Whole or not at all, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
