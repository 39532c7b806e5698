"""Settings, frozen; the only reader of the environment.

Every setting is an environment variable of the same name, or a line in `.env`.
`python -m config` prints `.env.example`, `python -m config docs` docs/configuration.md.
"""

import os
import sys
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MODEL_SIZES = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en",
    "large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo",
    "distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3", "distil-large-v3.5", "demo",
)  # fmt: skip
VERSION = "0.1.0"
MIN_KEY_LENGTH = 16  # characters; shorter API keys are refused at start


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, env_file=".env", extra="ignore", case_sensitive=False)

    # Where things are
    host: str = Field("127.0.0.1", description="Address the API binds to. Anything but loopback needs API_KEY.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API.")
    data_dir: Path = Field(Path("var"), description="Everything that must survive a restart lies below this folder.")
    database_url: str = Field(
        "", repr=False, description="PostgreSQL 15+. Empty: `python -m stack` runs an embedded server."
    )
    redis_url: SecretStr = Field(
        SecretStr(""), description="Redis 6.2+ or Valkey. Empty: `python -m stack` runs an embedded server."
    )
    api_key: SecretStr = Field(SecretStr(""), description="When set, every route but /health needs it as Bearer token.")

    # Engine
    whisper_model_size: str = Field("base", description="Model used when a request names none.")
    engine: Literal["faster-whisper", "fake"] = Field("faster-whisper", description="`fake` is for fault tests only.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|(cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*)$",
        description="`auto` takes the GPU where there is one; `cuda:0,cuda:1` makes an engine server for each.",
    )
    engine_server: Literal["auto", "on", "off"] = Field(
        "auto", description="One process a device that batches for all children; auto: where there are several."
    )
    compute_type: str = Field("default", description="CTranslate2 type; default: int8 on CPU, float16 on GPU.")
    batch_size: int = Field(0, ge=0, le=64, description="Windows per engine call; 0: 16 on GPU, 1 on CPU.")
    cpu_threads: int = Field(
        0, ge=0, description="Threads of one engine call; 0: 1 in an engine server, else cores / CELERY_CONCURRENCY."
    )
    model_cache_dir: Path | None = Field(None, description="Downloaded models; default DATA_DIR/models.")
    model_allowed_paths: str = Field("", description="Folders, ':'-separated, from which a model path may be named.")
    hf_token: SecretStr = Field(SecretStr(""), description="Token for the model hub, for gated or private models.")
    model_download: bool = Field(True, description="Whether a model that is not cached may be downloaded.")
    model_pool_size: int = Field(2, ge=1, description="Idle models beyond this number are unloaded, oldest use first.")
    model_pool_max_size: int = Field(4, ge=1, description="Loaded models are never more than this; callers wait.")
    model_pool_memory_mb: int = Field(0, ge=0, description="Memory budget of the pool; 0: what the device has free.")
    model_quantized_copies: bool = Field(
        True, description="Keep an 8-bit copy of models that come in floats and run as int8: they load faster."
    )
    short_windows: bool = Field(
        False, description="Encode no more of a window than its sound: faster for short recordings, may change text."
    )
    model_warmup: bool = Field(False, description="Load WHISPER_MODEL_SIZE when a worker child starts.")
    allow_model_fallback: bool = Field(True, description="Out of memory: go on with a smaller model and say so.")

    # Workers and queues
    celery_concurrency: int = Field(2, ge=1, description="Children per worker; each transcribes one job at a time.")
    worker_queues: str = Field(
        "transcription.high,transcription.normal,transcription.retry,transcription.dlq",
        description="Queues a worker draws from, most urgent first.",
    )
    worker_max_memory_mb: int = Field(0, ge=0, description="A child above this is replaced after its job; 0: never.")
    lease_seconds: float = Field(30, gt=0, description="A job whose worker is silent for this long is taken back.")
    relay_tick_seconds: float = Field(1, gt=0, description="How often the relay looks even if nobody woke it.")
    republish_seconds: float = Field(45, gt=0, description="A doorbell nobody answered is rung again after this.")
    promote_after_seconds: float = Field(300, gt=0, description="A normal job that waited this long counts as high.")
    max_failures: int = Field(5, ge=1, description="Exceptions after which a job is a dead letter.")
    max_losses: int = Field(2, ge=1, description="Crashes or hangs of its child after which a job is a dead letter.")
    max_infra_losses: int = Field(10, ge=1, description="Deaths of the whole worker after which a job is dead.")
    retry_base_seconds: float = Field(2, ge=0, description="First retry delay at most; doubles, with full jitter.")
    retry_max_seconds: float = Field(600, ge=0, description="Longest retry delay.")
    deadline_base_seconds: float = Field(900, gt=0, description="Time an attempt has, plus DEADLINE_FACTOR.")
    deadline_factor: float = Field(20, gt=0, description="Seconds an attempt has for each second of audio.")

    # Uploads and media
    max_upload_size_mb: int = Field(2048, ge=1, description="Largest accepted recording, in MiB.")
    max_batch_files: int = Field(100, ge=1, description="Most files in one POST /transcribe/batch.")
    max_waiting_jobs: int = Field(10_000, ge=0, description="Above this POST answers 503; 0: no limit.")
    max_waiting_audio_hours: float = Field(0, ge=0, description="Likewise, as hours of audio, estimated; 0: no limit.")
    min_free_disk_mb: int = Field(500, ge=0, description="With less free space for recordings POST answers 503.")
    max_audio_hours: float = Field(24, gt=0, description="Longest accepted recording.")
    decode_memory_mb: int = Field(1024, ge=256, description="Address space of the process that decodes one file.")
    decode_stall_seconds: float = Field(60, gt=0, description="A decoder that yields nothing for this long is killed.")

    # Housekeeping
    retention_days: float = Field(
        0, ge=0, description="Jobs final for so long are deleted, but for open dead letters; 0: never."
    )
    event_retention_days: float = Field(90, ge=0, description="Likewise the history of final jobs; 0: never.")

    # Database
    db_pool_size: int = Field(10, ge=1, description="Connections per API process; also its request threads.")
    db_statement_timeout_ms: int = Field(10_000, ge=100, description="Longest SQL statement, in milliseconds.")

    # Flower and logs
    flower_port: int = Field(0, ge=0, le=65535, description="Port of Flower; 0: PORT + 1.")
    flower_user: str = Field("admin", description="Name to sign in to Flower with.")
    flower_password: SecretStr = Field(SecretStr(""), description="Empty: one is made and kept in DATA_DIR/secrets.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="One line of text, or one JSON object, an event.")

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.model_pool_max_size < self.model_pool_size:
            raise ValueError("MODEL_POOL_MAX_SIZE must be at least MODEL_POOL_SIZE")
        if not is_model_name(self.whisper_model_size) and "/" not in self.whisper_model_size:
            raise ValueError(f"WHISPER_MODEL_SIZE must be one of {', '.join(MODEL_SIZES)}, or a path")
        key = self.api_key.get_secret_value()
        if key and len(key) < MIN_KEY_LENGTH:
            raise ValueError(f"API_KEY must have at least {MIN_KEY_LENGTH} characters: openssl rand -hex 24")
        return self

    @property
    def models_dir(self) -> Path:
        return self.model_cache_dir or self.data_dir / "models"

    @property
    def storage_dir(self) -> Path:
        return self.data_dir / "audio"

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_size_mb * 1024 * 1024

    @property
    def threads_per_child(self) -> int:
        return self.cpu_threads or max(1, (os.cpu_count() or 1) // self.celery_concurrency)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self.device.split(","))

    @property
    def is_served(self) -> bool:
        """Whether the device belongs to an engine server, and not to each worker child."""
        if self.engine == "fake" or self.engine_server == "off":
            return False
        return self.engine_server == "on" or self.celery_concurrency > 1 or len(self.devices) > 1

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.worker_queues.split(",") if name.strip())

    def require_servers(self) -> None:
        """For processes that are started alone; the stack starts its own servers."""
        given = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url.get_secret_value()}
        missing = " and ".join(name for name, url in given.items() if not url)
        if missing:
            raise SystemExit(f"{missing} must be set. Set it, or start everything with `make run`.")

    @property
    def is_open_without_key(self) -> bool:
        """True where strangers could call the API: refused at start."""
        return not self.api_key.get_secret_value() and not is_loopback(self.host)


def is_model_name(name: str) -> bool:
    return name in MODEL_SIZES


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache
def get_settings() -> Settings:
    return Settings()


def inherited_environment() -> dict[str, str]:
    """A copy of the environment, for processes that we start."""
    return dict(os.environ)


def set_environment(**values: str) -> None:
    """Set variables that foreign libraries read (OMP_NUM_THREADS and the like) for this process and its children."""
    os.environ.update(values)


def _example_value(name: str) -> str:
    default = Settings.model_fields[name].default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


def env_example() -> str:
    lines = ["# Every setting with its default. Copy to .env and uncomment what you change."]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"#{name.upper()}={_example_value(name)}"]
    return "\n".join(lines) + "\n"


def _as_code(value: str) -> str:
    return f"`{value}`" if value else ""


def configuration_table() -> str:
    """docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "Made by `python -m config docs`. Every setting is an environment variable, a line in `.env`,",
        "or an argument of `make run` (`make run PORT=8123`).",
        "",
        "| Setting | Default | Meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{name.upper()}` | {_as_code(_example_value(name))} | {field.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(configuration_table() if sys.argv[1:] == ["docs"] else env_example(), end="")
