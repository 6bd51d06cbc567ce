"""queen-rbee: knows the hives, starts them, and gives each request to one that has the model."""

import argparse
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

from trio_lifecycle import DaemonHandle, DaemonStateUnknownError, LifecycleError
from trio_lifecycle.demo._asking import (
    Asker,
    AskingError,
    NoAnswerError,
    address,
    why_silent,
)
from trio_lifecycle.demo._hive_registry import (
    HiveRecord,
    HiveRegistry,
    HiveRegistryError,
    HiveState,
)
from trio_lifecycle.demo._hives import Hive, choose
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.demo._listening import listen
from trio_lifecycle.demo._options import seconds
from trio_lifecycle.demo._passing import pass_on
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo._serving import (
    JSONResponse,
    RefusedError,
    Request,
    Response,
    Route,
    asked_to_stop,
    event_route,
    json_of,
    memory_mib,
    model_in,
    serving,
    stop_signals,
)
from trio_lifecycle.demo.queen_lifecycle import HiveLifecycles

# How often a hive is asked how it is, and how long it may take to say so.
HEARTBEAT_S: Final = 1.0
_ANSWER_S: Final = 2.0

# What a hive tells last is under way when it has ended.
_LAST_WORDS_S: Final = 1.0

# The status where a hive, or the worker of a model, could not be had.
_UNAVAILABLE: Final = 503

# The keeper who had the hives stopped stops the queen within milliseconds.
_KEEPER_S: Final = 1.0


