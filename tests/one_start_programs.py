"""Programs that want one daemon at one moment, forked from a parent that never ran Trio.

Each is a process of its own; none has to import anything, so that twenty are up at once.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import trio
from attrs import define

from tests.support import QUICK_PYTHON, bearing, lives, wait_until_none_bears
from trio_lifecycle import (
    FREE_PORT,
    Callback,
    DaemonHandle,
    DaemonLifecycle,
    DaemonRecord,
    Event,
    HealthCheck,
    LifecycleConfig,
    LocalSpawner,
    SQLiteRegistry,
    attach,
)
from trio_lifecycle import _loopback_http as loopback_http

# In the environment of all that a program of this kind has started.
MARKER: Final = "ONE_START_PROGRAM"

# Writes of itself into DIRECTORY/starts when it starts: its number, and whether it was alone. Two
# at once can't be: each holds a lock, and one on its log file, which the kernel frees at its end.
# With "hold" it comes up when DIRECTORY/go is there.
DAEMON: Final = """
import fcntl, os, socket, sys, time

directory, ready, port, hold = sys.argv[1:]

def look(descriptor):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another"
    return "alone"

how = look(os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT, 0o600)), look(1)
starts = os.open(f"{directory}/starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(starts, f"{os.getpid()} {how[0]} {how[1]}\\n".encode())
print("started", os.getpid(), flush=True)
while hold and not os.path.exists(f"{directory}/go"):
    time.sleep(0.002)
if ready == "callback":
    host, _, path = os.environ["TRIO_LIFECYCLE_CALLBACK_URL"].removeprefix("http://").partition("/")
    name, _, number = host.partition(":")
    try:
        caller = socket.create_connection((name, int(number)))
        head = f"POST /{path} HTTP/1.1\\r\\nHost: {host}\\r\\nContent-Length: 2\\r\\n\\r\\n"
        caller.sendall(head.encode() + b"{}")
        caller.recv(4096)
    except OSError:
        pass
    while True:
        time.sleep(1000)
server = socket.socket()
server.bind(("127.0.0.1", int(port)))
server.listen(1024)
while True:
    guest, _ = server.accept()
    try:
        guest.recv(4096)
        guest.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    except OSError:
        pass
    guest.close()
"""


def daemon(
    directory: Path,
    ready: str = "health",
    *,
    port: int | None = None,
    hold: bool = False,
    **changes: Any,
) -> LifecycleConfig:
    """A real one that answers, or calls back, and notes each of its starts."""
    place = FREE_PORT if port is None else str(port)
    words = [str(directory), ready, place if ready == "health" else "", "hold" if hold else ""]
    mode = HealthCheck(f"http://127.0.0.1:{place}/") if ready == "health" else Callback()
    usual: dict[str, Any] = {"name": "daemon", "ready_mode": mode, "detach": True}
    return LifecycleConfig(
        sys.executable, args=[*QUICK_PYTHON, DAEMON, *words], **(usual | changes)
    )


def starts(directory: Path) -> list[list[str]]:
    """What the daemons noted of their starts: pid, alone or not, alone in its log file or not."""
    file = directory / "starts"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def state_home(directory: Path) -> Path:
    """Where the registry of a directory's programs is."""
    return directory / "state"


# --- programs -------------------------------------------------------------------------------------


@define
class Program:
    """A program that was forked.

    Attributes:
        pid: Its number; it is nobody else's until ``answer`` or ``kill`` has waited for it.
        mark: What all that it starts has in its environment, under MARKER.
    """

    pid: int
    mark: str
    _words: int

    def answer(self) -> Any:
        """Wait for its end, and give what it has to say."""
        with os.fdopen(self._words) as words:
            said = words.read()
        os.waitpid(self.pid, 0)
        found = json.loads(said) if said else {"failed": "it was killed"}
        if "failed" in found:
            raise AssertionError(found["failed"])
        return found["said"]

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._words)


