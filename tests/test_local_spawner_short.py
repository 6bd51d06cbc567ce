"""The local spawner in programs that lack something: descriptors, statuses of children, streams."""

import errno
from pathlib import Path

import pytest

from tests.support import run_app
from trio_lifecycle._guarantee import Guarantee

# In the reaper, and in this program itself.
each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped"])


# --- no descriptors left --------------------------------------------------------------------------

SHORT_OF_DESCRIPTORS = """
import resource
import trio.testing
from trio_lifecycle.spawner._reaper_link import ReaperLink

guarantee, another = sys.argv[1:]
# Once and for all: a reaper that was born with another limit would be replaced.
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def open_now():
    held = {fd for link in ReaperLink.all() for fd in link.descriptors}
    return {fd: os.readlink(f"/dev/fd/{fd}") for fd in map(int, os.listdir("/dev/fd"))
            if fd not in held and os.path.islink(f"/dev/fd/{fd}")}

def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]

async def attempt(free, others):
    async with trio.open_nursery() as nursery:
        before = open_now()
        filler = []
        try:
            while True:
                filler.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for fd in filler[len(filler) - free:]:
                os.close(fd)
            del filler[len(filler) - free:]
        try:
            process = await spawn(nursery, "/bin/sleep", "1000", guarantee=guarantee)
        except SpawnError as error:
            print("refused", error.errno, error.retryable)
        else:
            print("spawned")
            await end(process)
        finally:
            for fd in filler:
                os.close(fd)
        await trio.testing.wait_all_tasks_blocked()
        assert before == open_now(), (before, open_now())
        reapers = [link.outer for link in ReaperLink.all() if link.usable]
        assert len(reapers) <= 1
        if guarantee == "scoped":
            reapers += others
        assert sorted(reapers) == sorted(children()), (reapers, children())

async def main():
    async with trio.open_nursery() as nursery:
        others = []
        if another == "another is there":
            others.append(await spawn(nursery, "/bin/sleep", "1000", guarantee=guarantee))
        for free in range(MOST_FREE):
            await attempt(free, [other.pid for other in others])
        for other in others:
            assert lives(other.pid) and other.lost is None and not other.ended
            await end(other)

trio.run(main)
"""


@pytest.mark.fault(7)
@each_guarantee
@pytest.mark.parametrize("another", ["it is the first", "another is there"])
def test_the_want_of_descriptors_is_a_retryable_error_and_leaves_nothing(
    guarantee: Guarantee, another: str
) -> None:
    most_free = 20
    lines = run_app(f"MOST_FREE = {most_free}\n{SHORT_OF_DESCRIPTORS}", guarantee, another)
    refusals = [line for line in lines if line != "spawned"]
    assert {f"refused {errno.EMFILE} True"} == set(refusals)
    assert ["spawned"] * (most_free - len(refusals)) == list(lines[len(refusals) :])
    assert 0 < len(refusals) < most_free


# --- who else hears of children -------------------------------------------------------------------

WITH_SIGCHLD = """
spawner = LocalSpawner(*sys.argv[1:])

async def main():
    async with trio.open_nursery() as nursery:
        process = await spawner.spawn(request("/bin/sh", "-c", "exit 3"), nursery)
        with trio.fail_after(10):
            print("status", await process.wait())
            await end(process)
        print("gone", process.gone)
    config = shell_daemon("exit 4")
    try:
        async with DaemonLifecycle(config, spawner=spawner).running():
            await trio.sleep_forever()
    except (DaemonDiedError, DiedBeforeReadyError) as error:
        print("status", error.exit_status)
"""

HANDLERS = {
    "looks on": "signal.signal(signal.SIGCHLD, lambda *_: None)",
    "ignores": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "reaps everything": """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
""",
}


@each_guarantee
def test_the_status_is_right_when_the_program_has_a_handler_for_sigchld(guarantee: str) -> None:
    lines = run_app(f"{HANDLERS['looks on']}\n{WITH_SIGCHLD}\ntrio.run(main)", guarantee)
    assert ["status 3", "gone True", "status 4"] == lines


@pytest.mark.fault(10)
@pytest.mark.parametrize("handler", ["ignores", "reaps everything"])
def test_the_status_is_right_also_when_the_program_lets_nobody_have_it(handler: str) -> None:
    lines = run_app(f"{HANDLERS[handler]}\n{WITH_SIGCHLD}\ntrio.run(main)")
    # The parent is the reaper; this program is not asked.
    assert ["status 3", "gone True", "status 4"] == lines


@pytest.mark.fault(10)
@pytest.mark.parametrize("handler", ["ignores", "reaps everything"])
def test_a_scoped_end_is_seen_also_when_the_program_lets_nobody_have_the_status(
    handler: str,
) -> None:
    lines = run_app(f"{HANDLERS[handler]}\n{WITH_SIGCHLD}\ntrio.run(main)", "scoped")
    known = [line for line in lines if line != "status None"]
    # Whoever comes first has it.
    assert {"gone True"} <= set(known) <= {"status 3", "gone True", "status 4"}
    assert 3 == len(lines)
    if handler == "ignores":
        assert ["status None", "gone True", "status None"] == lines


STOPPED_IN_SPITE_OF_IT = """
async def main():
    heard = Heard()
    config = shell_daemon("sleep 1000 & echo grandchild $!; wait", output=Output(to=heard))
    async with DaemonLifecycle(config, spawner=LocalSpawner(sys.argv[1])).running() as daemon:
        grandchild = await heard.pid("grandchild")
        report = await daemon.stop()
    print(report.rung, lives(grandchild), lives(daemon.pid))
"""


@each_guarantee
@pytest.mark.parametrize("handler", HANDLERS)
def test_the_group_goes_whatever_the_program_does_about_sigchld(
    handler: str, guarantee: str
) -> None:
    lines = run_app(f"{HANDLERS[handler]}\n{STOPPED_IN_SPITE_OF_IT}\ntrio.run(main)", guarantee)
    assert ["SIGTERM False False"] == lines


# --- no streams -----------------------------------------------------------------------------------

WITHOUT_STREAMS = """
for fd in (0, 1, 2):
    os.close(fd)

LOOK = '''
import os
kind = lambda fd: os.readlink(f"/dev/fd/{fd}").partition(":")[0]
print("streams", kind(0), kind(1), kind(2), flush=True)
os.write(2, b"error stream\\\\n")
os.read(0, 1) == b"" and print("no input", flush=True)
import time
time.sleep(1000)
'''

async def main():
    heard = Heard()
    config = python_daemon(LOOK, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("no input")
    return heard.lines

lines = trio.run(main)
with open(sys.argv[1], "w") as file:
    file.write("\\n".join(lines))
"""


def test_a_program_without_standard_streams_starts_daemons_that_have_them(tmp_path: Path) -> None:
    run_app(WITHOUT_STREAMS, str(tmp_path / "heard"))
    lines = (tmp_path / "heard").read_text().splitlines()
    assert ["streams /dev/null pipe pipe", "error stream", "no input"] == lines
