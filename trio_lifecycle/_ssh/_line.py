"""The line: one kept shell on another machine, which is asked one thing after the other."""

import re
import secrets
import shlex
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Self

import trio

from trio_lifecycle._ssh._host_facts import HostFacts, parse_facts
from trio_lifecycle._ssh._one_piece import in_one_piece
from trio_lifecycle._ssh._session import LostError, Session

# What the shell is taught, in the order in which it is sent.
_SCRIPTS: Final = (
    *("looks.sh", "looks_programs.sh", "looks_processes.sh"),
    *("looks_sockets.sh", "looks_files.sh", "looks_copies.sh"),
)

# A dead file system of the network hangs whoever looks at it, and with him all who wait for their
# turn. A look takes some milliseconds, on a machine that swaps a second.
DEFAULT_PATIENCE_S: Final = 20.0

# The tree of a daemon with thousands of processes has a tenth of this.
DEFAULT_LIMIT_BYTES: Final = 4_194_304

# What the machine says before the first answer: a banner, what a login script writes.
_MOST_NOISE_BYTES: Final = 1_048_576

# How long a request may take to be sent; it is shorter than what a connection takes at once.
_SEND_PATIENCE_S: Final = 10.0

_TOKEN_BYTES: Final = 16


class Looked(NamedTuple):
    """What came of a look.

    Attributes:
        status: The exit status of the function, as sh counts.
        output: All that it wrote.
    """

    status: int
    output: bytes


class Line:
    """A shell on another machine that answers.

    Several tasks may ask; each waits for its turn. One that is cancelled has its answer read to the
    end by the next, so that no answer is taken for another's.

    Attributes:
        facts: What the machine says of itself.
        lost: Why it answers no more, as the end of a sentence; None while it does.
    """

    facts: HostFacts

    def __init__(self, session: Session) -> None:
        self.lost: str | None = None
        self._session = session
        self._turn = trio.Lock()
        self._answer: _Answer | None = None

    @classmethod
    async def open(cls, session: Session) -> Self:
        """Teach a shell to look, and ask it for the facts of its machine.

        Args:
            session: It runs ``sh -s``; nothing was sent yet. The line closes it.

        Raises:
            LostError: It is no shell, or gone.
        """
        line = cls(session)
        try:
            first = _request("tl_facts", (), before=_script())
            looked = await line._ask(first, DEFAULT_LIMIT_BYTES, DEFAULT_PATIENCE_S)
            line.facts = parse_facts(looked.output)
        except ValueError as error:
            raise line._lose(f"its first answer makes no sense ({error})") from error
        except OSError as error:
            raise line._lose(f"its first question can't be read here ({error})") from error
        except BaseException:
            line.close()
            raise
        return line

    async def run(
        self,
        look: str,
        *args: str | int,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        patience_s: float = DEFAULT_PATIENCE_S,
    ) -> Looked:
        """Run one function of the scripts, with arguments that hold anything but NUL.

        Args:
            look: The function.
            args: Its arguments.
            limit_bytes: The longest answer that is taken. Defaults to 4 MiB.
            patience_s: How many seconds it may take from its turn on. Defaults to 20. The line is
                lost after that, for the shell hangs, and all who wait with it.

        Raises:
            LostError: There is no answer, or one that is too long.
        """
        return await self._ask(_request(look, args), limit_bytes, patience_s)

    def close(self) -> None:
        """End the shell; again is fine."""
        self.lost = self.lost or "it was closed"
        self._session.close()

    # --- asking ---

    async def _ask(self, request: "_Request", limit_bytes: int, patience_s: float) -> Looked:
        async with self._turn:
            if self._answer is not None:  # whoever asked was cancelled
                await self._hear(self._answer)
            deadline = trio.current_time() + patience_s
            self._answer = _Answer(request.token, limit_bytes, deadline)
            await self._send(request.text)
            return (await self._hear(self._answer)).looked()

    async def _send(self, request: bytes) -> None:
        self._insist()
        # Half a request would leave the shell waiting for the rest of it.
        with trio.move_on_after(_SEND_PATIENCE_S, shield=True) as scope:
            try:
                await self._session.send(request)
            except LostError as error:
                raise self._lose(str(error)) from error
        if scope.cancelled_caught:
            raise self._lose(f"it has read nothing for {_SEND_PATIENCE_S:g} s")

    async def _hear(self, answer: "_Answer") -> "_Answer":
        """Receive until an answer is whole."""
        self._insist()
        with trio.move_on_at(answer.deadline):
            while not answer.whole:
                answer.take(await self._receive())
            self._answer = None
            return answer
        raise self._lose("a look at it has hung, as with a file system that does not answer")

    async def _receive(self) -> bytes:
        try:
            data = await self._session.receive()
        except LostError as error:
            raise self._lose(str(error)) from error
        if data:
            return data
        said = self._session.complaints().strip()
        raise self._lose("its shell has ended" + (f": {said}" if said else ""))

    def _insist(self) -> None:
        if self.lost is not None:
            raise LostError(self.lost)

    def _lose(self, reason: str) -> LostError:
        self.lost = self.lost or reason
        self._session.close()
        return LostError(reason)


