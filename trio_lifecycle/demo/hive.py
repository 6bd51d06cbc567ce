"""rbee-hive: has a worker for each model that is asked for, and passes requests on to it."""

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

from trio_lifecycle import (
    DaemonHandle,
    DaemonLifecycle,
    DaemonNotRunningError,
    DaemonNursery,
    Event,
    LifecycleError,
    open_daemon_nursery,
)
from trio_lifecycle.demo._asking import DEATH_KNOWN_S, Asker, AskingError, NoAnswerError
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.demo._models import HASHING, Model, ModelError, find_model, model_names
from trio_lifecycle.demo._options import seconds
from trio_lifecycle.demo._passing import pass_on
from trio_lifecycle.demo._programs import PYTHON
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo._serving import (
    JSONResponse,
    RefusedError,
    Request,
    Response,
    Route,
    Server,
    asked_to_stop,
    event_route,
    json_of,
    memory_mib,
    model_in,
    stop_signals,
)
from trio_lifecycle.demo._workers import Worker
from trio_lifecycle.demo.embedding_lifecycle import embedding_worker
from trio_lifecycle.demo.hive_lifecycle import llama_server, worker

# A model that nobody has asked for in so long makes room for others.
DEFAULT_IDLE_S: Final = 300.0

# Only who waits for an answer asks for one, and that at once.
_DEATHS_KEPT: Final = 100

# The status where a worker has nothing of the kind.
_NOT_SERVED: Final = 404


