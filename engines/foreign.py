"""The table of what CTranslate2, CUDA, the model hub and the disk raise, and the error of ours that each one is.

Matched by text, because CTranslate2 raises RuntimeError for everything. Messages are ours: theirs name paths and hosts.
"""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from errors import (
    DownloadFailed,
    EngineBroken,
    EngineError,
    EngineUnavailable,
    ModelUnavailable,
    OutOfMemory,
    ServiceError,
)


@dataclass(frozen=True, slots=True)
class Row:
    text: str  # part of the foreign message, in any case
    becomes: type[EngineError]
    message: str


_NO_MEMORY = "The device ran out of memory."
_BROKEN = "The device is in an unknown state; this process must be replaced."
_DAMAGED = "The model's files are missing, damaged or of another version: delete its folder and download it again."
_NO_DEVICE = "The GPU cannot be used: set DEVICE=cpu, or install a CUDA 12 driver with cuBLAS."
_NO_TYPE = "The device cannot compute in the type asked for: COMPUTE_TYPE=default works everywhere."
_NO_DOWNLOAD = "The model could not be downloaded: check the connection and HF_TOKEN, or use a model that is cached."

TEXTS = (
    Row("out of memory", OutOfMemory, _NO_MEMORY),
    Row("cudaErrorMemoryAllocation", OutOfMemory, _NO_MEMORY),
    Row("CUBLAS_STATUS_ALLOC_FAILED", OutOfMemory, _NO_MEMORY),
    Row("CUBLAS_STATUS_NOT_INITIALIZED", OutOfMemory, _NO_MEMORY),  # what cuBLAS says on a full card
    Row("parallel_for failed: cudaErrorInvalidDevice", OutOfMemory, _NO_MEMORY),  # seen in turn with the first row
    Row("bad_alloc", OutOfMemory, _NO_MEMORY),
    Row("failed to allocate", OutOfMemory, _NO_MEMORY),  # oneDNN writes "allocated memory", MKL "allocate memory"
    Row("cannot allocate memory", OutOfMemory, _NO_MEMORY),
    # After these every further CUDA call of the process fails (CUDA runtime API, "sticky" errors).
    Row("illegal memory access", EngineBroken, _BROKEN),
    Row("cudaErrorIllegalAddress", EngineBroken, _BROKEN),
    Row("illegal instruction", EngineBroken, _BROKEN),
    Row("unspecified launch failure", EngineBroken, _BROKEN),
    Row("device-side assert", EngineBroken, _BROKEN),
    Row("CUBLAS_STATUS_EXECUTION_FAILED", EngineBroken, _BROKEN),
    Row("CUBLAS_STATUS_INTERNAL_ERROR", EngineBroken, _BROKEN),
    Row("CUBLAS_STATUS_MAPPING_ERROR", EngineBroken, _BROKEN),
    Row("misaligned address", EngineBroken, _BROKEN),
    Row("invalid program counter", EngineBroken, _BROKEN),
    Row("hardware stack error", EngineBroken, _BROKEN),
    Row("launch timed out", EngineBroken, _BROKEN),
    Row("uncorrectable", EngineBroken, _BROKEN),  # ECC and NVLink
    Row("initialization error", EngineBroken, _BROKEN),  # CUDA used before a fork
    Row("unable to open file", ModelUnavailable, _DAMAGED),
    Row("is incomplete", ModelUnavailable, _DAMAGED),
    Row("unsupported model", ModelUnavailable, _DAMAGED),
    Row("invalid payload size", ModelUnavailable, _DAMAGED),
    Row("cannot load the vocabulary", ModelUnavailable, _DAMAGED),
    Row("compute type, but the target device", ModelUnavailable, _NO_TYPE),
    Row("CUDA driver version is insufficient", EngineUnavailable, _NO_DEVICE),
    Row("no CUDA-capable device", EngineUnavailable, _NO_DEVICE),
    Row("is not found or cannot be loaded", EngineUnavailable, _NO_DEVICE),  # libcublas.so.12
)
_HUB_PACKAGES = {"huggingface_hub", "hf_xet", "httpx", "httpx2", "httpcore", "requests", "urllib3"}
_FOR_GOOD = {"HFValidationError", "OfflineModeIsEnabled"}
_REFUSED = {400, 401, 403, 404, 410}
_SIGNALS = {"SoftTimeLimitExceeded", "TimeLimitExceeded"}  # Celery raises these here from a signal handler


def translate(error: BaseException) -> ServiceError:
    """The error of ours that `error` is. The message carries no path, host or token."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return OutOfMemory(_NO_MEMORY)
    if _package(error) in _HUB_PACKAGES or isinstance(error, ConnectionError | TimeoutError):
        return (ModelUnavailable if _is_refused(error) else DownloadFailed)(_NO_DOWNLOAD)
    text = str(error).lower()
    for row in TEXTS:
        if row.text.lower() in text:
            return row.becomes(row.message)
    if isinstance(error, OSError):
        return ModelUnavailable(f"The model's files could not be read or written ({type(error).__name__}).")
    return EngineError(f"The engine failed ({type(error).__name__}).")


def _is_refused(error: BaseException) -> bool:
    """Whether the hub would say the same again."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ in _FOR_GOOD or status in _REFUSED


def _package(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


@contextmanager
def foreign_errors() -> Iterator[None]:
    """The boundary: whatever is raised inside leaves as one of ours, with the foreign error as its cause."""
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:
        if type(error).__name__ in _SIGNALS:
            raise
        ours = translate(error)
        if isinstance(ours, OutOfMemory):
            traceback.clear_frames(error.__traceback__)  # they hold arrays and the model: memory must come back now
        raise ours from error
