"""Claims of real programs: one at a time, free when the holder is gone, never broken by force."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import json
import os
import shutil
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.registries import FORKING, open_files, path, record
from tests.support import PATIENCE_S, app, run_app
from trio_lifecycle import ConfigError
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.abc import ClaimHolder
from trio_lifecycle.registry._claim_files import ClaimFile
from trio_lifecycle.registry._lock_file import LockFile
from trio_lifecycle.registry._sqlite import SQLiteRegistry

__all__ = ["path"]

HOLD = """
from trio_lifecycle.registry._sqlite import SQLiteRegistry

async def main():
    async with SQLiteRegistry(sys.argv[1]).claim("queen"):
        print("held", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)

trio.run(main)
print("released", flush=True)
"""

COUNT = """
from pathlib import Path
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry, counter = SQLiteRegistry(sys.argv[1]), Path(sys.argv[2])

async def main():
    for _ in range(int(sys.argv[3])):
        async with registry.claim("queen"):
            # Read and written by whoever has the claim; two at once would lose a count.
            number = int(counter.read_text())
            await trio.lowlevel.checkpoint()
            counter.write_text(str(number + 1))

print("ready", flush=True)
sys.stdin.readline()
trio.run(main)
"""


def lock_of(path: Path, name: str = "queen") -> Path:
    return Path(f"{path}.claims") / f"{name}.lock"


@pytest.mark.slow
def test_of_many_programs_one_at_a_time_has_a_claim(path: Path, tmp_path: Path) -> None:
    programs, claims = 8, 200
    counter = tmp_path / "counter"
    counter.write_text("0")
    arguments = (str(path), str(counter), str(claims))
    with (
        app(COUNT, *arguments) as a,
        app(COUNT, *arguments) as b,
        app(COUNT, *arguments) as c,
        app(COUNT, *arguments) as d,
        app(COUNT, *arguments) as e,
        app(COUNT, *arguments) as f,
        app(COUNT, *arguments) as g,
        app(COUNT, *arguments) as h,
    ):
        running = (a, b, c, d, e, f, g, h)
        assert ["ready"] * programs == [program.say() for program in running]
        for program in running:
            program.hear("go")
        assert [(0, "")] * programs == [program.end() for program in running]
    assert programs * claims == int(counter.read_text())


@pytest.mark.fault(58)
@pytest.mark.parametrize("waiting", [True, False], ids=["a waiter", "who comes later"])
async def test_the_claim_of_a_program_that_is_killed_is_free_at_once(
    path: Path, waiting: bool
) -> None:
    registry = SQLiteRegistry(path)
    got = trio.Event()

    async def claim() -> None:
        async with registry.claim("queen"):
            got.set()

    with app(HOLD, str(path)) as holder:
        assert "held" == holder.say()
        async with trio.open_nursery() as nursery:
            if waiting:
                nursery.start_soon(claim)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not got.is_set()
            holder.signal(signal.SIGKILL)
            holder.end()
            if not waiting:
                nursery.start_soon(claim)
            with trio.fail_after(PATIENCE_S):
                await got.wait()
    assert await registry.find_claim("queen") is None


@pytest.mark.fault(59)
async def test_a_holder_that_hangs_is_named_and_keeps_its_claim(path: Path) -> None:
    registry = SQLiteRegistry(path)
    before = time.time()
    with app(HOLD, str(path)) as holder:
        assert "held" == holder.say()
        holder.signal(signal.SIGSTOP)
        found = await registry.find_claim("queen")
        assert found is not None
        assert holder.pid == found.pid
        assert found.since is not None
        assert before <= found.since <= time.time()
        got = False
        with trio.move_on_after(0.2):
            async with registry.claim("queen"):
                got = True
        assert not got
        holder.signal(signal.SIGCONT)
        holder.hear("go")
        assert (0, "released\n") == holder.end()
    assert await registry.find_claim("queen") is None


async def test_a_waiter_that_leaves_does_not_touch_the_holders_note(path: Path) -> None:
    one, other = SQLiteRegistry(path), SQLiteRegistry(path)
    async with one.claim("queen"):
        held = await one.find_claim("queen")
        with trio.move_on_after(0.05):
            async with other.claim("queen"):
                pass
        assert held == await other.find_claim("queen")
    assert held is not None
    assert os.getpid() == held.pid


async def test_looking_who_has_a_claim_never_keeps_it_from_anybody(path: Path) -> None:
    claims = 0

    async def look() -> None:
        looking = SQLiteRegistry(path)
        while True:
            await looking.find_claim("queen")

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            registry = SQLiteRegistry(path)
            while claims < 100:
                async with registry.claim("queen"):
                    claims += 1
            nursery.cancel_scope.cancel()


def test_a_claim_is_inherited_by_no_child(path: Path) -> None:
    code = """
