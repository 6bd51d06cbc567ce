"""Daemons on another machine, when the network to it fails: packets are dropped, nothing closed."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.networks import THERE, Network, network, on_a_machine
from tests.support import PATIENCE_S
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    DaemonStateUnknownError,
    HealthCheck,
    LifecycleConfig,
    LogLine,
    Manual,
    Output,
    SQLiteRegistry,
    SSHConnectError,
    SSHSpawner,
    StopLadder,
    _stop,
)

__all__ = ["network"]

pytestmark = [
    pytest.mark.needs("sshd", "ip", "tc", "unshare", "nsenter"),
    # What runs in the fork needs none of the other threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

INTERVAL_S, COUNT = 0.3, 2
# Here a silent machine is given up after so many seconds, and there a silent program.
LIMIT_S = INTERVAL_S * (COUNT + 1)
# Two processors that have other work to do, too.
SLACK_S = 1.5
LADDER = StopLadder((15, 0.5))

# It takes SIGTERM for nothing, and has children of every kind.
TREE = """
trap '' TERM
sleep 1001 &
setsid sleep 1002 &
(setsid sh -c 'sleep 1003 & exec sleep 1004' &)
echo up
exec sleep 1005
"""
SLEEPERS = [f"sleep {seconds}" for seconds in range(1001, 1006)]


def spawner(network: Network, **changes: Any) -> SSHSpawner:
    """The spawner of the other machine, with little patience."""
    options = {"keepalive_interval": INTERVAL_S, "keepalive_count": COUNT, "connect_timeout": 1.0}
    return network.server.spawner(**{**options, **changes})


def shell(script: str, **changes: Any) -> LifecycleConfig:
    """A daemon that is a script."""
    options = {"ready_mode": LogLine("up"), "stop_ladder": LADDER, "name": "script", **changes}
    return LifecycleConfig("sh", args=["-c", script], **options)


def detached(tmp_path: Path) -> LifecycleConfig:
    """A daemon that is to stay, and says so."""
    return shell("echo up; exec sleep 1000", detach=True, output=Output(to=tmp_path / "log"))


def sleepers(network: Network) -> int:
    """How many programs of daemons live there."""
    # A launcher's watchdog sleeps, too, for a second.
    return sum(words.startswith("sleep 10") for words in network.there.processes().values())


def kept(network: Network) -> set[int]:
    """What stays as long as a connection: the server's processes, the guard's and the daemon."""
    # Shells come and go, and the server's own process shows how busy it is.
    first = {pid: words.partition(" ")[0] for pid, words in network.there.processes().items()}
    return {pid for pid, word in first.items() if word == "sshd:" or "python" in word}


async def until(is_so: Callable[[], bool]) -> float:
    """Wait until something is so; say for how long."""
    began = trio.current_time()
    with trio.fail_after(PATIENCE_S):
        # Another machine's processes tell nobody here of themselves.
        while not is_so():  # noqa: ASYNC110
            await trio.sleep(0.02)
    return trio.current_time() - began


@contextmanager
def lasting(seconds: float) -> Iterator[None]:
    """Require that the block takes so many seconds at most."""
    began = trio.current_time()
    try:
        yield
    finally:
        assert trio.current_time() - began < seconds


# --- while an owned daemon runs -------------------------------------------------------------------


@pytest.mark.fault(74)
@on_a_machine
async def test_both_sides_give_up_when_packets_are_dropped_and_nothing_of_the_tree_is_left(
    network: Network,
) -> None:
    lifecycle = DaemonLifecycle(shell(TREE), spawner=spawner(network))
    ends: list[float] = []

    async def mend() -> None:
        # The guard's limit, and the ladder of what does not go by itself.
        assert await until(lambda: not sleepers(network)) < LIMIT_S + 0.5 + SLACK_S
        network.mend()

    async def use() -> None:
        async with lifecycle.running():
            await until(lambda: sleepers(network) == len(SLEEPERS))
            network.cut()
            began = trio.current_time()
            nursery.start_soon(mend)
            try:
                await trio.sleep_forever()
            finally:
                ends.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        with pytest.raises(DaemonStateUnknownError):
            await use()
    assert ends[0] < LIMIT_S + SLACK_S
    async with lifecycle.running():
        await until(lambda: sleepers(network) == len(SLEEPERS))
    assert 0 == sleepers(network)


@pytest.mark.fault(74)
@on_a_machine
async def test_without_python_there_the_launcher_ends_what_it_can_find(network: Network) -> None:
    lifecycle = DaemonLifecycle(
        shell("sleep 1001 & echo up; exec sleep 1005"),
        spawner=spawner(network, guarantee="scoped"),
    )

    async def use() -> None:
        async with lifecycle.running():
            network.cut()
            # It counts whole seconds, and takes two at least.
            assert await until(lambda: not sleepers(network)) < 2 + 1 + 0.5 + SLACK_S
            network.mend()
            await trio.sleep_forever()

    with pytest.raises(DaemonStateUnknownError):
        await use()
    assert 0 == sleepers(network)


@on_a_machine
async def test_nothing_happens_when_the_network_is_back_in_time(network: Network) -> None:
    config = LifecycleConfig(
        "python3",
        args=["-m", "http.server", "--bind", "127.0.0.1", FREE_PORT],
        ready_mode=HealthCheck(f"http://localhost:{FREE_PORT}/"),
    )
    patient = spawner(network, keepalive_interval=1.0, keepalive_count=3)
    async with DaemonLifecycle(config, spawner=patient).running() as daemon:
        before = kept(network)
        network.cut()
        # The time for a few heartbeats.
        await trio.sleep(0.7)
        network.mend()
        assert "running" == await daemon.check()
        assert before == kept(network)


# --- while it starts and stops --------------------------------------------------------------------


@pytest.mark.fault(73)
@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
@on_a_machine
async def test_a_start_that_is_waited_for_ends_when_packets_are_dropped(
    network: Network, guarantee: str
) -> None:
    slow = DaemonLifecycle(
        shell("echo begun; exec sleep 1001"), spawner=spawner(network, guarantee=guarantee)
    )

    async def cut() -> None:
        await until(lambda: sleepers(network) == 1)
        network.cut()
        await until(lambda: not sleepers(network))
        network.mend()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        with lasting(8), pytest.raises(DaemonStateUnknownError):
            async with slow.running():
                raise AssertionError("it has become ready")
    assert 0 == sleepers(network)


@pytest.mark.fault(73)
@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
@on_a_machine
async def test_nothing_runs_of_a_daemon_when_packets_are_dropped_before_it_is_spawned(
    network: Network, guarantee: str
) -> None:
    lifecycle = DaemonLifecycle(shell(TREE), spawner=spawner(network, guarantee=guarantee))
    async with lifecycle.running():
        pass
    network.cut()
    with (
        lasting(LIMIT_S + 2.0 + SLACK_S),
        pytest.raises((SSHConnectError, DaemonStateUnknownError)),
    ):
        async with lifecycle.running():
            raise AssertionError("it runs")
    network.mend()
    # What was sent and not received comes late, if ever.
    await until(lambda: not network.there.count("sh -s"))
    assert 0 == sleepers(network)


@pytest.mark.fault(74)
@on_a_machine
async def test_a_stop_during_a_cut_is_bounded_and_says_that_the_end_was_not_seen(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stop, "KILL_PATIENCE_S", 1.0)
    lifecycle = DaemonLifecycle(shell(TREE), spawner=spawner(network))
    async with lifecycle.running() as daemon:
        await until(lambda: sleepers(network) == len(SLEEPERS))
        network.cut()
        # To look once, the ladder, and the patience after SIGKILL.
        bound_s = LIMIT_S + 1.0 + 0.5 + 1.0 + SLACK_S
        with lasting(bound_s), pytest.raises(DaemonStateUnknownError):
            await daemon.stop()
        await until(lambda: not sleepers(network))
        network.mend()
    assert "gone" == await daemon.check()


@on_a_machine
async def test_a_stop_goes_on_when_the_network_comes_back(network: Network) -> None:
    lifecycle = DaemonLifecycle(
        shell(TREE, stop_ladder=StopLadder((15, 2.0))), spawner=spawner(network)
    )
    # One that was lost from sight is told so, even if it was seen to be gone in the end.
    async with trio.open_nursery() as nursery:
        async with lifecycle.running() as daemon:
            await until(lambda: sleepers(network) == len(SLEEPERS))

            async def cut() -> None:
                await trio.sleep(0.3)
                network.cut()
                await until(lambda: not sleepers(network))
                network.mend()

            nursery.start_soon(cut)
            await daemon.stop()
        assert 0 == sleepers(network)


# --- daemons that stay ----------------------------------------------------------------------------


@pytest.mark.fault(73)
@on_a_machine
async def test_a_detached_daemon_outlives_a_cut_and_is_found_again(
    network: Network, tmp_path: Path
) -> None:
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        config = detached(tmp_path)

        def lifecycle() -> DaemonLifecycle:
            return DaemonLifecycle(config, spawner=spawner(network), registry=registry)

        daemon = await lifecycle().ensure_running()
        network.cut()
        with lasting(LIMIT_S + 1.0 + SLACK_S):
            assert "unknown" == await daemon.check()
        # The connection is known to be lost by now, so all that is left is to make a new one.
        with lasting(1.0 + SLACK_S), pytest.raises((SSHConnectError, DaemonStateUnknownError)):
            await lifecycle().ensure_running()
        network.mend()
        assert "running" == await daemon.check()
        found = await lifecycle().ensure_running()
        assert ("adopted", daemon.pid, daemon.instance_id) == (
            found.origin,
            found.pid,
            found.instance_id,
        )
        assert 1 == sleepers(network)
        await found.stop()
    assert 0 == sleepers(network)


@pytest.mark.fault(73)
@on_a_machine
async def test_the_start_of_a_detached_daemon_that_was_cut_off_is_never_made_twice(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stop, "KILL_PATIENCE_S", 1.0)
    config = shell(
        "echo begun; exec sleep 1001",
        detach=True,
        ready_timeout=1.5,
        output=Output(to=tmp_path / "log"),
    )
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:

        async def cut() -> None:
            await until(lambda: sleepers(network) == 1)
            network.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            # Until it should be ready; then to look once, the ladder, and the patience after it.
            bound_s = 1.5 + 1.0 + 1.0 + 0.5 + 1.0 + SLACK_S
            with lasting(bound_s), pytest.raises(DaemonStateUnknownError, match="record was kept"):
                await DaemonLifecycle(
                    config, spawner=spawner(network), registry=registry
                ).ensure_running()
        assert 1 == sleepers(network) == len(await registry.daemons())
        network.mend()
        quick = shell(
            "exec sleep 1000",
            ready_mode=Manual(),
            detach=True,
            output=Output(to=tmp_path / "log"),
        )
        daemon = await DaemonLifecycle(
            quick, spawner=spawner(network), registry=registry
        ).ensure_running()
        assert 1 == sleepers(network)
        await daemon.stop()
        assert [] == await registry.daemons()
    assert 0 == sleepers(network)


# --- connecting -----------------------------------------------------------------------------------


@pytest.mark.fault(78)
@on_a_machine
async def test_a_machine_whose_packets_are_dropped_is_given_up_in_time(network: Network) -> None:
    network.cut()
    lifecycle = DaemonLifecycle(shell("sleep 9"), spawner=spawner(network))
    with lasting(1.0 + SLACK_S), pytest.raises(SSHConnectError, match=THERE):
        async with lifecycle.running():
            raise AssertionError("it runs")


@pytest.mark.fault(78)
@on_a_machine
async def test_a_machine_that_falls_silent_while_it_is_logged_in_is_given_up_in_time(
    network: Network,
) -> None:
    lifecycle = DaemonLifecycle(shell("sleep 9"), spawner=spawner(network))

    async def cut() -> None:
        # The server's own process for this connection.
        await until(lambda: any("[" in words for words in network.there.processes().values()))
        network.cut()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        with lasting(LIMIT_S + 1.0 + SLACK_S), pytest.raises(SSHConnectError, match=THERE):
            async with lifecycle.running():
                raise AssertionError("it runs")
    assert 0 == sleepers(network)


# --- slow networks --------------------------------------------------------------------------------


@on_a_machine
async def test_a_daemon_starts_over_a_long_way(network: Network) -> None:
    network.delay(100)
    patient = spawner(network, keepalive_interval=1.0, keepalive_count=3, connect_timeout=10.0)
    with lasting(10):
        async with DaemonLifecycle(shell("echo up; exec sleep 9"), spawner=patient).running():
            pass


@on_a_machine
async def test_a_daemon_that_writes_more_than_the_line_takes_is_not_lost(network: Network) -> None:
    patient = spawner(network, keepalive_count=4, connect_timeout=10.0)
    lifecycle = DaemonLifecycle(shell("echo up; exec yes"), spawner=patient)
    async with lifecycle.running() as daemon:
        network.throttle("2mbit")
        # Longer than either side has patience with the other.
        await trio.sleep(2.0)
        assert "running" == await daemon.check()
        assert daemon.output_tail.rstrip().endswith("y\ny")
        began = trio.current_time()
    # What it has written comes first, and that is not much.
    assert trio.current_time() - began < 5


# --- the machine itself ---------------------------------------------------------------------------


@on_a_machine
async def test_what_has_died_with_its_machine_is_seen_to_be_gone(
    network: Network, tmp_path: Path
) -> None:
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        lifecycle = DaemonLifecycle(detached(tmp_path), spawner=spawner(network), registry=registry)
        daemon = await lifecycle.ensure_running()
        network.cut()
        network.there.kill()
        assert "unknown" == await daemon.check()
        network.start_server_again()
        network.mend()
        assert "gone" == await daemon.check()
        again = await DaemonLifecycle(
            detached(tmp_path), spawner=spawner(network), registry=registry
        ).ensure_running()
        assert "spawned" == again.origin
        assert daemon.instance_id != again.instance_id
        await again.stop()


@on_a_machine
async def test_a_service_at_an_address_of_the_network_is_asked_over_it(network: Network) -> None:
    config = LifecycleConfig(
        "python3",
        # -u: before 3.9 Python kept back what it wrote to a pipe as an error.
        args=["-u", "-m", "http.server", "--bind", THERE, FREE_PORT],
        ready_mode=HealthCheck(f"http://{THERE}:{FREE_PORT}/"),
    )
    patient = spawner(network, keepalive_interval=5.0)
    async with DaemonLifecycle(config, spawner=patient).running() as daemon:
        assert f"http://{THERE}:{daemon.port}/" == daemon.url
        assert "running" == await daemon.check()
        # It was this machine that has asked.
        assert "10.77.1.2 - - " in daemon.output_tail
