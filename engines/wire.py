"""How children and an engine server talk: JSON messages over a Unix socket, spectrograms in memory that both map."""

import json
import os
import socket
import struct
import tempfile
from contextlib import suppress
from hashlib import blake2b
from mmap import mmap
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mel = NDArray[np.float32]  # (mels, frames)

MELS, FRAMES = 128, 3000  # the most that a slot holds
SLOT_BYTES = 4 * MELS * FRAMES
LONGEST_MESSAGE = 1 << 20
SEND_WITHIN_S = 5  # a peer that takes nothing for so long is stopped or stuck; whoever sends has others to serve
QUEUED, LOADING, RUNNING = 0, 1, 2  # what a slot's row is doing; still to be read after the server was killed
_LENGTH = struct.Struct("<I")
_LIMIT = struct.pack("ll", SEND_WITHIN_S, 0)  # C's timeval


class Arena:
    """Memory of one child, in slots of a spectrogram each. It lives as long as anybody maps it, so nothing is left."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._map = mmap(fd, _bytes(slots))

    @classmethod
    def create(cls, slots: int) -> "Arena":
        fd = os.memfd_create("spectrograms") if hasattr(os, "memfd_create") else _unnamed_file()
        os.ftruncate(fd, _bytes(slots))
        return cls(fd, slots)

    def mel(self, slot: int, shape: tuple[int, int]) -> "Mel":
        """A view on a slot: what is written is seen by the other side."""
        import numpy as np

        if not (0 <= slot < self.slots and 0 < shape[0] <= MELS and 0 < shape[1] <= FRAMES):
            raise ValueError("A slot or a shape that no arena has. This is a bug.")
        return np.frombuffer(self._map, np.float32, shape[0] * shape[1], slot * SLOT_BYTES).reshape(shape)

    def state(self, slot: int) -> int:
        return self._map[self.slots * SLOT_BYTES + slot]

    def set_state(self, slot: int, state: int) -> None:
        self._map[self.slots * SLOT_BYTES + slot] = state

    @property
    def is_loading(self) -> bool:
        """Whether the server is opening a model, for anybody: if it dies now, the load is to blame."""
        return bool(self._map[-1])

    @is_loading.setter
    def is_loading(self, loading: bool) -> None:
        self._map[-1] = loading


def _bytes(slots: int) -> int:
    """Spectrograms, a state each, and a byte for all."""
    return slots * (SLOT_BYTES + 1) + 1


def name_of(mel: "Mel") -> str:
    """The same for the same spectrogram: what a server knows about it can be asked for again."""
    return blake2b(mel.data, digest_size=16).hexdigest()


def _unnamed_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Line:
    """One end of a connection. Any thread may send; one receives. Raises OSError, EOFError once it is broken.

    After a send that failed it is of no more use: a part of the message may be on its way.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _LIMIT)  # a receive may wait
        self._socket = sock
        self._sending = Lock()

    def send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        with self._sending:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> dict[str, Any]:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > LONGEST_MESSAGE:
            raise EOFError
        message: dict[str, Any] = json.loads(self._exactly(length))
        return message

    def send_arena(self, arena: Arena) -> None:
        with self._sending:
            socket.send_fds(self._socket, [_LENGTH.pack(arena.slots)], [arena.fd])

    def receive_arena(self) -> Arena:
        data, fds, _, _ = socket.recv_fds(self._socket, _LENGTH.size, 1)
        if not fds:
            raise EOFError
        return Arena(fds[0], _LENGTH.unpack(data)[0])

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that receives
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
