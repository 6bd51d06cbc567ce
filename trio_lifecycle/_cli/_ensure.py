"""``trio-lifecycle ensure``: a daemon that runs, and is left running."""

from typing import Any

from trio_lifecycle._cli._codes import ALL_WELL, UNANNOUNCED
from trio_lifecycle._cli._connect import connect
from trio_lifecycle._cli._cure import cure_of
from trio_lifecycle._cli._display import VERBOSE, place_of
from trio_lifecycle._cli._onlooker import Onlooker
from trio_lifecycle._cli._plan import Plan
from trio_lifecycle._cli._sentences import unwritten
from trio_lifecycle._cli._session import Session
from trio_lifecycle._cli._which import how_to_stop, registry_at
from trio_lifecycle._destination import Output
from trio_lifecycle._errors import (
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    ReadyError,
    ReadyTimeoutError,
    StallTimeoutError,
)
from trio_lifecycle._events import Adopted, Event, Failed, Ready, Stopping
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._lifecycle import DaemonLifecycle
from trio_lifecycle._secrets import Secrets


class Ensure:
    """One daemon that is started unless it runs, from the command line to the exit status."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._session = Session(
            plan.verbosity, self._farewell, watches_stdout=plan.json, settle=self._settle
        )
        self._onlooker: Onlooker | None = None
        # Known by the event, not by the handle: who is cancelled at that moment gets none.
        self._up: Ready | Adopted | None = None
        self._announced = False

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
        await connect(self._plan.machine, self._session.display)
        lifecycle = DaemonLifecycle(
            config, spawner=self._plan.spawner(), observer=self._observe, registry=registry
        )
        try:
            daemon = await lifecycle.ensure_running()
        except (DiedBeforeReadyError, ReadyTimeoutError, StallTimeoutError, ReadyError) as error:
            status = self._session.report(error)
            self._name_log(onlooker, error.output_tail)
            return status
        except DaemonStateUnknownError as error:
            status = self._session.report(error)
            if cure := await cure_of(error, registry, self._plan.registry, self._plan.machine):
                self._session.display.complain(cure)
            return status
        self._announced = True
        if onlooker.json is None:
            words = in_words(daemon, self._session.display.machine)
            self._session.out.write(Secrets(config.secrets).blot_out(f"{words}\n"))
        else:
            facts = as_facts(daemon, self._session.display.machine)
            url = None if daemon.url is None else Secrets(config.secrets).blot_out(daemon.url)
            onlooker.json.write(facts | {"url": url})
        if self._plan.verbosity >= VERBOSE:
            record = await registry.get(daemon.name)
            if record is not None and record.log_file is not None:
                self._session.display.say(f"its output goes to {record.log_file}")
        return ALL_WELL

    def _name_log(self, onlooker: Onlooker, output_tail: str) -> None:
        process = onlooker.watched.process
        if output_tail and process is not None and process.log_file is not None:
            self._session.display.complain(f"all of its output is in {process.log_file}")

    def _observe(self, event: Event) -> None:
        match event:
            case Ready() | Adopted():
                self._up = event
            case Stopping() | Failed():
                self._up = None
        if self._onlooker is not None:
            self._onlooker.observe(event)

    def _farewell(self, key: str) -> str:
        if self._up is not None:
            return "leaving; it runs on"
        return f"giving up its start ({key} kills at once)"

    async def _kill(self) -> None:
        if self._onlooker is not None and self._up is None:
            await self._onlooker.kill_starting()

    def _settle(self, status: int) -> int:
        """Answer for a daemon that is up: no signal and no full disk makes it not run."""
        if self._up is None:
            return status
        shortfall = self._session.out.shortfall
        if self._announced and not shortfall:
            return ALL_WELL
        why = f"{unwritten(shortfall)}; " if shortfall else ""
        who = "" if self._up.pid is None else f" as process {self._up.pid}"
        self._session.display.complain(
            f"{why}{self._up.name} runs{who}; stop it with: "
            f"{how_to_stop(self._up.name, self._plan.registry, *self._plan.machine.words())}"
        )
        return UNANNOUNCED


def in_words(daemon: DaemonHandle, machine: str) -> str:
    """Say where a daemon is: ``http://127.0.0.1:8080/ (process 4711, spawned)``."""
    process = "a process that can't be seen" if daemon.pid is None else f"process {daemon.pid}"
    place = place_of(daemon.url, daemon.port)
    facts = f"{process}{f' on {machine}' if machine else ''}, {daemon.origin}"
    return f"{place} ({facts})" if place else facts


def as_facts(daemon: DaemonHandle, machine: str) -> dict[str, Any]:
    """Say the same to machines; what is unknown is null."""
    return {
        "event": "ensured",
        "name": daemon.name,
        "pid": daemon.pid,
        "url": daemon.url,
        "port": daemon.port,
        "origin": daemon.origin,
        "instance_id": daemon.instance_id,
        "machine": machine or None,
    }
