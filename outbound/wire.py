"""The network below HTTP: one socket, one deadline, and no connection but to an address that was judged.

Never through a proxy, never to a name: what a second look-up would answer does not matter.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import httpcore

from errors import AddressRefused, FetchFailed
from outbound.addresses import NOT_PUBLIC, Address, Network, is_public, literal_address

Resolve = Callable[[str], Sequence[str]]  # a host's name to all its IP addresses, at least one; raises OSError


class Broken(FetchFailed):
    """The network's doing: the rest may come over another connection."""


class Clock:
    """One deadline for everything that a connection does: no single operation's timeout can be added to another's."""

    def __init__(self, seconds: float) -> None:
        self.restart(seconds)

    def restart(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Wire(httpcore.NetworkStream):
    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._sock.settimeout(self._clock.left())
        return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left = memoryview(buffer)
        while left:
            self._sock.settimeout(self._clock.left())
            try:
                left = left[self._sock.send(left) :]
            except ConnectionError:  # httpcore then looks for an answer that was sent before all was read
                raise httpcore.WriteError from None

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            self._sock.settimeout(self._clock.left())
            return _Wire(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._clock)
        except BaseException:
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        return None


class Guard(httpcore.NetworkBackend):
    """Judges what a name resolves to and connects to just that: a second look-up could answer something else."""

    def __init__(self, allow: Sequence[Network], resolve: Resolve, clock: Clock) -> None:
        self._allow = allow
        self._resolve = resolve
        self._clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        *spare, last = self._judged(host)
        for number, address in enumerate(spare):
            with suppress(OSError):
                return self._connected(address, port, self._clock.left() / (len(spare) - number + 1))
        return self._connected(last, port, self._clock.left())

    def _connected(self, address: Address, port: int, timeout: float) -> _Wire:
        sock = socket.create_connection((str(address), port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Wire(sock, self._clock)

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        raise AddressRefused(NOT_PUBLIC)

    def _judged(self, host: str) -> list[Address]:
        """All of them public: a name that mixes inner and outer addresses is at odds with itself, or an attack."""
        literal = literal_address(host)
        addresses = [literal] if literal else [ip_address(text) for text in self._resolve(host)]
        if not all(is_public(address, self._allow) for address in addresses):
            raise AddressRefused(NOT_PUBLIC)
        return addresses


def resolve(host: str) -> Sequence[str]:
    """As long as the system's resolver takes: no deadline reaches into it."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


@contextmanager
def network_errors() -> Iterator[None]:
    """Errors of the network become ours; none of them tells where the other end is."""
    try:
        yield
    except TimeoutError:
        raise Broken("The server did not answer in time.") from None
    except socket.gaierror:
        raise Broken("The server's name is not known. Check the address.") from None
    except ssl.SSLCertVerificationError:
        raise Broken("The server's certificate is not one that we trust for this name.") from None
    except (OSError, httpcore.NetworkError, httpcore.TimeoutException):
        raise Broken("The connection to the server could not be made, or broke off.") from None
    except httpcore.ProtocolError:
        raise Broken("The server broke off, or answered with something that is not HTTP.") from None
