"""Sockets on which a release and the next one listen at the same time, so that no request fails."""

import asyncio
import ctypes
import os
import socket
import struct
import sys

import uvicorn

from ...experiment.errors import UserError

SO_ATTACH_FILTER = 26  # of Linux; the module `socket` does not name it
# uvloop accepts one connection of each socket before it serves all that are open. With one socket,
# sixty clients that connect at once would wait for half a second.
SOCKETS = 32
DRAIN_SECONDS = 0.02  # in which clients that have connected are accepted


class DrainingServer(uvicorn.Server):
    """A server that answers all clients that have connected before it closes its sockets."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leave new clients to the next release, and end."""
        for listening in sockets or []:
            drop_new_connections(listening)
        await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)


def host_names(host: str) -> frozenset[bytes] | None:
    """What the header Host may name on the loopback; None: anything, on any other address.

    A page of a foreign site can let its own name lead to the loopback, and then read the answers.
    SERVICE_HOSTS has more names, with commas between, for a proxy on this machine.
    """
    if host != "localhost" and not host.startswith("127."):
        return None
    more = os.environ.get("SERVICE_HOSTS", "").split(",")
    names = {"localhost", "127.0.0.1", "[::1]", host, *(name.strip().lower() for name in more)}
    return frozenset(name.encode() for name in names if name)


def host_name(headers: dict[bytes, bytes]) -> bytes:
    """The header Host without the port."""
    host = headers.get(b"host", b"")
    name, _, port = host.rpartition(b":")
    return (name if port.isdigit() else host).lower()


def drop_new_connections(listening: socket.socket) -> None:
    """Drop the first packet of each new connection (Linux); the client sends it again after a second.

    Another release listens on the same port by then. Closing the socket at once would reset the
    connections in the kernel's queue.
    """
    if sys.platform != "linux":
        return
    flags = (0x30, 0, 0, 13)  # load the byte of TCP's flags
    drop, keep = (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)
    steps = (flags, (0x45, 0, 1, 0x02), drop, keep)  # SYN is set: drop it
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filtered = struct.pack("HP", len(steps), ctypes.addressof(program))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filtered)


def listen(port: int, host: str) -> list[socket.socket]:
    """Sockets on a port (0: a free one) on which another release may listen too; raises UserError."""
    first = _listen(port, host)
    if not hasattr(socket, "SO_REUSEPORT"):
        return [first]
    return [first, *(_listen(first.getsockname()[1], host) for _ in range(SOCKETS - 1))]


def _listen(port: int, host: str) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be used: {error.strerror}") from None
    return listening
