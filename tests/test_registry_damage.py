"""A registry that is damaged: set aside, the file or the row, and never emptied."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import json
import logging
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.registries import bad_files, execute, mode_of, path, record
from tests.support import PATIENCE_S, app
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.abc import DaemonRecord, RecordChange
from trio_lifecycle.registry import _schema
from trio_lifecycle.registry._rows import encode
from trio_lifecycle.registry._set_aside import set_database_aside
from trio_lifecycle.registry._sqlite import SQLiteRegistry

__all__ = ["path"]

# --- damage ---


async def good_file(path: Path) -> bytes:
    registry = SQLiteRegistry(path)
    for number in range(60):
        await registry.put(record(f"bee-{number}", report={"x": "y" * 500}))
    registry.close()
    return path.read_bytes()


def rest_of_zeros(data: bytes) -> bytes:
    return data[:4096] + bytes(len(data) - 4096)


def rest_by_chance(data: bytes) -> bytes:
    return data[:4096] + random.Random(5).randbytes(len(data) - 4096)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "binary": lambda data: random.Random(5).randbytes(10_000),
    "a text": lambda data: b"{" * 10_000,
    "two bytes": lambda data: b"xx",
    "half of it": lambda data: data[: len(data) // 2],
    "less than a page": lambda data: data[:99],
    "one page": lambda data: data[:4096],
    "zeros": lambda data: bytes(len(data)),
    "half zeros": rest_of_zeros,
    "half chance": rest_by_chance,
    "another schema": lambda data: data.replace(b"record TEXT", b"rexord TEXT"),
    "a broken word": lambda data: data.replace(b"CREATE TABLE", b"CREAT\xe9 TABLE"),
}


def once_a_registry(path: Path) -> None:
    """Leave what a registry leaves beside its database."""
    lock = Path(f"{path}.lock")
    lock.write_text("a registry\n")
    lock.chmod(0o600)


@pytest.mark.fault(62)
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = DAMAGES[damage](await good_file(path))
    path.write_bytes(broken)
    registry = SQLiteRegistry(path)
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        await registry.put(record())
        assert [record()] == await registry.daemons()
    (aside,) = [file for file in bad_files(path) if not file.name.endswith(("-wal", "-shm"))]
    assert broken == aside.read_bytes()
    assert 0o600 == mode_of(aside)
    (warning,) = caplog.records
    assert "trio_lifecycle" == warning.name
    assert f"It was set aside as {aside}, and a new one is begun" in warning.getMessage()
    assert [record()] == await SQLiteRegistry(path).daemons()


@pytest.mark.fault(62)
async def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_with_its_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await good_file(path)
    registry = SQLiteRegistry(path)
    await registry.put(record("in the log"))
    log = Path(f"{path}-wal").read_bytes()
    with path.open("r+b") as file:
        file.write(random.Random(5).randbytes(path.stat().st_size))
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        for number in range(60):
            await registry.get(f"bee-{number}")
        await registry.put(record())
    assert [record()] == await registry.daemons()
    assert 1 == len(caplog.records)
    names = [file.name.partition("Z")[2] for file in bad_files(path)]
    assert ["", "-shm", "-wal"] == names
    assert log == bad_files(path)[2].read_bytes()


@pytest.mark.fault(62)
async def test_an_empty_file_is_a_new_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    registry = SQLiteRegistry(path)
    await registry.put(record())
    assert [record()] == await registry.daemons()
    assert [] == bad_files(path)
    assert [] == caplog.records


@pytest.mark.fault(62)
@pytest.mark.parametrize("is_open", [True, False], ids=["while it is open", "between two programs"])
async def test_a_registry_that_was_emptied_by_hand_is_told_of(
    path: Path, is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await good_file(path)
    registry = SQLiteRegistry(path)
    if is_open:
        await registry.get("queen")
    path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        await registry.put(record())
        registry.close()
        assert [record()] == await SQLiteRegistry(path).daemons()
    assert b"" == bad_files(path)[0].read_bytes()
    (warning,) = caplog.records
    why = "database disk image is malformed" if is_open else "it is empty"
    assert f"was damaged ({why}). It was set aside as" in warning.getMessage()


def header_only(path: Path) -> None:
    """Leave a database whose tables stood in a log that is gone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        _schema.bring_up_to_date(connection, _schema.STEPS)
        header = path.read_bytes()
    path.write_bytes(header)
    path.chmod(0o600)


