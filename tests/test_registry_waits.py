"""Waits for others in the same file: as long as they get on, and no longer."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.registries import path, record
from tests.support import PATIENCE_S, App, app
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.registry._patience import Patience
from trio_lifecycle.registry._sqlite import SQLiteRegistry

__all__ = ["path"]

STOPPED_IN_A_TRANSACTION = """
import sqlite3
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print("goes on", flush=True)
"""

STOPPED_WHILE_IT_MAKES_THE_FILE = """
import fcntl
held = os.open(sys.argv[1] + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print("goes on", flush=True)
"""


@pytest.fixture
def stopped(path: Path) -> Iterator[App]:
    """A program that was stopped in the middle of a transaction."""
    trio.run(SQLiteRegistry(path).put, record())
    with app(STOPPED_IN_A_TRANSACTION, str(path)) as program:
        assert "held" == program.say()
        # It says so a moment before; what comes in between would not wake it any more.
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        yield program


async def test_a_program_that_was_stopped_in_the_middle_keeps_no_reader_away(
    path: Path, stopped: App
) -> None:
    with trio.fail_after(PATIENCE_S):
        for call in (SQLiteRegistry(path).daemons, lambda: SQLiteRegistry(path).get("queen")):
            assert await call() in (record(), [record()])
        assert record() == (await anext(SQLiteRegistry(path).watch())).record


@pytest.mark.parametrize("what", ["put", "replace", "remove"])
async def test_a_writer_is_told_who_was_stopped_in_the_middle(
    path: Path, stopped: App, what: str, autojump_clock: MockClock
) -> None:
    registry = SQLiteRegistry(path)
    new = record(state="stopping")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "put": lambda: registry.put(new),
        "replace": lambda: registry.replace(record(), new),
        "remove": lambda: registry.remove(record()),
    }
    with pytest.raises(RegistryError) as caught:
        await calls[what]()
    assert f"process {stopped.pid} (" in caught.value.problem
    assert "has not got on for 10 s" in caught.value.problem
    assert f"(kill -CONT {stopped.pid})" in caught.value.problem
    assert str(path) == caught.value.registry
    assert 10.0 <= trio.current_time() < 11.0
    assert record() == await registry.get("queen")


async def test_everybody_is_told_who_was_stopped_while_it_made_the_file(
    path: Path, autojump_clock: MockClock
) -> None:
    path.parent.mkdir(mode=0o700)
    registry = SQLiteRegistry(path)
    with app(STOPPED_WHILE_IT_MAKES_THE_FILE, str(path)) as program:
        assert "held" == program.say()
        for call in (registry.daemons, lambda: registry.put(record())):
            with pytest.raises(RegistryError, match=rf"process {program.pid} \(.*10 s"):
                await call()
    assert [] == await registry.daemons()


async def test_a_program_that_goes_on_is_waited_for(path: Path, stopped: App) -> None:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(SQLiteRegistry(path).put, record("worker"))
            await trio.testing.wait_all_tasks_blocked(0.001)
            os.kill(stopped.pid, signal.SIGCONT)
    assert 2 == len(await SQLiteRegistry(path).daemons())


async def wait_for_ever(patience: Patience) -> None:
    while True:
        await patience.pause()


async def test_patience_begins_anew_whenever_somebody_gets_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "registry.sqlite"
    patience = Patience(str(path))
    for number in range(5):
        Path(f"{path}-wal").write_bytes(bytes(number))
        ends_at = trio.current_time() + 9
        while trio.current_time() < ends_at:
            await patience.pause()
    with pytest.raises(RegistryError, match="another program keeps it locked"):
        await wait_for_ever(patience)
    assert 5 * 9 < trio.current_time() < 5 * 9 + 2
