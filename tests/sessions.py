"""Sessions as over SSH, around programs of this machine."""

from collections.abc import Mapping, Sequence
from subprocess import PIPE
from typing import Self

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support import nothing_ignored
from trio_lifecycle._ssh._session import LostError, Session

_KEPT_COMPLAINTS_BYTES = 4_096


class LocalSession(Session):
    """A program of this machine in the place of one on another."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._complaints = b""

    @classmethod
    async def start(
        cls,
        nursery: trio.Nursery,
        command: Sequence[str] = ("sh", "-s"),
        *,
        env: Mapping[str, str] | None = None,
        leads: bool = False,
    ) -> Self:
        """Start it, as leader of a session if it ``leads``; it is killed with the nursery."""
        with nothing_ignored():
            process = await trio.lowlevel.open_process(
                list(command),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=env,
                start_new_session=leads,
            )
        session = cls(process)
        nursery.start_soon(session._keep)
        return session

    async def _keep(self) -> None:
        assert self.process.stderr is not None
        try:
            async for chunk in self.process.stderr:
                self._complaints = (self._complaints + chunk)[-_KEPT_COMPLAINTS_BYTES:]
            await self.process.wait()
        finally:
            self.process.kill()
            with trio.CancelScope(shield=True):
                await self.process.wait()
                await self.process.stderr.aclose()
                self.close()
                assert self.process.stdout is not None
                await self.process.stdout.aclose()

    async def send(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LostError("it reads no more") from error

    async def receive(self) -> bytes:
        """Read its standard output."""
        assert self.process.stdout is not None
        try:
            data = bytes(await self.process.stdout.receive_some())
            if not data:
                # Over SSH, what it complained of before comes before; here it is another pipe's.
                await wait_all_tasks_blocked(0.01)
            return data
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LostError("it is gone") from error

    async def wait_end(self) -> int | None:
        """Wait for it."""
        status = await self.process.wait()
        return status if status >= 0 else None

    def complaints(self) -> str:
        """Give the end of its standard error."""
        return self._complaints.decode(errors="replace")

    def close(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        # FdStream.close() is at once: nothing is flushed.
        self.process.stdin.close()  # type: ignore[attr-defined]