class Queen:
    """All hives, and the way of a request to one of them.

    Args:
        lifecycles: Starts and finds hives.
        registry: Remembers them.
        asker: Asks them.
        hub: Passes on what happens to them, and what they tell of their workers.
        tasks: Where hives are watched.

    Attributes:
        over: Set when all hives were stopped, and there is nothing left to do.
    """

    def __init__(
        self,
        lifecycles: HiveLifecycles,
        registry: HiveRegistry,
        asker: Asker,
        hub: Hub,
        tasks: trio.Nursery,
    ) -> None:
        self._lifecycles = lifecycles
        self._registry = registry
        self._asker = asker
        self._hub = hub
        self._tasks = tasks
        self._hives: dict[str, Hive] = {}
        self._host_of: dict[str, str] = {}
        self._leaving = False
        self._problem: str | None = None
        self.over: trio.Event = trio.Event()

    @property
    def routes(self) -> list[Route]:
        """What it serves."""
        return [
            Route("/health", self.health),
            Route("/hives", self.add_hive, methods=["POST"]),
            Route("/forget", self.forget_hive, methods=["POST"]),
            Route("/stop", self.stop, methods=["POST"]),
            Route("/v1/completions", self.pass_on, methods=["POST"]),
            Route("/v1/embeddings", self.pass_on, methods=["POST"]),
            event_route(self._hub),
        ]

    # --- requests ---

    async def health(self, _request: Request) -> JSONResponse:
        """Say what is known of each hive."""
        facts = {
            "pid": os.getpid(),
            "memory_mib": memory_mib(),
            "problem": self._problem,
            "hives": [hive.as_dict() for hive in self._hives.values()],
        }
        return JSONResponse(facts)

    async def add_hive(self, request: Request) -> JSONResponse:
        """Have a hive on a machine."""
        hive, _ = await self._ensure(_host_in(await json_of(request)))
        return JSONResponse(hive.as_dict())

    async def forget_hive(self, request: Request) -> JSONResponse:
        """Remember a machine no longer, whose hive was seen to be gone."""
        host = _host_in(await json_of(request))
        hive = self._hives.get(host)
        if hive is None:
            raise RefusedError(f"no hive on {host} is remembered", 404)
        async with hive.turn:
            if hive.state != "offline":
                what = f"the hive on {host} is {hive.state}: only one that is offline goes"
                raise RefusedError(what)
            self._hives.pop(host, None)
            await self._remember(self._registry.forget(host))
        return JSONResponse(hive.as_dict())

    async def pass_on(self, request: Request) -> Response:
        """Give a request to a hive, and pass on its answer as it comes."""
        body = await json_of(request)
        model = model_in(body)
        host = self._choose(model)
        try:
            held = self._hive_for(host)
            answer = await pass_on(self._asker, held, request.url.path, body, _why)
        except RefusedError as error:
            self._host_of.pop(model, None)
            if error.status == _UNAVAILABLE and host in self._hives:
                # Another machine may do better.
                self._hives[host].refused.add(model)
            raise
        if (hive := self._hives.get(host)) is not None:
            hive.refused.discard(model)
        return answer

    def _choose(self, model: str) -> str:
        """Choose a machine, and keep to it: also requests that come before the model is loaded."""
        best = self._host_of[model] = choose(model, self._hives.values(), self._host_of)
        return best

    @asynccontextmanager
    async def _hive_for(self, host: str) -> AsyncIterator[DaemonHandle]:
        hive, handle = await self._ensure(host)
        try:
            yield handle
        finally:
            # Whoever looks now is to see the worker that this has needed.
            self._tasks.start_soon(self._ask, hive, handle)

    async def stop(self, _request: Request) -> JSONResponse:
        """Stop all hives, and with them their workers, and then end, too.

        From here on no hive is started. One that is being started is waited for.
        """
        self._leaving = True
        told: list[dict[str, Any]] = []
        try:
            async with trio.open_nursery() as nursery:
                for hive in list(self._hives.values()):
                    nursery.start_soon(self._stop, hive, told)
        finally:
            self._tasks.start_soon(self._end_soon)
        # They end in any order.
        return JSONResponse({"hives": sorted(told, key=lambda each: str(each["host"]))})

    async def _end_soon(self) -> None:
        """End where the keeper, who does that next, was interrupted."""
        await trio.sleep(_KEEPER_S)
        self.over.set()

    async def _stop(self, hive: Hive, told: list[dict[str, Any]]) -> None:
        async with hive.turn:
            await self._stop_now(hive, told)

    async def _stop_now(self, hive: Hive, told: list[dict[str, Any]]) -> None:
        try:
            handle = hive.handle
            if handle is None and hive.state != "offline":
                handle = await self._lifecycles.find(hive.host)
            if handle is None:
                await self._note(hive, "offline")
                return
            hive.leaving = True
            report = await handle.stop()
            if hive.told is not None:
                with trio.move_on_after(_LAST_WORDS_S):
                    await hive.told.wait()
            await self._note(hive, "offline")
            told.append({"host": hive.host, "pid": handle.pid, "seconds": report.seconds})
        except LifecycleError as error:
            what = f"the hive on {hive.host} can't be stopped"
            told.append({"host": hive.host, "error": sentence_of(error, what)})

    # --- hives ---

    def take_up(self, known: Iterable[HiveRecord]) -> None:
        """Find the hives that an earlier queen has left running."""
        for record in known:
            hive = self._hives[record.host] = Hive(record.host, record.state)
            hive.heard_at = record.heard_at
            if record.state != "offline":
                self._tasks.start_soon(self._find, hive)

    async def _find(self, hive: Hive) -> None:
        """Find a hive again, however long its machine is out of reach."""
        while hive.handle is None and not self._leaving:
            try:
                handle = await self._lifecycles.find(hive.host)
            except LifecycleError:
                await self._note(hive, "unknown")
                await trio.sleep(HEARTBEAT_S)
                continue
            async with hive.turn:
                await self._take(hive, handle)
            return

    async def _take(self, hive: Hive, found: DaemonHandle | None) -> None:
        # Meanwhile somebody may have had it started, or stopped: then it is known how it is.
        if hive.handle is not None or self._leaving:
            return
        if found is not None:
            self._watch(hive, found)
        else:
            await self._note(hive, "offline")

    async def _ensure(self, host: str) -> tuple[Hive, DaemonHandle]:
        hive = self._hives.setdefault(host, Hive(host))
        async with hive.turn:
            # Else it was forgotten meanwhile, and perhaps somebody has another one's turn.
            if self._hives.setdefault(host, hive) is hive:
                return hive, await self._ensure_now(hive)
        return await self._ensure(host)

    async def _ensure_now(self, hive: Hive) -> DaemonHandle:
        if self._leaving:
            raise RefusedError("the queen is being stopped; ask again, and get a new one", 503)
        try:
            if hive.handle is None:
                # First of all: if the queen is killed now, the next one is to look for it.
                await self._registry.note(hive.host, "unknown")
            handle = await self._lifecycles.of(hive.host).ensure_running()
        except (LifecycleError, HiveRegistryError) as error:
            if not isinstance(error, DaemonStateUnknownError):
                # Cancelled meanwhile, nobody is left to be told.
                await self._take_back(hive)  # noqa: ASYNC120
            what = f"there is no hive on {hive.host}"
            raise RefusedError(sentence_of(error, what), 503) from error
        self._watch(hive, handle)
        if hive.state != "online":
            await self._note(hive, "online")
        return handle

    async def _take_back(self, hive: Hive) -> None:
        """Remember a hive that was not started as before; of a misspelt machine, there is none."""
        if hive.heard_at or hive.handle is not None:
            await self._remember(self._registry.note(hive.host, hive.state))
        else:
            self._hives.pop(hive.host, None)
            await self._remember(self._registry.forget(hive.host))

    def _watch(self, hive: Hive, handle: DaemonHandle) -> None:
        """Keep an eye on a process of a hive, unless that is done already."""
        before, hive.handle, hive.leaving = hive.handle, handle, False
        if before is None or before.instance_id != handle.instance_id:
            self._tasks.start_soon(self._ask_on, hive, handle.instance_id)
            told = hive.told = trio.Event()
            self._tasks.start_soon(listen, hive, handle.instance_id, told, self._asker, self._hub)

    async def _ask_on(self, hive: Hive, instance_id: str) -> None:
        """Ask a hive how it is, again and again, until it is gone."""
        while (handle := hive.handle) is not None and handle.instance_id == instance_id:
            await self._ask(hive, handle)
            await trio.sleep(HEARTBEAT_S)

    async def _ask(self, hive: Hive, handle: DaemonHandle) -> None:
        async with hive.look:
            if hive.handle is handle:
                await self._ask_now(hive, handle)

    async def _ask_now(self, hive: Hive, handle: DaemonHandle) -> None:
        try:
            with trio.fail_after(_ANSWER_S):
                hive.facts = await self._asker.get(address(handle, "/health"))
        except (AskingError, trio.TooSlowError):
            if not hive.leaving:
                await self._note(hive, "unknown")
            if await handle.check() == "gone" and hive.handle is handle:
                hive.handle, hive.facts = None, {}
                await _tell_of_death(handle)
                await self._note(hive, "offline")
        else:
            hive.heard_at = time.time()
            await self._note(hive, "online")

    async def _note(self, hive: Hive, state: HiveState) -> None:
        if hive.state != state:
            self._hub.pass_on(
                {
                    "by": self._hub.by,
                    "event": "hive_noted",
                    "name": f"rbee-hive@{hive.host}",
                    "time": time.time(),
                    "state": state,
                }
            )
        hive.state = state
        await self._remember(self._registry.note(hive.host, state))

    async def _remember(self, noting: Awaitable[None]) -> None:
        """Have something noted; that it can't be is shown, and is no reason to leave the hives."""
        try:
            await noting
        except HiveRegistryError as error:
            self._problem = str(error)
        else:
            self._problem = None


