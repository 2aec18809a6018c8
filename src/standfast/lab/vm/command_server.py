"""Runs in each guest: one command a connection, a line of JSON in and a line of JSON out.

ssh would cost a second a call under emulation. There is no login: the network that it listens on exists
only in the namespaces of one lab. Imports little: it starts while the guest boots.
"""

import json
import socketserver
from dataclasses import asdict

from standfast.cluster.run import run

COMMAND_PORT = 7070
MAX_REQUEST_BYTES = 16 * 1024 * 1024
REQUEST_LIMIT_SECONDS = 30.0


class _Handler(socketserver.StreamRequestHandler):
    timeout = REQUEST_LIMIT_SECONDS

    def handle(self) -> None:
        request = json.loads(self.rfile.readline(MAX_REQUEST_BYTES))
        done = run(request["argv"], limit_seconds=request["limit_seconds"], input=request["input"])
        self.wfile.write(json.dumps(asdict(done)).encode() + b"\n")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Answer until killed."""
    with _Server(("0.0.0.0", COMMAND_PORT), _Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
