"""Checks of `doctor` about models: is the default here, as it was published, or who would give it, and is there memory.

Loads no model and downloads nothing; a source is asked only about a model that is not here.
"""

from admin.finding import Finding, fail, ok, warn
from config import Settings
from errors import ModelUnavailable


def model(settings: Settings) -> Finding:
    from engines.catalog import find, locate

    size = settings.whisper_model_size
    if settings.engine == "fake":
        return warn("ENGINE=fake makes up every text", "Take ENGINE=fake away; it is for tests.")
    if find(size, settings):
        try:
            locate(size, settings)
        except ModelUnavailable as error:
            return fail(str(error), f"Fetch it: `python -m admin models pull {size}`.")
        return ok(f"{size} is on this machine")
    return _missing(size, settings)


def _missing(size: str, settings: Settings) -> Finding:
    from engines.catalog import offered_by

    if "/" in size:
        return fail(f"no model was found at {size}", "WHISPER_MODEL_SIZE must lie below MODEL_ALLOWED_PATHS.")
    fetch = f"Fetch it: `python -m admin models pull {size}`."
    if not settings.model_download:
        return fail(f"{size} is not on this machine, and MODEL_DOWNLOAD is off", fetch)
    source = offered_by(size, settings)
    if source is None:
        found = f"{size} is not on this machine, and none of MODEL_SOURCES={settings.model_sources} gives it"
        return fail(found, "Bring it from another machine, or name another model: docs/operations.md, Models.")
    return warn(f"{size} is not on this machine: the first job waits until {source} has given it", fetch)


def bundled_model(settings: Settings) -> Finding:
    from engines.catalog import is_cached

    if is_cached("demo", settings):
        return ok("there")
    return warn("missing", "Restore the folder demo/model: it stands in where no other model can be had.")


def memory_for_model(settings: Settings) -> Finding:
    """One copy of WHISPER_MODEL_SIZE, on the device it would go to."""
    from engines.catalog import is_cached
    from engines.memory import MB as MEGABYTE
    from engines.whisper import WhisperLoader

    size, loader = settings.whisper_model_size, WhisperLoader(settings, is_shared=settings.is_served)
    if settings.engine == "fake" or ("/" in size and not is_cached(size, settings)):
        return ok("there is no model to measure")
    needed, free = (amount // MEGABYTE for amount in (loader.estimate_bytes(size, "default"), loader.free_bytes()))
    found = f"{size} takes about {needed} MB on {loader.device}; {free} MB are free"
    if needed > free:
        return warn(f"{found} (a service that runs may hold it already)", "Take a smaller model, or make room.")
    return ok(found)
