"""A reaper lives with its application: threads, runs, children of others, and no trace left."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import reapers
from tests.reapers import (
    Mark,
    children_of,
    descriptors_of,
    held,
    house,
    kill,
    reaper_of,
    status_of,
    wait_until,
)
from tests.support import ROOT, lives, permitted, run_app

mark = reapers.mark

APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
needs_namespaces = pytest.mark.skipif(
    not permitted(*APART, "true"), reason="a pid namespace can't be made here"
)
SHORT = """
async def short(show=True):
    async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running() as daemon:
        if show:
            mine()
        return halves()
"""


def run_house(code: str, mark: Mark, *args: str, within: tuple[str, ...] = ()) -> list[str]:
    """Run an application with a reaper to its end; give the lines that it wrote."""
    return run_app(reapers.HOUSE + SHORT + code, *args, env=mark.env, within=within)


# --- runs and threads -----------------------------------------------------------------------------


def test_several_trio_runs_one_after_the_other_use_one_reaper(mark: Mark) -> None:
    lines = run_house("for _ in range(3): trio.run(short)", mark)
    assert [lines[0]] * 3 == lines
    mark.wait_until_alone()


def test_trio_in_another_thread_has_a_reaper_too(mark: Mark) -> None:
    code = """
thread = threading.Thread(target=trio.run, args=(short,))
thread.start()
thread.join()
trio.run(short)
"""
    first, second = run_house(code, mark)
    assert first.startswith("reaper ")
    # It is not bound to the thread that started it.
    assert first == second


def test_two_trio_runs_at_the_same_time_have_a_reaper_each(mark: Mark) -> None:
    code = """
barrier = threading.Barrier(2)
async def meet():
    async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running() as daemon:
        await trio.to_thread.run_sync(barrier.wait)
        found.append([link.outer for link in ReaperLink.all() if daemon.pid in link.wards])
        await trio.to_thread.run_sync(barrier.wait)
found = []
threads = [threading.Thread(target=trio.run, args=(meet,)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*sorted(map(len, found)), found[0] != found[1])
"""
    assert ["1 1 True"] == run_house(code, mark)


# --- the application's own children ---------------------------------------------------------------

OWN_CHILDREN = """
way = sys.argv[1]
heard = []
if way == "handler":
    signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
if way == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def children():
    for number in range(20):
        if way == "wait":
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {number}"], os.environ)
            assert os.wait() == (pid, number << 8)
        elif way != "ignored":
            assert subprocess.run(["/bin/sh", "-c", f"exit {number}"]).returncode == number
async def beside():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, children)
        for number in range(20):
            process = await spawn(nursery, "/bin/sh", "-c", f"exit {number}")
            assert await process.wait() == number, (number, process.status)
            await end(process)
    print("right", way != "handler" or len(heard) > 0)
trio.run(beside)
"""


@pytest.mark.fault(10)
@pytest.mark.parametrize("way", ["plain", "wait", "handler", "ignored"])
def test_exit_statuses_are_right_beside_children_of_the_application(way: str, mark: Mark) -> None:
    assert ["right True"] == run_house(OWN_CHILDREN, mark, way)


@needs_namespaces
def test_an_application_that_is_process_1_has_a_reaper_and_leaves_no_zombie(mark: Mark) -> None:
    code = """
async def first_of_all():
    for half in ("inner", "outer", None):
        try:
            async with DaemonLifecycle(python_daemon(DAEMONS["double fork"][0])).running():
                assert os.getpid() == 1
                if half:
                    os.kill(getattr(reaper(), half), signal.SIGKILL)
                    await trio.sleep(PATIENCE_S)
        except ReaperLostError:
            print("lost", half)
trio.run(first_of_all)
deadline = time.monotonic() + 5.0
while len(children_of(1)) > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
# The one that is kept for the next run.
print([Path(f"/proc/{pid}/comm").read_text().strip() for pid in children_of(1)])
"""
    lines = run_house(code, mark, within=APART)
    assert ["lost inner", "lost outer", "['trio-reaper']"] == lines


# --- an application that is a daemon itself -------------------------------------------------------

NESTED = """
INNER = '''
import logging, os, signal, sys, time
import trio
from trio_lifecycle import *
from tests.reapers import DAEMONS
from tests.support import *
logging.getLogger("trio_lifecycle").setLevel(logging.ERROR)
async def main():
    heard = Heard()
    code, ladder = DAEMONS[sys.argv[1]]
    config = python_daemon(code, stop_ladder=StopLadder(*ladder), output=Output(to=heard))
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with DaemonLifecycle(config).running():
            await heard.line("ready")
            print("inner ready", flush=True)
            async for _ in signals:
                # What it still does with its daemon, such as to answer who has asked.
                await trio.sleep(0.3)
                break
trio.run(main)
with open(os.environ["NOTES"], "a") as file:
    file.write("polite")
'''
async def outer():
    heard = Heard()
    config = LifecycleConfig(
        sys.executable, args=["-u", "-c", INNER, sys.argv[2]], name="application",
        ready_mode=Manual(), output=Output(to=heard),
    )
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("inner ready")
        mine()
        if sys.argv[1] == "stop":
            report = await daemon.stop()
            print(report.rung, report.status, heard.lines[1:])
        else:
            await trio.sleep_forever()
