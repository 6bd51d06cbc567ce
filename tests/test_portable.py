"""On a system that is not Linux: what it lacks is taken away before the package is imported."""

import pytest
import trio

from tests.support import PATIENCE_S, Heard, lives, run_app, shell_daemon, wait_until_gone
from trio_lifecycle import DaemonLifecycle, LocalSpawner, Output, StopLadder
from trio_lifecycle.spawner import _local
from trio_lifecycle.testing import check_spawner


@pytest.fixture
def not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the spawner use what every POSIX system has."""
    monkeypatch.setattr(_local, "is_portable_only", lambda: True)


@pytest.mark.usefixtures("not_linux")
async def test_the_portable_spawner_keeps_the_contract() -> None:
    await check_spawner(LocalSpawner(guarantee="scoped"))


@pytest.mark.usefixtures("not_linux")
async def test_the_group_goes_with_its_owner() -> None:
    heard = Heard()
    script = "(trap '' TERM; echo deaf $$; sleep 1000; sleep 1000) & wait"
    config = shell_daemon(script, output=Output(to=heard), stop_ladder=StopLadder((15, 0.1)))
    lifecycle = DaemonLifecycle(config, spawner=LocalSpawner(guarantee="scoped"))
    async with lifecycle.running() as daemon:
        await heard.line("deaf")
        assert "scoped" == daemon.guarantee
    assert not lives(daemon.pid or 0)
    assert "SIGKILL" == (await daemon.stop()).rung


@pytest.mark.usefixtures("not_linux")
async def test_what_is_left_running_is_reaped_and_can_be_stopped() -> None:
    config = shell_daemon("exec sleep 1000", detach=True)
    daemon = await DaemonLifecycle(config).ensure_running()
    assert "detached" == daemon.guarantee
    assert daemon.pid is not None
    with trio.fail_after(PATIENCE_S):
        assert "SIGTERM" == (await daemon.stop()).rung
    await wait_until_gone(daemon.pid)


WITHOUT_LINUX = """
import errno, select, socket, sys
from trio_lifecycle import _procfs
sys.platform = "other"
for module, names in {
    os: ["pidfd_open", "memfd_create", "sched_getaffinity", "O_PATH", "P_PIDFD", "waitid"],
    signal: ["pidfd_send_signal"],
    socket: ["AF_NETLINK", "SO_PASSCRED"],
}.items():
    for name in names:
        if name != "waitid":
            delattr(module, name)

def refuse(path):
    raise FileNotFoundError(errno.ENOENT, "there is none", path)

from trio_lifecycle import _proc
_procfs.read = _proc.read = refuse
_proc.all_pids = list
_procfs.namespace = lambda *_: None
"""

OWNS = """
async def main():
    try:
        async with DaemonLifecycle(shell_daemon("sleep 1000")).running():
            print("started")
    except GuaranteeError as error:
        print(error.problem)
    serve = (sys.executable, "-m", "http.server", str(FREE_PORT), "--bind", "127.0.0.1")
    lifecycle = DaemonLifecycle.with_health_check(
        serve[0], f"http://127.0.0.1:{FREE_PORT}/", args=serve[1:],
        spawner=LocalSpawner(guarantee="scoped"), umask=0o077)
    async with lifecycle.running() as daemon:
        print(daemon.guarantee, daemon.url == f"http://127.0.0.1:{daemon.port}/")
    print((await daemon.stop()).rung)
trio.run(main)
"""


def test_a_daemon_is_owned_without_all_that_only_linux_has() -> None:
    refused, owned, rung = run_app(WITHOUT_LINUX + OWNS)
    assert "only Linux" in refused
    assert ("scoped True", "SIGTERM") == (owned, rung)