@cache
def _script() -> bytes:
    here = Path(__file__).parent
    looks = b"".join((here / name).read_bytes() for name in _SCRIPTS)
    return (here / "plain.sh").read_bytes() + in_one_piece(looks)


class _Request(NamedTuple):
    """What is sent to the shell.

    Attributes:
        token: What tells its answer from anything else that may be written there.
        text: Commands.
    """

    token: str
    text: bytes


def _request(look: str, args: tuple[str | int, ...], before: bytes = b"") -> _Request:
    """Write a request: one list of commands, so that the shell runs all of it or nothing."""
    words = [look, *(shlex.quote(str(arg)) for arg in args)]
    if any("\0" in word for word in words):
        raise ValueError(f"an argument of {look} holds a NUL")
    token = secrets.token_hex(_TOKEN_BYTES)
    begin, end = f"printf '\\n%s(\\n' {token}", f"printf '\\n%s)%s\\n' {token} $?"
    text = f"{begin}; {' '.join(words)} </dev/null; {end}\n"
    return _Request(token, before + text.encode(errors="surrogateescape"))


class _Answer:
    """The answer to one request, piece by piece.

    Attributes:
        deadline: When it must be whole, on Trio's clock.
        whole: Whether it is.
    """

    def __init__(self, token: str, limit_bytes: int, deadline: float) -> None:
        self.deadline = deadline
        self.whole = False
        self._begin = f"\n{token}(\n".encode()
        self._end = re.compile(f"\n{token}\\)([0-9]+)\n".encode())
        # As much as an end that has not quite arrived may be long.
        self._overlap = len(self._begin) + 8
        self._limit_bytes = limit_bytes
        self._begun = False
        self._too_long = False
        self._status = 0
        # What is called noise begins with a line, so that the shell's first word is found, too.
        self._kept = bytearray(b"\n")

    def take(self, data: bytes) -> None:
        """Take what has come."""
        looked_at = max(0, len(self._kept) - self._overlap)
        self._kept += data
        if not self._begun:
            self._find_begin()
            looked_at = 0
        if self._begun:
            self._find_end(looked_at)

    def _find_begin(self) -> None:
        noise, begin, rest = self._kept.partition(self._begin)
        self._begun = bool(begin)
        self._kept = rest if begin else noise[-_MOST_NOISE_BYTES:]

    def _find_end(self, start: int) -> None:
        end = self._end.search(self._kept, start)
        if end is not None:
            self.whole, self._status = True, int(end[1])
            del self._kept[end.start() :]
        # Read on to the end even so: the next answer comes after it.
        if len(self._kept) > self._limit_bytes + (0 if end else self._overlap):
            self._too_long = True
            del self._kept[: -self._overlap]

    def looked(self) -> Looked:
        """Give what came.

        Raises:
            LostError: It was too long.
        """
        if self._too_long:
            raise LostError(f"its answer was longer than {self._limit_bytes} bytes")
        return Looked(self._status, bytes(self._kept))
