"""Sockets that are open before their daemon is there, and stay so between two of its processes."""

import errno
import os
import select
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from attrs import define

from trio_lifecycle._listen_socket import DEFAULT_MODE, UNNAMED, ListenSocket

# sd_listen_fds(3): the daemon's own number, so that nobody takes what was meant for his parent.
PID_VARIABLE: Final = "LISTEN_PID"
_FIRST: Final = 3

_WILDCARDS: Final = ("0.0.0.0", "::")  # to be recognised

File = tuple[int, int]


class CannotListenError(Exception):
    """A socket could not be opened.

    Attributes:
        wanted: Which one.
        errno: The system's error number.
        detail: What is wrong, where the number does not say it; or an empty string.
        port: Which port it was to have; 0 for a UNIX socket, and for one that the kernel was to
            choose.
    """

    def __init__(self, wanted: ListenSocket, number: int, detail: str = "", port: int = 0) -> None:
        super().__init__(wanted, number, detail, port)
        self.wanted = wanted
        self.errno = number
        self.detail = detail
        self.port = port


@define
class _Passed:
    """One of them.

    Attributes:
        wanted: What it was opened for.
        socket: The socket.
        path: Its file, absolute; None for TCP.
        file: Which file that is.
    """

    wanted: ListenSocket
    socket: socket.socket
    path: str | None = None
    file: File | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self.socket.fileno() >= 0

    @property
    def port(self) -> int:
        """Its port; 0 for a UNIX socket."""
        return int(self.socket.getsockname()[1]) if self.path is None else 0

    @property
    def is_dead(self) -> bool:
        """Whether nobody can connect any more: the daemon has removed its file, or shut it down."""
        listens = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return not listens or self.has_lost_its_file

    @property
    def has_lost_its_file(self) -> bool:
        """Whether somebody has removed its file."""
        return self.path is not None and self.file != _file_at(self.path)

    def serves(self, host: str, port: int) -> bool:
        """Say whether connections to an address come here."""
        if self.path is not None:
            return host == self.path
        return port == self.port and self.wanted.host in (host, *_WILDCARDS)

    def close(self, *, remove: bool) -> None:
        """Close this program's copy, and remove the file if it is still this socket's."""
        self.socket.close()
        if remove and self.path is not None and not self.has_lost_its_file:
            with suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108


class PassedSockets:
    """The sockets of one daemon, opened once for all processes that it has under one owner.

    Attributes:
        wanted: What they are to be.
    """

    def __init__(self, wanted: Sequence[ListenSocket]) -> None:
        self.wanted = tuple(wanted)
        self._open: list[_Passed] = []
        # Those that must be opened anew, which an attempt may fail to do, were here.
        self._ports: dict[ListenSocket, int] = {}

    @property
    def are_open(self) -> bool:
        """Whether connections may wait in them."""
        return bool(self._open)

    def open(self) -> None:
        """Have them open, and as new for a process that is about to be spawned.

        Those that are open stay so, with all that waits in them.

        Raises:
            CannotListenError: One can't be had; then none was opened.
        """
        for passed in self._open:
            if passed.is_dead:
                self._ports[passed.wanted] = passed.port
                passed.close(remove=True)
        self._open = [passed for passed in self._open if passed.is_open]
        there = {passed.wanted: passed for passed in self._open}
        missing = [wanted for wanted in self.wanted if wanted not in there]
        opened = _listen_all(missing, self._ports)
        there.update((passed.wanted, passed) for passed in opened)
        self._open = [there[wanted] for wanted in self.wanted]
        for passed in self._open:
            # The process before may have changed what all copies share.
            passed.socket.setblocking(True)
            passed.socket.listen(passed.wanted.backlog)

    @property
    def descriptors(self) -> dict[int, int]:
        """What the daemon inherits: number there -> descriptor here."""
        return {at: passed.socket.fileno() for at, passed in enumerate(self._open, _FIRST)}

    @property
    def env(self) -> dict[str, str | None]:
        """What tells the daemon of them, but for LISTEN_PID."""
        if not self.wanted:
            return {}
        names = ":".join(wanted.name or UNNAMED for wanted in self.wanted)
        # The last one is about another process, if this program was given sockets itself.
        return {
            "LISTEN_FDS": str(len(self.wanted)),
            "LISTEN_FDNAMES": names,
            "LISTEN_PIDFDID": None,
        }

    @property
    def free_port(self) -> int | None:
        """What the kernel has chosen for FREE_PORT; None where it was not asked."""
        for passed in self._open:
            if passed.wanted.is_free_port:
                return passed.port
        return None

    def queue_at(self, host: str, port: int) -> bool | None:
        """Say whether a connection waits at an address that nobody has accepted.

        None for an address that is none of theirs. A UNIX socket's host is its path.
        """
        for passed in self._open:
            if passed.serves(host, port):
                poll = select.poll()
                poll.register(passed.socket, select.POLLIN)
                return bool(poll.poll(0))
        return None

    def close(self, *, remove: bool = True) -> None:
        """Close this program's copies; again is fine.

        Args:
            remove: Whether the files go, too. False when the daemon goes on without this program.
        """
        opened, self._open, self._ports = self._open, [], {}
        for passed in opened:
            passed.close(remove=remove)


