"""Processes that got away: whose they are, who hears of them, and that they go in the end."""

import pytest

from tests import reapers
from tests.reapers import Mark, held, house, kill, reaper_of
from tests.support import bystander, lives

mark = reapers.mark

STRAYS = """
# Each time when it is asked to, it starts one that leaves as fast as it can: forked twice, in a
# session of its own, and with nothing of its environment from the beginning but the test's mark.
ESCAPE = '''
import os, sys, time
asked = os.environ["ASKED"]
kept = {key: os.environ[key] for key in os.environ if key.endswith("REAPER_TEST")}
while True:
    while not os.path.exists(asked):
        time.sleep(0.005)
    os.unlink(asked)
    way_out = ["sh", "-c", "setsid sleep 123456 & exit"]
    os.waitpid(os.posix_spawn("/bin/sh", way_out, kept), 0)
    print("escaped", flush=True)
'''
# Keeps its environment and its session.
LEAVE = '''
import os, time
if os.fork() == 0:
    if os.fork():
        os._exit(0)
    os.execv("/bin/sleep", ["sleep", "123456"])
os.wait()
print("escaped", flush=True)
while True:
    time.sleep(1000)
'''
def sleepers():
    return [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and is_sleeper(pid)]

def is_sleeper(pid):
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(bytes(1))
        word = os.environb[b"TRIO_LIFECYCLE_REAPER_TEST"]
        bears = word in Path(f"/proc/{pid}/environ").read_bytes()
        return words[:2] == [b"sleep", b"123456"] and bears
    except OSError:
        return False

async def sleeper():
    with trio.fail_after(PATIENCE_S):
        while not sleepers():
            await trio.sleep(0.005)
    return sleepers()[0]

async def run(code, name, body, observer=None):
    heard = Heard()
    env = {"ASKED": sys.argv[1]}
    config = python_daemon(code, name=name, env=env, output=Output(to=heard))
    async with DaemonLifecycle(config, observer=observer).running() as daemon:
        await body(daemon, heard)

def let_go():
    Path(sys.argv[1]).touch()
"""

UNKNOWN = """
events = []
async def main():
    async def with_a(a, heard):
        async def with_b(b, _):
            mine()
            # Now and then the reaper notes who is whose child; one that is noted before it got away
            # is no stray of nobody knows whom.
            found = []
            with trio.fail_after(PATIENCE_S):
                while not found:
                    let_go()
                    with trio.move_on_after(0.5):
                        while len(found) < 2:
                            await trio.sleep(0.005)
                            found = [event.pid for event in events if event.kind == "stray"]
            stray = found[0]
            print(found == [stray, stray], stray in sleepers())
            await b.stop()
            print("after b", lives(stray))
            await a.stop()
            print("after a", sleepers() == [stray])
        await run(DAEMONS["plain"][0], "b", with_b, events.append)
    await run(ESCAPE, "a", with_a, events.append)
trio.run(main)
"""


def test_a_stray_of_nobody_knows_whom_is_reported_and_goes_with_the_application(
    mark: Mark,
) -> None:
    with house(STRAYS + UNKNOWN, mark, str(mark.notes)) as program, held(reaper_of(program)):
        assert "True True" == program.say()
        assert "after b True" == program.say()
        assert "after a True" == program.say()
        assert (0, "") == program.end()
        mark.wait_until_alone()


ONLY = """
async def main():
    async def with_a(a, heard):
        mine()
        let_go()
        await heard.line("escaped")
        stray = await sleeper()
        await a.stop()
        print("after a", lives(stray))
    await run(ESCAPE, "a", with_a)
trio.run(main)
"""


@pytest.mark.fault(40)
def test_a_stray_of_the_only_daemon_goes_with_it(mark: Mark) -> None:
    with house(STRAYS + ONLY, mark, str(mark.notes)) as program, held(reaper_of(program)):
        assert "after a False" == program.say()
        assert (0, "") == program.end()


KNOWN = """
async def main():
    async def with_a(a, heard):
        async def with_b(b, _):
            mine()
            await heard.line("escaped")
            stray = await sleeper()
            await b.stop()
            print("after b", lives(stray), lives(a.pid))
            await a.stop()
            print("after a", lives(stray))
        await run(DAEMONS["plain"][0], "b", with_b)
    await run(LEAVE, "a", with_a)
trio.run(main)
"""


@pytest.mark.fault(40, 99)
def test_a_stray_goes_with_its_own_daemon_and_no_other(mark: Mark) -> None:
    with (
        bystander("sleep", "123456") as stranger,
        house(STRAYS + KNOWN, mark, str(mark.notes)) as program,
        held(reaper_of(program)),
    ):
        assert "after b True True" == program.say()
        assert "after a False" == program.say()
        assert (0, "") == program.end()
        assert lives(stranger)


LATE = """
# A child that shows up when its daemon is gone: it hid below a process of another session.
HIDE = '''
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "123456"])
    print("escaped", flush=True)
    time.sleep(1000)
time.sleep(1000)
'''
async def main():
    async def with_a(a, heard):
        mine()
        await heard.line("escaped")
        stray = await sleeper()
        os.kill(a.pid, signal.SIGKILL)
        await trio.sleep_forever()
    try:
        await run(HIDE, "a", with_a)
    except DaemonDiedError:
        print("left", len(sleepers()))
trio.run(main)
"""


@pytest.mark.fault(39, 40)
def test_who_left_the_session_goes_when_the_main_process_has_died(mark: Mark) -> None:
    with house(STRAYS + LATE, mark, str(mark.notes)) as program, held(reaper_of(program)):
        assert "left 0" == program.say()
        assert (0, "") == program.end()
        mark.wait_until_alone()


def test_all_strays_go_when_the_application_is_killed(mark: Mark) -> None:
    code = STRAYS + UNKNOWN.replace("await b.stop()", "await trio.sleep_forever()")
    with (
        bystander("sleep", "123456") as stranger,
        house(code, mark, str(mark.notes)) as program,
        held(reaper_of(program)) as reaper,
    ):
        assert "True True" == program.say()
        assert len(mark.pids()) >= 4
        kill(program.pid)
        mark.wait_until_alone()
        reaper.wait_gone()
        assert lives(stranger)
