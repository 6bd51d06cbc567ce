"""The tables of a registry: of a known version, brought up to date, or refused."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.registries import bad_files, execute, path, record, refusal
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.registry import _schema, _session
from trio_lifecycle.registry._schema import APPLICATION_ID, STEPS
from trio_lifecycle.registry._sqlite import SQLiteRegistry

__all__ = ["path"]


async def test_the_file_says_whose_it_is_and_which_version_it_has(path: Path) -> None:
    await SQLiteRegistry(path).put(record())
    assert [(APPLICATION_ID,)] == execute(path, "PRAGMA application_id")
    assert [(max(STEPS),)] == execute(path, "PRAGMA user_version")
    assert [("wal",)] == execute(path, "PRAGMA journal_mode")


def crashed_copy(path: Path, *statements: str) -> None:
    """Leave the files as a program does that was killed: what it changed stands in the log."""
    aside = path.with_name("aside")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in statements:
            connection.execute(statement)
        aside.write_bytes(path.read_bytes())
        log = Path(f"{path}-wal").read_bytes()
    assert log
    aside.replace(path)
    Path(f"{path}-wal").write_bytes(log)
    for file in path.parent.iterdir():
        file.chmod(0o600)


@pytest.mark.fault(63)
@pytest.mark.parametrize("version", [max(STEPS) + 1, 2**31 - 1, -1])
@pytest.mark.parametrize("crashed", [False, True], ids=["in the file", "in its log"])
async def test_a_file_of_a_later_version_is_refused_and_untouched(
    path: Path, version: int, crashed: bool
) -> None:
    await SQLiteRegistry(path).put(record())
    statement = f"PRAGMA user_version = {version}"
    if crashed:
        crashed_copy(path, statement)
    else:
        execute(path, statement)
    log = Path(f"{path}-wal")
    before = (path.read_bytes(), log.exists() and log.read_bytes())
    assert f"its version is {version}, and this program knows none but 1" in await refusal(path)
    assert before[0] == path.read_bytes()
    assert (before[1] or b"") == (log.read_bytes() if log.exists() else b"")
    assert [] == bad_files(path)


@pytest.mark.fault(63)
async def test_a_file_that_becomes_a_later_version_is_refused_by_programs_that_have_it_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    later = {**STEPS, max(STEPS) + 1: ("ALTER TABLE daemons RENAME TO fleet",)}
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "STEPS", later)
        _session.Session(str(path)).close()
    for call in (registry.daemons, lambda: registry.put(record())):
        with pytest.raises(RegistryError, match=f"its version is {max(later)}"):
            await call()
    assert 1 == len(execute(path, "SELECT * FROM fleet"))


@pytest.mark.parametrize("crashed", [False, True], ids=["in the file", "in its log"])
async def test_a_database_of_another_program_is_refused_and_untouched(
    path: Path, crashed: bool
) -> None:
    path.parent.mkdir(mode=0o700)
    statements = ("CREATE TABLE daemons (x)", "INSERT INTO daemons VALUES (1)")
    (crashed_copy if crashed else execute)(path, *statements)
    path.chmod(0o600)
    before = path.read_bytes()
    assert "it is a database of another program; use another path" in await refusal(path)
    assert before == path.read_bytes()
    assert [(1,)] == execute(path, "SELECT x FROM daemons")


async def test_a_database_of_another_program_that_is_empty_but_named_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    execute(path, "PRAGMA application_id = 77")
    path.chmod(0o600)
    assert "it is a database of another program" in await refusal(path)


def steps_that_were() -> dict[int, tuple[str, ...]]:
    return {
        1: ("CREATE TABLE old (name TEXT, pid INTEGER)",),
        2: ("ALTER TABLE old ADD COLUMN host TEXT", "UPDATE old SET host = 'here'"),
        3: ("ALTER TABLE old RENAME TO new", "CREATE INDEX by_pid ON new (pid)"),
    }


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_each_earlier_version_is_brought_up_to_date(path: Path, start: int) -> None:
    path.parent.mkdir(mode=0o700)
    steps = steps_that_were()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if start:
            _schema.bring_up_to_date(connection, {n: steps[n] for n in range(1, start + 1)})
            table = "old" if start < 3 else "new"
            connection.execute(f"INSERT INTO {table} (name, pid) VALUES ('queen', 7)")
        _schema.bring_up_to_date(connection, steps)
        found = connection.execute("SELECT name, pid, host FROM new").fetchall()
    host = "here" if start < 2 else None
    assert ([("queen", 7, host)] if start else []) == found
    assert [(3,)] == execute(path, "PRAGMA user_version")
    assert [(APPLICATION_ID,)] == execute(path, "PRAGMA application_id")


async def test_a_step_that_fails_leaves_the_earlier_version_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await SQLiteRegistry(path).put(record())
    broken = {**STEPS, 2: ("CREATE TABLE more (x)", "CREATE TABLE daemons (x)")}
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "STEPS", broken)
        assert "table daemons already exists" in await refusal(path)
    assert [record()] == await SQLiteRegistry(path).daemons()
    assert [] == execute(path, "SELECT * FROM sqlite_schema WHERE name = 'more'")
    assert [] == bad_files(path)
