"""What an S3 server and boto3 say, in errors of ours. Never tells a caller bucket, server or key."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from errors import FileMissing, StorageAway, StorageError, StorageFull


class NotThere(StorageError):
    """An answer without a body: object or bucket, to a HEAD; to anything else, a server that speaks no S3."""


class PastTheEnd(StorageError):
    """A range, of the object."""


class UploadGone(StorageError):
    """Aborted or completed by another."""


GONE = "The recording is no longer in storage."
NO_BUCKET = "The storage is away: its bucket does not exist."
_FULL = StorageFull, "There is no room left to store recordings. Try again later."
_SILENT = StorageError, "The storage did not answer. Try again later."
_BUSY = StorageError, "The storage is overloaded. Try again later."
_REFUSED = StorageError, "The storage refused the service. Its operator must check the credentials and what they allow."
_ERRORS: dict[str, tuple[type[StorageError], str]] = {  # by the code of the server's answer, or boto3's name for none
    "NoSuchKey": (FileMissing, GONE),
    "NoSuchBucket": (StorageAway, NO_BUCKET),
    "404": (NotThere, "The storage failed: 404."),
    "NoSuchUpload": (UploadGone, "The upload to the storage was ended by somebody else. Try again."),
    **dict.fromkeys(("InvalidRange", "416"), (PastTheEnd, "The storage has no such range.")),
    **dict.fromkeys(("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"), _FULL),
    **dict.fromkeys(("SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "503"), _BUSY),
    **dict.fromkeys(("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403"), _REFUSED),
    **dict.fromkeys(("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"), _SILENT),
    **dict.fromkeys(("ConnectionClosedError", "ResponseStreamingError", "IncompleteReadError"), _SILENT),
    **dict.fromkeys(
        ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
        (StorageError, "The service has no credentials for its storage. Its operator must provide them."),
    ),
}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Errors of boto3 become ours; none of them tells bucket, server or key."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        name = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        kind, message = _ERRORS.get(name, (StorageError, f"The storage failed: {name}."))
        raise kind(message) from None
