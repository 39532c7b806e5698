"""Whose fault it is that an attempt ended: the recording's, its child's or the worker's. Pure."""

import errno

import errors
from jobs.retry import Cause

_OF_THE_WORKER = (
    errors.StorageError,
    errors.ModelUnavailable,
    errors.EngineUnavailable,
    errors.OutOfMemory,  # a window of any recording takes the same
    errors.PoolTimeout,
)
_OF_THE_CHILD = (MemoryError, errors.DecoderCrashed, errors.EngineCrashed)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}


def cause_of(error: BaseException) -> Cause:
    if isinstance(error, errors.FileMissing):  # raised by a storage that is there
        return Cause.FAILURE
    if isinstance(error, _OF_THE_WORKER) or (isinstance(error, OSError) and error.errno in _DISK):
        return Cause.WORKER
    return Cause.LOSS if isinstance(error, _OF_THE_CHILD) else Cause.FAILURE
