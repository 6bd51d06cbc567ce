"""The command of ``--then``: run by the shell, and ended with all that it started."""

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

import trio

from trio_lifecycle._ladder import KILL_PATIENCE_S
from trio_lifecycle._proc import Stat, all_stats, open_pidfd, signal_process, tree_of
from trio_lifecycle._status import signal_name

_SHELL: Final = "/bin/sh"

# What a test runner needs to print its summary, and to run the clean-up of one test.
_PATIENCE_S: Final = 5.0


class Command:
    """Runs one shell command with our own standard input, in a process group of its own.

    With a terminal as standard input it shares our group: in another it could not read from there
    (SIGTTIN would stop it), and Ctrl-C and Ctrl-Z reach it straight from the terminal.

    Args:
        text: The command.
        env: Its environment.
        stdout: Where its standard output goes; None is our own.
        reason: Says which signal ends us, if one does.
        told: Called with the name of each signal that it has been sent when it is ended; SIGKILL
            only where that was needed.
    """

    def __init__(
        self,
        text: str,
        env: Mapping[str, str],
        stdout: int | None,
        reason: Callable[[], int | None],
        told: Callable[[str], object],
    ) -> None:
        self._text = text
        self._env = env
        self._stdout = stdout
        self._reason = reason
        self._told = told
        self._shares_terminal = os.isatty(0)
        self._patience: trio.CancelScope | None = None
        self._killed = False

    async def run(self) -> int:
        """Run it to its end; when cancelled, end it with its tree.

        Returns:
            Its status as ``subprocess`` counts.
        """
        process = await trio.lowlevel.open_process(
            [_SHELL, "-c", self._text],
            env=self._env,
            stdout=self._stdout,
            process_group=None if self._shares_terminal else 0,
        )
        # No checkpoint from there to here: a cancellation in between would lose the process.
        try:
            return await process.wait()
        except BaseException:
            # Shielded, because nobody else would end it. The bound is never reached: it is the sum
            # of what `_end` waits for, and a little more.
            with trio.move_on_after(2 * _PATIENCE_S + KILL_PATIENCE_S + 1, shield=True):
                await self._end(process)
            raise

    def kill(self) -> None:
        """Wait for nothing any more."""
        self._killed = True
        if self._patience is not None:
            self._patience.cancel()

    def _first_signal(self) -> int | None:
        """Choose what to send before SIGTERM: what ends us; None if nothing is to be sent."""
        reason = self._reason()
        # The terminal has sent it already, and twice means something else to many programs.
        sent_already = self._shares_terminal and reason == signal.SIGINT
        # SIGPIPE asks nobody to go.
        return None if sent_already or reason == signal.SIGPIPE else reason

    async def _end(self, process: trio.Process) -> None:
        members: dict[int, Stat] = {}
        reason = self._reason()
        if reason is not None and reason != signal.SIGTERM:
            if reason != signal.SIGPIPE:
                self._told(signal_name(reason))
            _signal_all(process.pid, members, self._first_signal())
            # Only for the shell: its background jobs ignore Ctrl-C (POSIX shells, section 2.11).
            await self._wait_for([stat for stat in members.values() if stat.pid == process.pid])
        if _signal_all(process.pid, members, signal.SIGTERM):
            self._told("SIGTERM")
        await self._wait_for(members.values())
        if _signal_all(process.pid, members, signal.SIGKILL):
            self._told("SIGKILL")
        with trio.move_on_after(KILL_PATIENCE_S):
            await _wait_for_all(members.values())
            await process.wait()

    async def _wait_for(self, stats: Iterable[Stat]) -> None:
        with trio.move_on_after(0 if self._killed else _PATIENCE_S) as self._patience:
            await _wait_for_all(stats)


def _signal_all(pid: int, members: dict[int, Stat], signum: int | None) -> bool:
    """Signal all that is, or was, seen of the tree: a child whose parent has ended is init's.

    Returns:
        Whether any of it was there to be signalled.
    """
    # The shell is not reaped until the end, so its number stands for its tree.
    members |= {stat.pid: stat for stat in tree_of(pid, all_stats())}
    alive = False
    for stat in members.values() if signum else ():
        with suppress(PermissionError):
            alive = signal_process(stat, signum or 0) or alive
            # What is stopped acts on nothing but SIGKILL until it is continued.
            signal_process(stat, signal.SIGCONT)
    return alive


async def _wait_for_all(stats: Iterable[Stat]) -> None:
    for stat in stats:
        pidfd = open_pidfd(stat)
        if pidfd is None:
            continue
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
