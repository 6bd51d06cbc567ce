"""The registry of one machine: many programs, one file, and what happens to that file."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Container
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.registries import FORKING, execute, open_files, path, record
from tests.support import PATIENCE_S, ROOT, app, run_app
from trio_lifecycle import ConfigError
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle._state_dir import registry_path
from trio_lifecycle.abc import RecordChange
from trio_lifecycle.registry import _changes, _rows
from trio_lifecycle.registry._pauses import pauses
from trio_lifecycle.registry._session import Session
from trio_lifecycle.registry._sqlite import SQLiteRegistry

__all__ = ["path"]

# --- where it is ---


def test_the_registry_is_kept_with_the_state_of_its_user() -> None:
    expected = Path("/x/trio-lifecycle/registry.sqlite")
    assert expected == registry_path({"XDG_STATE_HOME": "/x"})


def test_nothing_is_touched_before_the_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    registry = SQLiteRegistry()
    expected = tmp_path / "trio-lifecycle" / "registry.sqlite"
    assert expected == registry.path
    assert f"SQLiteRegistry({str(expected)!r})" == repr(registry)
    registry.watch()
    registry.claim("queen")
    registry.close()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [7, b"/x", "", "/a\0b", object()])
def test_what_is_no_path_is_a_config_error(given: object) -> None:
    with pytest.raises(ConfigError, match="path: must be"):
        SQLiteRegistry(given)  # type: ignore[arg-type]


async def test_a_relative_path_stays_the_same_when_the_program_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    registry = SQLiteRegistry("sub/../registry.sqlite")
    monkeypatch.chdir("/")
    await registry.put(record())
    assert (tmp_path / "registry.sqlite").exists()


def test_a_relative_path_in_a_directory_that_is_gone_is_a_config_error(tmp_path: Path) -> None:
    code = """
os.rmdir(os.getcwd())
try:
    SQLiteRegistry("registry.sqlite")
except ConfigError as error:
    print(error)
"""
    (tmp_path / "gone").mkdir()
    (said,) = run_app(f"os.chdir({str(tmp_path / 'gone')!r})" + code)
    assert "path: registry.sqlite is relative, and the current directory is gone" in said


@pytest.mark.parametrize("name", ["a b?c#d%20", "k\xf6nigin", "\udcff", ":memory:", "file:x"])
async def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o700)
    one, other = SQLiteRegistry(tmp_path / name), SQLiteRegistry(tmp_path / name)
    await one.put(record())
    assert record() == await other.get("queen")
    assert (tmp_path / name).exists()


# --- many programs ---


PUT = """
from tests.registries import record
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry, mine = SQLiteRegistry(sys.argv[1]), sys.argv[2]

async def main():
    for number in range(int(sys.argv[3])):
        await registry.put(record(f"{mine}-{number:03}"))

print("ready", flush=True)
sys.stdin.readline()
trio.run(main)
"""


@pytest.mark.fault(90)
def test_programs_that_register_at_once_lose_nothing_of_each_other(path: Path) -> None:
    arguments = (str(path),)
    with (
        app(PUT, *arguments, "a", "50") as a,
        app(PUT, *arguments, "b", "50") as b,
        app(PUT, *arguments, "c", "50") as c,
        app(PUT, *arguments, "d", "50") as d,
    ):
        # The file is not there yet, so that they race for making it, too.
        running = (a, b, c, d)
        assert ["ready"] * 4 == [program.say() for program in running]
        for program in running:
            program.hear("go")
        assert [(0, "")] * 4 == [program.end() for program in running]
    found = trio.run(SQLiteRegistry(path).daemons)
    expected = [f"{mine}-{number:03}" for mine in "abcd" for number in range(50)]
    assert expected == [found.name for found in found]


def test_of_programs_that_replace_one_record_one_wins(path: Path) -> None:
    trio.run(SQLiteRegistry(path).put, record(state="starting"))
    code = """