import subprocess
from trio_lifecycle.registry._sqlite import SQLiteRegistry

async def main():
    registry = SQLiteRegistry(sys.argv[1])
    await registry.daemons()
    async with registry.claim("queen"):
        # Even where a program lets all descriptors through that may be inherited.
        child = subprocess.Popen(["sleep", "1000"], close_fds=False)
        print(child.pid, flush=True)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    child.kill()
    child.wait()

trio.run(main)
"""
    with app(code, str(path)) as program:
        child, itself = int(program.say()), int(program.say())
        assert [] == open_files(path, child)
        assert [str(path), f"{path}-shm", f"{path}-wal"] == open_files(path, itself)
        program.hear("go")
        assert (0, "") == program.end()


FORK = r"""
from trio_lifecycle.registry._sqlite import SQLiteRegistry

async def main():
    async with SQLiteRegistry(sys.argv[1]).claim("queen"):
        ours, theirs = os.pipe()
        if not os.fork():
            os.close(theirs)
            os.write(1, b"%d\n" % os.getpid())
            os.read(ours, 1)
            os._exit(0)
        time.sleep(1000)

trio.run(main)
"""


def test_a_fork_that_leaves_the_block_does_not_free_the_claim(path: Path) -> None:
    code = """
from pathlib import Path
from trio_lifecycle.registry._claim_files import ClaimFile

file, other = (ClaimFile(Path(sys.argv[1]), "queen") for _ in range(2))
assert file.try_take()
holder = file.find_holder()
if not os.fork():
    # What the `finally` of a block does.
    file.release()
    raise SystemExit