def _host_in(body: dict[str, Any]) -> str:
    host = body.get("host")
    if not isinstance(host, str) or not host:
        raise RefusedError("host must be the name of a machine")
    return host


async def _tell_of_death(handle: DaemonHandle) -> None:
    """Have observers hear that a hive has died."""
    with suppress(LifecycleError):
        await handle.stop()


async def _why(handle: DaemonHandle, error: AskingError) -> str:
    """Say what became of a hive that does not answer; one that refuses has said it."""
    return await why_silent(handle, error) if isinstance(error, NoAnswerError) else str(error)


async def keep_queen(options: argparse.Namespace) -> None:
    """Be the queen until SIGTERM; hives run on."""
    hub = Hub("queen-rbee")
    words = ["--models", str(options.models)] if options.models else []
    lifecycles = HiveLifecycles([*words, "--idle", str(options.idle)], hub.observe)
    registry = HiveRegistry(options.database)
    # In no nursery yet, so that what is wrong leaves as it is.
    known = await registry.hives()
    with stop_signals() as signals:
        async with Asker() as asker, trio.open_nursery() as tasks:
            queen = Queen(lifecycles, registry, asker, hub, tasks)
            queen.take_up(known)
            async with serving(options.port, *queen.routes):
                await asked_to_stop(signals, queen.over)
                hub.close()
            tasks.cancel_scope.cancel()


def main() -> int:
    """Serve until SIGTERM.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="queen-rbee", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where it serves, on 127.0.0.1")
    parser.add_argument("--database", type=Path, required=True, help="where hives are remembered")
    parser.add_argument("--models", type=Path, help="the folder with models, on each machine")
    parser.add_argument("--idle", type=seconds, default=300.0, help="seconds until a worker ends")
    try:
        trio.run(keep_queen, parser.parse_args())
    except HiveRegistryError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
