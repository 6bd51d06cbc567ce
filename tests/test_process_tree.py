"""Stopping: the whole tree goes, nobody else does, and the report says what it took."""

import signal
import time

import pytest
import trio

from tests.support import (
    PATIENCE_S,
    Heard,
    bystander,
    die,
    lives,
    python_daemon,
    shell_daemon,
)
from trio_lifecycle import (
    DaemonDiedError,
    DaemonHandle,
    DaemonLifecycle,
    Event,
    LifecycleConfig,
    LocalSpawner,
    Manual,
    Output,
    StopLadder,
    StopReport,
)
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._proc import read_stat

each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped"])

# Short, because these daemons are known not to listen.
HASTY = StopLadder((signal.SIGTERM, 0.3))

# One write for each line, so that those of several processes don't mix.
SAY = """
import os, signal, sys, time

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""

STUBBORN = f"""
{SAY}
signal.signal(signal.SIGTERM, lambda *_: say("TERM", os.getpid()))
say("ready", os.getpid())
while True:
    time.sleep(1000)
"""

FAMILY = f"""
{SAY}

def live():
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, lambda *_: say("TERM", os.getpid()))
    say("grandchild", os.getpid())
    while True:
        time.sleep(1000)

for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            live()
        os.wait()
        os._exit(0)
say("leader", os.getpid())
while True:
    time.sleep(1000)
