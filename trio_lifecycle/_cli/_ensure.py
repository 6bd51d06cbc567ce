"""``trio-lifecycle ensure``: a daemon that runs, and is left running."""

from typing import Any

from trio_lifecycle._cli._codes import ALL_WELL
from trio_lifecycle._cli._display import VERBOSE, place_of
from trio_lifecycle._cli._onlooker import Onlooker
from trio_lifecycle._cli._plan import Plan
from trio_lifecycle._cli._session import Session
from trio_lifecycle._cli._which import registry_at
from trio_lifecycle._destination import Output
from trio_lifecycle._errors import DiedBeforeReadyError, ReadyError, ReadyTimeoutError
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._lifecycle import DaemonLifecycle


class Ensure:
    """One daemon that is started unless it runs, from the command line to the exit status."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._session = Session(plan.verbosity, self._farewell, watches_stdout=plan.json)
        self._onlooker: Onlooker | None = None
        self._is_up = False

    async def __call__(self) -> int:
        """Have it up, and say where it is.

        Returns:
            The exit status.
        """
        self._session.display.announces = self._plan.verbosity >= VERBOSE
        return await self._session.run(self._ensure, self._kill)

    async def _ensure(self) -> int:
        onlooker = self._onlooker = Onlooker(self._plan, self._session)
        config = onlooker.describe(Output(), detach=True)
        registry = registry_at(self._plan.registry)
        lifecycle = DaemonLifecycle(config, observer=onlooker.observe, registry=registry)
        try:
            daemon = await lifecycle.ensure_running()
        except (DiedBeforeReadyError, ReadyTimeoutError, ReadyError) as error:
            status = self._session.report(error)
            self._name_log(onlooker, error.output_tail)
            return status
        self._is_up = True
        if onlooker.json is None:
            self._session.out.write(f"{in_words(daemon)}\n")
        else:
            onlooker.json.write(as_facts(daemon))
        if self._plan.verbosity >= VERBOSE:
            record = await registry.get(daemon.name)
            if record is not None and record.log_file is not None:
                self._session.display.say(f"its output goes to {record.log_file}")
        return ALL_WELL

    def _name_log(self, onlooker: Onlooker, output_tail: str) -> None:
        process = onlooker.watched.process
        if output_tail and process is not None and process.log_file is not None:
            self._session.display.complain(f"all of its output is in {process.log_file}")

    def _farewell(self, key: str) -> str:
        return "leaving" if self._is_up else f"giving up its start ({key} kills at once)"

    async def _kill(self) -> None:
        if self._onlooker is not None and not self._is_up:
            await self._onlooker.kill_starting()


def in_words(daemon: DaemonHandle) -> str:
    """Say where a daemon is: ``http://127.0.0.1:8080/ (process 4711, spawned)``."""
    process = "a process that can't be seen" if daemon.pid is None else f"process {daemon.pid}"
    place = place_of(daemon.url, daemon.port)
    facts = f"{process}, {daemon.origin}"
    return f"{place} ({facts})" if place else facts


def as_facts(daemon: DaemonHandle) -> dict[str, Any]:
    """Say the same to machines; what is unknown is null."""
    return {
        "event": "ensured",
        "name": daemon.name,
        "pid": daemon.pid,
        "url": daemon.url,
        "port": daemon.port,
        "origin": daemon.origin,
        "instance_id": daemon.instance_id,
    }
