"""``trio-lifecycle stop``: daemons that were left running, asked to go and seen to be gone."""

from typing import Any, Final

import trio
from attrs import frozen

from trio_lifecycle._attach import attach
from trio_lifecycle._cli._codes import ALL_WELL, status_of_error
from trio_lifecycle._cli._connect import connect
from trio_lifecycle._cli._cure import cure_of
from trio_lifecycle._cli._display import QUIET, Wait
from trio_lifecycle._cli._json_lines import json_line
from trio_lifecycle._cli._machine_options import HERE, MachineOptions
from trio_lifecycle._cli._plan import read_ladder
from trio_lifecycle._cli._sentences import sentence_of
from trio_lifecycle._cli._session import Session
from trio_lifecycle._cli._which import check_names, none_recorded, registry_to_read, unrecorded
from trio_lifecycle._errors import ConfigError, LifecycleError
from trio_lifecycle._events import Event, Stopping
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._ladder import StopLadder
from trio_lifecycle._record_errors import DaemonNotRunningError
from trio_lifecycle.abc import Registry

USAGE: Final = "trio-lifecycle stop [OPTIONS] NAME... | --all"


@frozen(kw_only=True)
class Wanted:
    """The options as they were written."""

    names: tuple[str, ...] = ()
    every: bool = False
    forget: bool = False
    stop_timeout: str | None = None
    registry: str | None = None
    json: bool = False
    quiet: bool = False
    machine: MachineOptions = HERE

    def check(self) -> StopLadder | None:
        """Give the ladder that was asked for, if one was.

        Raises:
            ConfigError: They can't be meant.
        """
        if self.names and self.every:
            raise ConfigError("NAME and --all", "exclude each other; give one of them")
        if self.forget and self.every:
            raise ConfigError("--forget and --all", "exclude each other; name what to forget")
        if self.forget and self.stop_timeout is not None:
            raise ConfigError("--forget and --stop-timeout", "exclude each other; nobody is asked")
        if not self.names and not self.every:
            raise ConfigError("NAME", f"is missing; write: {USAGE}")
        check_names(self.names)
        return read_ladder(self.stop_timeout)


class Stop:
    """One stop of one or more daemons at once."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        verbosity = QUIET if wanted.quiet else 0
        self._session = Session(verbosity, self._farewell, settle=self._settle)
        self._handles: dict[str, DaemonHandle] = {}
        self._left: list[str] = []
        self._statuses: list[int] = [ALL_WELL]
        self._asked: set[str] = set()

    async def __call__(self) -> int:
        """Stop them, and say how it went.

        Returns:
            The exit status.
        """
        self._session.display.name("trio-lifecycle")
        return await self._session.run(self._stop_all, self._kill)

    def _settle(self, status: int) -> int:
        return self._session.insist_on_output(status)

    async def _stop_all(self) -> int:
        ladder = self._wanted.check()
        registry = registry_to_read(self._wanted.registry)
        machine = self._wanted.machine
        await connect(machine, self._session.display)
        records = await registry.daemons()
        every = tuple(record.name for record in records)
        if self._wanted.every and not machine.is_here:
            # Those of other machines are not meant.
            every = tuple(record.name for record in await machine.elsewhere().those_of(records))
        self._left = list(every if self._wanted.every else check_names(self._wanted.names))
        if not self._left:
            self._session.display.say(none_recorded(self._wanted.registry, machine.host))
        self._session.display.begin(Wait("stopping", lambda: "", lambda: ", ".join(self._left)))
        async with trio.open_nursery() as nursery:
            for name in tuple(self._left):
                if name in every:
                    nursery.start_soon(self._stop, name, registry, ladder)
                else:
                    self._conclude(name, self._was_gone(name, unrecorded(name, records)))
        return max(self._statuses)

    async def _stop(self, name: str, registry: Registry, ladder: StopLadder | None) -> None:
        try:
            daemon = await attach(
                name, registry, spawner=self._wanted.machine.spawner(), observer=self._observe
            )
            self._handles[name] = daemon
            report = await daemon.stop(ladder)
        except DaemonNotRunningError as error:
            self._conclude(name, self._was_gone(name, error.problem))
            return
        except LifecycleError as error:
            self._statuses.append(status_of_error(error))
            self._session.display.complain(sentence_of(error, with_output=False))
            if cure := await cure_of(error, registry, self._wanted.registry, self._wanted.machine):
                self._session.display.complain(cure)
            self._conclude(name, {"error": str(error)})
            return
        # No checkpoint from the stop to here: a stop that was finished in spite of Ctrl-C is told.
        rung = report.rung
        how = f"stopped after {report.seconds:.2f} s" + (f" by {rung}" if rung else "")
        self._session.display.say(how if rung else "had ended by itself", name)
        facts = {"gone": True, "pid": daemon.pid, "rung": rung, "seconds": report.seconds}
        self._conclude(name, facts)

    def _was_gone(self, name: str, problem: str) -> dict[str, Any]:
        self._session.display.say(f"is not running: {problem}", name)
        return {"gone": True}

    def _conclude(self, name: str, facts: dict[str, Any]) -> None:
        self._left.remove(name)
        if not self._left:
            self._session.display.end_wait()
        if self._wanted.json:
            unknown = {"gone": False, "pid": None, "rung": None, "seconds": None, "error": None}
            self._session.out.write(json_line({"name": name} | unknown | facts))

    def _observe(self, event: Event) -> None:
        if isinstance(event, Stopping):
            if event.rung == "SIGKILL":
                again = "is still there; " if event.name in self._asked else ""
                self._session.display.say(f"{again}gets SIGKILL", event.name)
            self._asked.add(event.name)

    def _farewell(self, key: str) -> str:
        return f"a stop that was begun goes on to its end ({key} kills at once)"

    async def _kill(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in self._left:
                if name in self._handles:
                    nursery.start_soon(_kill, self._handles[name])


async def _kill(daemon: DaemonHandle) -> None:
    try:
        await daemon.kill()
    except LifecycleError:
        pass  # Who stops it gets the same error, and reports it.
