"""Ready by a command: what its end means, and that nothing of it is left."""

import os
import sys
from pathlib import Path

import pytest
import trio

from tests.asking import ANYBODY, arm, start
from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S, QUICK_PYTHON, app, lives, python_daemon, wait_until_gone
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    Exec,
    LocalSpawner,
    ReadyError,
    ReadyTimeoutError,
    SpawnError,
)
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle.abc import Command, Ran, Report, SpawnRequest
from trio_lifecycle.spawner._local_prober import LocalProber
from trio_lifecycle.testing import HANGS, SimulatedDaemon, SimulatedSpawner, check_ready_mode

WAITS = "import time; time.sleep(1000)"


def shell(script: str, *args: str, **options: object) -> Exec:
    return Exec(["sh", "-c", script, "sh", *args], **options)  # type: ignore[arg-type]


async def test_it_runs_as_the_daemon_does_until_it_succeeds(tmp_path: Path) -> None:
    script = 'test -e up && test "$KIND $PASSWORD $1" = "probe xyz $PORT" && ! env | grep -q GONE'
    config = python_daemon(
        "import pathlib, time; time.sleep(0.05); pathlib.Path('up').touch(); time.sleep(1000)",
        working_dir=tmp_path,
        env={"KIND": "probe", "PORT": FREE_PORT, "GONE": None},
        secret_env={"PASSWORD": "xyz"},
        ready_mode=shell(script, FREE_PORT),
    )
    async with DaemonLifecycle(config).running() as daemon:
        assert daemon.port is not None
        assert daemon.url is None
        assert "running" == await daemon.check()
        (tmp_path / "up").unlink()
        assert "unknown" == await daemon.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose another user")
async def test_it_runs_as_the_daemons_user() -> None:
    armed = await arm(shell("id -u; exit 1"), user=65_534, working_dir=Path("/"))
    assert await armed.ask(ANYBODY) is None
    assert "sh exited with status 1: 65534" == armed.last_seen


async def test_it_is_no_part_of_the_daemon_and_has_no_callback_of_ours() -> None:
    script = 'echo "$TRIO_LIFECYCLE_INSTANCE $TRIO_LIFECYCLE_CALLBACK_URL."; exit 1'
    armed = await arm(shell(script))
    assert await armed.ask(ANYBODY) is None
    instance = armed.last_seen.rpartition(": ")[2].removesuffix(" .")
    assert 32 == len(instance)


async def test_what_it_wrote_last_is_seen_and_is_one_short_line() -> None:
    armed = await arm(shell(r"printf 'first\na\033b\n\n'; printf %0300d 0 >&2; exit 3"))
    assert "sh was not asked yet" == armed.last_seen
    assert await armed.ask(ANYBODY) is None
    assert f"sh exited with status 3: {'0' * 200}" == armed.last_seen
    armed = await arm(shell("kill -9 $$"))
    assert await armed.ask(ANYBODY) is None
    assert "sh was killed by SIGKILL" == armed.last_seen


async def test_a_fatal_status_ends_the_wait_at_once_with_the_end_of_the_output() -> None:
    config = python_daemon(
        f"print('no licence', flush=True); {WAITS}",
        ready_mode=shell("sleep 0.1; exit 4", fatal_statuses=[range(3, 6), -9]),
    )
    with pytest.raises(ReadyError, match="sh exited with status 4") as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert "no licence\n" == caught.value.output_tail


async def test_a_program_that_is_not_there_is_refused_before_the_spawn() -> None:
    daemons: list[object] = []
    for name, problem in (("no-such-program", "it is nowhere"), ("/etc/passwd", "not executable")):
        config = python_daemon(WAITS, ready_mode=Exec([name]))
        with pytest.raises(ConfigError, match=f"^command: {name} can't be run: .*{problem}"):
            async with DaemonLifecycle(config, observer=daemons.append).running():
                pass
    assert not [event for event in daemons if type(event).__name__ == "Spawned"]


