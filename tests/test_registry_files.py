"""The files of a registry: private, and honest about what keeps them from being used."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import errno
import os
import sqlite3
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import pytest
import trio

from tests.registries import FORKING, contents, execute, mode_of, path, record, refusal
from tests.stepping import DAEMON, only_root
from tests.support import UNMEASURED, permitted, run_app
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.abc import DaemonRecord
from trio_lifecycle.registry import _rows, _session
from trio_lifecycle.registry._complaints import RefusalError, complaining
from trio_lifecycle.registry._rows import encode
from trio_lifecycle.registry._sqlite import SQLiteRegistry

__all__ = ["path"]

PARTS = ("", "-wal", "-shm", "-journal", ".lock")


# --- private ---


@pytest.fixture(params=[0o022, 0o000, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest, path: Path) -> Iterator[int]:
    path.parent.mkdir(mode=0o700)
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


async def test_all_files_are_private_whatever_the_umask_is(path: Path, umask: int) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    found = {file.name: mode_of(file) for file in path.parent.iterdir()}
    names = [path.name + part for part in PARTS if part != "-journal"]
    assert dict.fromkeys(names, 0o600) == found


async def test_the_directory_is_made_private(path: Path) -> None:
    await SQLiteRegistry(path / "a" / "b").put(record())
    assert [0o700] * 3 == [mode_of(made) for made in (path.parent, path, path / "a")]


async def test_a_directory_that_others_may_read_will_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    await SQLiteRegistry(tmp_path / "r").put(record())
    assert 0o755 == mode_of(tmp_path)


@pytest.mark.fault(64)
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777], ids=oct)
async def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    said = await refusal(tmp_path / "registry.sqlite")
    assert f"{tmp_path} belongs to somebody else or can be written by others" in said
    assert "use a directory of your own" in said
    with pytest.raises(RegistryError, match="use a directory of your own"):
        async with SQLiteRegistry(tmp_path / "registry.sqlite").claim("queen"):
            pass
    assert [] == list(tmp_path.iterdir())


@pytest.mark.fault(64)
@pytest.mark.parametrize("is_open", [True, False])
async def test_a_registry_that_others_could_read_is_closed_to_them(
    path: Path, is_open: bool
) -> None:
    other = SQLiteRegistry(path)
    await other.put(record())
    if not is_open:
        other.close()
    for file in path.parent.iterdir():
        file.chmod(0o644)
    registry = SQLiteRegistry(path)
    assert [record()] == await registry.daemons()
    assert dict.fromkeys(("", "-wal", "-shm", ".lock"), 0o600) == {
        part: mode_of(Path(f"{path}{part}")) for part in ("", "-wal", "-shm", ".lock")
    }


async def test_a_file_of_another_program_that_others_can_read_stays_so(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    execute(path, "CREATE TABLE poems (line TEXT)")
    path.chmod(0o644)
    await refusal(path)
    assert 0o644 == mode_of(path)


@pytest.mark.fault(64)
async def test_a_link_in_the_place_of_the_directory_is_refused(path: Path) -> None:
    elsewhere = path.parents[1] / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    path.parent.symlink_to(elsewhere)
    assert "is a link or no directory; remove it" in await refusal(path)
    assert [] == list(elsewhere.iterdir())


def link(file: Path) -> None:
    elsewhere = file.parents[1] / "elsewhere"
    elsewhere.write_text("untouched")
    file.symlink_to(elsewhere)


def link_to_nothing(file: Path) -> None:
    file.symlink_to(file.parent / "nothing")


def hard_link(file: Path) -> None:
    elsewhere = file.parents[1] / "elsewhere"
    elsewhere.write_text("untouched")
    elsewhere.chmod(0o600)
    file.hardlink_to(elsewhere)


def file_for_everybody(file: Path) -> None:
    file.touch()
    file.chmod(0o666)


@pytest.mark.fault(64)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("prepare", "finding"),
    [
        (link, "link"),
        (link_to_nothing, "link"),
        (hard_link, "has a second name elsewhere"),
        (file_for_everybody, "can be written by others"),
        (os.mkfifo, "is no file"),
        (Path.mkdir, "directory|is no file"),
    ],
)
async def test_a_file_that_others_could_have_prepared_is_refused(
    path: Path, part: str, prepare: Callable[[Path], None], finding: str
) -> None:
    path.parent.mkdir(mode=0o700)
    file = Path(f"{path}{part}")
    prepare(file)
    before = contents(path.parents[1])
    said = await refusal(path)
    assert any(words in said for words in finding.split("|"))
    assert str(file) in said
    assert before == contents(path.parents[1])


@pytest.mark.fault(64)
@pytest.mark.parametrize("part", PARTS)
async def test_a_file_of_somebody_else_is_refused(path: Path, part: str) -> None:
    await SQLiteRegistry(path).put(record())
    Path(f"{path}{part}").touch()
    for file in path.parent.iterdir():
        file.chmod(0o600)
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(f"{path}{part}", DAEMON.pw_uid, -1)
    before = contents(path.parent)
    assert f"belongs to user {DAEMON.pw_uid} and not to this one" in await refusal(path)
    assert before == contents(path.parent)


async def test_a_link_that_takes_the_place_of_the_open_file_is_refused(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    path.unlink()
    link(path)
    with pytest.raises(RegistryError, match="is a link; remove it"):
        await registry.put(record())
    assert "untouched" == (path.parents[1] / "elsewhere").read_text()


@pytest.mark.parametrize("prepare", [link, link_to_nothing, file_for_everybody, os.mkfifo])
async def test_a_file_that_takes_the_place_of_the_open_one_confirms_nothing(
    path: Path, prepare: Callable[[Path], None]
) -> None:
    registry = SQLiteRegistry(path)
    await registry.put(record())
    await registry.get("queen")
    assert registry.confirms(record())
    path.unlink()
    prepare(path)
    assert not registry.confirms(record())


# --- no room, no rights ---

FULL = """
import subprocess
from tests.registries import record
from trio_lifecycle import RegistryError
from trio_lifecycle.registry._sqlite import SQLiteRegistry

