"""An engine server in this process, for a worker with a single child: the same code, without a process of its own."""

import socket

from config import Settings
from engines import memory
from engines.server import open_server


def connect_here(settings: Settings) -> socket.socket:
    """One end of a pair of sockets; at the other end is a server that lasts as long as the process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    memory.keep_freed()
    server = open_server(settings, is_shared=False)
    server.start()
    server.welcome(theirs)
    return ours
