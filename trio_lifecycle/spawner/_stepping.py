"""The detour over a small program, for a daemon with limits, a umask, a user or a group."""

import errno
import fcntl
import marshal
import os
import resource
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._limits import show_limit
from trio_lifecycle.abc import SpawnRequest
from trio_lifecycle.spawner._identity import NO_CHANGE, Identity, identity_of
from trio_lifecycle.spawner._refusals import RETRYABLE, refusal

_STEP: Final = str(Path(__file__).with_name("_step.py"))

# An answer is a word, a number and a path.
_LONGEST_ANSWER: Final = 65_536


class StepError(Exception):
    """The step before a daemon was refused something; it has ended, and there is no daemon.

    Attributes:
        stage: "cgroup", "limits", "group", "user" or "exec"; "step" when the step itself failed.
        errno: The system's error number, or 0 when the step ended without a word.
        what: What the stage was about: the limit's name, the path; or an empty string.
    """

    def __init__(self, stage: str, errno: int, what: str) -> None:
        super().__init__(stage, errno, what)
        self.stage = stage
        self.errno = errno
        self.what = what


class Stepping:
    """The detour over a small program that sets what posix_spawn(3) can't.

    That program is started in the daemon's place, does what it is ordered to, and becomes the
    daemon: the same process, so its pid, session and output are the daemon's own. When the request
    is gated it gets its order later; if this program ends before that, so does it.

    Attributes:
        program: What is to be started instead.
        argv: Its arguments, itself first.
        env: Variables of the user that was asked for, None for one to remove. What the request sets
            wins over them.
        stdin: What it needs as its standard input. The daemon gets /dev/null.
    """

    def __init__(self, request: SpawnRequest, identity: Identity, cgroup_procs: str | None) -> None:
        self.program = sys.executable
        # Under UTF-8 all bytes of an argument come through, whatever the locale.
        options = ("-I", "-S", "-X", "utf8")
        self.argv = [self.program, *options, _STEP, request.program, *request.args]
        self.env = identity.env
        self._going = False
        self._unsent = marshal.dumps(_order(request, identity, cgroup_procs))
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if not request.gated:
                # The step finds it there also if this program is slow to go on.
                here.send(self._unsent)
                self._unsent = b""
            self.stdin = fcntl.fcntl(there, fcntl.F_DUPFD_CLOEXEC, 3)
            self._answers = trio.socket.from_stdlib_socket(here)
            self._socket = here
        except BaseException:
            here.close()
            raise
        finally:
            there.close()

    @classmethod
    def for_request(
        cls, request: SpawnRequest, cgroup_procs: str | None = None
    ) -> "Stepping | None":
        """Prepare what a request needs; None when it needs no detour.

        Args:
            request: What is to be spawned.
            cgroup_procs: The file ``cgroup.procs`` of a control group that the daemon is to be in.

        Raises:
            SpawnError: The user or group is not known here, or there are no descriptors left.
        """
        identity = identity_of(request)
        rest = (request.umask, cgroup_procs)
        if not request.limits and identity == NO_CHANGE and rest == (None, None):
            return None
        return cls._make(request, identity, cgroup_procs, "its limits, umask, user or group")

    @classmethod
    def as_gate(cls, request: SpawnRequest) -> "Stepping":
        """Prepare it for a request that needs nothing of it but a gate, or its own number.

        Raises:
            SpawnError: There are no descriptors left.
        """
        return cls._make(request, NO_CHANGE, None, "its variables")

    @classmethod
    def _make(
        cls, request: SpawnRequest, identity: Identity, cgroup_procs: str | None, what: str
    ) -> "Stepping":
        if not sys.executable:
            problem = (
                f"{what} are set by a Python program, and this "
                "program does not know its interpreter (sys.executable is empty)"
            )
            raise SpawnError(request.name, problem)
        try:
            return cls(request, identity, cgroup_procs)
        except OSError as error:
            raise refusal(request, error.errno or 0, f"{what} can't be prepared") from error

    def let_go(self) -> None:
        """Leave the step's end of the socket to the step, once that is started."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def order(self) -> None:
        """Give a step that stands at its gate its order.

        Raises:
            trio.ClosedResourceError: It was given up.
        """
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        # One that has ended is noticed by whoever waits until it is done. Not by SIGPIPE, though:
        # this program may not ignore it.
        with suppress(BrokenPipeError, ConnectionResetError):
            order, self._unsent = self._unsent, b""
            if order:
                self._socket.send(order, socket.MSG_NOSIGNAL)

    async def done(self) -> None:
        """Wait until the step has become the program.

        Raises:
            StepError: It was refused something, and has ended or is about to.
        """
        while answer := await self._next_answer():
            refused = marshal.loads(answer)
            if refused is not None:
                raise StepError(*refused)
            self._going = True
        if not self._going:
            raise StepError("step", 0, "")

    async def _next_answer(self) -> bytes:
        try:
            return await self._answers.recv(_LONGEST_ANSWER)
        except ConnectionResetError:  # it has ended without reading its order
            return b""

    def close(self) -> None:
        """Close what is open here. A step that has not become the program by then ends itself."""
        self.let_go()
        self._answers.close()


def _order(request: SpawnRequest, identity: Identity, cgroup_procs: str | None) -> dict[str, Any]:
    env: dict[str, str | None] = {**os.environ, **identity.env, **request.env}
    return {
        "cgroup_procs": cgroup_procs,
        "umask": request.umask,
        "limits": {
            name: (getattr(resource, f"RLIMIT_{name.upper()}"), _number(soft), _number(hard))
            for name, (soft, hard) in request.limits.items()
        },
        "uid": identity.uid,
        "gid": identity.gid,
        "groups": identity.groups,
        "pid_variable": request.pid_variable,
        "coerced": env.get("LC_CTYPE") is None,
    }


def _number(limit: int | None) -> int:
    return resource.RLIM_INFINITY if limit is None else limit


def explain(error: StepError, request: SpawnRequest) -> SpawnError:
    """Say what the step was refused, and what would help."""
    if error.stage == "exec":
        return refusal(request, error.errno)
    problem = _sentence(error, request)
    if error.errno == errno.EPERM and error.stage in _ONLY_ROOT and os.geteuid() != 0:
        problem += f"; {_ONLY_ROOT[error.stage]}"
    return SpawnError(request.name, problem, error.errno or None, error.errno in RETRYABLE)


_ONLY_ROOT: Final[Mapping[str, str]] = {
    "limits": "only root may raise a hard limit",
    "group": "only root may",
    "user": "only root may",
}


def _sentence(error: StepError, request: SpawnRequest) -> str:
    reason = os.strerror(error.errno)
    match error.stage:
        case "cgroup":
            return f"it can't join its control group, by {error.what}: {reason}"
        case "limits":
            limit = _show(*request.limits[error.what])
            return f"its limit {error.what} can't be set to {limit}: {reason}"
        case "group" if request.group is not None:
            return f"it may not take the group {request.group!r}: {reason}"
        case "group" | "user":
            return f"it may not become user {request.user!r}: {reason}"
    ended = reason if error.errno else "it ended early"
    return f"what sets its limits, umask, user or group failed, {sys.executable} {_STEP}: {ended}"


def _show(soft: int | None, hard: int | None) -> str:
    if soft == hard:
        return show_limit(hard)
    return f"{show_limit(soft)} (soft) and {show_limit(hard)} (hard)"
