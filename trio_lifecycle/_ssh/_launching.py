"""One start on another machine: a launcher there, and what it says of the process."""

import errno
import os
import re
from functools import cache
from importlib.resources import files
from shlex import quote
from typing import Final, NoReturn
from uuid import uuid4

import trio

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._ssh._one_piece import in_one_piece
from trio_lifecycle._ssh._order import TOO_BIG, Order, write_order
from trio_lifecycle._ssh._session import LostError, Session

# Of a line of the launcher. A line without end is not its.
_LONGEST_LINE_BYTES: Final = 65_536

_WORDS: Final = frozenset({"pid", "exec", "refused", "exit", "left", "gone"})

# Process, start, boot, pid namespace, size of the log, log; process 1 is no daemon.
_FACTS: Final = re.compile(
    r"(?!1 )([1-9][0-9]{0,9}) ([0-9]{1,20}) ([^ ]+) ([0-9]{0,20}) ([0-9]{1,19}) (.*)",
    re.ASCII | re.DOTALL,
)
_STATUS: Final = re.compile(r"-?[0-9]{1,9}", re.ASCII)

# What a start may be refused for; the shell says it in words only.
_REFUSALS: Final = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ETXTBSY, errno.E2BIG),
    *(errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ELIBBAD, errno.EIO),
    *(errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
)
_RETRYABLE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})


async def launch(session: Session, order: Order) -> "Launched":
    """Start a process on another machine, up to its gate; nothing of the program has run then.

    The session's command is ``sh -s``. Where the session ends before ``Launched.open_gate``, by
    whatever means and on whichever side, nothing has run and nothing is left. The session is closed
    where this raises.

    Raises:
        SpawnError: It is refused there, or can't be said.
        LostError: The connection is gone. Nothing has run.
    """
    launched = Launched(session, order)
    try:
        await launched._begin()
    except BaseException:
        session.close()
        raise
    return launched


class Launched:
    """A process on another machine, and the session of its launcher.

    Attributes:
        session: The launcher's session.
        pid: Its number.
        start_time: When it started, in ticks since that machine's boot.
        boot_id: Of that machine's boot.
        pid_namespace: The pid namespace that its number belongs to.
        log_file: The whole path of the file that its output goes to.
        log_size: How many bytes stood in it before.
    """

    def __init__(self, session: Session, order: Order) -> None:
        self.session = session
        self.pid = 0
        self.start_time = 0
        self.boot_id = ""
        self.pid_namespace = 0
        self.log_file = ""
        self.log_size = 0
        self._order = order
        self._token = f"trio-{uuid4().hex}"
        self._heard = b""
        self._said: dict[str, str] = {}
        self._ended: str | None = None
        self._turn = trio.Lock()
        self._saying = trio.Lock()

    async def _say(self, words: bytes) -> None:
        # A heartbeat may fall due at any time.
        async with self._saying:
            await self.session.send(words)

    async def _begin(self) -> None:
        plain, script = _scripts()
        await self._say(plain + in_one_piece(script + write_order(self._order, self._token)))
        await self._hear("pid", "refused", "exit")
        if "pid" not in self._said:
            raise self._refusal()
        found = _FACTS.fullmatch(self._said["pid"])
        if found is None:
            raise LostError(f"the launcher talks nonsense: {self._said['pid'][:80]!r}")
        pid, start, self.boot_id, space, size, log_file = found.groups()
        self.pid, self.start_time = int(pid), int(start)
        self.pid_namespace, self.log_size = int(space or 0), int(size)
        # Its line ends where the first one of the path does.
        named = self._order.log or ""
        self.log_file = log_file.removesuffix(named.partition("\n")[0]) + named

    async def open_gate(self) -> None:
        """Let the process become the program; returns when it has. Again is fine.

        Raises:
            SpawnError: It can't be executed, or the process has ended. Nothing of it has run.
            LostError: The connection is gone. Whether it runs is not known.
        """
        if not {"exec", "refused"} & self._said.keys():
            await self._say(b"go\n")
            await self._hear("exec", "refused")
        if "refused" in self._said:
            raise self._refusal()

    async def wait_end(self) -> int | None:
        """Wait until the process has ended, and give its exit status, as ``subprocess`` counts.

        A cancellation loses nothing.

        Raises:
            LostError: The connection is gone; how it ended, or whether, is not known.
        """
        await self._hear("exit")
        if not _STATUS.fullmatch(self._said["exit"]):
            raise LostError(f"the launcher talks nonsense: {self._said['exit'][:80]!r}")
        return int(self._said["exit"])

    async def leave(self) -> None:
        """Let it run on, and close the session.

        Raises:
            LostError: The connection is gone. If the gate was open, it runs on all the same.
        """
        try:
            await self._say(b"leave\n")
            await self._hear("left")
        finally:
            self.close()

    async def beat_forever(self) -> NoReturn:
        """Let the launcher of an owned process know that its owner lives, until cancelled.

        Raises:
            LostError: The connection is gone; the process is ended there.
        """
        while True:
            await self._say(f". {self.pid} {self.start_time}\n".encode())
            await trio.sleep(self._order.heartbeat_limit_s / 3)

    async def wait_gone(self) -> None:
        """Wait until an owned process and its children are ended, once the session is closed.

        Raises:
            LostError: The connection is gone; whether they are is not known.
        """
        await self._hear("gone")

    def close(self) -> None:
        """Close the session. What stands at its gate ends, and what is owned, with its children.

        What is not owned and runs, runs on.
        """
        self.session.close()

    async def _hear(self, *words: str) -> None:
        """Wait until the launcher has said one of these."""
        while not self._said.keys() & words:
            async with self._turn:
                if not self._said.keys() & words:
                    await self._receive()

    async def _receive(self) -> None:
        if self._ended is None:
            data = await self.session.receive()
            self._take(data)
            if data:
                return
            complaints = self.session.complaints().strip()
            self._ended = f": {complaints}" if complaints else ""
        raise LostError(f"the launcher has ended{self._ended}")

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._heard + data).split(b"\n")
        self._heard = rest[-_LONGEST_LINE_BYTES:]
        for line in lines:
            # A banner without a line's end may stand before it.
            _, found, said = line.partition(f"{self._token} ".encode())
            word, _, facts = said.decode(errors="surrogateescape").partition(" ")
            if found and word in _WORDS:
                self._said.setdefault(word, facts)

    def _refusal(self) -> SpawnError:
        # 126 before it stood at its gate: not even the shell there could be executed with all that.
        early = TOO_BIG if self._said.get("exit") == "126" else "its process has ended at its gate"
        words = self._said.get("refused", "").strip() or early
        words = re.sub(r"^.*trio_lifecycle gate: (line )?\d+: (exec: )?", "", words)
        number = next((n for n in _REFUSALS if os.strerror(n) in words), None)
        number = errno.E2BIG if words == TOO_BIG else number
        if number is None and words.endswith("not found"):
            number = errno.ENOENT
        return SpawnError(self._order.name, words, number, number in _RETRYABLE)


@cache
def _scripts() -> tuple[bytes, bytes]:
    """Give what makes the shell a plain one, and the launcher."""
    package = files("trio_lifecycle._ssh")
    plain, watchdog, launcher = (
        package.joinpath(name).read_text("utf-8")
        for name in ("plain.sh", "watchdog.sh", "launcher.sh")
    )
    return plain.encode(), f"trio_watchdog={quote(watchdog)}\n{launcher}".encode()
