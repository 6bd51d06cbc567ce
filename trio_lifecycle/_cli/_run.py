"""``trio-lifecycle run``: a daemon until it is no longer wanted."""

import os

import trio

from trio_lifecycle._cli._codes import NOT_EXECUTABLE, status_beside_command, status_of_command
from trio_lifecycle._cli._command import Command
from trio_lifecycle._cli._connect import connect
from trio_lifecycle._cli._display import QUIET
from trio_lifecycle._cli._onlooker import Onlooker
from trio_lifecycle._cli._plan import Plan
from trio_lifecycle._cli._session import STDERR, Session
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output
from trio_lifecycle._errors import LifecycleError
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._lifecycle import DaemonLifecycle


class Run:
    """One daemon, from the command line's first word to the exit status."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._session = Session(
            plan.verbosity,
            self._farewell,
            watches_stdout=plan.json,
            shows_output=plan.verbosity > QUIET,
            status_of=status_beside_command,
        )
        self._onlooker: Onlooker | None = None
        self._daemon: DaemonHandle | None = None
        self._command: Command | None = None

    async def __call__(self) -> int:
        """Run until it is over.

        Returns:
            The exit status.
        """
        return await self._session.run(self._have_daemon, self._kill)

    async def _have_daemon(self) -> int:
        onlooker = self._onlooker = Onlooker(self._plan, self._session)
        quiet = self._plan.verbosity <= QUIET
        timestamps = self._plan.timestamps
        output = Output() if quiet else Output(to=onlooker.show, timestamps=timestamps)
        config = onlooker.describe(output)
        await connect(self._plan.machine, self._session.display)
        return await self._use(config, onlooker)

    async def _use(self, config: LifecycleConfig, onlooker: Onlooker) -> int:
        # Its address is that of this machine, for as long as it is used.
        spawner = self._plan.spawner(forwards=True)
        lifecycle = DaemonLifecycle(config, spawner=spawner, observer=onlooker.observe)
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
        stdout = STDERR if self._plan.json else None
        display, interrupts = self._session.display, self._session.interrupts
        self._command = Command(
            text,
            environment(daemon),
            stdout,
            lambda: interrupts.signum,
            display.show_command_told,
        )
        try:
            return status_of_command(await self._command.run())
        except OSError as error:
            display.complain(f"the command of --then can't be run: {error}")
            return NOT_EXECUTABLE

    def _farewell(self, key: str) -> str:
        if not self._session.display.adopted:
            return f"stopping ({key} kills at once)"
        if self._plan.then is not None:
            return f"stopping the command of --then ({key} kills it at once)"
        return "leaving"

    async def _kill(self) -> None:
        """End everything at once; who waits for it says how that went."""
        if self._command is not None:
            self._command.kill()
        if self._daemon is not None and self._daemon.origin == "spawned":
            try:
                await self._daemon.kill()
            except LifecycleError:
                pass  # The daemon's owner gets the same error, and reports it.
        elif self._onlooker is not None and self._daemon is None:
            await self._onlooker.kill_starting()


def environment(daemon: DaemonHandle) -> dict[str, str]:
    """Give a command's environment: ours, and where the daemon is, as far as it is known."""
    facts = {"URL": daemon.url, "PORT": daemon.port, "PID": daemon.pid}
    variables = {f"TRIO_LIFECYCLE_{key}": value for key, value in facts.items()}
    # Ours may have those of an outer run; they are another daemon's.
    env = {key: value for key, value in os.environ.items() if key not in variables}
    return env | {key: str(value) for key, value in variables.items() if value is not None}
