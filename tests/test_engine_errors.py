"""Every foreign error becomes one of ours, and tells no path, host or token."""

import errno
import re
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.foreign import TEXTS, Row, foreign_errors, translate
from errors import (
    DownloadFailed,
    EngineBroken,
    EngineError,
    EngineUnavailable,
    LeaseLost,
    ModelUnavailable,
    OutOfMemory,
)

OUT_OF_MEMORY = [
    "CUDA failed with error out of memory",
    "cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED",
    "cuBLAS failed with status CUBLAS_STATUS_NOT_INITIALIZED",
    "parallel_for failed: cudaErrorInvalidDevice: invalid device ordinal",
    "parallel_for failed: cudaErrorMemoryAllocation: out of memory",
    "std::bad_alloc",
    "mkl_malloc: failed to allocate memory",
]
FATAL = [
    "CUDA failed with error an illegal memory access was encountered",
    "CUDA failed with error unspecified launch failure",
    "CUDA failed with error device-side assert triggered",
    "CUDA failed with error the launch timed out and was terminated",
    "CUDA failed with error uncorrectable ECC error encountered",
    "CUDA failed with error initialization error",
    "cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED",
]
FILES = [
    "Unable to open file 'model.bin' in model '/srv/secret/model'",
    "File model.bin is incomplete: failed to read a value of size 4 at position 12",
    "Unsupported model binary version. This executable supports models with binary version v6 or below",
    "Variable 'decoder/embeddings/weight' has an invalid payload size",
    "Cannot load the vocabulary from the model directory",
    "Requested float16 compute type, but the target device or backend do not support efficient float16 computation.",
]
NO_GPU = [
    "CUDA failed with error CUDA driver version is insufficient for CUDA runtime version",
    "CUDA failed with error no CUDA-capable device is detected",
    "Library libcublas.so.12 is not found or cannot be loaded",
]


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_what_the_device_says_when_it_is_full_is_out_of_memory(text: str) -> None:
    assert type(translate(RuntimeError(text))) is OutOfMemory


@pytest.mark.parametrize("text", FATAL)
def test_what_leaves_the_device_in_an_unknown_state_is_engine_broken(text: str) -> None:
    assert type(translate(RuntimeError(text))) is EngineBroken


@pytest.mark.parametrize("text", FILES)
def test_files_and_types_that_cannot_be_loaded_are_model_unavailable(text: str) -> None:
    assert type(translate(RuntimeError(text))) is ModelUnavailable


@pytest.mark.parametrize("text", NO_GPU)
def test_a_gpu_that_cannot_be_used_says_what_to_do(text: str) -> None:
    error = translate(RuntimeError(text))
    assert type(error) is EngineUnavailable
    assert "DEVICE=cpu" in str(error)


@pytest.mark.parametrize("row", TEXTS, ids=lambda row: row.text)
def test_no_row_of_the_table_is_hidden_by_an_earlier_one(row: Row) -> None:
    error = translate(RuntimeError(f"before {row.text.upper()} after"))
    assert type(error) is row.becomes
    assert str(error) == row.message


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (MemoryError(), OutOfMemory),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemory),
        (FileNotFoundError(errno.ENOENT, "No such file", "/srv/secret/model"), ModelUnavailable),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/secret/model"), ModelUnavailable),
        (OSError(errno.ENOSPC, "No space left on device"), ModelUnavailable),
        (ConnectionResetError(), DownloadFailed),
        (TimeoutError(), DownloadFailed),
        (ValueError("hf_secret"), EngineError),
        (RuntimeError("a text that nobody has seen, in /srv/secret"), EngineError),
        (Exception(), EngineError),
    ],
    ids=repr,
)
def test_errors_are_mapped_by_type_where_the_text_says_nothing(foreign: Exception, ours: type[EngineError]) -> None:
    error = translate(foreign)
    assert type(error) is ours
    assert "secret" not in str(error)


def test_a_hub_that_refuses_is_for_good_and_one_that_does_not_answer_is_asked_again() -> None:
    from huggingface_hub import errors as hub

    for kind in (hub.HFValidationError, hub.OfflineModeIsEnabled):
        assert type(translate(kind("https://host/path?token=hf_secret"))) is ModelUnavailable
    assert type(translate(hub.LocalEntryNotFoundError("hf_secret"))) is DownloadFailed  # what it says without a network
    client = type("ConnectError", (Exception,), {"__module__": "httpx2._exceptions"})
    assert type(translate(client("hf_secret"))) is DownloadFailed
    for status, ours in (
        (401, ModelUnavailable),
        (404, ModelUnavailable),
        (429, DownloadFailed),
        (503, DownloadFailed),
    ):
        error = client("hf_secret")
        error.response = SimpleNamespace(status_code=status)
        assert type(translate(error)) is ours


def test_our_own_errors_pass_unchanged() -> None:
    error = LeaseLost("taken")
    assert translate(error) is error
    with pytest.raises(LeaseLost) as caught, foreign_errors():
        raise error
    assert caught.value is error


def test_the_boundary_keeps_the_foreign_error_as_the_cause() -> None:
    foreign = RuntimeError("CUDA failed with error out of memory")
    with pytest.raises(OutOfMemory) as caught, foreign_errors():
        raise foreign
    assert caught.value.__cause__ is foreign


def test_out_of_memory_keeps_nothing_of_the_call_that_raised_it() -> None:
    """A ladder keeps the error; the arrays in the frames below it must not stay with it."""

    class Array:
        pass

    kept: list[weakref.ref[Array]] = []

    def call() -> None:
        array = Array()
        kept.append(weakref.ref(array))
        raise RuntimeError("CUDA failed with error out of memory")

    with pytest.raises(OutOfMemory) as caught, foreign_errors():
        call()
    assert caught.value.__cause__ is not None
    assert kept[0]() is None


def test_a_time_limit_that_a_signal_raised_inside_the_engine_is_not_the_engines_error() -> None:
    from billiard.exceptions import SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded), foreign_errors():
        raise SoftTimeLimitExceeded


def test_an_interrupt_is_not_the_engines_error() -> None:
    with pytest.raises(KeyboardInterrupt), foreign_errors():
        raise KeyboardInterrupt


def test_no_message_of_the_table_names_a_path_or_a_host() -> None:
    for row in TEXTS:
        assert not re.search(r"[\w.]*/[\w.]+|https?:", row.message), row.message


def test_the_texts_are_those_of_the_library_that_is_installed() -> None:
    """A text that CTranslate2 no longer contains would no longer be recognised."""
    import ctranslate2

    package = Path(ctranslate2.__file__).parent
    libraries = [*package.glob("*.so*"), *package.parent.glob("ctranslate2.libs/libctranslate2*")]
    binary = b"".join(library.read_bytes() for library in libraries)
    for text in (
        b"out of memory",
        b"CUBLAS_STATUS_ALLOC_FAILED",
        b"CUBLAS_STATUS_NOT_INITIALIZED",
        b"an illegal memory access was encountered",
        b"unspecified launch failure",
        b"device-side assert triggered",
        b"CUBLAS_STATUS_EXECUTION_FAILED",
        b" compute type, but the target device",
        b" is not found or cannot be loaded",
        b"Unable to open file '",
    ):
        assert text in binary, text
