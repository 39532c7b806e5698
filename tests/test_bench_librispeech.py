"""LibriSpeech is fetched from a server on loopback: once, on from where it was cut off, and only what was published."""

import io
import tarfile
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from bench.accuracy.librispeech import corpus
from bench.accuracy.manifest import read
from tests.far_server import Exchange, far_server
from tests.media import tone, write_media


def archive(folder: Path) -> bytes:
    """As OpenSLR packs it."""
    sound = write_media(folder / "x.flac", tone(2, rate=16_000), rate=16_000).read_bytes()
    files = {
        "1-2-0000.flac": sound,
        "1-2-0001.flac": sound,
        "1-2.trans.txt": b"1-2-0000 HELLO WORLD\n1-2-0001 IT'S ME\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"LibriSpeech/test-clean/1/2/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def test_librispeech_is_fetched_once_and_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    content, home = archive(tmp_path), tmp_path / "cache"
    home.mkdir()
    (home / "test-clean.tar.gz.part").write_bytes(content[:100])

    def rest(exchange: Exchange) -> None:
        assert exchange.headers["Range"] == "bytes=100-"
        exchange.answer(206, content[100:], Content_Range=f"bytes 100-{len(content) - 1}/{len(content)}")

    with far_server(rest) as server:
        told: dict[str, Any] = {"address": server.url(""), "md5": md5(content).hexdigest(), "cache": home}  # noqa: S324
        folder = corpus("test-clean", **told)
        assert corpus("test-clean", **told) == folder
        assert len(server.seen) == 1
    found = read(folder)
    assert [(one.id, one.text, one.seconds) for one in found] == [
        ("1-2-0000", "Hello world", 2.0), ("1-2-0001", "It's me", 2.0)
    ]  # fmt: skip
    assert not list(home.glob("*.tar.gz*"))


def test_an_archive_that_is_not_the_published_one_is_refused_and_deleted(tmp_path: Path) -> None:
    with far_server(lambda exchange: exchange.answer(200, b"something else")) as server:  # noqa: SIM117
        with pytest.raises(SystemExit, match=f"but {'0' * 32} was published"):
            corpus("test-other", address=server.url(""), md5="0" * 32, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_fetch_that_fails_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "test-other.tar.gz.part").write_bytes(b"half")
    with far_server(lambda exchange: exchange.answer(503)) as server:  # noqa: SIM117
        with pytest.raises(SystemExit, match=r"cannot be fetched .* try again"):
            corpus("test-other", address=server.url(""), md5="0" * 32, cache=tmp_path)
    assert (tmp_path / "test-other.tar.gz.part").read_bytes() == b"half"