"""


def of(config: LifecycleConfig, guarantee: Guarantee) -> DaemonLifecycle:
    """A lifecycle with this guarantee."""
    return DaemonLifecycle(config, spawner=LocalSpawner(guarantee))


async def numbers_of(heard: Heard, beginning: str, count: int) -> list[int]:
    """Wait until so many processes have said their numbers."""
    with trio.fail_after(PATIENCE_S):
        while True:
            found = {int(line.split()[1]) for line in heard.lines if line.startswith(beginning)}
            if len(found) == count:
                return sorted(found)
            await heard.news()


# --- what a report says ---------------------------------------------------------------------------


@pytest.mark.fault(37)
async def test_the_report_has_the_status_and_no_kill_when_it_obeys() -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    heard = Heard()
    events: list[Event] = []
    config = shell_daemon(script, output=Output(to=heard))
    async with DaemonLifecycle(config, observer=events.append).running() as daemon:
        await heard.line("ready")
        report = await daemon.stop()
    assert ("SIGTERM", 7) == (report.rung, report.status)
    assert 0 < report.seconds < 10
    assert ["SIGTERM"] == [event.as_dict()["rung"] for event in events if event.kind == "stopping"]


@pytest.mark.fault(38)
async def test_the_report_says_sigkill_when_it_ignores_sigterm() -> None:
    heard = Heard()
    config = python_daemon(STUBBORN, stop_ladder=HASTY, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("ready")
        report = await daemon.stop()
        assert ("SIGKILL", -9) == (report.rung, report.status)
        assert 0.3 <= report.seconds < 3
    assert [f"TERM {daemon.pid}"] == heard.lines[1:]


async def test_the_report_names_no_rung_when_it_had_ended_by_itself() -> None:
    with pytest.raises(DaemonDiedError):
        async with DaemonLifecycle(python_daemon(STUBBORN)).running() as daemon:
            await die(daemon)
    report = await daemon.stop()
    assert (None, -9) == (report.rung, report.status)


async def test_every_rung_of_the_ladder_is_climbed_in_order() -> None:
    code = f"import signal\nsignal.signal(signal.SIGHUP, lambda *_: print('HUP'))\n{STUBBORN}"
    ladder = StopLadder((signal.SIGHUP, 0.1), (signal.SIGTERM, 0.1))
    heard = Heard()
    config = python_daemon(code, stop_ladder=ladder, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("ready")
        assert "SIGKILL" == (await daemon.stop()).rung
    assert ["HUP", f"TERM {daemon.pid}"] == heard.lines[1:]


async def test_a_ladder_given_to_stop_replaces_the_configured_one() -> None:
    heard = Heard()
    config = python_daemon(STUBBORN, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("ready")
        report = await daemon.stop(StopLadder((signal.SIGINT, 5.0)))
    assert ("SIGINT", -signal.SIGINT) == (report.rung, report.status)


# --- the whole tree -------------------------------------------------------------------------------


each_manner = pytest.mark.parametrize("manner", ["stop", "kill", "leave the block"])


@each_guarantee
@each_manner
async def test_grandchildren_go_with_the_daemon(manner: str, guarantee: Guarantee) -> None:
    heard = Heard()
    config = python_daemon(FAMILY, output=Output(to=heard))
    async with of(config, guarantee).running() as daemon:
        grandchildren = await numbers_of(heard, "grandchild", 3)
        if manner != "leave the block":
            await getattr(daemon, manner)()
            assert [] == [pid for pid in grandchildren if lives(pid)]
    assert [] == [pid for pid in [daemon.pid or 0, *grandchildren] if lives(pid)]


@pytest.mark.fault(39)
@each_guarantee
async def test_grandchildren_that_ignore_sigterm_get_it_at_once_and_sigkill_in_the_end(
    guarantee: Guarantee,
) -> None:
    heard = Heard()
    ladder = StopLadder((signal.SIGTERM, 0.5))
    config = python_daemon(FAMILY, "stubborn", stop_ladder=ladder, output=Output(to=heard))
    async with of(config, guarantee).running() as daemon:
        grandchildren = await numbers_of(heard, "grandchild", 3)
        await heard.line("leader")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.stop)
            assert grandchildren == await numbers_of(heard, "TERM", 3)
            assert -signal.SIGTERM == await daemon.wait_exit()
            assert all(map(lives, grandchildren))
        assert [] == [pid for pid in grandchildren if lives(pid)]
        report = await daemon.stop()
        assert ("SIGKILL", -signal.SIGTERM) == (report.rung, report.status)
        assert 0.5 <= report.seconds < 3
    # Each was asked once.
    assert 3 == sum(line.startswith("TERM") for line in heard.lines)


@pytest.mark.fault(39)
@each_guarantee
async def test_grandchildren_go_when_the_leader_has_died_by_itself(guarantee: Guarantee) -> None:
    heard = Heard()
    config = python_daemon(FAMILY, "stubborn", stop_ladder=HASTY, output=Output(to=heard))
    grandchildren: list[int] = []

    async def body(daemon: DaemonHandle) -> None:
        grandchildren.extend(await numbers_of(heard, "grandchild", 3))
        await die(daemon)

    with pytest.raises(DaemonDiedError):
        async with of(config, guarantee).running() as daemon:
            await body(daemon)
    assert grandchildren == await numbers_of(heard, "TERM", 3)
    assert [] == [pid for pid in grandchildren if lives(pid)]


@each_guarantee
async def test_a_stopped_daemon_is_continued_so_that_it_can_obey(guarantee: Guarantee) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    heard = Heard()
    config = shell_daemon(script, output=Output(to=heard))
    async with of(config, guarantee).running() as daemon:
        await heard.line("ready")
        await daemon.send_signal(signal.SIGSTOP)
        await trio.to_thread.run_sync(wait_until_stopped, daemon.pid or 0)
        report = await daemon.stop()
    assert ("SIGTERM", 7) == (report.rung, report.status)


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (stat := read_stat(pid)) is not None and stat.state != "T":
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.fault(99)
async def test_a_bystander_with_the_same_command_line_lives_on() -> None:
    command = ("/bin/sleep", "987")
    with bystander(*command) as stranger:
        config = LifecycleConfig(command[0], args=command[1:], ready_mode=Manual())
        for manner in ("stop", "kill", "terminate"):
            async with DaemonLifecycle(config).running() as daemon:
                await getattr(daemon, manner)()
                await daemon.wait_exit()
            assert lives(stranger)


# --- asked often, by several, and by those who go away --------------------------------------------


@pytest.mark.fault(42)
async def test_all_who_ask_get_the_same_report_and_it_gets_one_sigterm() -> None:
    reports: list[StopReport] = []
    heard = Heard()
    config = python_daemon(STUBBORN, stop_ladder=HASTY, output=Output(to=heard))

    async def stop() -> None:
        reports.append(await daemon.stop())

    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("ready")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(stop)
        reports.append(await daemon.stop())
        reports.append(await daemon.kill())
    reports.append(await daemon.stop())
    assert 8 == len(reports)
    assert [reports[0]] * 8 == reports
    assert 1 == sum(line.startswith("TERM") for line in heard.lines)


@pytest.mark.fault(43)
async def test_a_stop_that_is_cancelled_climbs_to_its_end() -> None:
    heard = Heard()
    config = python_daemon(STUBBORN, stop_ladder=HASTY, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("ready")
        with trio.move_on_after(0.05) as scope:
            await daemon.stop()
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert not lives(daemon.pid or 0)
        assert "SIGKILL" == (await daemon.stop()).rung


async def test_kill_ends_a_stop_that_is_under_way() -> None:
    heard = Heard()
    config = python_daemon(STUBBORN, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("ready")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.stop)
            await heard.line("TERM")
            with trio.fail_after(5):
                assert ("SIGKILL", -9) == described(await daemon.kill())


async def test_kill_is_at_once_when_a_stop_is_asked_for_at_the_same_moment() -> None:
    for _ in range(10):  # Trio lets the two run in any order
        heard = Heard()
        config = python_daemon(STUBBORN, output=Output(to=heard))
        async with DaemonLifecycle(config).running() as daemon:
            await heard.line("ready")
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(daemon.stop)
                    nursery.start_soon(daemon.kill)
            assert "SIGKILL" == (await daemon.stop()).rung


def described(report: StopReport) -> tuple[str | None, int | None]:
    return report.rung, report.status


async def test_terminate_asks_the_tree_and_does_not_wait() -> None:
    heard = Heard()
    config = python_daemon(FAMILY, "stubborn", stop_ladder=HASTY, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        grandchildren = await numbers_of(heard, "grandchild", 3)
        await heard.line("leader")
        await daemon.terminate()
        assert grandchildren == await numbers_of(heard, "TERM", 3)
        assert -signal.SIGTERM == await daemon.wait_exit()
        # An end that was wanted does not cancel the block.
        await trio.lowlevel.checkpoint()
        assert all(map(lives, grandchildren))


async def test_send_signal_reaches_the_main_process_alone() -> None:
    script = """
        sh -c 'trap "echo child HUP" HUP; echo child; while :; do sleep 0.01; done' &
        trap "echo leader HUP" HUP; echo leader; while :; do sleep 0.01; done
    """
    heard = Heard()
    async with DaemonLifecycle(shell_daemon(script, output=Output(to=heard))).running() as daemon:
        await heard.line("child")
        await heard.line("leader")
        await daemon.send_signal(signal.SIGHUP)
        await heard.line("leader HUP")
        assert "child HUP" not in heard.lines
    await daemon.send_signal(signal.SIGHUP)
