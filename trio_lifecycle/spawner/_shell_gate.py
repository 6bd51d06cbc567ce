"""The gate that a shell makes: it waits for a line, then becomes the program.

Only the process itself can put its number into its environment; for that, too, there is a shell.
"""

import errno
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._executable import find_problem
from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle.abc import SpawnRequest
from trio_lifecycle.spawner._refusals import refusal
from trio_lifecycle.spawner._streams import above_streams

_SHELL: Final = "/bin/sh"

# What the shell calls itself in a message of its own.
_NAME: Final = "trio_lifecycle gate"

# The line is the value of PWD, which shells change. The redirection is that of a group, so that the
# shell keeps a copy of the socket to undo it, close-on-exec: the end that is heard here comes with
# the exec itself, or with the shell's own end. The trap is for an exec that is refused, and bash
# does not heed it then.
_SCRIPT: Final = (
    "IFS= read -r PWD || exit 75; {} PWD;{} trap 'echo >&0' EXIT; {{ exec \"$@\"; }} </dev/null"
)

# dash drops a variable with any other name: it can't be one of a shell.
_VARIABLE: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")

# What a shell sets by itself, or obeys when it is not interactive. dash was seen to change the
# first three, bash as sh all of the first line; busybox adds a PATH where there is none.
_OF_SHELLS: Final = frozenset(
    b"IFS OPTIND PPID LINENO PS1 PS2 PS4 "
    b"SHELLOPTS BASHOPTS POSIXLY_CORRECT UID EUID GROUPS RANDOM SRANDOM SECONDS EPOCHSECONDS "
    b"EPOCHREALTIME HISTCMD DIRSTACK FUNCNAME PIPESTATUS COMP_WORDBREAKS".split()
)
_LONGEST_PWD_BYTES: Final = 4_096

# What exec may be refused for; the shell says it in words only.
_REFUSALS: Final = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ETXTBSY, errno.E2BIG),
    *(errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ELIBBAD, errno.EIO),
)


class ShellGate:
    """A shell in the daemon's place, which becomes the daemon when it is told to.

    One for a request that is not gated finds its line there already, and becomes it at once.

    The same process, so its pid, start time, session and output are the daemon's own. When this
    program ends before it has told so, by whatever means, the shell hears it and ends with 75. (A
    fork of this program that was made in between, and never runs another program, would keep it.)

    The daemon finds the environment that it would find without the gate. Two variables are the
    exception where ``/bin/sh`` is not dash: bash takes ``_`` away and sets SHLVL to 0 where there
    was none, busybox makes SHLVL one more.

    A shell takes a file that the kernel can't execute for a script of its own. So a problem of the
    file is looked for just before; one that comes up in the moment after that is not seen.

    Attributes:
        program: What is to be started instead.
        argv: Its arguments, itself first.
        env: What it needs in its environment: nothing.
        stdin: What it needs as its standard input. The daemon gets /dev/null.
    """

    def __init__(self, request: SpawnRequest, environment: Mapping[bytes, bytes]) -> None:
        pwd = environment.get(b"PWD")
        name = request.pid_variable
        number = "" if name is None else f" export {name}=$$;"
        script = _SCRIPT.format("unset" if pwd is None else "export", number)
        self.program = _SHELL
        self.argv = [_SHELL, "-c", script, _NAME, request.program, *request.args]
        self.env: Mapping[str, str | None] = {}
        self._line = (pwd or b"") + b"\n"
        self._request = request
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if not request.gated:
                here.send(self._line)
            self._here = trio.socket.from_stdlib_socket(here)
            self.stdin = above_streams(there.detach())
        except BaseException:
            here.close()
            there.close()
            raise

    @staticmethod
    def serves(request: SpawnRequest, environment: Mapping[bytes, bytes]) -> bool:
        """Say whether the daemon gets by it what it would get without it."""
        pwd = environment.get(b"PWD", b"")
        return (
            all(map(_VARIABLE.fullmatch, environment))
            and _OF_SHELLS.isdisjoint(environment)
            and not any(name.startswith(b"BASH") for name in environment)
            and b"PATH" in environment
            and b"\n" not in pwd
            and len(pwd) <= _LONGEST_PWD_BYTES
            and os.access(_SHELL, os.X_OK)
            and _can_be_executed(request)
        )

    def let_go(self) -> None:
        """Leave the shell's end of the socket to the shell, once that is started."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    async def open(self, output: FileOutput | PipedOutput) -> None:
        """Let the shell become the program; returns when it has.

        Args:
            output: Of the process. What bash has to say of a refused exec stands there only.

        Raises:
            SpawnError: The program can't be executed, or the process has ended.
        """
        if self._here.fileno() < 0:
            raise trio.ClosedResourceError
        _check(self._request)
        try:
            # Not by SIGPIPE: this program may not ignore it.
            await self._here.send(self._line, getattr(socket, "MSG_NOSIGNAL", 0))
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended() from None
        await self.opened(output)

    async def opened(self, output: FileOutput | PipedOutput) -> None:
        """Wait until the shell, which has its line, has become the program.

        Args:
            output: As for ``open``.

        Raises:
            SpawnError: As for ``open``.
        """
        try:
            answer = await self._here.recv(1)
        except ConnectionResetError:
            raise self._ended() from None
        output.take_rest()
        _, found, words = output.tail().rpartition(_NAME.encode())
        if answer or found:
            raise _explain(self._request, words.decode(errors="replace").strip(": \n"))

    def _ended(self) -> SpawnError:
        return SpawnError(self._request.name, "its process has ended at its gate")

    def close(self) -> None:
        """Close what is open here. A shell that has not become the program by then ends."""
        self.let_go()
        self._here.close()


def _check(request: SpawnRequest) -> None:
    """Raise the error for a program that can't be executed."""
    try:
        problem = find_problem(Path(request.program))
    except OSError as error:
        raise refusal(request, error.errno or 0) from error
    if problem is not None:
        raise SpawnError(request.name, f"{request.program} {problem}")


def _can_be_executed(request: SpawnRequest) -> bool:
    try:
        _check(request)
    except SpawnError:
        return False
    return True


def _explain(request: SpawnRequest, words: str) -> SpawnError:
    for number in _REFUSALS:
        if words.endswith(os.strerror(number)):
            return refusal(request, number)
    detail = f": {words}" if words else ""
    return SpawnError(request.name, f"{request.program} can't be executed{detail}")
