"""queen-rbee: knows the hives, starts them, and gives each request to one that has the model."""

import argparse
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio
from attrs import define

from trio_lifecycle import DaemonHandle, LifecycleError
from trio_lifecycle.demo._asking import NO_ANSWER, Asker, AskingError, address, lines_of
from trio_lifecycle.demo._hive_registry import HiveRegistry, HiveState
from trio_lifecycle.demo._hives import Hive
from trio_lifecycle.demo._hub import Hub
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
from trio_lifecycle.demo.queen_lifecycle import HERE, HiveLifecycles

# How often a hive is asked how it is, and how long it may take to say so.
HEARTBEAT_S: Final = 1.0
_ANSWER_S: Final = 2.0

# What a hive tells last is under way when it has ended.
_LAST_WORDS_S: Final = 1.0

# The keeper who had the hives stopped stops the queen within milliseconds.
_KEEPER_S: Final = 1.0

# A connection may break before it is known that the process behind it has died.
_DEATH_KNOWN_S: Final = 1.0


@define
class _Listening:
    """How far a hive's events were heard, and whether there will be more."""

    heard: int = 0
    is_over: bool = False


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
        self.over: trio.Event = trio.Event()

    @property
    def routes(self) -> list[Route]:
        """What it serves."""
        return [
            Route("/health", self.health),
            Route("/hives", self.add_hive, methods=["POST"]),
            Route("/stop", self.stop, methods=["POST"]),
            Route("/v1/completions", self.pass_on, methods=["POST"]),
            Route("/v1/embeddings", self.pass_on, methods=["POST"]),
            event_route(self._hub),
        ]

    # --- requests ---

    async def health(self, _request: Request) -> JSONResponse:
        """Say what is known of each hive."""
        hives = [hive.as_dict() for hive in self._hives.values()]
        return JSONResponse({"pid": os.getpid(), "memory_mib": memory_mib(), "hives": hives})

    async def add_hive(self, request: Request) -> JSONResponse:
        """Have a hive on a machine."""
        host = (await json_of(request)).get("host")
        if not isinstance(host, str) or not host:
            raise RefusedError("host must be the name of a machine")
        hive, _ = await self._ensure(host)
        return JSONResponse(hive.as_dict())

    async def pass_on(self, request: Request) -> Response:
        """Give a request to a hive, and pass on its answer as it comes."""
        body = await json_of(request)
        model = model_in(body)
        hive = self._hive_for(self._choose(model))
        try:
            return await pass_on(self._asker, hive, request.url.path, body, _why)
        except RefusedError:
            # Another machine may do better.
            self._host_of.pop(model, None)
            raise

    def _choose(self, model: str) -> str:
        """Choose a machine: that which has the model, or else the one with the fewest models.

        The choice is kept, so that requests that come before the model is loaded go there, too.
        """
        online = [hive for hive in self._hives.values() if hive.state == "online"]
        before = self._host_of.get(model)
        if before is not None and (not online or before in [hive.host for hive in online]):
            return before
        having = [hive for hive in online if model in hive.models]
        least = min(having or online, key=lambda hive: len(hive.models), default=Hive(HERE))
        self._host_of[model] = least.host
        return least.host

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
            handle = hive.handle or await self._lifecycles.find(hive.host)
            if handle is None:
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

    async def take_up(self) -> None:
        """Find the hives that an earlier queen has left running."""
        for record in await self._registry.hives():
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
            # Meanwhile somebody may have asked it for something.
            if handle is not None and hive.handle is None:
                self._watch(hive, handle)
            elif hive.handle is None:
                await self._note(hive, "offline")
            return

    async def _ensure(self, host: str) -> tuple[Hive, DaemonHandle]:
        hive = self._hives.setdefault(host, Hive(host))
        async with hive.turn:
            if self._leaving:
                raise RefusedError("the queen is being stopped; ask again, and get a new one", 503)
            try:
                handle = await self._lifecycles.of(host).ensure_running()
            except LifecycleError as error:
                self._forget_unheard(hive)
                what = f"there is no hive on {host}"
                raise RefusedError(sentence_of(error, what), 503) from error
            self._hives[host] = hive
            self._watch(hive, handle)
            if hive.state != "online":
                await self._note(hive, "online")
            return hive, handle

    def _forget_unheard(self, hive: Hive) -> None:
        """A machine whose name was misspelt is no hive."""
        if not hive.heard_at and hive.handle is None:
            self._hives.pop(hive.host, None)

    def _watch(self, hive: Hive, handle: DaemonHandle) -> None:
        """Keep an eye on a process of a hive, unless that is done already."""
        before, hive.handle, hive.leaving = hive.handle, handle, False
        if before is None or before.instance_id != handle.instance_id:
            self._tasks.start_soon(self._ask_on, hive, handle.instance_id)
            told = hive.told = trio.Event()
            self._tasks.start_soon(self._listen, hive, handle.instance_id, told)

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
        await self._registry.note(hive.host, state)

    async def _listen(self, hive: Hive, instance_id: str, told: trio.Event) -> None:
        """Pass on what a hive tells of its workers, until it has told all, or is gone."""
        listening = _Listening()
        while (handle := hive.handle) is not None and handle.instance_id == instance_id:
            url = address(handle, f"/events?after={listening.heard}")
            await self._hear(hive.host, url, listening)
            if listening.is_over:
                break
            # The connection was lost; or the hive was, and the heartbeat is about to say so.
            await trio.sleep(HEARTBEAT_S)
        told.set()

    async def _hear(self, host: str, url: str, listening: _Listening) -> None:
        elsewhere = {} if host == HERE else {"host": host}
        try:
            async with self._asker.stream("GET", url) as bits, aclosing(lines_of(bits)) as lines:
                async for line in lines:
                    self._hub.pass_on(json.loads(line) | elsewhere)
                    listening.heard += 1
            listening.is_over = True
        except (AskingError, ValueError):
            pass


async def _why(handle: DaemonHandle, error: AskingError) -> str:
    """Say what became of a hive that does not answer; one that refuses has said it."""
    if error.status == NO_ANSWER:
        with trio.move_on_after(_DEATH_KNOWN_S):
            await handle.wait_exit()
            return f"{handle.name} has ended while it answered; ask again to have it started anew"
    return str(error)


async def keep_queen(options: argparse.Namespace) -> None:
    """Be the queen until SIGTERM; hives run on."""
    hub = Hub("queen-rbee")
    words = ["--models", str(options.models)] if options.models else []
    lifecycles = HiveLifecycles([*words, "--idle", str(options.idle)], hub.observe)
    registry = HiveRegistry(options.database)
    with stop_signals() as signals:
        async with Asker() as asker, trio.open_nursery() as tasks:
            queen = Queen(lifecycles, registry, asker, hub, tasks)
            await queen.take_up()
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
    trio.run(keep_queen, parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