room, filler = Path(sys.argv[1]), Path(sys.argv[1]) / "filler"
registry = SQLiteRegistry(room / "registry.sqlite")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", room], check=True)

def fill():
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            pass

async def refused(call, *args):
    try:
        await call(*args)
    except RegistryError as error:
        return error.problem
    raise AssertionError("nothing was refused")

async def main():
    fill()
    # Not even a file can be begun.
    said = await refused(registry.put, record())
    assert "make room" in said or "has room" in said, said
    filler.unlink()
    await registry.put(record("first"))
    fill()
    said = ""
    stored = ["first"]
    for number in range(1000):
        name = f"next-{number:04}"
        try:
            await registry.put(record(name, report={"x": "y" * 1000}))
        except RegistryError as error:
            said = error.problem
            break
        stored.append(name)
    assert "make room" in said or "has room" in said, said
    # Nothing was lost, and what there is can be read.
    assert stored == [r.name for r in await registry.daemons()]
    async with registry.claim("queen"):
        pass
    filler.unlink()
    await registry.put(record("last"))
    assert sorted([*stored, "last"]) == [r.name for r in await registry.daemons()]
    assert [] == [file.name for file in room.iterdir() if "bad" in file.name]

trio.run(main)
registry.close()
"""


@pytest.mark.fault(66)
@pytest.mark.skipif(
    not permitted("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"),
    reason="only root may mount a disk to fill it",
)
def test_a_full_disk_loses_nothing_and_the_registry_works_again_when_there_is_room(
    tmp_path: Path,
) -> None:
    room = tmp_path / "room"
    room.mkdir(mode=0o700)
    code = "from pathlib import Path\n" + FULL
    assert [] == run_app(code, str(room), within=("unshare", "--mount"))


FILLED = """
import errno, subprocess
from pathlib import Path
from tests.registries import record
from trio_lifecycle import RegistryError
from trio_lifecycle.registry._sqlite import SQLiteRegistry

room, end, limit = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{limit}", "tmpfs", room], check=True)
path = room / "registry.sqlite"
child = os.fork()
if not child:
    registry = SQLiteRegistry(path)
    trio.run(registry.put, record())
    if end == "closed":
        registry.close()
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
try:
    for number in range(10_000):
        (room / f"filler-{number}").write_bytes(bytes(512))
except OSError as error:
    assert error.errno == errno.ENOSPC

async def main():
    for _ in range(2):
        registry = SQLiteRegistry(path)
        assert [record()] == await registry.daemons()
        assert record() == await registry.get("queen")
        assert await registry.get("nobody") is None
        assert record() == (await anext(registry.watch())).record
    if end == "closed":
        for writing in (registry, SQLiteRegistry(path)):
            try:
                await writing.put(record("worker"))
            except RegistryError as error:
                assert "has room" in error.problem or "make room" in error.problem, error
            else:
                raise AssertionError("something was written")
    for filler in room.glob("filler-*"):
        filler.unlink()
    await registry.put(record("worker"))
    for view in (registry, SQLiteRegistry(path)):
        assert [record(), record("worker")] == await view.daemons()

