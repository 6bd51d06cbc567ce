"""Notifications under test: an armed mode that hears this very process, and means to send to it."""

import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from tests.callbacks import FakeProcess
from tests.support import PATIENCE_S
from trio_lifecycle import LocalSpawner, Notify
from trio_lifecycle.abc import Process, Progress, Report, Start
from trio_lifecycle.ready._notify import ArmedNotify

# A few lines of Python that can say something: for a daemon.
SAY = """
import os, socket, sys, time
where = os.environ["NOTIFY_SOCKET"]
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("\\0" + where[1:] if where[0] == "@" else where)
def say(text):
    sender.send(text.encode())
"""


class Talk:
    """An armed mode whose wait goes on, what it passed on, and means to send to it."""

    def __init__(self, armed: ArmedNotify, told: list[Progress]) -> None:
        self.armed = armed
        self.told = told
        self.report: Report | None = None
        self.ready = trio.Event()
        where = armed.env["NOTIFY_SOCKET"]
        self._address = "\0" + where[1:] if where.startswith("@") else where
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def wait(self, process: Process) -> None:
        self.report = await self.armed.wait(process)
        self.ready.set()
        await self.armed.follow(process)

    def send(
        self, message: str | bytes, claimed: tuple[int, int] | None = None, fds: Sequence[int] = ()
    ) -> None:
        """Send, also with the claim that another process and user does, and with descriptors."""
        data = message.encode() if isinstance(message, str) else message
        control: list[tuple[int, int, bytes]] = []
        if claimed is not None:
            credentials = struct.pack("iII", *claimed, 0)
            control.append((socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials))
        if fds:
            rights = struct.pack(f"{len(fds)}i", *fds)
            control.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights))
        self._sender.sendmsg([data], control, 0, self._address)

    async def heard(self) -> None:
        """Wait until all is heard that was sent."""
        with trio.fail_after(PATIENCE_S):
            await trio.testing.wait_all_tasks_blocked(0.005)

    async def assert_still_works(self) -> None:
        """That it is ready is heard, and ends the wait."""
        await self.heard()
        assert not self.ready.is_set()
        self.send("READY=1")
        with trio.fail_after(PATIENCE_S):
            await self.ready.wait()

    def close(self) -> None:
        self._sender.close()


@asynccontextmanager
async def talking(
    mode: Notify | None = None, process: Process | None = None, **known: Any
) -> AsyncIterator[Talk]:
    told: list[Progress] = []
    start = Start(
        **{
            "name": "queen",
            "instance_id": "7f",
            "port": None,
            "prober": LocalSpawner().open_prober(),
        }
        | {"hear": told.append}
        | known
    )
    armed = await (mode or Notify()).arm(start)
    talk = Talk(armed, told)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.wait, process or FakeProcess(os.getpid()))
            yield talk
            nursery.cancel_scope.cancel()
    finally:
        talk.close()
        # A test that was cancelled leaves no socket behind either.
        with trio.fail_after(PATIENCE_S, shield=True):
            await armed.disarm()