def program(
    directory: Path, work: Callable[[], Awaitable[object]], start: tuple[int, int] | None = None
) -> Program:
    """Fork a program that does some work under Trio.

    Args:
        directory: Whose registry it has.
        work: What it does; what that returns is its answer.
        start: The two ends of a pipe; it begins when the end to write is closed by all others.
    """
    loopback_http.prepare()
    mark = os.urandom(16).hex()
    words, said = os.pipe()
    pid = os.fork()
    if pid:
        os.close(said)
        return Program(pid, mark, words)
    try:
        os.environ |= {"XDG_STATE_HOME": str(state_home(directory)), MARKER: mark}
        if start is not None:
            os.close(start[1])
            os.read(start[0], 1)
        answer = {"said": trio.run(work)}
    except BaseException:  # noqa: ASYNC103 - the program ends here, and its parent hears of it
        answer = {"failed": traceback.format_exc()}
    os.write(said, json.dumps(answer).encode())
    os._exit(0)


def at_once(directory: Path, works: Sequence[Callable[[], Awaitable[object]]]) -> list[Program]:
    """Fork programs, and let them begin at one moment."""
    start = os.pipe()
    programs = [program(directory, work, start) for work in works]
    for end in start:
        os.close(end)
    return programs


def told(handle: DaemonHandle) -> dict[str, Any]:
    """What one who has it knows of a daemon."""
    return {"instance": handle.instance_id, "pid": handle.pid, "origin": handle.origin}


async def ask(lifecycles: Sequence[DaemonLifecycle]) -> list[dict[str, Any]]:
    """Ask for a daemon in as many tasks at once."""
    answers = []

    async def ask_once(lifecycle: DaemonLifecycle) -> None:
        answers.append(told(await lifecycle.ensure_running()))

    async with trio.open_nursery() as nursery:
        for lifecycle in lifecycles:
            nursery.start_soon(ask_once, lifecycle)
    return answers


async def take_up_and_stop(config: LifecycleConfig) -> dict[str, Any]:
    """Find it, as its record says and as who wants it does; then stop it."""
    record = await SQLiteRegistry().get(config.name)
    assert record is not None
    found = told(await attach(config.name))
    handle = await DaemonLifecycle(config).ensure_running()
    assert (found["instance"], found["pid"]) == (handle.instance_id, handle.pid)
    await handle.stop()
    assert [] == await SQLiteRegistry().daemons()
    recorded = {"instance": record.instance_id, "pid": record.pid, "state": record.state}
    return {**told(handle), "recorded": recorded}


# --- what they are tried with ---------------------------------------------------------------------


def crowd(directory: Path, programs: int, tasks: int) -> list[dict[str, Any]]:
    """Have many programs ask at one moment, each in many tasks; give all answers.

    In every other program each task has a lifecycle of its own.
    """
    config = daemon(directory)

    async def one_for_all() -> object:
        return await ask([DaemonLifecycle(config)] * tasks)

    async def one_each() -> object:
        return await ask([DaemonLifecycle(config) for _ in range(tasks)])

    works = [one_each if number % 2 else one_for_all for number in range(programs)]
    return [answer for each in at_once(directory, works) for answer in each.answer()]


def after_it(directory: Path, config: LifecycleConfig, marks: Sequence[str] = ()) -> Any:
    """Have a new program take the daemon up and stop it; nothing bears the marks then."""
    found = program(directory, partial(take_up_and_stop, config)).answer()
    for mark in marks:
        wait_until_none_bears(MARKER, mark)
    return found


def strike(
    directory: Path, ready: str, random: Random, longest_s: float, victims: int = 1, others: int = 1
) -> None:
    """Kill programs that start a daemon, each at a random moment; the others have one and the same.

    Raises:
        AssertionError: They have not, or there ever were two.
    """
    config = daemon(directory, ready)
    works = [partial(ask, [DaemonLifecycle(config)])] * (victims + others)
    programs = at_once(directory, works)
    for victim in programs[:victims]:
        time.sleep(random.uniform(0, longest_s) / victims)
        victim.kill()
    answers = [answer for other in programs[victims:] for answer in other.answer()]
    lines = starts(directory)
    assert all(line[1:] == ["alone", "alone"] for line in lines), lines
    *former, pid = (int(line[0]) for line in lines)
    assert [pid] == [each for each in (*former, pid) if lives(each)], lines
    found = after_it(directory, config, [each.mark for each in programs])
    facts = {"instance": found["instance"], "pid": pid}
    assert {**facts, "state": "ready"} == found["recorded"]
    assert all(facts.items() <= answer.items() for answer in answers), (answers, found)


