"""The handle: what a program holds of a daemon that runs."""

import copy
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Literal

import trio

from trio_lifecycle._errors import ConfigError, DaemonStateUnknownError
from trio_lifecycle._framing import CUT_MARK, LONGEST_LINE_BYTES
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._ladder import StopLadder, StopReport
from trio_lifecycle._liveness import Liveness
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._status import describe_status
from trio_lifecycle._stop import Stopper
from trio_lifecycle.abc import Process, Report

Origin = Literal["spawned", "adopted"]


class DaemonHandle:
    """A daemon that is up: what is known of it, and the power to stop it.

    Handles are given out by ``running()``, ``run``, ``ensure_running()``, ``attach()`` and daemon
    nurseries; they are never made by users. They stay valid when the daemon has ended: waiting
    returns at once, stopping again is fine.

    Attributes:
        name: What the daemon is called.
        instance_id: Which spawn of it this is.
        origin: ``"spawned"`` if this program started it, ``"adopted"`` if it ran already.
        url: Where it can be reached: the health URL with its markers filled in, or what the daemon
            reported; or None.
        port: Its port: FREE_PORT's, the URL's, or what it reported; or None.
        ready_after_s: Seconds from the spawn until it was seen to be ready; 0 when it was adopted.
        report: What the daemon said of itself when it became ready: the body of its callback, the
            named groups of its line, its status. Empty otherwise.
    """

    def __init__(
        self,
        name: str,
        instance_id: str,
        origin: Origin,
        process: Process,
        stopper: Stopper,
        report: Report,
        ready_after_s: float,
        secrets: tuple[str, ...],
        ask: Callable[[], Awaitable[Liveness]],
    ) -> None:
        self.name = name
        self.instance_id = instance_id
        self.origin: Origin = origin
        self.url: str | None = report.url
        self.port: int | None = report.port
        self.ready_after_s = ready_after_s
        self.report: dict[str, Any] = copy.deepcopy(dict(report.facts))
        self._process = process
        self._stopper = stopper
        self._secrets = secrets
        self._ask = ask

    def __repr__(self) -> str:
        ended = f", {describe_status(self._process.status)}" if self._process.ended else ""
        where = "" if self.url is None else f" at {self._shown_url}"
        return f"<DaemonHandle {self.name} {self.origin} {self.pid}{where}{ended}>"

    @property
    def _shown_url(self) -> str:
        return Secrets(self._secrets).blot_out(str(self.url))

    @property
    def pid(self) -> int | None:
        """Its main process's id.

        None for an adopted daemon whose process can't be seen from here.
        """
        return self._process.pid

    @property
    def guarantee(self) -> Guarantee | None:
        """Give what is promised for its end, such as ``"guarded"``.

        See ``LocalSpawner``. None for an adopted daemon: it is its starter's.
        """
        return self._process.guarantee

    @property
    def output_tail(self) -> str:
        r"""The end of its output so far, at most ``Output.tail_bytes``.

        Bytes that are no UTF-8 as ``\xNN``.

        Of an adopted daemon it is the end of its log file, where that is recorded; else it is
        empty, for its output goes where its starter wanted it.
        """
        return show_tail(self._process, self._secrets)

    def lines(self) -> AsyncIterator[str]:
        """Give its output from now on, line by line: ``async for line in daemon.lines()``.

        It ends when the daemon does, or when nobody has the output open any more. Any number of
        tasks may read. A reader that is 10,000 lines behind loses the oldest; the daemon never
        waits for one. For an adopted daemon whose log file is not recorded it ends at once.
        """
        return _Blotted(self._process.lines(), self._secrets)

    async def wait_exit(self) -> int | None:
        """Wait until the daemon has ended.

        Returns:
            Its exit status as ``subprocess`` counts (-15 is an end by SIGTERM); None where only its
            parent can know it, as for an adopted daemon.

        Raises:
            DaemonStateUnknownError: It can't be seen any more; it may live. Asked again, it is
                waited for again, as soon as it can be seen.
        """
        if self._process.unseen is not None and not self._process.ended:
            await self._process.look()
        try:
            return await self._process.wait()
        except DaemonStateUnknownError as error:
            unknown = error
        # In its owner's block it is the block that ends, whoever hears of it first.
        self._stopper.tell_owner()
        await trio.lowlevel.checkpoint()
        raise unknown

    async def check(self) -> Liveness:
        """Ask the daemon once more, by the probes that said that it was ready.

        ``"running"``: it is alive, and says that it is up; where its mode can't be asked again (a
        callback, a line of its log), alive is enough. ``"gone"``: its process was seen to have
        ended. ``"unknown"``: anything else, such as a 503, a probe that took too long, or a process
        that can't be seen, now or any more. It is bounded by the mode's own limit for one probe,
        and changes nothing: what follows from the answer is yours to decide.
        """
        return await self._ask()

    async def stop(self, ladder: StopLadder | None = None) -> StopReport:
        """Ask the daemon to go, then insist; say which rung it took.

        Climbs the configured stop ladder, or the one given, and returns only when the daemon's tree
        is gone: all that it has started, or its process group where its ``guarantee`` is "scoped"
        or "detached". Calling it again, from several tasks, or on a daemon that has ended is fine:
        all get the same report. Once begun it is finished also when the caller is cancelled. An
        adopted daemon is stopped, too, with all that has stayed in its session.

        Where a check before its start has ``wait_for_recovery``, that is waited for, when the
        daemon is gone. Such a wait, unlike the stop, ends at once when the caller is cancelled.

        Raises:
            StopError: A process outlived SIGKILL by 5 s.
            DaemonStateUnknownError: The daemon's process can't be found from here, so nothing was
                sent; or it can't be seen any more, and so not be seen to be gone. Ask again when it
                can be.
        """
        self._insist_on_process()
        report = await self._stopper.stop(ladder)
        await self._stopper.recovered()
        return report

    async def kill(self) -> StopReport:
        """Send SIGKILL at once to all that ``stop()`` would signal, and wait until it is gone.

        It may be called while the daemon is being stopped politely.

        Raises:
            StopError: A process outlived SIGKILL by 5 s.
            DaemonStateUnknownError: As for ``stop()``.
        """
        self._insist_on_process()
        return await self._stopper.kill()

    async def terminate(self) -> None:
        """Send SIGTERM to all that ``stop()`` would signal, and don't wait.

        The end that follows counts as wanted.

        Raises:
            DaemonStateUnknownError: The daemon's process can't be found from here, so nothing was
                sent.
        """
        self._insist_on_process()
        await self._stopper.terminate(signal.SIGTERM)

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the main process, such as SIGHUP to make it read its files again.

        If it ends the daemon, that counts as a death, not as a stop. Nothing happens when the
        daemon has ended.

        Raises:
            DaemonStateUnknownError: The daemon's process can't be found from here, so nothing was
                sent.
        """
        self._insist_on_process()
        if signum not in signal.valid_signals():
            raise ConfigError("signum", f"{signum!r} is no signal of this system")
        if not self._process.ended:
            try:
                await self._process.send_signal(signum)
            except PermissionError as error:
                raise DaemonStateUnknownError(
                    self.name, f"process {self.pid} is another user's, so nothing was sent"
                ) from error
        await trio.lowlevel.checkpoint()

    def _insist_on_process(self) -> None:
        if self._process.pid is None:
            raise DaemonStateUnknownError(
                self.name,
                f"it answers at {self._shown_url}, but its process can't be found from here, "
                "so nothing was sent",
            )


def show_tail(process: Process, secrets: tuple[str, ...]) -> str:
    """Give the end of a process's output for people: decoded, secrets blotted out."""
    return Secrets(secrets).show_tail(process.output_tail())


class _Blotted(AsyncIterator[str]):
    """Lines without secrets, also where one stands in two parts of a line over the bound."""

    def __init__(self, lines: AsyncIterator[str], secrets: tuple[str, ...]) -> None:
        self._lines = lines
        self._blotter = Secrets(secrets).text_blotter()

    async def __anext__(self) -> str:
        try:
            line = await anext(self._lines)
        except StopAsyncIteration:
            if rest := self._blotter.close():
                return rest
            raise
        if len(line) < _SHORTEST_PART or not line.endswith(CUT_MARK):
            return self._blotter.feed(line) + self._blotter.close()
        # What may be the beginning of a secret comes with the next part.
        return self._blotter.feed(line.removesuffix(CUT_MARK)) + CUT_MARK


# In characters, of which each is at most four bytes.
_SHORTEST_PART: Final = LONGEST_LINE_BYTES // 4
