"""What an application asks of its reaper, and what it gets when that is slow, or refuses."""

import os
import signal

import pytest

from tests import reapers
from tests.reapers import Mark, held, house, kill, marked, reaper_of, wait_until
from tests.support import UNMEASURED, lives, run_app
from trio_lifecycle._proc import read_stat

mark = reapers.mark

only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give up root")


def run_house(code: str, mark: Mark, *args: str) -> list[str]:
    """Run an application with a reaper to its end; give the lines that it wrote."""
    # Some of them give up the rights to say what was measured.
    return run_app(reapers.HOUSE + code, *args, env={**mark.env, **UNMEASURED})


# --- what a request may hold ----------------------------------------------------------------------

LARGE = """
async def large():
    env = {f"PIECE_{n}": str(n) * 100_000 for n in range(10)}
    heard = Heard()
    code = "import os; print(sum(len(v) for k, v in os.environ.items() if k[:6] == 'PIECE_'))"
    async with trio.open_nursery() as nursery:
        process = await spawn_python(nursery, code, env=env, output=Output(to=heard))
        print(await heard.line(""))
        await end(process)
trio.run(large)
"""


@pytest.mark.fault(6)
def test_an_environment_of_a_megabyte_arrives(mark: Mark) -> None:
    assert ["1000000"] == run_house(LARGE, mark)


REFUSED = """
import errno
async def refused():
    asked = {
        "one string": ("/bin/true", {"env": {"BIG": "x" * 140_000}}),
        "all together": ("/bin/true", {"env": {f"B{n}": "x" * 100_000 for n in range(100)}}),
        "no program": ("/nowhere/program", {}),
        "no directory": ("/bin/true", {"working_dir": Path("/nowhere/at/all")}),
        "no execution": (sys.argv[1], {}),
    }
    async with trio.open_nursery() as nursery:
        for what, (program, changes) in asked.items():
            try:
                await spawn(nursery, program, **changes)
            except SpawnError as error:
                print(what, errno.errorcode[error.errno], "/nowhere/at/all" in str(error))
        process = await spawn(nursery, "/bin/sleep", "1000")
        print(reaper().lost, len(children_of(reaper().inner)))
        await end(process)
trio.run(refused)
"""


@pytest.mark.fault(2, 4, 6)
def test_what_the_system_refuses_is_told_apart_and_the_reaper_goes_on(mark: Mark) -> None:
    text = mark.notes.parent / "text"
    text.write_text("no program")
    assert [
        "one string E2BIG False",
        "all together E2BIG False",
        "no program ENOENT False",
        "no directory ENOENT True",
        "no execution EACCES False",
        "None 1",
    ] == run_house(REFUSED, mark, str(text))


DIRECTORY = """
base = Path(sys.argv[1])
(base / "a" / "below").mkdir(parents=True)
(base / "b" / "below").mkdir(parents=True)
async def directories():
    async with trio.open_nursery() as nursery:
        async def show(**changes):
            heard = Heard()
            code = "import os; print('in', os.readlink('/proc/self/cwd'))"
            output = Output(to=heard)
            process = await spawn_python(nursery, code, output=output, **changes)
            print((await heard.line("in")).removeprefix(str(base)))
            await end(process)
        for name in ("a", "b"):
            os.chdir(base / name)
            await show()
            await show(working_dir=Path("below"))
        (base / "b" / "below").rmdir()
        (base / "b").rmdir()
        await show()
        await show(working_dir=base)
trio.run(directories)
"""


def test_a_daemon_starts_in_the_directory_of_its_application_at_that_time(mark: Mark) -> None:
    base = str(mark.notes.parent)
    lines = run_house(DIRECTORY, mark, base)
    assert ["/a", "/a/below", "/b", "/b/below", "/b (deleted)", ""] == lines


ATTRIBUTES = """
import errno, resource
CODE = '''import os, resource
mask = os.umask(0)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
print("it", oct(mask), limits[0], os.getpriority(os.PRIO_PROCESS, 0), os.getuid(), os.getgid(),
    *os.getgroups(), sep=",")'''
async def attributes():
    async with trio.open_nursery() as nursery:
        async def show():
            heard = Heard()
            process = await spawn_python(nursery, CODE, output=Output(to=heard))
            print(await heard.line("it"))
            await end(process)
        os.umask(0o22)
        await show()
        os.umask(0o77)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (123, hard))
        os.nice(3)
        await show()
        if "give up" in sys.argv:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                await show()
            except SpawnError as error:
                # Nobody may run this interpreter, which is in root's own directory.
                print("it", errno.errorcode[error.errno])
trio.run(attributes)
"""


def test_what_the_application_has_changed_of_itself_holds_for_the_next_daemon(mark: Mark) -> None:
    first, second = (line.split(",") for line in run_house(ATTRIBUTES, mark))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    assert ("0o22", str(nice)) == (first[1], first[3])
    assert ["0o77", "123", str(min(19, nice + 3))] == second[1:4]


@only_root
def test_a_daemon_does_not_run_as_root_when_its_application_has_given_that_up(mark: Mark) -> None:
    first, second, third = (line.split(",") for line in run_house(ATTRIBUTES, mark, "give up"))
    assert ["0", "0"] == first[4:6]
    assert third in (["it EACCES"], ["", *second[1:4], "65534", "65534"])


TOGGLE = """
async def toggle():
    async with trio.open_nursery() as nursery:
        for number in range(10):
            os.umask((0o22, 0o77)[number % 2])
            await end(await spawn(nursery, "/bin/true"))
    print(len([pid for pid in children_of(os.getpid()) if lives(pid)]))
trio.run(toggle)
"""


