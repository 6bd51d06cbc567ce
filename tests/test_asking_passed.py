"""Asking through a socket that is passed: that a connection is taken says nothing of the daemon."""

from pathlib import Path

import pytest
from attrs import evolve

from tests.passing import ACCEPTING, accepting
from tests.support import PATIENCE_S
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    HealthCheck,
    ListenSocket,
    MemoryRegistry,
    ReadyTimeoutError,
    TCPPort,
    UnixSocket,
)
from trio_lifecycle.abc import ReadyMode

SLOW = ACCEPTING.replace("while True:", "import time; time.sleep(0.3)\nwhile True:", 1)


def modes(path: Path) -> list[tuple[ListenSocket, ReadyMode]]:
    return [
        (ListenSocket(port=FREE_PORT), TCPPort(FREE_PORT)),
        (ListenSocket(unix=path), UnixSocket(path)),
        # Its limit is shorter than a slow daemon needs to accept.
        (ListenSocket(unix=path), HealthCheck("http://d/", unix_socket=path, probe_timeout=0.2)),
    ]


@pytest.mark.parametrize("number", range(3), ids=["port", "socket", "http"])
async def test_it_is_ready_when_the_daemon_has_accepted(number: int, tmp_path: Path) -> None:
    passed, mode = modes(tmp_path / "a.sock")[number]
    config = accepting(passed, code=SLOW, ready_mode=mode, ready_timeout=PATIENCE_S)
    async with DaemonLifecycle(config).running() as daemon:
        assert 0.3 <= daemon.ready_after_s < 10
        assert "running" == await daemon.check()


@pytest.mark.parametrize("number", range(3), ids=["port", "socket", "http"])
async def test_one_that_never_accepts_is_never_ready(number: int, tmp_path: Path) -> None:
    passed, mode = modes(tmp_path / "a.sock")[number]
    config = accepting(
        passed, code="import time; time.sleep(1000)", ready_mode=mode, ready_timeout=0.3
    )
    with pytest.raises(ReadyTimeoutError, match="it has accepted no connection yet"):
        async with DaemonLifecycle(config).running():
            pass


@pytest.mark.fault(58)
@pytest.mark.parametrize("number", range(3), ids=["port", "socket", "http"])
async def test_after_its_starter_was_killed_only_an_answer_says_that_it_is_ready(
    number: int, tmp_path: Path
) -> None:
    passed, mode = modes(tmp_path / "a.sock")[number]
    config = accepting(passed, ready_mode=mode, ready_timeout=PATIENCE_S, detach=True)
    registry = MemoryRegistry()
    first = await DaemonLifecycle(config, registry=registry).ensure_running()
    (record,) = await registry.daemons()
    await registry.put(evolve(record, state="starting"))

    second = await DaemonLifecycle(config, registry=registry).ensure_running()

    assert ("adopted" if number == 2 else "spawned") == second.origin
    assert (number == 2) == (await first.check() == "running")
    await second.stop()