trio.run(main)
"""


@pytest.mark.fault(66)
@pytest.mark.skipif(
    not permitted("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"),
    reason="only root may mount a disk to fill it",
)
@pytest.mark.parametrize("limit", ["size=256k", "nr_inodes=20"], ids=["no room", "no file more"])
@pytest.mark.parametrize("end", ["closed", "killed"])
def test_what_is_recorded_can_be_read_on_a_disk_that_was_filled(
    tmp_path: Path, end: str, limit: str
) -> None:
    args = (str(tmp_path), end, limit)
    assert [] == run_app(FILLED, *args, within=("unshare", "--mount"), env=FORKING)


async def test_what_was_read_without_a_lock_while_others_wrote_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = SQLiteRegistry(path)
    await writing.put(record("first"))
    writing.close()
    full = OSError(errno.ENOSPC, "No space left on device")
    reading: list[list[DaemonRecord]] = []

    def as_it_is(path: str) -> None:
        raise full

    def find_slowly(connection: sqlite3.Connection, passed: Container[int]) -> list[DaemonRecord]:
        found = find_all(connection, passed)
        if not reading:
            reading.append(found)
            execute(path, f"INSERT INTO daemons (name, record) VALUES ('x', '{encode(other)}')")
        return found

    other, find_all = record("x"), _rows.find_all
    monkeypatch.setattr(_session, "open_current", as_it_is)
    monkeypatch.setattr(_rows, "find_all", find_slowly)
    assert [record("first"), other] == await SQLiteRegistry(path).daemons()
    assert [[record("first")]] == reading


@pytest.mark.fault(66)
def test_a_file_that_may_not_grow_loses_nothing_and_works_again(path: Path) -> None:
    code = """
import resource
from tests.registries import record
from trio_lifecycle import RegistryError
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry = SQLiteRegistry(sys.argv[1])
big = record("big", report={"x": "y" * 100_000})

async def main():
    await registry.put(record())
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
    try:
        await registry.put(big)
    except RegistryError as error:
        print(error)
    assert [record()] == await registry.daemons()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await registry.put(big)
    assert [big, record()] == await registry.daemons()

trio.run(main)
"""
    said = run_app(code, str(path))
    assert 1 == len(said)
    assert (
        f"the registry {path} can't be used: disk I/O error; see that its disk has room" in said[0]
    )


READ_ONLY = """
from pathlib import Path
from tests.registries import record
from trio_lifecycle import RegistryError
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry = SQLiteRegistry(sys.argv[1])

async def main():
    # Twice, for what was opened to be read must not be used to write, nor the other way round.
    for call in (look, lambda: registry.put(record()), enter) * 2:
        try:
            await call()
        except RegistryError as error:
            print(error)

async def look():
    found = await registry.daemons()
    assert found == [await registry.get("queen")] == [(await anext(registry.watch())).record]
    assert await registry.find_claim("queen") is None
    print("found", *(record.name for record in found))

async def enter():
    async with registry.claim("queen"):
        pass

"""


def let_others_in(path: Path) -> None:
    """Let them through to its directory: pytest makes three or four above that for one user."""
    for above in path.parents[1:5]:
        if 0o700 == mode_of(above):
            above.chmod(0o755)


@pytest.mark.fault(66)
@only_root
@pytest.mark.parametrize("there", [True, False], ids=["a file", "no file"])
def test_a_directory_without_the_right_to_write_is_named(path: Path, there: bool) -> None:
    if there:
        trio.run(SQLiteRegistry(path).put, record())
    else:
        path.parent.mkdir(mode=0o700)
    for file in (*path.parent.iterdir(), path.parent):
        os.chown(file, DAEMON.pw_uid, DAEMON.pw_gid)
    path.parent.chmod(0o500)
    let_others_in(path)
    code = f"""{READ_ONLY}
os.setgid({DAEMON.pw_gid})
os.setuid({DAEMON.pw_uid})
trio.run(main)
"""
    before = contents(path.parent)
    said = run_app(code, str(path), env=UNMEASURED)
    assert before == contents(path.parent)
    assert said[:3] == said[3:]
    first, *others = said[:3]
    assert all("the right to write the file and its directory" in line for line in others)
    if there:
        assert "found queen" == first
    else:
        assert "the right to write the file and its directory" in first


@pytest.mark.fault(66)
@only_root
def test_a_file_that_was_closed_to_its_owner_for_a_while_is_written_again(path: Path) -> None:
    trio.run(SQLiteRegistry(path).put, record())
    for file in (*path.parent.iterdir(), path.parent):
        os.chown(file, DAEMON.pw_uid, DAEMON.pw_gid)
    let_others_in(path)
    code = f"""{READ_ONLY}