from tests.registries import record
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry = SQLiteRegistry(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(trio.run(registry.replace, record(state="starting"), record(port=int(sys.argv[2]))))
"""
    with (
        app(code, str(path), "1") as a,
        app(code, str(path), "2") as b,
        app(code, str(path), "3") as c,
    ):
        running = (a, b, c)
        assert ["ready"] * 3 == [program.say() for program in running]
        for program in running:
            program.hear("go")
        said = [program.end()[1].strip() for program in running]
    winner = record(port=said.index("True") + 1)
    assert ["False", "False", "True"] == sorted(said)
    assert winner == trio.run(SQLiteRegistry(path).get, "queen")


async def test_what_a_killed_program_has_put_is_there(path: Path) -> None:
    code = """
from tests.registries import record
from trio_lifecycle.registry._sqlite import SQLiteRegistry

async def main():
    await SQLiteRegistry(sys.argv[1]).put(record())
    os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""
    with app(code, str(path)) as program:
        assert -9 == program.end()[0]
    assert record() == await SQLiteRegistry(path).get("queen")


async def test_a_watch_sees_what_another_program_puts(path: Path) -> None:
    registry = SQLiteRegistry(path)
    watch = registry.watch()
    await registry.put(record("first"))
    assert "first" == (await anext(watch)).record.name
    with app(PUT, str(path), "a", "3") as program:
        program.say()
        program.hear("go")
        with trio.fail_after(PATIENCE_S):
            names = [(await anext(watch)).record.name for _ in range(3)]
        assert (0, "") == program.end()
    assert ["a-000", "a-001", "a-002"] == names


# --- waiting for others ---


@pytest.mark.parametrize("what", ["put", "remove", "replace"])
async def test_a_wait_for_another_programs_transaction_can_be_cancelled(
    path: Path, what: str
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    new = record(state="stopping")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "put": partial(registry.put, new),
        "remove": partial(registry.remove, record()),
        "replace": partial(registry.replace, record(), new),
    }
    call = calls[what]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with trio.move_on_after(0.05) as scope:
            await call()
        assert scope.cancelled_caught
        # Who only reads is not kept.
        assert record() == await registry.get("queen")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked(0.01)
            other.execute("ROLLBACK")
    assert (None if what == "remove" else new) == await registry.get("queen")


async def test_a_wait_for_another_program_that_opens_the_file_can_be_cancelled(
    path: Path,
) -> None:
    code = """
import fcntl
held = os.open(sys.argv[1] + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""
    path.parent.mkdir(mode=0o700)
    registry = SQLiteRegistry(path)
    with app(code, str(path)) as program:
        assert "held" == program.say()
        with trio.move_on_after(0.05) as scope:
            await registry.daemons()
        assert scope.cancelled_caught
        program.hear("go")
        with trio.fail_after(PATIENCE_S):
            assert [] == await registry.daemons()
        program.end()


def test_pauses_grow_up_to_a_cap() -> None:
    given = pauses(0.001, 0.05)
    first = [next(given) for _ in range(20)]
    for number, pause in enumerate(first):
        whole = min(0.001 * 2**number, 0.05)
        assert whole / 2 <= pause <= whole


# --- the file goes away ---


def remove_all(path: Path) -> None:
    for file in path.parent.glob("registry.sqlite*"):
        file.unlink()


def replace_by_another(path: Path) -> None:
    remove_all(path)
    trio.run(SQLiteRegistry(path).put, record("another"))


def remove_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def remove_memory(path: Path) -> None:
    Path(f"{path}-shm").unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove_all, ["new"]),
        (Path.unlink, ["new"]),
        (replace_by_another, ["another", "new"]),
        (remove_memory, ["new", "old"]),
    ],
)
async def test_what_is_put_after_the_file_was_removed_is_found_by_others(
    path: Path, change: Callable[[Path], object], expected: list[str]
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("old"))
    await trio.to_thread.run_sync(change, path)
    await registry.put(record("new"))
    for view in (registry, SQLiteRegistry(path)):
        assert expected == [found.name for found in await view.daemons()]


async def test_what_is_put_after_the_log_was_removed_is_found_by_others(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("old"))
    remove_log(path)
    await registry.put(record("new"))
    for view in (registry, SQLiteRegistry(path)):
        assert record("new") == await view.get("new")


async def test_what_was_written_while_the_file_was_removed_is_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("old"))
    removed: list[Path] = []

    def put_and_remove(connection: sqlite3.Connection, record: object) -> None:
        _put(connection, record)  # type: ignore[arg-type]
        if not removed:
            removed.append(path)
            remove_all(path)

    _put = _rows.put
    monkeypatch.setattr(_rows, "put", put_and_remove)
    await registry.put(record("new"))
    assert [record("new")] == await SQLiteRegistry(path).daemons()


async def test_a_watch_goes_on_in_the_new_file(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("old"))
    await registry.put(record("both"))
    watch = registry.watch()
    assert {"old", "both"} == {(await anext(watch)).record.name for _ in range(2)}
    remove_all(path)
    await registry.put(record("both"))
    await registry.put(record("new"))
    with trio.fail_after(PATIENCE_S):
        changes = [await anext(watch) for _ in range(2)]
    assert [RecordChange(record("old"), True), RecordChange(record("new"), False)] == changes


async def test_a_watch_reads_the_records_only_when_something_has_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    find = _rows.find_last_changes

    def counting(connection: sqlite3.Connection, passed: Container[int]) -> object:
        looks.append(connection)
        return find(connection, passed)

    monkeypatch.setattr(_changes, "find_last_changes", counting)
    monkeypatch.setattr(_changes, "LOOK_INTERVAL_S", 0.001)
    registry, other = SQLiteRegistry(path), SQLiteRegistry(path)
    await registry.put(record())
    watch = registry.watch()
    await anext(watch)
    for view in (registry, other):
        with trio.move_on_after(0.05):
            await anext(watch)
        before = len(looks)
        # An equal record is no change to tell of, but one to read.
        await view.put(record())
        with trio.move_on_after(0.05):
            await anext(watch)
        await view.put(record(view.path.name + str(before)))
        await anext(watch)
        assert before < len(looks) <= before + 2
    looks.clear()


async def test_only_so_many_removals_are_remembered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rows, "REMEMBERED_REMOVALS", 3)
    registry = SQLiteRegistry(path)
    await registry.put(record("stays"))
    watch = registry.watch()
    await anext(watch)
    for number in range(10):
        await registry.put(record(f"goes-{number}"))
    shown = {(await anext(watch)).record.name for _ in range(10)}
    for name in shown:
        await registry.remove(record(name))
    assert 4 >= len(execute(path, "SELECT * FROM daemons"))
    with trio.fail_after(PATIENCE_S):
        assert shown == {(await anext(watch)).record.name for _ in range(10)}
    assert [record("stays")] == await registry.daemons()


# --- one program ---


def test_a_fork_may_use_the_registry_beside_its_parent(path: Path) -> None:
    code = """
from tests.registries import open_files, record
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry, again = SQLiteRegistry(sys.argv[1]), SQLiteRegistry(sys.argv[1])

def put(name):
    trio.run(registry.put, record(name))

put("before")
trio.run(again.daemons)
child = os.fork()
if not child:
    assert [] == open_files(sys.argv[1])
    for number in range(50):
        put(f"child-{number}")
    raise SystemExit
for number in range(50):
    put(f"parent-{number}")
assert 0 == os.waitpid(child, 0)[1]
print(len(trio.run(again.daemons)))
registry.close()
again.close()
assert [] == open_files(sys.argv[1])
"""
    assert ["101"] == run_app(code, str(path), env=FORKING)


async def test_a_connection_of_another_process_is_never_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SQLiteRegistry(path)
    await registry.daemons()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 2)
        with pytest.raises(RegistryError, match="was forked while it had it open"):
            await registry.daemons()
    assert [] == await registry.daemons()


async def test_close_lets_go_of_the_file_until_the_next_use(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    assert open_files(path)
    registry.close()
    registry.close()
    assert [] == open_files(path)
    assert record() == await registry.get("queen")


async def test_a_registry_that_nobody_uses_any_more_is_closed(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    watch = registry.watch()
    await anext(watch)
    del registry, watch
    assert [] == open_files(path)


@pytest.mark.parametrize("end", ["pass", "raise SystemExit", "registry.close()", "del registry"])
def test_a_program_ends_without_a_warning(path: Path, end: str) -> None:
    code = f"""
import sys, trio
from tests.registries import record
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry = SQLiteRegistry(sys.argv[1])

async def main():
    await registry.put(record())
    async for change in registry.watch():
        break

trio.run(main)
{end}
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE_S,
    )
    assert ("", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_trio_runs_of_two_threads_share_a_registry(path: Path) -> None:
    registry = SQLiteRegistry(path)

    async def put(prefix: str) -> None:
        for number in range(30):
            async with registry.claim("queen"):
                await registry.put(record(f"{prefix}-{number}"))

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            for prefix in ("a", "b"):
                nursery.start_soon(trio.to_thread.run_sync, trio.run, put, prefix)

    trio.run(both)
    assert 60 == len(trio.run(registry.daemons))


async def test_the_loop_goes_on_while_the_file_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    in_thread = []
    find = _rows.find

    def noting(connection: sqlite3.Connection, name: str, passed: Container[int]) -> object:
        in_thread.append(trio.lowlevel.in_trio_run())
        return find(connection, name, passed)

    monkeypatch.setattr(_rows, "find", noting)
    await registry.get("queen")
    assert [False] == in_thread


async def test_a_work_that_fails_changes_nothing(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    with pytest.raises(RegistryError, match="more than 1048576"):
        await registry.put(record(report={"a": "x" * 2**20}))
    assert record() == await registry.get("queen")


async def test_a_clock_that_is_set_back_does_no_harm(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record(heartbeat_at=1000.0))
    monkeypatch.setattr(time, "time", lambda: 5.0)
    earlier = record(heartbeat_at=5.0)
    assert await registry.replace(record(), earlier)
    watch = registry.watch()
    assert RecordChange(earlier, removed=False) == await anext(watch)
    later = evolve(earlier, state="stopping")
    await registry.put(later)
    assert RecordChange(later, removed=False) == await anext(watch)


def test_the_files_of_an_open_registry_are_all_known(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    session = Session(str(path))
    assert None not in session._places
    session.close()
