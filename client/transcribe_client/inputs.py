"""What people name as recordings: files, folders, globs in quotes, addresses, standard input. Opens none of them."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from transcribe_client.failures import Misuse
from transcribe_client.wording import plain

STDIN = "-"
# As the service knows them. A file that is named itself is sent whatever it is called.
SUFFIXES = frozenset(
    "aac ac3 aif aifc aiff amr ape asf au avi awb caf dts eac3 ec3 f4a f4v flac flv gsm gxf m2ts m4a m4b m4v mka "
    "mkv mov mp1 mp2 mp3 mp4 mpeg mpg mpga mts mxf nut oga ogg ogv opus qt ra rm rmvb snd spx tta ts vob voc w64 "
    "wav wave weba webm wma wmv wtv wv 3g2 3ga 3gp dif dv".split()
)


@dataclass(frozen=True, slots=True)
class Recording:
    """One of `path` and `url`."""

    shown: str  # as people see it
    name: str  # as the service is told
    place: PurePath  # below the folder for results: the file's own tree, and its name
    path: Path | None = None
    url: str | None = None


def found(arguments: Sequence[str], *, stdin: Path | None = None, stdin_name: str = "") -> list[Recording]:
    """Each recording once, in the order of the arguments. `stdin`: the file that it was copied to. Raises Misuse."""
    recordings: dict[object, Recording] = {}
    for argument in arguments:
        for one in _of(argument, stdin, stdin_name):
            recordings.setdefault(one.url or (one.path and one.path.resolve()), one)
    return list(recordings.values())


def _of(argument: str, stdin: Path | None, stdin_name: str) -> Iterator[Recording]:
    if argument == STDIN:
        assert stdin is not None
        yield Recording("standard input", stdin_name, PurePath(stdin_name), path=stdin)
    elif argument.startswith(("http://", "https://")):
        name = PurePath(unquote(urlsplit(argument).path)).name or "recording"
        yield Recording(plain(argument), plain(name), PurePath(_safe(name)), url=argument)
    elif (path := Path(argument)).is_dir():
        yield from _below(path)
    elif path.exists():
        yield of_file(path, path.parent)
    elif glob.has_magic(argument):
        yield from _matching(argument)
    else:
        raise Misuse(
            f"There is no file {plain(argument)}.", hint="Name a file, a folder, a glob in quotes, a URL or -."
        )


def of_file(path: Path, base: Path) -> Recording:
    return Recording(plain(path), plain(path.name), path.relative_to(base), path=path)


def _below(folder: Path) -> Iterator[Recording]:
    files = media_below(folder)
    if not files:
        raise Misuse(
            f"There is no recording in {plain(folder)}.", hint="Files are known by endings such as .mp3, .wav."
        )
    yield from (of_file(path, folder) for path in files)


def media_below(folder: Path) -> list[Path]:
    """Files of known endings, none of them hidden, in order."""
    files = (path for path in folder.rglob("*") if path.suffix[1:].lower() in SUFFIXES and path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _matching(pattern: str) -> Iterator[Recording]:
    base = _fixed(pattern)
    paths = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 ** of a whole pattern
    files = [path for path in paths if path.is_file()]
    if not files:
        raise Misuse(f"No file matches {plain(pattern)}.")
    yield from (of_file(path, base) for path in files)


def _fixed(pattern: str) -> Path:
    """The folder before the first part with a wildcard: the tree below it is kept."""
    path = Path(pattern)
    while glob.has_magic(str(path)):
        path = path.parent
    return path


def _safe(name: str) -> str:
    return plain(name).replace("/", "_").replace("\\", "_").lstrip(".") or "recording"