# --- killed at one point --------------------------------------------------------------------------


# In their order. At "opened" the daemon has started, and is not up yet.
POINTS: Final = (
    *("claimed", "checked", "preflight", "spawned", "recorded", "opened", "ready", "noted"),
)
# An answer cannot come in between: who holds the claim goes on only when it is told to.
_GO_ON: Final = b"."


class Halting(SQLiteRegistry):
    """The user's registry, with halts around what a start does with it."""

    def __init__(self, halt: Callable[[str], Awaitable[None]]) -> None:
        super().__init__()
        self._halt = halt

    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        """Halt once it is held."""
        async with super().claim(name):
            await self._halt("claimed")
            yield

    async def put(self, record: DaemonRecord) -> None:
        """Halt before and after a process is recorded."""
        await self._halt("spawned")
        await super().put(record)
        await self._halt("recorded")

    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        """Halt before and after "ready" is written."""
        await self._halt("ready")
        done = await super().replace(old, new)
        await self._halt("noted")
        return done


class HaltingSpawner(LocalSpawner):
    """This machine, with a halt when it was seen that no daemon runs."""

    def __init__(self, halt: Callable[[str], Awaitable[None]]) -> None:
        super().__init__()
        self._halt = halt

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        """Halt before the program is looked for."""
        await self._halt("checked")
        return await super().find_binary(name, search_path)


async def start_up_to(point: str, config: LifecycleConfig, says: int, hears: int) -> object:
    """Claim the daemon and say so; when told to go on, start it up to this point, and stay there.

    The halts block this program as a whole: it has nothing else to do.
    """
    is_first = True

    async def halt(here: str) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            os.write(says, _GO_ON)
            os.read(hears, 1)
        if here == point:
            os.write(says, _GO_ON)
            await trio.sleep_forever()

    lifecycle = DaemonLifecycle(
        config,
        registry=Halting(halt),
        spawner=HaltingSpawner(halt),
        preflight=[partial(halt, "preflight")],
    )
    await lifecycle.ensure_running()
    raise AssertionError(f"there is no point {point!r}")


async def wait_in_line(config: LifecycleConfig, says: int) -> object:
    """Want the daemon, and say when somebody else has the claim; tell what became of it."""
    kinds = []

    def observe(event: Event) -> None:
        kinds.append(event.kind)
        if event.kind == "claim_awaited":
            os.write(says, _GO_ON)

    handle = await DaemonLifecycle(config, observer=observe).ensure_running()
    record = await SQLiteRegistry().get(config.name)
    assert record is not None
    recorded = (record.instance_id, record.pid, record.state)
    return {
        **told(handle),
        "kinds": kinds,
        "is_recorded": recorded == (handle.instance_id, handle.pid, "ready"),
    }


def killed_at(directory: Path, point: str, ready: str) -> dict[str, Any]:
    """Kill a starter at a point, with another program waiting; tell what that has got."""
    config = daemon(directory, ready, hold=True)
    (says, said), (hears, heard) = os.pipe(), os.pipe()
    if point != "opened":
        (directory / "go").touch()
    starter = program(directory, partial(start_up_to, point, config, said, hears))
    assert _GO_ON == os.read(says, 1)
    waiter = program(directory, partial(wait_in_line, config, said))
    assert _GO_ON == os.read(says, 1)
    os.write(heard, _GO_ON)
    if point == "opened":
        while not starts(directory):
            time.sleep(0.002)
    else:
        assert _GO_ON == os.read(says, 1)
    starter.kill()
    (directory / "go").touch()
    answer: dict[str, Any] = waiter.answer()
    if answer["origin"] == "spawned":
        wait_until_none_bears(MARKER, starter.mark)
    alive = [pid for mark in (starter.mark, waiter.mark) for pid in bearing(MARKER, mark)]
    seen = {**answer, "starts": starts(directory), "alive": alive}
    after_it(directory, config, (starter.mark, waiter.mark))
    return {**seen, "starts_in_the_end": len(starts(directory))}