os.setgid({DAEMON.pw_gid})
os.setuid({DAEMON.pw_uid})
path = Path(sys.argv[1])
views = [registry, SQLiteRegistry(path)]

async def closed_for_a_while():
    path.chmod(0o400)
    for view in views:
        assert [record()] == await view.daemons()
    try:
        await registry.put(record("worker"))
    except RegistryError as error:
        print(error)
    path.chmod(0o600)
    for view in (*views, SQLiteRegistry(path)):
        await view.put(record())
        assert [record()] == await view.daemons()

trio.run(closed_for_a_while)
print(*sorted(oct(file.stat().st_mode & 0o777) for file in path.parent.glob("registry.sqlite*")))
"""
    refused, modes = run_app(code, str(path), env=UNMEASURED)
    assert "the right to write the file and its directory" in refused
    assert {"0o600"} == set(modes.split())


@pytest.mark.fault(66)
@pytest.mark.skipif(
    not permitted("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"),
    reason="only root may mount a disk",
)
@pytest.mark.parametrize("end", ["closed", "killed", "killed, and half of its files gone"])
def test_a_disk_that_is_read_only_is_read_and_named_to_who_writes(tmp_path: Path, end: str) -> None:
    code = f"""{READ_ONLY}
import subprocess
room = str(Path(sys.argv[1]).parent)
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", room], check=True)
child = os.fork()
if not child:
    trio.run(registry.put, record())
    if sys.argv[2] == "closed":
        registry.close()
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
if "half" in sys.argv[2]:
    os.unlink(sys.argv[1] + "-shm")
subprocess.run(["mount", "-o", "remount,ro", room], check=True)
trio.run(main)
"""
    path = str(tmp_path / "registry.sqlite")
    said = run_app(code, path, end, within=("unshare", "--mount"), env=FORKING)
    assert said[:3] == said[3:]
    first, *others = said[:3]
    assert all("the right to write the file and its directory" in line for line in others)
    if "half" in end:
        assert "the right to write the file and its directory" in first
    else:
        assert "found queen" == first


@pytest.mark.fault(62, 66)
@pytest.mark.skipif(
    not permitted("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"),
    reason="only root may mount a disk",
)
def test_a_bad_record_where_nothing_can_be_written_keeps_no_other_from_being_found(
    tmp_path: Path,
) -> None:
    code = f"""{READ_ONLY}
import logging, subprocess
from tests.registries import execute
room = str(Path(sys.argv[1]).parent)
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", room], check=True)
trio.run(registry.put, record())
registry.close()
execute(Path(sys.argv[1]), "INSERT INTO daemons (name, record) VALUES ('bad', '[')")
subprocess.run(["mount", "-o", "remount,ro", room], check=True)
logging.basicConfig(format="%(message)s")

async def read():
    await look()
    await look()
    print(await registry.get("bad"))

trio.run(read)
"""
    path = str(tmp_path / "registry.sqlite")
    said = run_app(code, path, within=("unshare", "--mount"))
    assert "has a record of 'bad' that can't be meant" in said[0]
    assert "and can't be set aside" in said[0]
    assert ["found queen", "found queen", "None"] == said[1:]


async def test_a_path_below_a_file_is_an_error_of_the_registry(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory; use another path" in await refusal(tmp_path / "file" / "sub" / "r")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            OSError(28, "No space left on device", "/x/y"),
            "/x/y: No space left on device; make room",
        ),
        (OSError(24, "Too many open files"), "Too many open files; raise the limit"),
        (OSError(5, "Input/output error"), "Input/output error; see that its disk is sound"),
        (OSError(37, "No locks available"), "keep it on a disk of this machine"),
        (sqlite3.OperationalError("x"), "x; see that its disk is sound"),
        (RefusalError("it is odd"), "it is odd"),
    ],
)
def test_every_failure_of_a_file_says_what_would_help(raised: Exception, said: str) -> None:
    with pytest.raises(RegistryError) as caught, complaining("/x"):
        raise raised
    assert said in caught.value.problem
    assert raised is caught.value.__cause__


async def test_a_file_system_without_shared_memory_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    class Elsewhere(sqlite3.Connection):
        def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
            return super().execute(sql.replace("journal_mode = WAL", "journal_mode = DELETE"))

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Elsewhere, **k))
    assert "lacks the shared memory" in await refusal(path)
