"""Who looks on while a daemon is started: what happens to it is shown, and written down."""

import signal
from contextlib import suppress

from trio_lifecycle._cli._json_lines import JSONLines
from trio_lifecycle._cli._plan import Plan
from trio_lifecycle._cli._session import Session
from trio_lifecycle._cli._watch import Watched
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output
from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._events import Event
from trio_lifecycle._secrets import Secrets


class Onlooker:
    """Shows one daemon's start to people, and to machines if that was asked for.

    Args:
        plan: What was asked for.
        session: Where it is shown.

    Attributes:
        json: Writes for machines; None where nobody wants that.
        watched: What is waited for.

    Raises:
        ConfigError: What counts as ready can't be meant.
    """

    def __init__(self, plan: Plan, session: Session) -> None:
        self._plan = plan
        self._display = session.display
        # What is wrong with an option may repeat it.
        self._display.blot_out = Secrets(plan.secrets).blot_out
        self.json = JSONLines(session.out) if plan.json else None
        self.watched = Watched(plan.ready_mode())

    def describe(self, output: Output, *, detach: bool = False) -> LifecycleConfig:
        """Describe the daemon, and have lines begin with its name, or with ``--prefix``.

        Raises:
            ConfigError: A value can't be meant; it names the option.
        """
        config = self._plan.config(self.watched, output, detach=detach)
        self._display.name(config.name, self._plan.prefix)
        self._display.blot_out = Secrets(config.secrets).blot_out
        self._display.awaited = lambda: self.watched.awaited
        self._display.last_seen = lambda: self.watched.last_seen
        return config

    def show(self, line: str) -> None:
        """Show a line of the daemon's output."""
        self._display.output(self.watched.blot_out(line))

    def observe(self, event: Event) -> None:
        """Show an event."""
        if self.json is not None:
            self.json.observe(event)
        self._display.observe(event)

    async def kill_starting(self) -> None:
        """Kill a daemon that is not ready: nobody has its handle yet; its start is given up."""
        if self.watched.process is not None:
            # One that can't be seen any more is ended by its guard, and who starts it says so.
            with suppress(DaemonStateUnknownError):
                await self.watched.process.signal_tree(signal.SIGKILL)
