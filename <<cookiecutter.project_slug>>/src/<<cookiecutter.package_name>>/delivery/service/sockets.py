"""A port that a release and the next one listen on side by side, so that no request is missed."""

import asyncio
import ctypes
import os
import socket
import struct
import sys

import uvicorn

from ...experiment.errors import UserError

SO_ATTACH_FILTER = 26
# Of each, uvloop accepts one connection before it turns to all that are open: with one socket, sixty
# that come at once would wait for half a second.
SOCKETS = 32


class Server(uvicorn.Server):
    """A server that answers whoever has connected, before it stops to listen."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in sockets or []:
            turn_away(listening)
        await asyncio.sleep(0.02)  # those who wait to be accepted
        await super().shutdown(sockets)


def host_names(host: str) -> frozenset[bytes] | None:
    """What the header Host may name: anything (None), but where only this machine can ask.

    A page of a foreign site can let its own name lead here, and then read the answers. SERVICE_HOSTS
    names what a proxy on this machine hands on, with commas between.
    """
    if host != "localhost" and not host.startswith("127."):
        return None
    more = os.environ.get("SERVICE_HOSTS", "").split(",")
    names = {"localhost", "127.0.0.1", "[::1]", host, *(name.strip().lower() for name in more)}
    return frozenset(name.encode() for name in names if name)


def host_name(headers: dict[bytes, bytes]) -> bytes:
    """What the header Host names, without the port."""
    host = headers.get(b"host", b"")
    name, _, port = host.rpartition(b":")
    return (name if port.isdigit() else host).lower()


def turn_away(listening: socket.socket) -> None:
    """Let new connections come to another release that listens on the same port (Linux).

    Closing the socket would reset those that the kernel has put into its queue. So it gets a socket
    filter first, which drops their first packet; they send it again after a second.
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
    """Sockets that another release may listen on beside these, so that no request is missed."""
    found = [_listen(port, host)]
    if hasattr(socket, "SO_REUSEPORT"):
        port = found[0].getsockname()[1]
        found += [_listen(port, host) for _ in range(SOCKETS - 1)]
    return found


def _listen(port: int, host: str) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be used: {error.strerror}") from None
    return found