trio.run(outer)
"""


@pytest.mark.fault(47)
def test_nothing_is_left_of_nested_applications_when_the_outer_one_is_killed(mark: Mark) -> None:
    with house(NESTED, mark, "hold", "deaf") as program, held(reaper_of(program)) as reaper:
        assert 3 == len(mark.pids())
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        reaper.wait_gone()
        assert ["polite"] == mark.noted()


@pytest.mark.parametrize("manner", ["deaf", "plain"])
def test_a_nested_application_is_stopped_politely(manner: str, mark: Mark) -> None:
    with house(NESTED, mark, "stop", manner) as program, held(reaper_of(program)):
        assert "SIGTERM 0 []" == program.say()
        assert (0, "") == program.end()
        assert ["polite"] == mark.noted()
        mark.wait_until_alone()


# --- what stays of it, and what it shows ----------------------------------------------------------

CYCLES = """
def count_threads(pid):
    # Trio keeps idle worker threads for 10 s, on purpose; a busy machine needs one more of them.
    names = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/comm")]
    return sum(not name.startswith("Trio thread") for name in names)

def count():
    numbers = (os.getpid(), *halves())
    descriptors = [len(os.listdir(f"/proc/{pid}/fd")) for pid in numbers]
    threads = [count_threads(pid) for pid in numbers]
    children = [len(children_of(pid)) for pid in numbers]
    return descriptors, threads, children
async def cycles():
    for number in range(52):
        await short(show=False)
        if number == 1:
            before = count()
    after = count()
    print("same" if before == after else f"{before} {after}")
trio.run(cycles)
"""


def test_fifty_starts_and_stops_leave_no_descriptor_no_thread_and_no_child(mark: Mark) -> None:
    assert ["same"] == run_house(CYCLES, mark)


def test_runs_that_lose_their_reapers_leave_no_zombie(mark: Mark) -> None:
    code = """
async def lose():
    async with DaemonLifecycle(python_daemon(DAEMONS["plain"][0])).running():
        os.kill(reaper().inner, signal.SIGKILL)
        await trio.sleep(PATIENCE_S)
for _ in range(5):
    try:
        trio.run(lose)
    except ReaperLostError:
        pass
trio.run(short, False)
async def wait():
    with trio.fail_after(PATIENCE_S):
        while len(children_of(os.getpid())) > 1:
            await short(False)
    print("none")
trio.run(wait)
"""
    assert ["none"] == run_house(code, mark)


PLAIN = f"{SHORT}\ntrio.run(main)"


@pytest.mark.fault(48)
def test_a_reaper_takes_no_signal_for_its_application_as_meant_for_itself(mark: Mark) -> None:
    with house(PLAIN, mark, "plain") as program, held(reaper_of(program)) as reaper:
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
        for pid in reaper.pids:
            assert os.getpgid(pid) == reaper.outer != os.getpgid(program.pid)
            for signum in signals:
                kill(pid, signum)
        # Signals that end something are handled before it is next seen to sleep.
        for pid in reaper.pids:
            wait_until(lambda pid=pid: status_of(pid)["State"].startswith("S"))  # type: ignore[misc]
        assert all(map(lives, reaper.pids))
        assert 2 == len(mark.pids())


def test_a_reaper_shows_nothing_of_the_environment_of_its_application(mark: Mark) -> None:
    with house(PLAIN, mark, "plain") as program, held(reaper_of(program)) as reaper:
        for pid in reaper.pids:
            for name in ("environ", "cmdline"):
                assert mark.word.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
            assert Path("/") == Path(f"/proc/{pid}/cwd").readlink()
            streams = {number: descriptors_of(pid)[number] for number in (0, 1)}
            assert {0: "/dev/null", 1: "/dev/null"} == streams


@pytest.mark.fault(11, 12)
def test_a_daemon_inherits_no_descriptor_no_mask_and_no_disposition(mark: Mark) -> None:
    code = """
heard = Heard()
async def look():
    read_end, _ = os.pipe()
    os.set_inheritable(read_end, True)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    async with trio.open_nursery() as nursery:
        script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/$$/fd; echo ."
        process = await spawn(nursery, "/bin/sh", "-c", script, output=Output(to=heard))
        await heard.line(".")
        await end(process)
    print(*(word for line in heard.lines for word in line.split()))
trio.run(look)
"""
    _, blocked, _, ignored, *descriptors = run_house(code, mark)[0].split()
    assert ["0", "1", "2", "."] == descriptors
    assert 0 == int(blocked, 16)
    # Two numbers are the C library's own, and it gives no way to change what they do.
    assert 0 == int(ignored, 16) & ~(1 << 31 | 1 << 32)


def test_the_reaper_has_no_more_children_than_daemons(mark: Mark) -> None:
    with house(PLAIN, mark, "plain", "deaf") as program, held(reaper_of(program)) as reaper:
        assert [reaper.inner] == children_of(reaper.outer)
        assert 2 == len(children_of(reaper.inner))


def test_the_program_of_the_reaper_can_be_told_in_a_list_of_processes(mark: Mark) -> None:
    with house(PLAIN, mark, "plain") as program, held(reaper_of(program)) as reaper:
        listed = subprocess.run(
            ["ps", "-o", "comm=", "-p", ",".join(map(str, reaper.pids))],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert ["trio-reaper"] * 2 == listed.stdout.split()