@pytest.mark.fault(62)
async def test_a_registry_whose_tables_went_with_its_log_is_told_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(mode=0o700)
    once_a_registry(path)
    header_only(path)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        await SQLiteRegistry(path).put(record())
        assert [record()] == await SQLiteRegistry(path).daemons()
    assert before == bad_files(path)[0].read_bytes()
    (warning,) = caplog.records
    assert "its tables are gone, as with a log (-wal) that was removed" in warning.getMessage()


async def test_a_registry_that_was_never_finished_is_finished(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(mode=0o700)
    header_only(path)
    await SQLiteRegistry(path).put(record())
    assert [record()] == await SQLiteRegistry(path).daemons()
    assert ([], []) == (bad_files(path), caplog.records)


async def test_the_tables_of_a_new_registry_stand_in_its_file_and_not_in_its_log(
    path: Path,
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        assert (max(_schema.STEPS),) == connection.execute("PRAGMA user_version").fetchone()
        assert [] == connection.execute("SELECT * FROM daemons").fetchall()


@pytest.mark.fault(62)
@pytest.mark.parametrize("noted", [True, False], ids=["a registry once", "who knows"])
@pytest.mark.parametrize("left", [("-wal",), ("-shm",), ("-wal", "-shm"), ("-journal",)])
async def test_what_was_left_beside_a_removed_file_is_set_aside(
    path: Path, left: tuple[str, ...], noted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(mode=0o700)
    if noted:
        once_a_registry(path)
    for part in left:
        Path(f"{path}{part}").write_text(f"all that was known {part}")
        Path(f"{path}{part}").chmod(0o600)
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        await SQLiteRegistry(path).put(record())
        assert [record()] == await SQLiteRegistry(path).daemons()
    assert sorted(f"all that was known {part}" for part in left) == sorted(
        file.read_text() for file in bad_files(path)
    )
    (warning,) = caplog.records
    assert "the file was removed, and not what is beside it" in warning.getMessage()


@pytest.mark.fault(62)
@pytest.mark.parametrize("is_open", [True, False], ids=["while it is open", "between two programs"])
async def test_a_registry_that_was_removed_by_hand_is_told_of_once(
    path: Path, is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("old"))
    if not is_open:
        registry.close()
    for part in ("-wal", "-shm", ""):
        Path(f"{path}{part}").unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        await registry.put(record())
        assert [record()] == await SQLiteRegistry(path).daemons()
    (warning,) = caplog.records
    assert f"the registry {path} was removed, and a new one is begun" in warning.getMessage()


async def test_a_registry_that_was_removed_with_its_lock_is_not_told_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await SQLiteRegistry(path).put(record("old"))
    for file in path.parent.glob("registry.sqlite*"):
        file.unlink()
    await SQLiteRegistry(path).put(record())
    assert [] == caplog.records


@pytest.mark.fault(62)
async def test_a_huge_file_that_is_no_database_is_set_aside_unread(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    once_a_registry(path)
    with path.open("wb") as file:
        file.write(b"huge")
        file.truncate(2**30)
    path.chmod(0o600)
    registry = SQLiteRegistry(path)
    await registry.put(record())
    assert [2**30] == [file.stat().st_size for file in bad_files(path)]


@pytest.mark.parametrize("content", [b"my only copy of a poem\n", b"SQLite format 3\0broken" * 99])
async def test_a_file_of_the_user_that_a_mistyped_path_leads_to_is_left_alone(
    path: Path, content: bytes
) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    path.chmod(0o600)
    for _ in range(2):
        with pytest.raises(RegistryError, match="it is a file, but no registry"):
            await SQLiteRegistry(path).daemons()
    assert content == path.read_bytes()
    assert [] == bad_files(path)


@pytest.mark.fault(62)
def test_programs_that_find_a_damaged_file_at_once_set_it_aside_once(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    once_a_registry(path)
    path.write_bytes(b"damaged " * 1000)
    path.chmod(0o600)
    code = """
import logging
from tests.registries import record
from trio_lifecycle.registry._sqlite import SQLiteRegistry

logging.basicConfig(format="%(message)s")
registry = SQLiteRegistry(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
trio.run(registry.put, record(sys.argv[2]))
"""
    with (
        app(code, str(path), "a") as a,
        app(code, str(path), "b") as b,
        app(code, str(path), "c") as c,
        app(code, str(path), "d") as d,
    ):
        running = (a, b, c, d)
        assert ["ready"] * 4 == [program.say() for program in running]
        for program in running:
            program.hear("go")
        said = [program.end() for program in running]
    assert [0] * 4 == [status for status, _ in said]
    assert 1 == sum("was damaged" in output for _, output in said)
    assert [b"damaged " * 1000] == [file.read_bytes() for file in bad_files(path)]
    found = [found.name for found in trio.run(SQLiteRegistry(path).daemons)]
    assert ["a", "b", "c", "d"] == found


def test_each_damaged_file_has_a_name_of_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir(mode=0o700)
    monkeypatch.setattr("time.strftime", lambda *_: "20260101T000000Z")
    for number in range(3):
        path.write_text(str(number))
        Path(f"{path}-wal").write_text(f"log {number}")
        set_database_aside(str(path), ValueError("no reason"))
    bad = f"{path}.bad-20260101T000000Z"
    for number, name in enumerate((bad, f"{bad}-2", f"{bad}-3")):
        assert str(number) == Path(name).read_text()
        assert f"log {number}" == Path(f"{name}-wal").read_text()


async def test_a_disk_that_damages_every_file_is_not_tried_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(connection: sqlite3.Connection, passed: object) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "broken")

    monkeypatch.setattr("trio_lifecycle.registry._rows.find_all", damage)
    with pytest.raises(RegistryError, match="damaged 3 times in a row"):
        await SQLiteRegistry(path).daemons()
    assert 3 == len([file for file in bad_files(path) if file.name[-4:] not in ("-wal", "-shm")])


async def test_a_transaction_that_was_cut_off_is_undone(path: Path) -> None:
    # With a journal in the place of the log, as a new file has it for a moment.
    await SQLiteRegistry(path).put(record())
    journal, aside = Path(f"{path}-journal"), path.with_name("aside")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM daemons")
        for number in range(1000):
            connection.execute("INSERT INTO set_aside VALUES (?, ?, '', 0)", (number, "x" * 500))
        half, undo = path.read_bytes(), journal.read_bytes()
        connection.execute("ROLLBACK")
    aside.write_bytes(half)
    aside.replace(path)
    journal.write_bytes(undo)
    for file in (path, journal):
        file.chmod(0o600)
    assert [record()] == await SQLiteRegistry(path).daemons()
    assert [] == bad_files(path)


# --- rows ---


def changed(**fields: object) -> str:
    return json.dumps(json.loads(encode(record())) | fields)


BAD_ROWS = {
    **{f"pid {pid}": changed(pid=pid) for pid in (0, 1, -1, 2**22 + 1, 2**40, 7.0, "7", None)},
    "missing field": json.dumps({"name": "queen"}),
    "another name": changed(name="worker"),
    "no object": "[]",
    "empty": "",
    "no JSON": "{",
    "no text": "\0\1\2",
    "deeply nested": "[" * 500_000,
    "deeply nested report": changed().replace("{}", '{"a":' * 99_999 + "1" + "}" * 99_999),
    "huge": changed(report={"a": "x" * 2**20}),
}


def store(path: Path, name: object, text: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO daemons (name, record) VALUES (?, ?)", (name, text))


@pytest.mark.fault(62, 65)
@pytest.mark.parametrize("what", BAD_ROWS)
async def test_a_record_that_can_not_be_meant_is_set_aside_and_others_are_not(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("worker"))
    store(path, "queen", BAD_ROWS[what])
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        for _ in range(2):
            assert [record("worker")] == await registry.daemons()
    assert await registry.get("queen") is None
    ((name, text, reason),) = execute(path, "SELECT name, record, reason FROM set_aside")
    assert ("queen", BAD_ROWS[what]) == (name, text)
    assert 0 < len(reason) <= 500
    (warning,) = caplog.records
    assert "had a record of 'queen' that can't be meant" in warning.getMessage()
    await registry.put(record())
    assert record() == await registry.get("queen")


def lacking(field: str) -> str:
    return json.dumps({key: value for key, value in json.loads(changed()).items() if key != field})


# Each as it is stored, which field is not understood, and what it is taken for.
OTHER_VERSIONS: dict[str, tuple[str, str | None, DaemonRecord]] = {
    "a field more": (changed(more={"a": [1]}), None, record()),
    "another state": (changed(state="draining"), "state", record(state="ready")),
    "no number": (changed(heartbeat_at=float("nan")), "heartbeat_at", record(heartbeat_at=0.0)),
    "for ever": (changed(stop_ladder=[[float("inf"), 1]]), "stop_ladder", record()),
    "a signal that is none": (changed(stop_ladder=[[0, 1]]), "stop_ladder", record()),
    "a rung that never ends": (
        changed(stop_ladder=[[15, float("nan")]]),
        "stop_ladder",
        record(),
    ),
    "a path that is none": (changed(log_file="/a\0b"), "log_file", record()),
    "a url in parts": (changed(url={"host": "x"}), "url", record()),
    "no instance": (lacking("instance_id"), "instance_id", record(instance_id="unknown")),
    "no start": (lacking("started_at"), "started_at", record(started_at=0.0)),
    "half an owner": (
        changed(owner_pid=77, owner_start_time="soon"),
        "owner_start_time",
        record(owner_pid=None, owner_start_time=0),
    ),
}


@pytest.mark.fault(63)
@pytest.mark.parametrize("what", OTHER_VERSIONS)
async def test_a_record_of_another_version_is_used_as_far_as_it_is_understood(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, lost, meant = OTHER_VERSIONS[what]
    await SQLiteRegistry(path).daemons()
    store(path, "queen", text)
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        for registry in (SQLiteRegistry(path), SQLiteRegistry(path)):
            assert meant == await registry.get("queen")
            assert [meant] == await registry.daemons()
            assert RecordChange(meant, removed=False) == await anext(registry.watch())
    warnings = [warning.getMessage() for warning in caplog.records]
    assert (0 if lost is None else 1) == len(warnings)
    assert all(f"does not understand {lost}. It is used without" in said for said in warnings)
    assert [] == execute(path, "SELECT * FROM set_aside")
    assert [(text,)] == execute(path, "SELECT record FROM daemons")
    assert await registry.replace(meant, record(state="stopping"))
    assert record(state="stopping") == await registry.get("queen")


@pytest.mark.fault(62)
async def test_many_bad_records_are_told_of_once_each_and_keep_no_other_from_being_found(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("worker"))
    for number in range(200):
        store(path, f"bad-{number}", "{")
        store(path, f"odd-{number}", changed(name=f"odd-{number}", port="http"))
    with caplog.at_level(logging.WARNING, "trio_lifecycle"):
        for view in (registry, registry, SQLiteRegistry(path)):
            assert 201 == len(await view.daemons())
    told = [said.getMessage().partition("record of '")[2].split("'")[0] for said in caplog.records]
    expected = [f"{kind}-{number}" for kind in ("bad", "odd") for number in range(200)]
    assert sorted(expected) == sorted(told)


@pytest.mark.fault(62)
@pytest.mark.parametrize("what", ["get", "put", "remove", "replace", "watch"])
async def test_every_use_of_a_bad_record_sets_it_aside(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record("worker"))
    store(path, "queen", "{")
    if what == "get":
        assert await registry.get("queen") is None
    elif what == "put":
        await registry.put(record())
        assert record() == await registry.get("queen")
    elif what == "remove":
        assert not await registry.remove(record())
    elif what == "replace":
        assert not await registry.replace(record(), record())
    else:
        assert RecordChange(record("worker"), removed=False) == await anext(registry.watch())
    assert [("queen", "{")] == execute(path, "SELECT name, record FROM set_aside")
    assert 1 == len(caplog.records)


@pytest.mark.parametrize("name", [b"\xff\xfe", 7])
@pytest.mark.parametrize("text", [b"\xff", b"\xff\xfe{\0}\0", 5, 1.5])
async def test_a_row_of_other_types_is_set_aside(path: Path, name: object, text: object) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    store(path, name, text)
    assert [record()] == await registry.daemons()
    assert 1 == len(execute(path, "SELECT reason FROM set_aside"))


async def test_a_watch_is_told_when_a_record_goes_bad(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    await registry.put(record("worker"))
    watch = registry.watch()
    seen = [(await anext(watch)).record.name for _ in range(2)]
    assert ["queen", "worker"] == seen
    execute(path, "UPDATE daemons SET record = '{' WHERE name = 'queen'")
    with trio.fail_after(PATIENCE_S):
        assert RecordChange(record(), removed=True) == await anext(watch)


def test_programs_that_find_a_bad_record_at_once_set_it_aside_once(path: Path) -> None:
    trio.run(SQLiteRegistry(path).put, record("worker"))
    store(path, "queen", "{")
    code = """
import logging
from trio_lifecycle.registry._sqlite import SQLiteRegistry

logging.basicConfig(format="%(message)s")
registry = SQLiteRegistry(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*(record.name for record in trio.run(registry.daemons)))
"""
    with app(code, str(path)) as a, app(code, str(path)) as b, app(code, str(path)) as c:
        running = (a, b, c)
        assert ["ready"] * 3 == [program.say() for program in running]
        for program in running:
            program.hear("go")
        said = [program.end()[1].splitlines() for program in running]
    assert ["worker"] * 3 == [lines[-1] for lines in said]
    assert 1 == sum("can't be meant" in lines[0] for lines in said)
    assert [("{",)] == execute(path, "SELECT record FROM set_aside")
