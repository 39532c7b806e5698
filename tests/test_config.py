"""Settings: documented, refused when they contradict each other, secret where they are secret."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import Settings, configuration_table, env_example

ROOT = Path(__file__).parents[1]
OWNERS = (
    "DATABASE_URL REDIS_URL WHISPER_MODEL_SIZE MODEL_POOL_SIZE MODEL_POOL_MAX_SIZE CELERY_CONCURRENCY "
    "MAX_UPLOAD_SIZE_MB DEVICE COMPUTE_TYPE BATCH_SIZE MODEL_CACHE_DIR HF_TOKEN LOG_LEVEL"
).split()


def test_the_example_file_is_the_one_the_settings_make() -> None:
    assert (ROOT / ".env.example").read_text() == env_example()


def test_the_configuration_page_is_the_one_the_settings_make() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == configuration_table()


@pytest.mark.parametrize("name", OWNERS)
def test_the_settings_that_the_owner_named_exist_and_are_described(name: str) -> None:
    assert Settings.model_fields[name.lower()].description


def test_the_pools_default_sizes_are_the_owners() -> None:
    settings = Settings()
    assert (settings.model_pool_size, settings.model_pool_max_size, settings.celery_concurrency) == (2, 4, 2)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model_pool_size": 5, "model_pool_max_size": 4}, "MODEL_POOL_MAX_SIZE"),
        ({"whisper_model_size": "enormous"}, "WHISPER_MODEL_SIZE"),
        ({"api_key": "secret"}, "API_KEY"),
        ({"port": 70_000}, "port"),
    ],
)
def test_contradictions_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Settings(**values)


@pytest.mark.parametrize(
    ("host", "key", "is_open"),
    [
        ("127.0.0.1", "", False),
        ("::1", "", False),
        ("localhost", "", False),
        ("0.0.0.0", "", True),
        ("192.0.2.1", "", True),
        ("example.org", "", True),
        ("0.0.0.0", "8f14e45fceea167a5a36dedd4bea2543", False),
    ],
)
def test_an_address_that_others_reach_needs_a_key(host: str, key: str, is_open: bool) -> None:
    assert Settings(host=host, api_key=key).is_open_without_key is is_open


def test_secrets_are_not_shown() -> None:
    shown = repr(
        Settings(
            api_key="8f14e45fceea167a5a36dedd4bea2543", hf_token="hf_abcdef", redis_url="redis://:word@localhost/0"
        )
    )
    assert not any(secret in shown for secret in ("8f14e45fceea", "hf_abcdef", "word@"))
