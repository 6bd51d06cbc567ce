"""Daemons that are given their sockets, and clients who are early."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from tests.support import PATIENCE_S, QUICK_PYTHON
from trio_lifecycle import FREE_PORT, LifecycleConfig, ListenSocket
from trio_lifecycle.abc import ArmedReady, Process, ReadyMode, Report, Start

# It answers with its number and what it was told of its sockets, from the first of them.
ACCEPTING = """
import json, os, socket, sys
told = {name: value for name, value in os.environ.items() if name.startswith("LISTEN_")}
told["is own pid"] = told.pop("LISTEN_PID") == str(os.getpid())
told["blocking"] = os.get_blocking(3)
numbers = map(int, os.listdir("/dev/fd"))
told["fds"] = sorted(fd for fd in numbers if os.path.exists(f"/dev/fd/{fd}"))
os.set_blocking(3, True)
server = socket.socket(fileno=3)
body = json.dumps([os.getpid(), told]).encode()
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body)
while True:
    connection, _ = server.accept()
    try:
        if connection.recv(65536):
            connection.send(answer)
    except OSError:
        pass
    connection.close()
"""

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def accepting(*sockets: ListenSocket, code: str = ACCEPTING, **changes: Any) -> LifecycleConfig:
    """A daemon that answers from the first of its sockets; it has one on a free port at least."""
    changes = {
        "name": "daemon",
        "listen": sockets or [ListenSocket(port=FREE_PORT)],
        "ready_mode": Early(),
        **changes,
    }
    return LifecycleConfig(sys.executable, args=[*QUICK_PYTHON, code], **changes)


class Client:
    """A connection with a question on its way."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    @classmethod
    async def at_port(cls, port: int, host: str = "127.0.0.1") -> "Client":
        """Connect, and ask."""
        return await cls._asking(await trio.open_tcp_stream(host, port))

    @classmethod
    async def at_path(cls, path: Path) -> "Client":
        """Connect to a UNIX socket, and ask."""
        return await cls._asking(await trio.open_unix_socket(path))

    @classmethod
    async def _asking(cls, stream: trio.abc.Stream) -> "Client":
        await stream.send_all(GET)
        return cls(stream)

    async def close(self) -> None:
        """Hang up; again is fine."""
        await trio.aclose_forcefully(self._stream)

    async def answer(self) -> bytes:
        """Wait for the answer to its end."""
        said = b""
        with trio.fail_after(PATIENCE_S):
            while more := await self._stream.receive_some():
                said += more
        await self.close()
        return said


@frozen
class Early(ReadyMode):
    """Ready when a question is answered that was asked before the daemon was spawned."""

    path: Path | None = None
    port: int | None = None

    async def arm(self, start: Start) -> "ArmedEarly":
        """Ask."""
        if self.path is not None:
            return ArmedEarly(await Client.at_path(self.path))
        port = self.port or start.port
        assert port is not None
        return ArmedEarly(await Client.at_port(port), port)


class ArmedEarly(ArmedReady):
    """A question on its way."""

    last_seen = "no answer"

    def __init__(self, client: Client, port: int | None = None) -> None:
        self.client = client
        self.port = port

    async def wait(self, process: Process) -> Report:
        """Wait for the answer; it is the report."""
        answer = await self.client.answer()
        facts: Mapping[str, Any] = {"answer": answer.decode(), "at_ns": time.monotonic_ns()}
        return Report(port=self.port, facts=facts)

    async def disarm(self) -> None:
        """Hang up."""
        await self.client.close()
