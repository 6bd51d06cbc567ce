"""What leaves the daemon's group and session: it goes all the same, or stays if that was chosen."""

import os
import signal

import pytest

from tests.support import Heard, die, lives, python_daemon, shell_daemon, wait_until_gone
from trio_lifecycle import DaemonDiedError, DaemonHandle, DaemonLifecycle, LocalSpawner, Output

# Says the number of a process that has left the group, in the manner that is named.
RUNAWAY = """
import os, sys, time

def live():
    os.write(1, f"runaway {os.getpid()}\\n".encode())
    os.execve("/bin/sleep", ["sleep", "1000"], {} if "emptied" in sys.argv else os.environ)

if os.fork() == 0:
    os.setsid()
    if "setsid" not in sys.argv:
        if os.fork():
            os._exit(0)
        os.setpgid(0, 0)
    live()
while True:
    time.sleep(1000)
"""


@pytest.mark.fault(40)
@pytest.mark.parametrize("manner", ["stop", "kill", "leave the block"])
@pytest.mark.parametrize("how", ["setsid", "double fork", "double fork emptied"])
async def test_what_has_left_the_group_goes_with_a_guarded_daemon(how: str, manner: str) -> None:
    heard = Heard()
    config = python_daemon(RUNAWAY, *how.split(), output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        runaway = await heard.pid("runaway")
        assert daemon.pid not in (os.getsid(runaway), os.getpgid(runaway))
        if manner != "leave the block":
            await getattr(daemon, manner)()
            assert not lives(runaway)
    assert not lives(runaway)


@pytest.mark.fault(39, 40)
@pytest.mark.parametrize("how", ["setsid", "double fork", "double fork emptied"])
async def test_what_has_left_the_group_goes_when_the_leader_has_died_by_itself(how: str) -> None:
    heard = Heard()
    config = python_daemon(RUNAWAY, *how.split(), output=Output(to=heard))
    runaways: list[int] = []

    async def body(daemon: DaemonHandle) -> None:
        runaways.append(await heard.pid("runaway"))
        await die(daemon)

    with pytest.raises(DaemonDiedError):
        async with DaemonLifecycle(config).running() as daemon:
            await body(daemon)
    assert [False] == [lives(pid) for pid in runaways]


@pytest.mark.fault(40)
async def test_what_bears_no_sign_of_its_daemon_goes_also_when_another_has_just_ended() -> None:
    # Without parent, session or environment; and start times count in hundredths of a second.
    script = "(setsid env -i sh -c 'echo runaway $$; exec sleep 1000' &); exec sleep 1000"
    left = []
    for _ in range(30):
        heard = Heard()
        async with DaemonLifecycle(shell_daemon(script, output=Output(to=heard))).running():
            runaway = await heard.pid("runaway")
        if lives(runaway):
            left.append(runaway)
            os.kill(runaway, signal.SIGKILL)
    assert [] == left


@pytest.mark.fault(100)
@pytest.mark.parametrize("how", ["setsid", "double fork"])
async def test_what_has_left_the_group_of_a_scoped_daemon_stays(how: str) -> None:
    heard = Heard()
    config = python_daemon(RUNAWAY, *how.split(), output=Output(to=heard))
    spawner = LocalSpawner("scoped")
    async with DaemonLifecycle(config, spawner=spawner).running() as daemon:
        runaway = await heard.pid("runaway")
        assert daemon.pid not in (os.getsid(runaway), os.getpgid(runaway))
        await daemon.stop()
    assert lives(runaway)
    os.kill(runaway, signal.SIGKILL)
    await wait_until_gone(runaway)