class Hive:
    """The workers of one machine.

    Args:
        name: The machine, as the queen calls it.
        folder: Where models are.
        idle_s: After how many seconds without a request a worker is ended.
        daemons: Owns the workers.
        asker: Asks them.
        hub: Passes on what happens to them.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None,
        idle_s: float,
        daemons: DaemonNursery,
        asker: Asker,
        hub: Hub,
    ) -> None:
        self._name = name
        self._folder = folder
        self._idle_s = idle_s
        self._daemons = daemons
        self._asker = asker
        self._hub = hub
        self._workers: dict[str, Worker] = {}
        self._deaths: dict[str, str] = {}
        self._next_death = trio.Event()

    @property
    def routes(self) -> list[Route]:
        """What it serves."""
        return [
            Route("/health", self.health),
            Route("/load", self.load, methods=["POST"]),
            Route("/v1/completions", self.pass_on, methods=["POST"]),
            Route("/v1/embeddings", self.pass_on, methods=["POST"]),
            event_route(self._hub),
        ]

    # --- requests ---

    async def health(self, _request: Request) -> JSONResponse:
        """Say what it has."""
        facts = {
            "name": self._name,
            "pid": os.getpid(),
            "memory_mib": memory_mib(),
            "models": model_names(self._folder),
            "workers": [self._facts(each) for each in self._workers.values()],
        }
        return JSONResponse(facts)

    def _facts(self, each: Worker) -> dict[str, Any]:
        handle = each.handle if each.daemon in self._daemons else None
        return {
            "model": each.model,
            "name": each.daemon,
            "state": "up" if handle else "loading" if each.uses else "gone",
            "instance_id": handle and handle.instance_id,
            "pid": handle and handle.pid,
            "ready_after_s": handle and handle.ready_after_s,
            "memory_mib": handle and handle.report.get("memory_mib"),
            "requests": each.uses,
        }

    async def load(self, request: Request) -> JSONResponse:
        """Have a model loaded, without asking it anything."""
        async with self._worker_of(model_in(await json_of(request))) as handle:
            return JSONResponse({"pid": handle.pid})

    async def pass_on(self, request: Request) -> Response:
        """Have the model loaded, ask its worker, and pass on the answer as it comes."""
        body = await json_of(request)
        worker = self._worker_of(model_in(body))
        return await pass_on(self._asker, worker, request.url.path, body, self._why)

    async def _why(self, handle: DaemonHandle, error: AskingError) -> str:
        """Say what became of a worker that does not answer; one that refuses has said why."""
        if error.status == _NOT_SERVED:
            return f"{self._name}: {handle.name} can't do that: {error}"
        if not isinstance(error, NoAnswerError):
            return str(error)
        with trio.move_on_after(DEATH_KNOWN_S):
            while handle.instance_id not in self._deaths:
                await self._next_death.wait()
        death = self._deaths.get(handle.instance_id)
        return f"{self._name}: {death}; ask again to have it loaded anew" if death else str(error)

    # --- workers ---

    @asynccontextmanager
    async def _worker_of(self, name: str) -> AsyncIterator[DaemonHandle]:
        """Have the worker of a model up, and keep it so for the length of a block."""
        try:
            lifecycle = self._describe(find_model(name, self._folder))
        except ModelError as error:
            raise RefusedError(f"{self._name}: {error}", 404) from error
        except LifecycleError as error:
            what = f"{self._name}: the model {name!r} can't be loaded"
            raise RefusedError(sentence_of(error, what), 404) from error
        each = self._workers.setdefault(name, Worker(name, lifecycle.config.name))
        async with each.used():
            try:
                each.handle = await self._daemons.ensure_running(lifecycle)
            except DaemonNotRunningError as error:
                what = f"{self._name}: the hive is being stopped; ask again to have a new one"
                raise RefusedError(what, 503) from error
            except LifecycleError as error:
                what = f"{self._name}: the model {name!r} can't be loaded"
                raise RefusedError(sentence_of(error, what), 503) from error
            yield each.handle

    def _describe(self, model: Model) -> DaemonLifecycle:
        if model.is_gguf:
            self._check_llama_cpp(model)
            return llama_server(model, self.observe)
        if model.name == HASHING:
            return embedding_worker(model, self.observe)
        return worker("llm-worker-rbee", model, self.observe)

    def _check_llama_cpp(self, model: Model) -> None:
        if importlib.util.find_spec("llama_cpp") is None:
            cure = f"{shlex.quote(PYTHON)} -m pip install 'llama-cpp-python[server]'"
            what = f"{self._name}: the model {model.name!r} can't be loaded: it needs llama.cpp"
            raise RefusedError(f"{what}; get it there with: {cure}", 503)

    def observe(self, event: Event) -> None:
        """Hear what happens to workers: a death is reported to whoever waits for an answer."""
        self._hub.observe(event)
        if event.kind == "died":
            self._deaths[event.instance_id] = str(event)
            while len(self._deaths) > _DEATHS_KEPT:
                del self._deaths[next(iter(self._deaths))]
            self._next_death.set()
            self._next_death = trio.Event()

    async def end_idle(self) -> None:
        """End workers that nobody has needed for long, for good."""
        while True:
            await trio.sleep(self._idle_s / 10)
            for each in list(self._workers.values()):
                if each.daemon in self._daemons:
                    async with each.turn:
                        if each.is_idle(self._idle_s):
                            # One that can't be ended is no reason to end the others.
                            with suppress(LifecycleError):
                                await self._daemons.stop(each.daemon)


async def keep_hive(options: argparse.Namespace) -> None:
    """Be a hive until SIGTERM: then its workers go first, and whoever listens hears of it."""
    hub, server = Hub(f"rbee-hive@{options.name}"), Server(options.port)
    with stop_signals() as signals:
        async with Asker() as asker, trio.open_nursery() as tasks:
            try:
                async with open_daemon_nursery() as daemons:
                    hive = Hive(options.name, options.models, options.idle, daemons, asker, hub)
                    await tasks.start(server.run, *hive.routes)
                    tasks.start_soon(hive.end_idle)
                    await asked_to_stop(signals)
            finally:
                hub.close()
                server.over.set()
            # The server shields itself, and ends when all is answered.
            tasks.cancel_scope.cancel()


def main() -> int:
    """Serve until SIGTERM.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="rbee-hive", description=__doc__)
    parser.add_argument("--name", default="localhost", help="the machine, as the queen calls it")
    parser.add_argument("--port", type=int, required=True, help="where it serves, on 127.0.0.1")
    parser.add_argument("--models", type=Path, help="the folder with models")
    parser.add_argument(
        "--idle", type=seconds, default=DEFAULT_IDLE_S, help="seconds until an idle worker ends"
    )
    trio.run(keep_hive, parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
