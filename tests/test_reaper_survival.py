"""Nothing is left of guarded daemons, however their application or its reaper ends."""

import os
import signal

import pytest

from tests import reapers
from tests.reapers import Mark, children_of, held, house, kill, reaper_of, wait_until
from tests.support import lives
from trio_lifecycle.spawner._spawned_process import is_readable

mark = reapers.mark

HOLD = "trio.run(main)"
ENDS = {
    "SIGKILL": signal.SIGKILL,
    "SIGSEGV": signal.SIGSEGV,
    "SIGHUP": signal.SIGHUP,
    "SIGTERM": signal.SIGTERM,
}
SIMPLE = ("plain", "setsid", "double fork", "no environment", "deaf", "stopped")


# --- the application ends -------------------------------------------------------------------------


@pytest.mark.fault(40, 47, 49)
@pytest.mark.parametrize("how", ENDS)
def test_no_daemon_of_any_manner_is_left_when_the_application_gets(how: str, mark: Mark) -> None:
    with house(HOLD, mark, *SIMPLE) as program, held(reaper_of(program)) as reaper:
        # The application, a main process each, and the children of five.
        wait_until(lambda: len(mark.pids()) >= 1 + len(SIMPLE) + 4)
        program.signal(ENDS[how])
        assert -ENDS[how] == program.end()[0]
        mark.wait_until_alone()
        reaper.wait_gone()


@pytest.mark.fault(47)
def test_no_daemon_is_left_when_the_application_calls_os_exit(mark: Mark) -> None:
    code = """
def leave():
    sys.stdin.readline()
    os._exit(3)
threading.Thread(target=leave, daemon=True).start()
"""
    with house(code + HOLD, mark, *SIMPLE) as program, held(reaper_of(program)) as reaper:
        program.hear("go")
        assert 3 == program.end()[0]
        mark.wait_until_alone()
        reaper.wait_gone()


@pytest.mark.fault(47)
def test_no_daemon_is_left_when_the_application_becomes_another_program(mark: Mark) -> None:
    code = """
async def become():
    async with DaemonLifecycle(python_daemon(DAEMONS["deaf"][0], stop_ladder=HASTY)).running():
        mine()
        await trio.to_thread.run_sync(sys.stdin.readline)
        os.execve("/bin/sleep", ["sleep", "1000"], {})
HASTY = StopLadder((signal.SIGTERM, 0.2))
trio.run(become)
"""
    with house(code, mark) as program, held(reaper_of(program)) as reaper:
        assert 2 == len(mark.pids())
        program.hear("go")
        mark.wait_until_alone()
        reaper.wait_gone()
        assert lives(program.pid)


# --- the ladders are climbed ----------------------------------------------------------------------


def test_a_daemon_gets_its_own_rung_and_tidies_up_when_the_application_is_killed(
    mark: Mark,
) -> None:
    with house(HOLD, mark, "tidy") as program, held(reaper_of(program)) as reaper:
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        reaper.wait_gone()
        assert ["asked"] == mark.noted()


def test_a_daemon_without_rungs_is_killed_at_once_when_the_application_is_killed(
    mark: Mark,
) -> None:
    with house(HOLD, mark, "unasked") as program, held(reaper_of(program)) as reaper:
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        reaper.wait_gone()
        assert [] == mark.noted()


def test_a_daemon_that_ignores_its_rung_is_killed_after_its_seconds(mark: Mark) -> None:
    with house(HOLD, mark, "counting") as program, held(reaper_of(program)) as reaper:
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        reaper.wait_gone()
        assert ["SIGTERM"] == mark.noted()


def test_both_halves_stay_at_work_when_a_ladder_has_more_seconds_than_poll_takes(
    mark: Mark,
) -> None:
    with house(HOLD, mark, "patient") as program, held(reaper_of(program)) as reaper:
        program.signal(signal.SIGKILL)
        program.end()
        try:
            # What crashes does so in milliseconds.
            assert [False, False] == [has_ended(pid, within_s=1.0) for pid in reaper.pids]
        finally:
            mark.end_all()
        reaper.wait_gone()


