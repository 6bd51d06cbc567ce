"""A prober that asks simulated daemons."""

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trio

from trio_lifecycle._connecting import REFUSED
from trio_lifecycle._grpc_health import NOT_SERVING, PATH, SERVING, encode_response
from trio_lifecycle.abc import (
    Answer,
    Command,
    Contact,
    FileMark,
    Prober,
    Process,
    Question,
    Ran,
)
from trio_lifecycle.testing._incarnation import HANGS, REFUSES, Incarnation, Simulated

# How large a simulated file is: enough for whoever asks for a size.
_FILE_BYTES: Final = 1_048_576

_ABSENT: Final = Contact(False, REFUSED, absent=True)


class SimulatedProber(Prober):
    """Asks simulated daemons.

    Args:
        daemons: All that there are.
        handle: Gives the process of an incarnation.
        find: Gives the daemon that a program is, or raises a BinaryNotFoundError.
    """

    def __init__(
        self,
        daemons: list[Simulated],
        handle: Callable[[Incarnation], Process],
        find: Callable[[str], object],
    ) -> None:
        self._daemons = daemons
        self._handle = handle
        self._find = find

    async def ask(self, question: Question) -> Answer:
        """Ask whoever lives at the port or path, or be refused."""
        await trio.lowlevel.checkpoint()
        path, port = question.unix_path, urlsplit(question.url).port or 80
        incarnation = self._at(port) if path is None else self._behind(path)
        status = REFUSES if incarnation is None else incarnation.answer()
        if incarnation is None or status == REFUSES:
            return Answer(None, REFUSED, absent=True)
        if status == HANGS:
            await trio.sleep_forever()
        await trio.sleep(incarnation.daemon.answer_after)
        if incarnation.ended:
            return Answer(None, "closed the connection without an answer")
        return _grpc(status) if urlsplit(question.url).path == PATH else Answer(status)

    async def connect(self, host: str, port: int) -> Contact:
        """Be taken by whoever listens at the port, also by one that never answers."""
        await trio.lowlevel.checkpoint()
        incarnation = self._at(port)
        is_taken = incarnation is not None and incarnation.listens
        return Contact(True) if is_taken else _ABSENT

    async def connect_unix(self, path: str) -> Contact:
        """Be taken by whoever listens at the path."""
        await trio.lowlevel.checkpoint()
        incarnation = self._behind(path)
        if incarnation is None or not incarnation.listens:
            return _ABSENT
        return Contact(True, pid=None if incarnation.daemon.is_foreign else incarnation.pid)

    async def find_binary(self, name: str, search_path: tuple[Path, ...] = ()) -> str:
        """Every command is there, unless only some programs were given."""
        await trio.lowlevel.checkpoint()
        self._find(name.rpartition("/")[2])
        return f"/simulated/{name}"

    async def run(self, command: Command) -> Ran:
        """End as the daemon wants it whose port is among the arguments, else the newest."""
        await trio.lowlevel.checkpoint()
        ports = [int(word) for word in command.args if word.isdecimal()]
        incarnation = self._at(ports[0]) if ports else self._behind("")
        if incarnation is None:
            return Ran(1)
        status = incarnation.probe()
        if status == HANGS:
            await trio.sleep_forever()
        await trio.sleep(incarnation.daemon.answer_after)
        return Ran(1 if incarnation.ended else status)

    async def find_file(self, path: str) -> FileMark | None:
        """Give what was written last."""
        await trio.lowlevel.checkpoint()
        writers = [one for one in self._at_path(path) if one.has_file]
        newest = max(writers, key=lambda one: one.start_time, default=None)
        if newest is None:
            return None
        return FileMark(0, newest.start_time, int(newest.born * 1e9), _FILE_BYTES)

    async def owner_of(self, host: str, port: int) -> Process:
        """Give whoever lives there."""
        await trio.lowlevel.checkpoint()
        incarnation = self._who(host, port)
        assert incarnation is not None
        return self._handle(incarnation)

    async def describe_owner(self, host: str, port: int) -> str:
        """Name whoever lives there."""
        await trio.lowlevel.checkpoint()
        incarnation = self._who(host, port)
        return "nobody" if incarnation is None else f"process {incarnation.pid} (simulated)"

    def _who(self, host: str, port: int) -> Incarnation | None:
        return self._behind(host) if host.startswith("/") else self._at(port)

    def _at(self, port: int) -> Incarnation | None:
        living = [
            incarnation
            for daemon in self._daemons
            for incarnation in daemon.incarnations
            if incarnation.port == port and not incarnation.ended
        ]
        listening = [incarnation for incarnation in living if incarnation.listens_at(port)]
        return next(iter(listening or living), None)

    def _behind(self, path: str) -> Incarnation | None:
        living = [one for one in self._at_path(path) if not one.ended]
        listening = [one for one in living if one.listens]
        return max(listening or living, key=lambda one: one.start_time, default=None)

    def _at_path(self, path: str) -> list[Incarnation]:
        ours = [daemon for daemon in self._daemons if not path or daemon.path in (None, path)]
        return [incarnation for daemon in ours for incarnation in daemon.incarnations]


def _grpc(status: int) -> Answer:
    message = encode_response(SERVING if 200 <= status <= 299 else NOT_SERVING)
    return Answer(200, headers={"content-type": "application/grpc"}, body=message)
