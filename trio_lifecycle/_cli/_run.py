"""``trio-lifecycle run``: a daemon until it is no longer wanted."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from trio_lifecycle._cli._codes import (
    NOT_EXECUTABLE,
    status_of_command,
    status_of_error,
    status_of_signal,
)
from trio_lifecycle._cli._command import Command
from trio_lifecycle._cli._display import QUIET, Display
from trio_lifecycle._cli._interrupts import Interrupts, heeded
from trio_lifecycle._cli._json_lines import JSONLines
from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._paint import Paint
from trio_lifecycle._cli._plan import Plan
from trio_lifecycle._cli._sentences import sentence_of
from trio_lifecycle._cli._watch import Watched
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output
from trio_lifecycle._errors import LifecycleError
from trio_lifecycle._events import Event
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._lifecycle import DaemonLifecycle

_STDOUT: Final = 1
_STDERR: Final = 2

# After a signal: what a reader gets to take our last lines, before they are given up.
_LAST_LINES_S: Final = 1.0


class Run:
    """One daemon, from the command line's first word to the exit status."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._screen = Outlet(_STDERR, self._lose_reader)
        self._events = Outlet(_STDOUT, self._lose_reader)
        self._display = Display(self._screen, Paint(_STDERR), plan.verbosity)
        self._json = JSONLines(self._events)
        self._interrupts = Interrupts(self._display, has_command=plan.then is not None)
        self._watched: Watched | None = None
        self._daemon: DaemonHandle | None = None
        self._command: Command | None = None

    async def __call__(self) -> int:
        """Run until it is over.

        Returns:
            The exit status.
        """
        with trio.open_signal_receiver(*heeded()) as arriving:
            async with trio.open_nursery() as services:
                services.start_soon(self._screen.run)
                services.start_soon(self._events.run)
                services.start_soon(self._display.run)
                if self._plan.json:
                    services.start_soon(self._events.watch)
                services.start_soon(self._interrupts.listen, arriving, self._kill)
                with _complaints_to(self._display):
                    status = await self._have_daemon()
                services.cancel_scope.cancel()
        return status

    async def _have_daemon(self) -> int:
        status = 0
        with self._interrupts.scope:
            try:
                status = await self._use(self._describe())
            except LifecycleError as error:
                status = self._report(error)
            self._display.conclude()
            await self._drain()
        self._display.conclude()
        with trio.move_on_after(_LAST_LINES_S):
            await self._drain()
        signum = self._interrupts.signum
        return status if signum is None else status_of_signal(signum)

    async def _drain(self) -> None:
        await self._screen.drain()
        await self._events.drain()

    # --- the daemon ---

    def _describe(self) -> LifecycleConfig:
        watched = self._watched = Watched(self._plan.ready_mode())
        quiet = self._plan.verbosity <= QUIET

        def show(line: str) -> None:
            self._display.output(watched.blot_out(line))

        output = Output() if quiet else Output(to=show)
        config = self._plan.config(watched, output)
        self._display.name(config.name)
        self._display.awaited = lambda: watched.awaited
        self._display.last_seen = lambda: watched.last_seen
        return config

    async def _use(self, config: LifecycleConfig) -> int:
        lifecycle = DaemonLifecycle(config, spawner=self._plan.spawner(), observer=self._observe)
        async with lifecycle.running() as daemon:
            self._daemon = daemon
            then = self._plan.then
            status = 0
            if then is None:
                await trio.sleep_forever()
            else:
                status = await self._run_command(then, daemon)
        return status

    async def _run_command(self, text: str, daemon: DaemonHandle) -> int:
        stdout = _STDERR if self._plan.json else None
        self._command = Command(
            text,
            environment(daemon),
            stdout,
            lambda: self._interrupts.signum,
            self._display.show_command_told,
        )
        try:
            return status_of_command(await self._command.run())
        except OSError as error:
            self._display.complain(f"the command of --then can't be run: {error}")
            return NOT_EXECUTABLE

    async def _kill(self) -> None:
        """End everything at once; who waits for it says how that went."""
        if self._command is not None:
            self._command.kill()
        if self._daemon is not None and self._daemon.origin == "spawned":
            try:
                await self._daemon.kill()
            except LifecycleError:
                pass  # The daemon's owner gets the same error, and reports it.
        elif self._watched is not None and self._watched.process is not None:
            # It is not ready, so nobody has its handle yet; its start is being given up.
            await self._watched.process.signal_tree(signal.SIGKILL)

    # --- what is seen of it ---

    def _observe(self, event: Event) -> None:
        if self._plan.json:
            self._json.observe(event)
        self._display.observe(event)

    def _report(self, error: LifecycleError) -> int:
        self._display.conclude()
        quiet = self._plan.verbosity <= QUIET
        self._display.complain(sentence_of(error, with_output=quiet))
        return status_of_error(error)

    def _lose_reader(self) -> None:
        self._interrupts.lose_reader()


def environment(daemon: DaemonHandle) -> dict[str, str]:
    """Give a command's environment: ours, and where the daemon is, as far as it is known."""
    facts = {"URL": daemon.url, "PORT": daemon.port, "PID": daemon.pid}
    variables = {f"TRIO_LIFECYCLE_{key}": value for key, value in facts.items()}
    # Ours may have those of an outer run; they are another daemon's.
    env = {key: value for key, value in os.environ.items() if key not in variables}
    return env | {key: str(value) for key, value in variables.items() if value is not None}


@contextmanager
def _complaints_to(display: Display) -> Iterator[None]:
    """Show what the library logs, in its order among the other lines."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: display.complain(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("trio_lifecycle")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
