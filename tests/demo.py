"""The four programs of the demo, at home in a folder of their own."""

import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import trio

from tests.support import PATIENCE_S
from trio_lifecycle import SQLiteRegistry
from trio_lifecycle._ports import reserve_port
from trio_lifecycle._state_dir import registry_path
from trio_lifecycle.abc import DaemonRecord
from trio_lifecycle.demo._programs import PROGRAMS

Event = dict[str, Any]


class System:
    """A queen with her hives and workers, as far as keepers have them started.

    Args:
        folder: Where all they know is, and their models, in ``models``.

    Attributes:
        models: The folder of the models.
        environment: What a keeper's is.
        is_stopped: Whether a keeper was told last to stop it; in the end it is, if not.
    """

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.models.mkdir()
        self.is_stopped = True
        self.environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_stopped:
            self.keeper("stop")

    def words(self, *words: str) -> list[str]:
        """Give the command line of a keeper."""
        return [str(PROGRAMS / "rbee-keeper"), "--models", str(self.models), *words]

    def start(self, *words: str, command: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Start a keeper, or another program that is given its words."""
        self.is_stopped = "stop" in words or (self.is_stopped and "status" in words)
        keeper, *rest = self.words(*words)
        return subprocess.Popen(
            [*(command or [keeper]), *rest],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def keeper(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a keeper to its end."""
        return ended(self.start(*words))

    def status(self) -> dict[str, Any]:
        """Say what a keeper sees."""
        found: dict[str, Any] = json.loads(self.keeper("status", "--json").stdout)
        return found

    @property
    def is_recorded(self) -> bool:
        """Whether there was ever a queen that was up."""
        path = registry_path(self.environment)
        return path.exists() and self._record() is not None

    @property
    def url(self) -> str:
        """Where the queen is."""
        record = self._record()
        assert record is not None
        return f"http://127.0.0.1:{record.port}"

    @property
    def queen_pid(self) -> int:
        """Its process."""
        record = self._record()
        assert record is not None
        return record.pid

    def _record(self) -> DaemonRecord | None:
        with closing(SQLiteRegistry(registry_path(self.environment))) as registry:
            return trio.run(registry.get, "queen-rbee")


def unmeasured(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what has coverage measure programs, for a test whose code others measure."""
    return {k: v for k, v in environment.items() if not k.startswith("COVERAGE_")}


def ended(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    """Wait for the end of a program, and give what it has said."""
    with process:
        out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def client(url: str) -> httpx.Client:
    """Ask a service, with nothing of the environment."""
    return httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S)


def post(url: str, path: str, **body: Any) -> httpx.Response:
    """Send a JSON object."""
    with client(url) as asker:
        return asker.post(path, json=body)


@contextmanager
def events(url: str) -> Iterator[Iterator[Event]]:
    """Listen to all that was told and is told; it ends when the service does."""
    with client(url) as asker, asker.stream("GET", "/events") as answer:
        yield (json.loads(line) for line in answer.iter_lines())


def await_event(url: str, kind: str, name: str, **facts: Any) -> Event:
    """Wait until something is told; what was told before counts, too."""
    wanted = {"event": kind, "name": name, **facts}
    with events(url) as told:
        return next(event for event in told if wanted.items() <= event.items())


def told_so_far(url: str, kind: str) -> list[str]:
    """Give the names of those of whom something was told; it is over when nothing comes."""
    found: list[Event] = []
    with client(url) as asker, asker.stream("GET", "/events", timeout=0.5) as answer:
        try:
            found.extend(json.loads(line) for line in answer.iter_lines())
        except httpx.ReadTimeout:
            pass
    return sorted(event["name"] for event in found if event["event"] == kind)


def await_death(pid: int, within_s: float = PATIENCE_S) -> None:
    """Wait for the end of a process."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([pidfd], [], [], within_s)
    finally:
        os.close(pidfd)
    assert ready, f"process {pid} lives after {within_s} s"


def await_true(look: Callable[[], bool]) -> None:
    """Look again and again."""
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def hive(
    folder: Path, *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a hive alone; give it and its URL when it is up."""
    command = [str(PROGRAMS / "rbee-hive"), "--models", str(folder), *words]
    with service(*command, environment=environment) as alone:
        yield alone


@contextmanager
def service(
    *command: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run one of the services by itself; give it and its URL when it is up."""
    with reserve_port() as reserved:
        port = str(reserved.number)
        process = subprocess.Popen(
            [*command, "--port", port], env=environment, stderr=subprocess.PIPE, text=True
        )
    url = f"http://127.0.0.1:{port}"
    with process:
        try:
            await_true(lambda: is_up(url))
            yield process, url
        finally:
            process.terminate()


def is_up(url: str) -> bool:
    """Whether a service answers."""
    try:
        with client(url) as asker:
            return asker.get("/health").is_success
    except httpx.TransportError:
        return False


def at_once(*calls: Callable[[], object]) -> None:
    """Do several things at the same time."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
