"""Stands in for `kubectl port-forward`, a protocol of its own: prints as kubectl does, and relays."""

import contextlib
import os
import socket
import socketserver
import sys
import threading
from pathlib import Path


def relay(client: socket.socket, port: int) -> None:
    """Carry bytes both ways until one side ends."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as pod:

        def carry(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)

        back = threading.Thread(target=carry, args=(pod, client), daemon=True)
        back.start()
        carry(client, pod)
        back.join()


def forward(arguments: list[str]) -> None:
    """`kubectl port-forward pod/NAME :8080 -n NAMESPACE` of a pod that is alone; its port is in a file."""
    name = next(word for word in arguments if word.startswith("pod/")).removeprefix("pod/")
    namespace = arguments[arguments.index("-n") + 1]
    folder = Path(os.environ["KUBECONFIG"]).parent
    newest = max(folder.glob(f"{namespace}-{name}-*"), key=lambda path: path.stat().st_mtime)
    port = int(newest.name.rpartition("-")[2])

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            relay(self.request, port)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        print(f"Forwarding from 127.0.0.1:{server.server_address[1]} -> 8080", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    forward(sys.argv[1:])
