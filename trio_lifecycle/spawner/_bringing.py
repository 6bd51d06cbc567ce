"""How one file comes to another machine: only if it is not there yet, and whole."""

import logging
import posixpath
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import trio
from attrs import define

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._ssh import _remote_copies
from trio_lifecycle._ssh._digest import digest_of
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_copies import QUICK_BYTES, Standing
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh_errors import SSHConnectError

_log: Final = logging.getLogger("trio_lifecycle")

T = TypeVar("T")

# A large file says so often how far it has come.
_REPORT_EVERY_S: Final = 10.0

# What SFTP has for a full disk (draft-ietf-secsh-filexfer-02 section 7), and for much else.
_UNTOLD: Final = "(Failure)"

_EXECUTABLE: Final = 0o111
_MIB: Final = 1_048_576


@define
class Bringing:
    """The work of bringing one file.

    Attributes:
        machine: Where to.
        field: How the file is called in an error about it here.
        local: The file.
        remote: Its absolute path there.
        size: How many bytes it has.
        mode: Its permissions.
    """

    machine: Machine
    field: str
    local: Path
    remote: str
    size: int
    mode: int

    async def run(self) -> None:
        """Bring it, unless what stands there is the same.

        Raises:
            ConfigError: The file here can't be read.
            SSHConnectError: It could not be brought.
        """
        digest = await self._digest_here()
        there = await self._look(self._compare)
        if there.mode is not None and digest == (there.digest or await self._digest(self.remote)):
            await self._mend(there.mode)
        else:
            await self._upload(digest)

    async def _digest_here(self) -> str:
        try:
            return await digest_of(self.local)
        except OSError as error:
            raise unreadable(self.field, self.local, error) from error

    async def _compare(self, line: Line) -> Standing:
        return await _remote_copies.compare(line, self.remote, self.size)

    async def _mend(self, mode: int) -> None:
        missing = self.mode & _EXECUTABLE & ~mode
        if missing:
            await self._look(
                lambda line: _remote_copies.make_executable(line, self.remote, missing)
            )

    async def _upload(self, digest: str) -> None:
        beside = await self._look(lambda line: _remote_copies.begin_copy(line, self.remote))
        shown = f"{self.local} to {self.machine.host}:{self.remote}"
        _log.info("uploading %s (%d MiB)", shown, -(-self.size // _MIB))

        async def check(path: str) -> None:
            await self._check(path, digest)

        try:
            transport = await self.machine.transport()
            await transport.put(self.local, self.remote, beside, _Reporter(shown).hear, check)
        except LostError as error:
            raise self.machine.failure(self._phase, error) from error
        except OSError as error:
            raise unreadable(self.field, self.local, error) from error
        except SSHConnectError as error:
            refused = error
        else:
            _log.info("uploaded %s", shown)
            return
        await self._say_if_full(refused)
        raise refused

    async def _check(self, path: str, digest: str) -> None:
        found = await self._digest(path)
        if found not in (digest, None):
            raise self._failed(
                "what has arrived is not what was read before",
                "The file has changed meanwhile: upload it when nobody writes to it.",
            )

    async def _digest(self, path: str) -> str | None:
        """Give the digest of a file there that has the right size."""
        if self.size <= QUICK_BYTES:
            return await self._look(lambda line: _remote_copies.quick_digest(line, path))
        # Minutes, for a large one: the line is there for all, and loses patience before.
        session = await self.machine.open_session()
        try:
            return await _remote_copies.digest_alone(session, path)
        except LostError as error:
            raise self.machine.failure(self._phase, error) from error
        finally:
            session.close()

    async def _say_if_full(self, error: SSHConnectError) -> None:
        """Raise what explains an error better, if the server has no word for it."""
        if _UNTOLD not in error.problem:
            return
        room = await self._look(lambda line: _remote_copies.free_bytes(line, self._directory))
        if room is not None and room < self.size:
            raise self._failed(
                f"its disk has no room for it: {room / _MIB:,.1f} MiB are free, and "
                f"{self.size / _MIB:,.1f} MiB are needed",
                "Make room, or upload it to another disk.",
            ) from error

    async def _look(self, ask: Callable[[Line], Awaitable[T]]) -> T:
        try:
            return await self.machine.look(ask)
        except OSError as error:
            raise self._failed(
                str(error), f"See what the user may do in {self._directory} there."
            ) from error

    @property
    def _directory(self) -> str:
        return posixpath.dirname(self.remote)

    @property
    def _phase(self) -> str:
        return f"uploading {self.local} to {self.remote}"

    def _failed(self, problem: str, cure: str) -> SSHConnectError:
        target = self.machine.target
        return SSHConnectError(target.host, target.user, target.port, self._phase, problem, cure)


class _Reporter:
    """Logs how far an upload has come."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._next = trio.current_time() + _REPORT_EVERY_S

    def hear(self, done: int, total: int) -> None:
        """Take note of how many bytes have been sent."""
        if trio.current_time() >= self._next:
            self._next = trio.current_time() + _REPORT_EVERY_S
            done, total = done // _MIB, -(-total // _MIB)
            _log.info("uploading %s: %d of %d MiB", self._shown, done, total)


def unreadable(field: str, path: Path, error: OSError) -> ConfigError:
    """Give the error of a file here that can't be uploaded."""
    return ConfigError(field, f"{path} can't be read: {error.strerror or error}")