def test_reapers_do_not_grow_more_when_an_attribute_changes_to_and_fro(mark: Mark) -> None:
    (count,) = run_house(TOGGLE, mark)
    assert int(count) <= 2


ILLEGAL = """
async def illegal():
    async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running() as daemon:
        first = reaper()
        async with trio.open_nursery() as nursery:
            os.environ._data[b""] = b"::=::"
            try:
                await end(await spawn(nursery, "/bin/true"))
            except SpawnError:
                pass
            await trio.testing.wait_all_tasks_blocked()
            print(lives(daemon.pid), first.lost)
import trio.testing
trio.run(illegal)
"""


@pytest.mark.fault(7)
def test_other_daemons_live_on_when_a_variable_has_no_name(mark: Mark) -> None:
    # An application may be started with one, execve(2) looks at nothing; os.environ holds it.
    assert ["True None"] == run_house(ILLEGAL, mark)


SMALL_FILES = """
import resource
async def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running() as daemon:
            # Not the first answer: the table is written after it.
            await end_of_second_spawn()
            print("ok", reaper().lost)
    except ReaperLostError as error:
        print("lost")
async def end_of_second_spawn():
    async with trio.open_nursery() as nursery:
        await end(await spawn(nursery, "/bin/true"))
trio.run(small_files)
"""


def test_a_daemon_can_be_guarded_when_its_application_may_write_no_files(mark: Mark) -> None:
    assert ["ok None"] == run_house(SMALL_FILES, mark)


# --- a reaper that does not answer ----------------------------------------------------------------

STOPPED = """
def until_stopped(pid):
    while read_stat(pid).state != "T":
        time.sleep(0.005)
async def stopped():
    from trio_lifecycle._proc import read_stat
    globals().update(read_stat=read_stat)
    first = python_daemon(DAEMONS["plain"][0], name="first")
    async with DaemonLifecycle(first).running() as daemon:
        mine()
        old = reaper()
        os.kill(old.inner, signal.SIGSTOP)
        await trio.to_thread.run_sync(until_stopped, old.inner)
        late = python_daemon(DAEMONS["plain"][0], name="late", ready_timeout=2.0)
        try:
            async with DaemonLifecycle(late).running():
                print("started?")
        except LifecycleError as error:
            print(type(error).__name__)
        try:
            async with DaemonLifecycle(late).running():
                print("another", len([link for link in ReaperLink.all() if link.usable]))
        except LifecycleError as error:
            print(repr(error))
        with trio.fail_after(PATIENCE_S):
            report = await daemon.stop()
        print(report.rung, lives(daemon.pid))
        sys.stdin.readline()
        os.kill(old.inner, signal.SIGCONT)
        with trio.fail_after(PATIENCE_S):
            # The request that was given up is spawned now, and discarded.
            while not old.usable or children_of(old.inner):
                await trio.sleep(0.01)
        print("empty")
trio.run(stopped)
"""


@pytest.mark.fault(8)
def test_a_stopped_reaper_holds_up_nothing_but_one_start(mark: Mark) -> None:
    with house(STOPPED, mark) as program, held(reaper_of(program)):
        assert "ReadyTimeoutError" == program.say()
        assert "another 1" == program.say()
        assert "SIGTERM False" == program.say()
        mark.wait_until_alone(program.pid)
        program.hear("go")
        assert "empty" == program.say()
        status, output = program.end()
        assert (0, "") == (status, output)
        mark.wait_until_alone()


STOPPED_AND_KILLED = """
async def stopped():
    ladder = StopLadder((signal.SIGTERM, 0.1))
    config = python_daemon(DAEMONS["plain"][0], stop_ladder=ladder)
    async with DaemonLifecycle(config).running():
        mine()
        await trio.sleep_forever()
trio.run(stopped)
"""


@pytest.mark.slow
def test_nothing_is_left_when_the_inner_half_is_stopped_and_the_application_killed(
    mark: Mark,
) -> None:
    with house(STOPPED_AND_KILLED, mark) as program, held(reaper_of(program)) as reaper:
        kill(reaper.inner, signal.SIGSTOP)
        wait_until(lambda: (stat := read_stat(reaper.inner)) is not None and stat.state == "T")
        program.signal(signal.SIGKILL)
        # The outer half waits 10 s longer than the longest ladder.
        mark.wait_until_alone()
        reaper.wait_gone()


# --- cancelled starts -----------------------------------------------------------------------------

CANCELLED = """
import random
async def cancelled():
    seeds = random.Random(int(sys.argv[1]))
    cancelled = 0
    async with trio.open_nursery() as nursery:
        await end(await spawn(nursery, "/bin/true"))
        mine()
        begin = time.monotonic()
        await end(await spawn(nursery, "/bin/sleep", "1000"))
        usual_s = time.monotonic() - begin
        for _ in range(300):
            with trio.move_on_after(seeds.random() * usual_s) as scope:
                process = await spawn(nursery, "/bin/sleep", "1000")
                await end(process)
            if not scope.cancelled_caught:
                continue
            cancelled += 1
            with suppress(NameError):
                # Ours already: cancelled in the midst of end().
                with trio.CancelScope(shield=True):
                    await end(process)
                del process
    print("over", cancelled)
    sys.stdin.readline()
from contextlib import suppress
trio.run(cancelled)
"""


@pytest.mark.fault(9)
@pytest.mark.slow
def test_starts_that_are_cancelled_at_any_instant_leave_nothing(mark: Mark) -> None:
    with house(CANCELLED, mark, "7") as program, held(reaper_of(program)) as reaper:
        word, cancelled = program.say().split()
        assert "over" == word
        assert int(cancelled) > 0
        wait_until(lambda: [program.pid] == marked(mark.word))
        assert all(map(lives, reaper.pids))
        program.hear("go")
        assert (0, "") == program.end()
