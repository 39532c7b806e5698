"""The exception tree: code, HTTP status, whether trying again can help. jobs/blame.py: whose fault it is.

ServiceError
├── Refused                     the caller can mend it
│   ├── InvalidOption 422 · NotFound 404 · Conflict 409 (InFlight) · Unauthorized 401 · Forbidden 403
│   ├── TooSlow 408 · TooLarge 413 · UnsupportedMedia 415
│   ├── RangeRefused 416
│   ├── KeyReused 422           an Idempotency-Key that came with another payload before
│   ├── TooManyRequests 429     the caller's rate limit · QuotaExceeded
│   ├── AddressRefused 422      an address that we do not call for anybody
│   └── FetchRefused 422        the far server has no such recording, or one that is too large
├── Unavailable 503             the database or another part is away
│   └── Overloaded              too much is waiting, or the disk is nearly full
├── MediaError                  the recording itself: never retried as it is
│   └── UndecodableAudio · NoAudioStream · AudioTooLong · CodecMissing · NoSuchTrack
├── FetchFailed 502             the far server did not answer, or not to the end: retried
├── DecoderCrashed              the decoding process died or hung: retried
├── DeadlinePassed              the attempt took too long and was ended: retried
├── EngineError                 the engine raised
│   ├── OutOfMemory             walk the ladder, discard the instance
│   ├── EngineBroken            the device is in an unknown state: leave the process
│   ├── EngineCrashed           a window that killed the engine server: counted as a crash
│   │   └── LoadCrashed          a model whose load did: a smaller one is tried
│   ├── ModelUnavailable        not cached, not downloadable, not allowed
│   │   └── DownloadFailed      the hub did not answer
│   ├── EngineUnavailable       no device, or a model that cannot be loaded for another reason
│   │   └── EngineStalled       the engine server is there and does not answer
│   └── PoolTimeout             every instance stayed busy
├── StorageError                StorageFull 507 · StorageAway 503 · FileMissing
└── Interrupted                 no fault of the job: LeaseLost · Cancelled · Draining
"""

from typing import ClassVar


class ServiceError(Exception):
    """`str(error)` is shown to callers: what happened, what was expected, what to do."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = True


class Refused(ServiceError):
    code = "bad_request"
    status = 400
    retryable = False


class InvalidOption(Refused):
    code = "invalid_option"
    status = 422

    def __init__(self, *problems: tuple[str, str]) -> None:
        """`problems`: (field, message) pairs."""
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = problems


class Unauthorized(Refused):
    code = "unauthorized"
    status = 401


class Forbidden(Refused):
    code = "forbidden"
    status = 403


class NotFound(Refused):
    code = "not_found"
    status = 404


class Conflict(Refused):
    code = "conflict"
    status = 409


class InFlight(Conflict):
    code = "in_flight"


class TooSlow(Refused):
    code = "upload_too_slow"
    status = 408


class TooLarge(Refused):
    code = "too_large"
    status = 413


class UnsupportedMedia(Refused):
    code = "unsupported_media"
    status = 415


class RangeRefused(Refused):
    code = "range_not_satisfiable"
    status = 416


class KeyReused(Refused):
    code = "idempotency_key_reused"
    status = 422


class TooManyRequests(Refused):
    code = "rate_limited"
    status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(TooManyRequests):
    code = "quota_exceeded"


class AddressRefused(Refused):
    code = "address_refused"
    status = 422


class FetchRefused(Refused):
    code = "fetch_refused"
    status = 422


class FetchFailed(ServiceError):
    code = "fetch_failed"
    status = 502


class Unavailable(ServiceError):
    code = "unavailable"
    status = 503
    retry_after_s: ClassVar[int] = 5


class Overloaded(Unavailable):
    code = "overloaded"
    retry_after_s = 30


class MediaError(ServiceError):
    code = "media_error"
    status = 422
    retryable = False


class UndecodableAudio(MediaError):
    code = "undecodable_audio"


class NoAudioStream(MediaError):
    code = "no_audio_stream"


class AudioTooLong(MediaError):
    code = "audio_too_long"


class CodecMissing(MediaError):
    code = "codec_missing"


class NoSuchTrack(MediaError):
    code = "no_such_track"


class DecoderCrashed(ServiceError):
    code = "decoder_crashed"


class EngineError(ServiceError):
    code = "engine_error"


class OutOfMemory(EngineError):
    code = "out_of_memory"


class EngineBroken(EngineError):
    code = "engine_broken"


class EngineCrashed(EngineError):
    code = "engine_crashed"


class LoadCrashed(EngineCrashed):
    """Of the same code: for callers the difference is in the message."""


class ModelUnavailable(EngineError):
    code = "model_unavailable"


class DownloadFailed(ModelUnavailable):
    code = "model_download_failed"


class EngineUnavailable(EngineError):
    code = "engine_unavailable"


class EngineStalled(EngineUnavailable):
    code = "engine_stalled"


class PoolTimeout(EngineError):
    code = "pool_timeout"


class DeadlinePassed(ServiceError):
    code = "hung"


class StorageError(ServiceError):
    code = "storage_error"


class StorageFull(StorageError):
    code = "storage_full"
    status = 507


class StorageAway(StorageError):
    code = "storage_away"
    status = 503


class FileMissing(StorageError):
    code = "file_missing"
    retryable = False


class Interrupted(ServiceError):
    code = "interrupted"


class LeaseLost(Interrupted):
    code = "lease_lost"


class Cancelled(Interrupted):
    code = "cancelled"


class Draining(Interrupted):
    code = "draining"
