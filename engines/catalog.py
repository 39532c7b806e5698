"""Which models there are, where their files lie, how they are fetched. `python -m engines.catalog` prints the default.

Nothing is downloaded unless MODEL_DOWNLOAD allows it, and no path is opened that MODEL_ALLOWED_PATHS does not hold.
"""

import sys
import threading
from contextlib import suppress
from pathlib import Path

from config import Settings, get_settings
from engines.foreign import foreign_errors
from errors import ModelUnavailable

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
_ANSWER_S, _REACH_S = 5.0, 10.0  # a resolver without a network can take far longer to say so


def canonical(size: str) -> str:
    return ALIASES.get(size, size)


def is_cached(size: str, settings: Settings) -> bool:
    """Whether `size` can be loaded without the network. Looks at files only, imports no library."""
    return _local(size, settings) is not None


def locate(size: str, settings: Settings) -> Path:
    """The folder with the files of a size or of an allowed path; downloads it where that is allowed."""
    folder = _local(size, settings)
    if folder is not None:
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


def download(size: str, settings: Settings) -> Path:
    """Fetch a model into the cache, with a progress bar where stderr is a terminal."""
    repository = REPOSITORIES.get(canonical(size))
    if repository is None:
        raise ModelUnavailable(f"Model '{size}' is not one that can be downloaded.")
    with foreign_errors():
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():  # a worker's log
            disable_progress_bars()
        token = settings.hf_token.get_secret_value() or None
        snapshot_download(repository, cache_dir=settings.models_dir, token=token, allow_patterns=_WANTED)
    folder = _local(size, settings)
    if folder is None:
        raise ModelUnavailable(f"Model '{size}' was downloaded but lacks one of {', '.join(_NEEDED)}.")
    return folder


def resolve_default(settings: Settings) -> tuple[str, str | None]:
    """WHISPER_MODEL_SIZE where it is cached or can be fetched; else the bundled model, and why."""
    size = settings.whisper_model_size
    if settings.engine == "fake" or is_cached(size, settings):
        return size, None
    if "/" in size:
        reason = "no model was found there, or it is not below MODEL_ALLOWED_PATHS"
    elif not settings.model_download:
        reason = "it is not cached and MODEL_DOWNLOAD is off"
    elif not _is_reachable(size, settings):
        reason = "it is not cached and the model hub cannot be reached"
    else:
        return size, None
    return "demo", f"Model '{size}' cannot be used: {reason}. Using the bundled 'demo', which knows few words."


def _local(size: str, settings: Settings) -> Path | None:
    if size == "demo":
        folder = DEMO_DIR
    elif "/" in size:
        return _allowed(Path(size), settings)
    else:
        folder = _snapshot(canonical(size), settings.models_dir)
    return folder if _is_complete(folder) else None


def _allowed(path: Path, settings: Settings) -> Path | None:
    """The path with its links resolved, if it is complete and below an allowed folder."""
    folder = path.resolve()
    roots = [Path(root).resolve() for root in settings.model_allowed_paths.split(":") if root]
    below = any(folder.is_relative_to(root) for root in roots)
    return folder if below and _is_complete(folder) else None


def _snapshot(size: str, cache: Path) -> Path:
    """The hub's cache layout. Its own `local_files_only` would call a half-finished download complete."""
    repository = cache / f"models--{REPOSITORIES.get(size, size).replace('/', '--')}"
    try:
        return repository / "snapshots" / (repository / "refs" / "main").read_text().strip()
    except OSError:
        return repository


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _NEEDED)


def _is_reachable(size: str, settings: Settings) -> bool:
    from huggingface_hub import HfApi

    hub = HfApi(token=settings.hf_token.get_secret_value() or None)
    answers: list[bool] = []

    def ask() -> None:
        with suppress(Exception):  # refused, unknown, no network: all mean that it cannot be fetched
            hub.model_info(REPOSITORIES[canonical(size)], timeout=_ANSWER_S)
            answers.append(True)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_REACH_S)
    return bool(answers)


def main(sizes: list[str]) -> int:
    """Fetch the sizes named, MODEL_DOWNLOAD or not. Without any, print the default one, fetched where allowed."""
    settings = get_settings()
    try:
        for size in sizes:
            if not is_cached(size, settings):
                download(size, settings)
    except ModelUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    if not sizes:
        _print_default(settings)
    return 0


def _print_default(settings: Settings) -> None:
    size, warning = resolve_default(settings)
    try:
        if warning is None and settings.engine != "fake":
            locate(size, settings)
    except ModelUnavailable as error:
        size, warning = "demo", f"{error} Using the bundled 'demo', which knows few words."
    if warning:
        print(warning, file=sys.stderr)
    print(size)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
