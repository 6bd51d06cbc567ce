"""Numbers that are given again: whoever has one next is never signalled in the daemon's place."""

import os
import signal

import pytest
import trio

from tests.support import Heard, end, lives, permitted, run_app, spawn, wait_until_gone
from trio_lifecycle import Output

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
CHOOSE_A_NUMBER = (*NAMESPACE, "sh", "-c", "echo 400 > /proc/sys/kernel/ns_last_pid")

RECYCLED = """
import subprocess, trio.testing
from trio_lifecycle._proc import read_stat
from trio_lifecycle.spawner._found_process import FoundProcess

STRANGER = '''
import os, sys
child = os.fork()
if child:
    print(child, flush=True)
    if sys.argv[1] == "leader lives":
        sys.stdin.read()
else:
    sys.stdin.read()
'''

async def main(what, whose):
    if whose == "adopted":
        daemon = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
        process = FoundProcess(read_stat(daemon.pid), os.pidfd_open(daemon.pid))
        daemon.kill()
        daemon.wait()
        # Start times count in hundredths of a second. No machine gives a number again within one.
        time.sleep(0.03)
        await happen(process, what)
        return
    how = {"detached": True, "output": Output(to="/dev/null")}
    if whose != "detached":
        how = {"guarantee": whose}
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sleep", "1000", **how)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await trio.testing.wait_all_tasks_blocked()
        if whose != "detached":
            assert process.gone
        await happen(process, what)
        process.close()

async def happen(process, what):
    pid = process.pid
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    stranger = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", STRANGER, what], start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert pid == stranger.pid, (pid, stranger.pid)
    child = int(stranger.stdout.readline())
    if what == "leader ended":
        stranger.wait()
    for signum in (signal.SIGTERM, signal.SIGKILL):
        await process.signal_tree(signum)
        await process.send_signal(signum)
    print(process.gone, process.find_stuck(), lives(child), what == "leader ended" or lives(pid))
    stranger.stdin.close()
    stranger.wait()
    await wait_until_gone(child)

trio.run(main, *sys.argv[1:])
"""


@pytest.mark.fault(44, 99)
@pytest.mark.skipif(not permitted(*CHOOSE_A_NUMBER), reason="no pid namespace may be made")
@pytest.mark.parametrize("what", ["leader lives", "leader ended"])
@pytest.mark.parametrize("whose", ["guarded", "scoped", "detached", "adopted"])
def test_a_stranger_that_got_the_number_is_never_signalled(what: str, whose: str) -> None:
    assert ["True None True True"] == run_app(RECYCLED, what, whose, within=NAMESPACE)


async def test_the_number_is_kept_as_a_zombie_until_the_scoped_group_has_been_signalled() -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sleep", "1000", guarantee="scoped")
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        # /proc still has it: nobody else can be called so.
        os.kill(process.pid, 0)
        await end(process)
        await wait_until_gone(process.pid)
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


@pytest.mark.fault(44)
async def test_the_number_is_kept_as_a_zombie_until_the_guarded_tree_is_gone() -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        script = "setsid sleep 1000 & echo child $!"
        process = await spawn(nursery, "/bin/sh", "-c", script, output=Output(to=heard))
        child = await heard.pid("child")
        await process.wait()
        # All that the reaper does about it before it answers has been done.
        await process.signal_tree(signal.SIGCONT)
        assert lives(child)
        assert not process.gone
        os.kill(process.pid, 0)
        await end(process)
        assert not lives(child)
        await wait_until_gone(process.pid)
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