assert 0 == os.wait()[1]
assert not other.try_take()
assert os.getpid() == holder.pid
assert holder == file.find_holder()
other.release()
file.release()
assert file.find_holder() is None
"""
    assert [] == run_app(code, str(lock_of(path).parent), env=FORKING)


async def test_a_fork_does_not_keep_the_claim_of_a_killed_program_alive(path: Path) -> None:
    with app(FORK, str(path), env=FORKING) as program:
        # It has run: only then its copy of the descriptor is closed.
        child = program.say()
        pidfd = os.pidfd_open(int(child))
        try:
            # Stopped, the copy stays when the pipe's other end is closed.
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            program.signal(signal.SIGKILL)
            with trio.fail_after(PATIENCE_S):
                async with SQLiteRegistry(path).claim("queen"):
                    pass
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


# --- the files ---


async def test_a_claim_file_is_private_and_stays(path: Path) -> None:
    registry = SQLiteRegistry(path)
    for _ in range(2):
        async with registry.claim("queen"):
            pass
    found = lock_of(path).stat()
    assert 0o600 == stat.S_IMODE(found.st_mode)
    assert 0 == found.st_size
    assert 0o700 == stat.S_IMODE(lock_of(path).parent.stat().st_mode)
    assert not path.exists(), "a claim needs no database"


async def test_a_claim_file_has_the_same_name_under_every_locale(path: Path) -> None:
    name = "k\xf6nigin \U0001f41d"
    async with SQLiteRegistry(path).claim(name):
        found = os.listdir(os.fsencode(lock_of(path).parent))  # noqa: PTH208 - bytes
    assert [f"{name}.lock".encode()] == found


async def test_the_longest_name_can_be_claimed(path: Path) -> None:
    async with SQLiteRegistry(path).claim("x" * 200):
        pass


@pytest.mark.parametrize("what", ["the file", "the directory"])
async def test_a_waiter_notices_that_its_file_was_removed_by_hand(path: Path, what: str) -> None:
    waiting, other = SQLiteRegistry(path), SQLiteRegistry(path)
    got = trio.Event()

    async def wait() -> None:
        async with waiting.claim("queen"):
            got.set()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            async with other.claim("queen"):
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.01)
                lock_of(path).unlink()
                if what == "the directory":
                    lock_of(path).parent.rmdir()
            await got.wait()
    assert lock_of(path).exists()


def lose_descriptors(file: Path) -> None:
    """Do what a program does that closes all descriptors, and leave their numbers taken."""
    nothing = os.open("/", os.O_PATH)
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), file.stat()):
                os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


async def test_a_waiter_whose_file_was_closed_is_told_by_an_error_of_the_registry(
    path: Path,
) -> None:
    waiting = trio.Event()

    async def wait() -> None:
        waiting.set()
        with pytest.raises(RegistryError, match="Bad file descriptor"), trio.fail_after(PATIENCE_S):
            async with SQLiteRegistry(path).claim("queen"):
                pytest.fail("it has no lock")

    with app(HOLD, str(path)) as holder:
        assert "held" == holder.say()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await waiting.wait()
            with trio.fail_after(PATIENCE_S):
                # What it opens can't be waited for.
                while str(lock_of(path)) not in open_files(lock_of(path)):  # noqa: ASYNC110
                    await trio.lowlevel.checkpoint()
            lose_descriptors(lock_of(path))


@pytest.mark.parametrize("raised", [None, KeyError])
async def test_a_block_is_left_as_ever_though_its_claim_can_not_be_given_back(
    path: Path, raised: type[Exception] | None
) -> None:
    left = None
    try:
        async with SQLiteRegistry(path).claim("queen"):
            lose_descriptors(lock_of(path))
            if raised is not None:
                raise raised
    except Exception as error:
        left = type(error)
    assert raised == left


@pytest.mark.parametrize("what", ["the file", "all", "the descriptor"])
async def test_who_lost_a_claim_puts_no_record(path: Path, what: str) -> None:
    one, other = SQLiteRegistry(path), SQLiteRegistry(path)
    async with one.claim("queen"):
        await one.put(record())
        if what == "all":
            shutil.rmtree(path.parent)
        elif what == "the file":
            lock_of(path).unlink()
        else:
            lose_descriptors(lock_of(path))
        # Which keeps nobody out any more.
        async with other.claim("queen"):
            await other.put(record(pid=77))
        with pytest.raises(RegistryError, match="was removed or closed while it was locked"):
            await one.put(record(pid=88))
        await one.put(record("worker"))
    assert record(pid=77) == await one.get("queen")
    async with one.claim("queen"):
        await one.put(record(pid=88))


def test_a_lock_is_taken_by_whoever_asks_first_and_twice_by_nobody_else(tmp_path: Path) -> None:
    one, other = (LockFile(os.fsencode(tmp_path / "lock")) for _ in range(2))
    other.write(b"unopened")
    assert one.try_lock()
    assert one.try_lock()
    assert not other.try_lock()
    assert not other.looks_free()
    one.release()
    one.release()
    assert other.looks_free()
    assert other.try_lock()
    other.release()


async def test_a_full_disk_does_not_keep_the_claim_from_its_holder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    registry = SQLiteRegistry(path)
    async with registry.claim("queen"):
        assert ClaimHolder(None, None) == await registry.find_claim("queen")


BAD_NOTES = [
    b"",
    b"\0\xff",
    b"{}",
    b"[]",
    b"[1, 2]",
    b"[true, 1, 1]",
    b'["1", 1, 1]',
    b"[-1, 1, 1]",
    b"[0, 1, 1]",
    b"[99999999999999999999999, 1, 1]",
    b"[1, 1, 1]",
    b"[" * 200,
    json.dumps([os.getpid(), 1, 1.0]).encode(),
]


@pytest.mark.parametrize("note", BAD_NOTES, ids=range(len(BAD_NOTES)))
async def test_a_note_that_can_not_be_meant_names_nobody(path: Path, note: bytes) -> None:
    registry = SQLiteRegistry(path)
    async with registry.claim("queen"):
        lock_of(path).write_bytes(note)
        assert ClaimHolder(None, None) == await registry.find_claim("queen")


async def test_a_time_that_is_no_number_names_nobody(path: Path) -> None:
    registry = SQLiteRegistry(path)
    async with registry.claim("queen"):
        pid, start_time, _ = json.loads(lock_of(path).read_bytes())
        lock_of(path).write_text(json.dumps([pid, start_time, None]))
        assert ClaimHolder(None, None) == await registry.find_claim("queen")


async def test_a_clock_that_is_set_back_does_no_harm(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SQLiteRegistry(path)
    async with registry.claim("queen"):
        monkeypatch.setattr(time, "time", lambda: 5.0)
        holder = await registry.find_claim("queen")
        assert holder is not None
        assert os.getpid() == holder.pid
        with trio.move_on_after(0.05):
            async with SQLiteRegistry(path).claim("queen"):
                pytest.fail("a claim was given twice")
    async with registry.claim("queen"):
        assert ClaimHolder(os.getpid(), 5.0) == await registry.find_claim("queen")


# --- what is refused ---


def prepare(lock: Path, what: str) -> None:
    lock.parent.mkdir(mode=0o700, parents=True)
    elsewhere = lock.parents[2] / "elsewhere"
    elsewhere.write_text("untouched")
    if what == "link":
        lock.symlink_to(elsewhere)
    elif what == "link to nothing":
        lock.symlink_to(lock.parent / "nothing")
    elif what == "hard link":
        lock.hardlink_to(elsewhere)
    elif what == "FIFO":
        os.mkfifo(lock)
    elif what == "directory":
        lock.mkdir()
    else:
        lock.touch()
        lock.chmod(0o666)


@pytest.mark.fault(64)
@pytest.mark.parametrize(
    ("what", "finding"),
    [
        ("link", "it is a link in the place of a file"),
        ("link to nothing", "it is a link in the place of a file"),
        ("hard link", "a hard link"),
        ("FIFO", "is no file"),
        ("directory", "Is a directory|is no file"),
        ("file for everybody", "can be written by others"),
    ],
)
async def test_a_claim_file_that_others_could_have_prepared_is_refused(
    path: Path, what: str, finding: str
) -> None:
    prepare(lock_of(path), what)
    registry = SQLiteRegistry(path)
    with pytest.raises(RegistryError, match=finding) as caught:
        async with registry.claim("queen"):
            pass
    assert str(lock_of(path)) in str(caught.value)
    with pytest.raises(RegistryError, match=finding):
        await registry.find_claim("queen")
    assert "untouched" == (path.parents[1] / "elsewhere").read_text()
    assert not (lock_of(path).parent / "nothing").exists()


@pytest.mark.fault(64)
async def test_a_claim_file_of_somebody_else_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(lock_of(path), "file for everybody")
    lock_of(path).chmod(0o600)
    claim = ClaimFile(lock_of(path).parent, "queen")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(Exception, match=f"belongs to user {owner} and not to this one"):
        claim.find_holder()


@pytest.mark.fault(64)
async def test_a_link_in_the_place_of_the_claims_directory_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    elsewhere = path.parents[1] / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    lock_of(path).parent.symlink_to(elsewhere)
    with pytest.raises(RegistryError, match="is a link or no directory"):
        async with SQLiteRegistry(path).claim("queen"):
            pass
    assert [] == list(elsewhere.iterdir())


async def test_a_name_that_can_not_be_a_file_is_a_config_error(path: Path) -> None:
    for name in ("../queen", "", "a\0b", "x" * 201):
        with pytest.raises(ConfigError):
            async with SQLiteRegistry(path).claim(name):
                pass
    assert not path.parent.exists()


def test_a_claim_is_free_after_a_program_that_raised(path: Path) -> None:
    code = """
from trio_lifecycle.registry._sqlite import SQLiteRegistry

registry = SQLiteRegistry(sys.argv[1])

async def main():
    try:
        async with registry.claim("queen"):
            1 / 0
    except ZeroDivisionError:
        print(await registry.find_claim("queen"))

trio.run(main)
"""
    assert ["None"] == run_app(code, str(path))