def _listen_all(wanted: Sequence[ListenSocket], ports: Mapping[ListenSocket, int]) -> list[_Passed]:
    opened: list[_Passed] = []
    try:
        for one in wanted:
            opened.append(_listen(one, ports.get(one, 0)))  # noqa: PERF401  # those before are to be closed
    except BaseException:
        for passed in opened:
            passed.close(remove=True)
        raise
    return opened


def _listen(wanted: ListenSocket, port: int) -> _Passed:
    if isinstance(wanted.port, int):
        port = wanted.port
    try:
        return _listen_tcp(wanted, port) if wanted.unix is None else _listen_unix(wanted)
    except OSError as error:
        number, detail = error.errno or 0, error.strerror or str(error)
        raise CannotListenError(wanted, number, detail, port) from error


def _listen_tcp(wanted: ListenSocket, port: int) -> _Passed:
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier process that have not quite ended keep nobody from the port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((wanted.host, port))
        made.listen(wanted.backlog)
    except BaseException:
        made.close()
        raise
    return _Passed(wanted, made)


# --- UNIX sockets ---------------------------------------------------------------------------------


def _listen_unix(wanted: ListenSocket) -> _Passed:
    assert wanted.unix is not None
    path = os.path.abspath(wanted.unix)  # noqa: PTH100  # resolve() would follow links
    _make_way(wanted, path)
    mode = DEFAULT_MODE if wanted.mode is None else wanted.mode
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file has at no moment more than this; chmod brings back what the umask takes.
        os.fchmod(made.fileno(), mode)
        made.bind(path)
    except BaseException:
        made.close()
        raise
    passed = _Passed(wanted, made, path, _file_at(path))
    try:
        os.chmod(path, mode)  # noqa: PTH101
        made.listen(wanted.backlog)
    except BaseException:
        passed.close(remove=True)
        raise
    return passed


def _make_way(wanted: ListenSocket, path: str) -> None:
    """Remove the file of a listener that is dead.

    Raises:
        CannotListenError: Somebody listens there, or the file is no socket.
    """
    found = _file_at(path)
    if found is None:
        if os.path.lexists(path):
            problem = "there is a file that is no socket; it was left alone"
            raise CannotListenError(wanted, errno.EADDRINUSE, problem)
        return
    if not _is_dead(path):
        raise CannotListenError(wanted, errno.EADDRINUSE, "somebody listens there")
    if found == _file_at(path):
        os.unlink(path)  # noqa: PTH108


def _is_dead(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except FileNotFoundError:  # removed meanwhile
            return True
        except BlockingIOError:  # so many wait there already
            return False
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:  # of another kind, such as for datagrams
                return False
            raise
        return False


def _file_at(path: str) -> File | None:
    """Which socket file is there; None where there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None
