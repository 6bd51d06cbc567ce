"""The connection to a guard: what it is asked, and what it says."""

import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

import trio

from trio_lifecycle._output import FedOutput
from trio_lifecycle._ssh._guard_frames import Frame, Frames, GarbledError, number_in
from trio_lifecycle._ssh._guard_program import guard_script
from trio_lifecycle._ssh._guard_ward import Ward
from trio_lifecycle._ssh._session import LostError, Session
from trio_lifecycle.abc import SpawnRequest

_log: Final = logging.getLogger("trio_lifecycle")

# How long an interpreter may take to start on a machine that is very busy; 30 ms are usual.
_START_PATIENCE_S: Final = 30.0
# How many heartbeats there are in the limit, so that one that is late does no harm.
_BEATS: Final = 3
_LARGEST_STATUS: Final = 255
# What is sent in one go: a heartbeat is no later for a large request, for all of it is a sign of
# life.
_SEND_BYTES: Final = 32_768


class _EndedError(LostError):
    """The guard has ended, and the connection has not."""


class _Answer:
    """What one question waits for."""

    def __init__(self) -> None:
        self.come = trio.Event()
        self.value: Any = None


class GuardLink:
    """A connection to a guard on another machine; ``serve`` has to run as long as it is used.

    Attributes:
        lost: Why it can't be used any more, as a sentence; None while it can.
        is_cut: Whether it was the connection that failed, not the guard, which is there still, or
            has ended all daemons and itself since.
        inner: The number of the guard's process that does the work, on its machine.
        inner_start: When that was started, in clock ticks of the machine's boot.
        outer: That of the one that watches over it.
        boot_id: Of that machine.
        pid_namespace: Of the guard.
        inboxes: What hears messages that came to a socket there, by its number here.
        wards: The daemons in its care that are not known to be gone, by their number here.
    """

    def __init__(self, session: Session, frames: Frames, limit_s: float, hello: Frame) -> None:
        self.lost: str | None = None
        self.is_cut = False
        self.inner_start = number_in(hello.facts, "start")
        self.inner = number_in(hello.facts, "hello", 1)
        self.outer = number_in(hello.facts, "outer", 1)
        self.boot_id = str(hello.facts.get("boot_id"))
        self.pid_namespace = number_in(hello.facts, "namespace")
        self.wards: dict[int, Ward] = {}
        self.inboxes: dict[int, Callable[[dict[str, Any], bytes], None]] = {}
        self._session = session
        self._frames = frames
        self._limit_s = limit_s
        self._numbers = count(1)
        self._answers: dict[int, _Answer] = {}
        # Sent by one task only: a cancelled caller could leave half a line.
        self._unsent: deque[bytes] = deque()
        self._has_more = trio.Event()
        self._unanswered = 0
        self._over = trio.Event()

    @classmethod
    async def open(cls, session: Session, python: str, *, heartbeat_limit_s: float) -> "GuardLink":
        """Make a session that runs ``sh -s`` become a guard; returns when it has said hello.

        Args:
            session: It is closed when this fails, and when the link is lost.
            python: The interpreter there, 3.7 or later.
            heartbeat_limit_s: After how many seconds without a sign of life each side takes the
                other for gone.

        Raises:
            LostError: The connection is lost, or there came no guard.
        """
        token = f"guard-{secrets.token_hex(8)}"
        try:
            await session.send(guard_script(python, token, heartbeat_limit_s))
            frames = Frames(token)
            with trio.move_on_after(_START_PATIENCE_S):
                return cls(session, frames, heartbeat_limit_s, await _greeting(session, frames))
            raise LostError(f"the guard said nothing for {_START_PATIENCE_S:.0f} s")
        except GarbledError as error:
            session.close()
            raise LostError(f"there came no guard: {error}") from error
        except BaseException:
            session.close()
            raise

    async def serve(self) -> None:
        """Hear what it says and let it hear the heartbeat, until it is lost.

        It raises nothing but a cancellation, which is the end of the link as well: the guard then
        ends all daemons.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_forever)
                nursery.start_soon(self._beat_forever)
                nursery.start_soon(self._hear_forever)
                await self._over.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._lose("it was let go")

    async def wait_lost(self) -> None:
        """Wait until it is lost."""
        await self._over.wait()

    def retire(self) -> None:
        """Ask the guard to end at once, with all daemons that it still has."""
        self.tell({"do": "retire"})

    # --- asking ---

    async def spawn(
        self,
        request: SpawnRequest,
        output: FedOutput,
        forwards: Mapping[int, Callable[[bytes], None]],
    ) -> Ward:
        """Have a daemon started.

        Whatever is raised: no process is left, or is about to be killed.

        Args:
            request: What to start.
            output: Is fed what it writes, and finished when it is gone.
            forwards: Number of a descriptor there -> called with what the daemon writes to it, and
                with nothing (``b""``) when that is closed.

        Raises:
            SpawnError: The other machine refused.
            LostError: The guard is lost.
        """
        self._check()
        number = next(self._numbers)
        ward = Ward(self, number, request, output, forwards)
        self.wards[number] = ward
        try:
            self.tell(_order(number, request, sorted(forwards)))
            await ward.spawned.wait()
            ward.check_started()
        except BaseException:
            # The guard does one thing after the other, so this comes after the start.
            ward.abandon()
            self.wards.pop(number, None)
            raise
        return ward

    def new_number(self) -> int:
        """Give a number that nothing else has."""
        return next(self._numbers)

    async def ask(self, message: dict[str, Any]) -> Any:
        """Ask something, and give the answer.

        Raises:
            LostError: The guard is lost.
        """
        self._check()
        number = next(self._numbers)
        self._answers[number] = answer = _Answer()
        try:
            self.tell({**message, "ask": number})
            await answer.come.wait()
        finally:
            self._answers.pop(number, None)
        if answer.value is _NO_ANSWER:
            self._check()
        return answer.value

    def tell(self, message: dict[str, Any]) -> None:
        """Have something sent."""
        if self.lost is None:
            line = json.dumps(message).encode() + b"\n"
            self._unsent.extend(
                line[at : at + _SEND_BYTES] for at in range(0, len(line), _SEND_BYTES)
            )
            self._has_more.set()

    def discard(self, number: int) -> None:
        """Have a daemon killed that nobody wants any more."""
        self.tell({"do": "discard", "id": number})

    def _check(self) -> None:
        if self.lost is not None:
            raise LostError(self.lost)

    # --- the tasks ---

    async def _send_forever(self) -> None:
        while True:
            await self._has_more.wait()
            self._has_more = trio.Event()
            while self._unsent:
                try:
                    await self._session.send(self._unsent.popleft())
                except LostError as error:
                    self._lose(str(error), cut=True)
                    return

    async def _beat_forever(self) -> None:
        while True:
            # Counted, not timed: after a pause of this program what came meanwhile is not read yet.
            if self._unanswered > _BEATS:
                self._lose(f"the guard said nothing for {self._limit_s:g} s", cut=True)
                return
            self._unanswered += 1
            self.tell({"do": "beat"})
            await trio.sleep(self._limit_s / _BEATS)

    async def _hear_forever(self) -> None:
        # More may have come with its greeting.
        chunk = b""
        while self.lost is None:
            try:
                self._take_in(chunk)
                chunk = await self._session.receive()
                if not chunk:
                    raise _EndedError("the guard has ended" + _last_word(self._session))
            except (_EndedError, GarbledError) as error:
                self._lose(str(error))
            except LostError as error:
                self._lose(str(error), cut=True)
            except Exception as error:
                _log.exception("a guard can't be heard")
                self._lose(f"what the guard said could not be taken in: {error!r}")

    @trio.lowlevel.enable_ki_protection
    def _take_in(self, chunk: bytes) -> None:
        self._unanswered = 0
        for frame in self._frames.feed(chunk):
            self._hear(frame.facts, frame.raw)

    def _hear(self, facts: dict[str, Any], raw: bytes) -> None:
        match facts:
            case {"out": number} if number in self.wards:
                self.wards[number].on_output(raw)
            case {"letter": number}:
                if number in self.inboxes:
                    _guarded(self.inboxes[number], facts, raw)
            case {"fwd": number, "fd": fd} if number in self.wards:
                _guarded(self.wards[number].on_forwarded, fd, raw)
            case {"ticks": _, **rest} if not rest:
                ticks = number_in(facts, "ticks")
                for ward in self.wards.values():
                    if ward.pid and not ward.ended.is_set():
                        ward.seen_alive = ticks
            case {"silent": seconds}:
                self._lose(f"it has heard nothing of this program for {seconds:g} s", cut=True)
            case {"answer": number, "value": value} if number in self._answers:
                self._answers[number].value = value
                self._answers[number].come.set()
            case {"stray": pid, "command": command, "ids": numbers}:
                for number in numbers:
                    if number in self.wards:
                        _guarded(self.wards[number].hear_stray, pid, command)
            case _:
                self._hear_news(facts)

    def _hear_news(self, facts: dict[str, Any]) -> None:
        for kind in ("spawned", "opened", "failed", "exited", "gone", "stuck"):
            ward = self.wards.get(facts.get(kind, 0))
            if ward is None:
                continue
            match kind:
                case "spawned":
                    ward.on_spawned(facts)
                case "opened":
                    ward.on_opened()
                case "failed":
                    ward.on_failed(facts)
                case "exited":
                    ward.on_exited(number_in(facts, "status", -_LARGEST_STATUS))
                case "gone":
                    del self.wards[facts["gone"]]
                    ward.on_gone()
                case "stuck":
                    ward.stuck = facts["pid"], facts["in"]

    def _lose(self, reason: str, *, cut: bool = False) -> None:
        if self.lost is not None:
            return
        self.lost, self.is_cut = reason, cut
        self._unsent.clear()
        for answer in self._answers.values():
            answer.value = _NO_ANSWER
            answer.come.set()
        wards, self.wards = self.wards, {}
        for ward in wards.values():
            ward.on_lost()
        self._over.set()
        self._session.close()


_NO_ANSWER: Final = object()


async def _greeting(session: Session, frames: Frames) -> Frame:
    while True:
        chunk = await session.receive()
        if not chunk:
            raise LostError("there came no guard" + _last_word(session))
        for frame in frames.feed(chunk):
            return frame


def _last_word(session: Session) -> str:
    lines = session.complaints().split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last}" if last else ""


def _guarded(hear: Callable[..., None], *what: Any) -> None:
    try:
        hear(*what)
    except Exception:
        _log.exception("what a daemon on another machine did can't be passed on")


def _order(number: int, request: SpawnRequest, forwards: list[int]) -> dict[str, Any]:
    directory = request.working_dir
    return {
        "do": "spawn",
        "id": number,
        "program": request.program,
        "args": request.args,
        "env": dict(request.env),
        "directory": None if directory is None else str(directory),
        "umask": request.umask,
        "limits": dict(request.limits),
        "user": request.user,
        "group": request.group,
        "rungs": [(rung.signum, rung.seconds) for rung in request.ladder.rungs],
        "mark": request.instance_id,
        "gated": request.gated,
        "pid_variable": request.pid_variable,
        "forwards": forwards,
    }