async def test_what_can_never_be_run_ends_the_wait_and_what_can_later_does_not(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF but no more")
    broken.chmod(0o755)
    prober = start().prober
    with pytest.raises(SpawnError):
        await prober.run(Command(name="probe", program=str(broken)))

    class Busy(LocalSpawner):
        async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> None:  # type: ignore[override]
            raise SpawnError(request.name, "no process is free", 11, retryable=True)

    armed = await Exec(["true"]).arm(start(prober=LocalProber(Busy())))
    assert await armed.ask(ANYBODY) is None
    assert "true could not be run this time (no process is free)" == armed.last_seen


# --- nothing is left ------------------------------------------------------------------------------

# It has a child in a session of its own, and says who is who.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
with open(sys.argv[1] + ".new", "w") as file:
    print(os.getpid(), child.pid, file=file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
if len(sys.argv) < 3:
    time.sleep(1000)
"""


def family(path: Path, *more: str, **options: object) -> Exec:
    command = [sys.executable, *QUICK_PYTHON, FAMILY, str(path), *more]
    return Exec(command, **options)  # type: ignore[arg-type]


async def until_there(path: Path) -> None:
    with trio.fail_after(PATIENCE_S):
        while not await trio.Path(path).exists():  # noqa: ASYNC110  # nothing tells of a file
            await trio.sleep(0.005)


def pids_in(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()]


@pytest.mark.fault(25)
@pytest.mark.parametrize("ends", ["by itself", "at its limit", "when it is cancelled"])
async def test_nothing_is_left_of_a_run_that_ends(ends: str, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    limit_s = 1.0 if ends == "at its limit" else PATIENCE_S
    more = ["ends"] if ends == "by itself" else []
    armed = await arm(family(path, *more, probe_timeout=limit_s))
    report: Report | None = None
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            nonlocal report
            report = await armed.ask(ANYBODY)
            nursery.cancel_scope.cancel()

        nursery.start_soon(ask)
        await until_there(path)
        if ends == "when it is cancelled":
            nursery.cancel_scope.cancel()
    assert (ends == "by itself") == (report is not None)
    if ends == "at its limit":
        assert f"{sys.executable} did not end within 1.0 s" == armed.last_seen
    assert [False, False] == [lives(pid) for pid in pids_in(path)]


@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_a_run_has_the_guarantee_of_the_daemons(guarantee: Guarantee) -> None:
    prober = LocalSpawner(guarantee).open_prober()
    who = "import os; print(os.getppid()); raise SystemExit(7)"
    command = Command(name="probe", program=sys.executable, args=(*QUICK_PYTHON, who))
    ran = await prober.run(command)
    assert 7 == ran.status
    assert (guarantee == "scoped") == (os.getpid() == int(ran.output))


KILLED = """
async def main():
    probe = Exec([sys.executable, *QUICK_PYTHON, *sys.argv[1:]], probe_timeout=100)
    config = python_daemon("import time; time.sleep(1000)", ready_mode=probe, ready_timeout=100)
    async with DaemonLifecycle(config).running():
        pass

trio.run(main)
"""


@pytest.mark.fault(47)
async def test_nothing_is_left_of_a_run_when_this_program_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with app(KILLED, FAMILY, str(path)) as program:
        await until_there(path)
        program.signal(9)
        for pid in pids_in(path):
            await wait_until_gone(pid)


# --- in simulated time ----------------------------------------------------------------------------


@in_simulated_time
async def test_in_simulated_time_it_succeeds_with_the_health_unless_it_is_said_otherwise() -> None:
    mode = Exec(["ask-it", FREE_PORT])
    async with SimulatedDaemon(ready_after=2).lifecycle(ready_mode=mode).running() as daemon:
        assert 2 <= daemon.ready_after_s < 2.2
    planned = SimulatedDaemon(probes=[(0, 1), (3, HANGS), (5, 0)])
    async with planned.lifecycle(ready_mode=Exec(["ask-it"])).running() as daemon:
        assert 7.9 <= daemon.ready_after_s < 8.6
    failing = SimulatedDaemon(probes=[(1, 9)], writes=b"no\n")
    with pytest.raises(ReadyError, match="exited with status 9"):
        async with failing.lifecycle(ready_mode=Exec(["x"], fatal_statuses=9)).running():
            pass
    with pytest.raises(ReadyTimeoutError, match=r"did not end within 5\.0 s"):
        async with SimulatedDaemon(probes=[(0, HANGS)]).lifecycle(ready_mode=mode).running():
            pass


@in_simulated_time
async def test_a_simulated_command_fails_where_no_daemon_lives_or_it_ends_meanwhile() -> None:
    daemon = SimulatedDaemon(answer_after=1.0, dies_after=0.5)
    prober = SimulatedSpawner({"it": daemon}).open_prober()
    command = Command(name="probe", program="/simulated/ask")
    assert Ran(1) == await prober.run(command)
    daemon.start()
    assert Ran(1) == await prober.run(command)
    assert "/simulated/it" == await prober.find_binary("it")


@in_simulated_time
async def test_it_keeps_the_contract() -> None:
    await check_ready_mode(Exec(["redis-cli", "-p", FREE_PORT, "-a", "secret", "ping"]))


# --- what can be meant ----------------------------------------------------------------------------


@pytest.mark.fault(96)
def test_its_arguments_are_shown_nowhere() -> None:
    mode = Exec(["redis-cli", "-a", "secret", "ping"], fatal_statuses={2, 3, 4, 9})
    shown = "Exec(['redis-cli' and 3 more], interval=0.5, probe_timeout=5.0, "
    assert f"{shown}fatal_statuses={{2-4, 9}})" == repr(mode)
    assert "secret" not in repr(Command(name="it", program="/x", args=("secret",)))


@pytest.mark.fault(94)
@pytest.mark.parametrize(
    "command", ["redis-cli ping", b"x", None, [], [""], ["a/"], [FREE_PORT], ["a", 1], ["a", "\0"]]
)
def test_what_can_be_no_command_is_refused(command: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^command"):
        Exec(command)


def test_another_marker_than_free_port_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^command: can hold no other marker"):
        Exec(["a", CALLBACK_URL])


@pytest.mark.parametrize("statuses", [0, 256, -65, True, "1", [range(3)], None, [None]])
def test_what_can_be_no_failure_is_refused(statuses: int) -> None:
    with pytest.raises(ConfigError, match=r"^fatal_statuses:"):
        Exec(["a"], fatal_statuses=statuses)