def has_ended(pid: int, within_s: float) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return is_readable(pidfd, within_s)
    finally:
        os.close(pidfd)


# --- the reaper is hit ----------------------------------------------------------------------------

LOSE = """
events = []
async def start(manner, observer):
    async with trio.open_nursery() as nursery:
        await nursery.start(hold, manner, observer)
        mine()
async def lose(manner):
    try:
        await start(manner, events.append)
    except* ReaperLostError as group:
        (error,) = group.exceptions
        print("lost", "killed" in str(error), [e.kind for e in events].count("reaper_lost"))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(hold, "plain", None)
            mine()
            nursery.cancel_scope.cancel()
        print("again")
    except BaseException as error:
        print(repr(error))
trio.run(lose, sys.argv[1])
"""


@pytest.mark.fault(50)
@pytest.mark.parametrize("half", ["inner", "outer"])
def test_the_owner_hears_of_it_and_a_daemon_is_asked_once_when_the_reaper_loses(
    half: str, mark: Mark
) -> None:
    with house(LOSE, mark, "counting") as program, held(reaper_of(program)) as reaper:
        kill(getattr(reaper, half))
        assert "lost True 1" == program.say()
        mark.wait_until_alone(program.pid)
        assert ["SIGTERM"] == mark.noted()
        with held(reaper_of(program)) as second:
            assert not set(reaper.pids) & set(second.pids)
            assert "again" == program.say()
            assert 0 == program.end()[0]
            reaper.wait_gone()


@pytest.mark.fault(50)
@pytest.mark.parametrize("half", ["inner", "outer"])
def test_nothing_is_left_when_a_half_is_killed_beside_daemons_of_every_manner(
    half: str, mark: Mark
) -> None:
    with house(HOLD, mark, *SIMPLE) as program, held(reaper_of(program)) as reaper:
        wait_until(lambda: len(mark.pids()) >= 1 + len(SIMPLE) + 4)
        kill(getattr(reaper, half))
        status, output = program.end()
        assert 1 == status
        assert "ReaperLostError" in output
        mark.wait_until_alone()
        reaper.wait_gone()


STARTING = """
async def starting():
    config = python_daemon("print('up', flush=True)\\n" + DAEMONS["counting"][0],
        ready_mode=HealthCheck(f"http://127.0.0.1:{free_port()}/"),
        stop_ladder=StopLadder((signal.SIGTERM, 0.3)),
        output=Output(to=lambda line: mine() if line == "up" else None))
    try:
        async with DaemonLifecycle(config).running():
            print("ready?")
    except LifecycleError as error:
        print(type(error).__name__)
trio.run(starting)
"""


@pytest.mark.fault(50)
@pytest.mark.parametrize("half", ["inner", "outer"])
def test_a_start_that_is_under_way_fails_when_the_reaper_loses(half: str, mark: Mark) -> None:
    with house(STARTING, mark) as program, held(reaper_of(program)) as reaper:
        kill(getattr(reaper, half))
        assert "ReaperLostError" == program.say()
        mark.wait_until_alone(program.pid)
        assert 0 == program.end()[0]


@pytest.mark.fault(50)
@pytest.mark.parametrize("half", ["inner", "outer"])
def test_the_next_run_starts_a_new_reaper_when_the_idle_one_was_killed(
    half: str, mark: Mark
) -> None:
    code = """
async def once():
    async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running():
        mine()
trio.run(once)
print("over")
sys.stdin.readline()
trio.run(once)
"""
    with house(code, mark) as program, held(reaper_of(program)) as reaper:
        assert "over" == program.say()
        kill(getattr(reaper, half))
        # A start that reaches the other half before it has heard of it is lost with it, rightly.
        wait_until(lambda: not lives(reaper.inner) and not lives(reaper.outer))
        program.hear("go")
        assert program.say().startswith("reaper ")
        assert 0 == program.end()[0]


