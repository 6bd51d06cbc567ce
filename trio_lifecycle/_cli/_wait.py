"""``trio-lifecycle wait``: until a daemon has ended, by itself or because somebody stopped it."""

from attrs import frozen

from trio_lifecycle._attach import attach
from trio_lifecycle._cli._codes import ALL_WELL
from trio_lifecycle._cli._connect import connect
from trio_lifecycle._cli._cure import cure_of
from trio_lifecycle._cli._machine_options import HERE, MachineOptions
from trio_lifecycle._cli._session import Session
from trio_lifecycle._cli._which import check_names, registry_to_read, unrecorded
from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._record_errors import DaemonNotRunningError
from trio_lifecycle.abc import Registry


@frozen(kw_only=True)
class Wait:
    """One wait, from the options as they were written to the exit status."""

    name: str
    registry: str | None = None
    machine: MachineOptions = HERE

    async def __call__(self) -> int:
        """Wait for its end.

        Returns:
            The exit status.
        """
        session = Session(0, lambda _key: "")
        session.display.name(self.name)

        async def wait() -> int:
            check_names([self.name])
            await connect(self.machine, session.display)
            registry = registry_to_read(self.registry)
            try:
                session.display.say(await self._wait(registry))
            except DaemonStateUnknownError as error:
                status = session.report(error)
                if cure := await cure_of(error, registry, self.registry, self.machine):
                    session.display.complain(cure)
                return status
            return ALL_WELL

        return await session.run(wait, _kill_nothing)

    async def _wait(self, registry: Registry) -> str:
        records = await registry.daemons()
        if self.name not in (record.name for record in records):
            return f"is not running: {unrecorded(self.name, records)}"
        try:
            daemon = await attach(self.name, registry, spawner=self.machine.spawner())
        except DaemonNotRunningError as error:
            return f"is not running: {error.problem}"
        await daemon.wait_exit()
        return "has ended"


async def _kill_nothing() -> None:
    """Do nothing: a second Ctrl-C finds us gone."""
