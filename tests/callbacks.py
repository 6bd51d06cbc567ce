"""Callbacks under test: a process with a tree, and means to call."""

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import trio

from tests.support import PATIENCE_S
from trio_lifecycle import LocalSpawner
from trio_lifecycle.abc import Process, Report, Start
from trio_lifecycle.ready._callback import ArmedCallback, Callback
from trio_lifecycle.testing import SimulatedDaemon
from trio_lifecycle.testing._spawner import SimulatedProcess

REQUEST_START = b"POST /ready/x HTTP/1.1\r\nHost: x\r\n"


class FakeProcess(SimulatedProcess):
    """A process with this tree, unless it can't tell."""

    def __init__(self, *tree: int, tells: bool = True) -> None:
        super().__init__(SimulatedDaemon().start())
        self.tree = tree
        self.tells = tells

    async def contains(self, pid: int) -> bool | None:
        await trio.lowlevel.checkpoint()
        return pid in self.tree if self.tells else None


async def arm(mode: Callback | None = None, **known: Any) -> ArmedCallback:
    start = Start(
        **{
            "name": "worker",
            "instance_id": "7f",
            "port": None,
            "prober": LocalSpawner().open_prober(),
        }
        | known
    )
    return await (mode or Callback()).arm(start)


class Waiting:
    """An armed callback whose wait goes on, and means to send to it."""

    def __init__(self, armed: ArmedCallback) -> None:
        self.armed = armed
        self.url = armed.env["TRIO_LIFECYCLE_CALLBACK_URL"]
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = (parts.hostname, parts.port)
        self.target = parts.path.encode()
        self.report: Report | None = None
        self.ready = trio.Event()

    async def serve(
        self, process: Process, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        self.report = await self.armed.wait(process)
        self.ready.set()

    def request(self, body: bytes = b"{}", header: bytes = b"", target: bytes = b"") -> bytes:
        """A well-formed callback."""
        line = b"POST %b HTTP/1.1\r\nHost: x\r\n" % (target or self.target)
        return line + header + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address)

    async def send(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """Send bytes, read to the end; give status and JSON of the answer, or (0, {}) for none."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            return await read_answer(stream)

    async def post(self, said: object = None, **request: bytes) -> int:
        """Send a well-formed callback and give the answer's status."""
        body = b"" if said is None else json.dumps(said).encode()
        status, answer = await self.send(self.request(body, **request))
        assert (200 == status) == answer["ready"]
        return status

    async def assert_still_works(self) -> None:
        """A good callback is taken, and ends the wait."""
        assert not self.ready.is_set()
        with trio.fail_after(PATIENCE_S):
            assert 200 == await self.post({"port": 4321})
            await self.ready.wait()
        assert self.report is not None
        assert 4321 == self.report.port


async def read_answer(stream: trio.SocketStream) -> tuple[int, dict[str, Any]]:
    answer = b""
    with suppress(trio.BrokenResourceError):
        async for piece in stream:
            answer += piece
    if not answer:
        return 0, {}
    header, _, body = answer.rpartition(b"\r\n\r\n")
    last = header.rpartition(b"\r\n\r\n")[2]  # what comes before is "100 Continue"
    assert b"connection: close" in last
    return int(last.split()[1]), json.loads(body)


def reset(stream: trio.SocketStream) -> None:
    """Close in a way that sends RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@asynccontextmanager
async def waiting(
    mode: Callback | None = None, process: Process | None = None, **known: Any
) -> AsyncIterator[Waiting]:
    armed = await arm(mode, **known)
    try:
        async with trio.open_nursery() as nursery:
            it = Waiting(armed)
            await nursery.start(it.serve, process or FakeProcess(17))
            yield it
            nursery.cancel_scope.cancel()
    finally:
        # A test that was cancelled leaves no server behind either.
        with trio.fail_after(PATIENCE_S, shield=True):
            await armed.disarm()
