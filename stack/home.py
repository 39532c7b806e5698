"""What the stack keeps in DATA_DIR between runs: passwords and the ports of the embedded servers.

Also who may own it: PostgreSQL refuses to run as root, so its folder can belong to another user.
"""

import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from config import memory_folder
from stack.process import StackError

SERVERS = "servers.env"
COUNTERS, COUNTERS_NOTE = "whisper-queue-counters-", "counters.txt"
SYSTEM_USERS = ("postgres", "pgserver")  # the first that exists runs PostgreSQL when we are root


class Home:
    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def secret(self, name: str) -> str:
        """A password that is made once and kept. Alphanumeric, so that it needs no quoting in a URL."""
        path = self.secret_path(name)
        if not path.exists():
            write_private(path, secrets.token_hex(24))
        return path.read_text().strip()

    def secret_path(self, name: str) -> Path:
        folder = self.root / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / name

    def port(self, name: str) -> int:
        """The port this server had last time, or a free one if that is taken (or there was none)."""
        kept = self._ports()
        if name not in kept or not is_free(kept[name]):
            kept[name] = free_port()
            write_whole(self.root / "ports.json", json.dumps(kept))
        return kept[name]

    def counters(self) -> Path:
        """A new folder for the counters of all processes, in memory; that of a killed run before this one goes."""
        self.forget_counters()
        folder = Path(tempfile.mkdtemp(prefix=COUNTERS, dir=memory_folder()))
        write_whole(self.root / COUNTERS_NOTE, str(folder))
        return folder

    def forget_counters(self) -> None:
        note = self.root / COUNTERS_NOTE
        if note.exists() and COUNTERS in note.read_text():
            shutil.rmtree(note.read_text(), ignore_errors=True)
        note.unlink(missing_ok=True)

    def tell_servers(self, database_url: str, redis_url: str) -> None:
        """For commands that run beside the stack: config.adopt_running_stack reads it."""
        lines = (f"DATABASE_URL={database_url}", f"REDIS_URL={redis_url}", "")
        write_private(self.secret_path(SERVERS), "\n".join(lines))

    def forget_servers(self) -> None:
        self.secret_path(SERVERS).unlink(missing_ok=True)

    def hand_over(self) -> None:
        """What root has made here goes to the owner of the folder, who may run the stack the next time."""
        owner = self.root.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return
        for folder, _, names in os.walk(self.root):
            for path in (Path(folder), *(Path(folder) / name for name in names)):
                if path.lstat().st_uid == 0:
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _ports(self) -> dict[str, int]:
        try:
            kept = json.loads((self.root / "ports.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return {name: port for name, port in kept.items() if isinstance(port, int)} if isinstance(kept, dict) else {}


def write_private(path: Path, text: str, owner: pwd.struct_passwd | None = None) -> None:
    """Never readable by others, not even between creation and chmod; others see the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    if owner is not None:
        os.chown(draft, owner.pw_uid, owner.pw_gid)
    draft.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Readers see the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """As a server would bind it: SO_REUSEADDR, else our own last connections would count."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def owner_for(folder: Path) -> pwd.struct_passwd | None:
    """Who runs the server that keeps its data in `folder`: None is us; root hands it to the folder's owner."""
    if os.geteuid() != 0:
        return None
    for path in (folder, folder.parent):
        if path.exists() and path.stat().st_uid != 0:
            return _user_of(path)
    return _system_user()


def _user_of(path: Path) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(path.stat().st_uid)
    except KeyError:
        raise StackError(f"{path} belongs to uid {path.stat().st_uid}, which no user of this machine has") from None


def _system_user() -> pwd.struct_passwd:
    """An unprivileged user; made where none of the usual names exists."""
    useradd = shutil.which("useradd")
    for name in SYSTEM_USERS:
        if name in (user.pw_name for user in pwd.getpwall()):
            return pwd.getpwnam(name)
    if useradd:
        subprocess.run([useradd, "--system", "--shell", "/bin/false", SYSTEM_USERS[-1]], check=False, timeout=30)
    names = {user.pw_name for user in pwd.getpwall()}
    return pwd.getpwnam(SYSTEM_USERS[-1] if SYSTEM_USERS[-1] in names else "nobody")


def make_reachable(folder: Path) -> None:
    """Let another user pass through (not list) the folders above `folder`; only where root needs it."""
    for parent in folder.absolute().parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)