@pytest.mark.fault(51)
@pytest.mark.parametrize("half", ["inner", "outer"])
@pytest.mark.parametrize("first", ["application", "reaper"])
def test_nothing_is_left_when_the_application_goes_too(half: str, first: str, mark: Mark) -> None:
    with house(HOLD, mark, *SIMPLE) as program, held(reaper_of(program)) as reaper:
        wait_until(lambda: len(mark.pids()) >= 1 + len(SIMPLE) + 4)
        victims = [program.pid, getattr(reaper, half)]
        for pid in victims if first == "application" else victims[::-1]:
            kill(pid)
        program.end()
        mark.wait_until_alone()
        reaper.wait_gone()


@pytest.mark.fault(51)
def test_a_living_application_sweeps_what_is_marked_when_both_halves_are_killed(
    mark: Mark,
) -> None:
    manners = ("plain", "setsid", "double fork", "deaf")
    with house(HOLD, mark, *manners) as program, held(reaper_of(program)) as reaper:
        wait_until(lambda: len(mark.pids()) == 7)
        for pid in reaper.pids:
            kill(pid)
        status, output = program.end()
        assert 1 == status
        assert "ReaperLostError" in output
        mark.wait_until_alone()


# --- copies of the application --------------------------------------------------------------------

COPY = """
def fork_by_multiprocessing():
    import multiprocessing
    # No join: the copy is to outlive the original.
    multiprocessing.get_context("fork").Process(target=live_on).start()
def fork_plainly():
    if os.fork() == 0:
        live_on()
def live_on():
    print("copy", os.getpid())
    while True:
        time.sleep(1000)
async def copied():
    code, _ = DAEMONS["plain"]
    async with DaemonLifecycle(python_daemon(code)).running() as daemon:
        mine()
        globals()[sys.argv[1]]()
        await trio.sleep_forever()
trio.run(copied)
"""


@pytest.mark.fault(52)
@pytest.mark.parametrize("way", ["fork_plainly", "fork_by_multiprocessing"])
def test_daemons_go_with_the_application_though_a_copy_of_it_lives_on(way: str, mark: Mark) -> None:
    with house(COPY, mark, way) as program, held(reaper_of(program)) as reaper:
        copy = int(program.say().removeprefix("copy "))
        assert 3 == len(mark.pids())
        program.signal(signal.SIGKILL)
        try:
            mark.wait_until_alone(copy)
            reaper.wait_gone()
            assert lives(copy)
        finally:
            kill(copy)


OWN = """
async def copied():
    async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running() as daemon:
        mine()
        pid = os.fork()
        if pid == 0:
            threading.Thread(target=trio.run, args=(in_copy,)).start()
            threading.main_thread().join = None
            while threading.active_count() > 1:
                time.sleep(0.01)
            os._exit(0)
        await trio.to_thread.run_sync(os.waitpid, pid, 0)
        print("ended", lives(daemon.pid), *halves())
async def in_copy():
    print("inherited", len([link for link in ReaperLink.all() if link.lost is None]))
    async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running() as daemon:
        mine()
trio.run(copied)
"""


@pytest.mark.fault(52)
def test_a_copy_of_the_application_has_a_reaper_of_its_own(mark: Mark) -> None:
    with house(OWN, mark) as program, held(reaper_of(program)) as first:
        assert "inherited 0" == program.say()
        second = program.say().split()
        assert not set(map(str, first.pids)) & set(second[1:])
        assert f"ended True {first.outer} {first.inner}" == program.say()
        assert 0 == program.end()[0]
        mark.wait_until_alone()


def test_both_halves_are_where_the_link_says(mark: Mark) -> None:
    with house(HOLD, mark, "plain") as program, held(reaper_of(program)) as reaper:
        assert reaper.outer in children_of(program.pid)
        assert reaper.inner in children_of(reaper.outer)
        assert os.getsid(reaper.inner) == os.getsid(reaper.outer) == reaper.outer
