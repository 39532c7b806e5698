"""SECRET_KEY: what API keys and webhook secrets are derived with. Made once where the operator has set none."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import errors
from config import Settings

SHORTEST = 32  # bytes; with less, keys could be forged


def derive(settings: Settings, purpose: str, text: str) -> bytes:
    """32 bytes that nobody can know without SECRET_KEY; other for each purpose."""
    return hmac.digest(_secret_key(settings), f"{purpose}:{text}".encode(), hashlib.sha256)


def _secret_key(settings: Settings) -> bytes:
    given = settings.secret_key.get_secret_value()
    return given.encode() if given else _kept(settings.data_dir)


def _kept(data_dir: Path) -> bytes:
    """Several processes may be the first at once: who links the file first has made it."""
    path = data_dir / "secrets" / "secret_key"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())  # a power cut that emptied it would take every key with it
        _leave_to_owner(data_dir, path.parent, draft)
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    kept = path.read_bytes()
    if len(kept) < SHORTEST:
        raise errors.Unavailable("DATA_DIR/secrets/secret_key is damaged. Put the backup of it back.")
    return kept


def _leave_to_owner(data_dir: Path, *made: Path) -> None:
    """Root may be the first to make it, in a folder whose owner runs the service the next time."""
    owner = data_dir.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in made:
            os.chown(path, owner.st_uid, owner.st_gid)
