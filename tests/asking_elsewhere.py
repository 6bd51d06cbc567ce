"""A prober that asks this machine as if it were another one."""

from pathlib import Path

from attrs import evolve

from tests.stepping import DAEMON
from trio_lifecycle import LocalSpawner
from trio_lifecycle.abc import Command, Prober, Ran
from trio_lifecycle.spawner._local_prober import LocalProber


class ElsewhereProber(LocalProber):
    """Runs commands by a real spawner, and says that it is not here.

    Args:
        shell: What to run in the place of /bin/sh, and its first arguments.
        path: What stands before the PATH of the commands.
        as_daemon: Whether to run them as the user "daemon", who may do little.
    """

    def __init__(
        self, *shell: str, path: Path | None = None, as_daemon: bool = False, **env: str
    ) -> None:
        super().__init__(LocalSpawner())
        self.shell = shell or ("/bin/sh",)
        self.env = env if path is None else {"PATH": f"{path}:/usr/bin:/bin", **env}
        self.user = DAEMON.pw_name if as_daemon else None
        self.asked = 0

    @property
    def is_here(self) -> bool:
        return False

    async def run(self, command: Command) -> Ran:
        self.asked += 1
        program, *first = self.shell
        args = (*first, *command.args)
        return await super().run(
            evolve(command, program=program, args=args, env=self.env, user=self.user)
        )


class ElsewhereSpawner(LocalSpawner):
    """Starts daemons here, and asks them as if it were elsewhere."""

    def open_prober(self) -> Prober:
        return ElsewhereProber()
