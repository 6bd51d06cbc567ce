"""How long a guard waits for a heartbeat: what the connection's own limit is."""

from pathlib import Path

import pytest

from tests.sshd import Server, sshd
from tests.support import shell_daemon
from trio_lifecycle import DaemonLifecycle
from trio_lifecycle._ssh._machine import machine
from trio_lifecycle._ssh._target import LEFT_OUT, LeftOut

__all__ = ("sshd",)

pytestmark = pytest.mark.needs("sshd")

WATCHDOG = b"trio_lifecycle watchdog"
ALIVE = " ServerAliveInterval 7\n ServerAliveCountMax 9\n"


@pytest.mark.parametrize(
    ("lines", "interval", "count", "limit_s"),
    [
        ("", LEFT_OUT, LEFT_OUT, 15),
        (ALIVE, LEFT_OUT, LEFT_OUT, 63),
        (ALIVE, 2.5, LEFT_OUT, 22.5),
        (ALIVE, 2.5, 2, 5),
        (" ServerAliveInterval 0\n", LEFT_OUT, 2, 10),
    ],
)
async def test_the_guard_and_the_connection_wait_as_long_as_was_said_or_configured(
    lines: str,
    interval: float | LeftOut,
    count: int | LeftOut,
    limit_s: float,
    sshd: Server,
    tmp_path: Path,
) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host *\n{lines}")
    target = sshd.target(config=config, keepalive_interval=interval, keepalive_count=count)
    there = machine(target)
    guard = await there.guard("daemon")
    assert guard is not None
    assert (limit_s, limit_s) == (limit_of(guard.inner), await there.silence_limit_s())
    options = (await there.transport()).connection._options
    assert limit_s == options.keepalive_interval * options.keepalive_count_max


def limit_of(guard: int) -> float:
    """What a guard was told."""
    return float(Path(f"/proc/{guard}/cmdline").read_bytes().split(b"\0")[-2])


async def test_a_shell_in_the_guards_place_waits_as_long(sshd: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host *\n{ALIVE}")
    spawner = sshd.spawner(guarantee="scoped", config=config)
    async with DaemonLifecycle(
        shell_daemon("exec sleep 1000"), spawner=spawner
    ).running() as daemon:
        # A shell that is about to start something is a second one for a moment.
        limits = {words[words.index(WATCHDOG) + 5] for words in watchdogs_of(daemon.instance_id)}
        assert {b"63"} == limits


def watchdogs_of(instance_id: str) -> list[list[bytes]]:
    """The command lines of those that watch over a daemon."""
    found, mark = [], b"=" + instance_id.encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if WATCHDOG in words and any(w.endswith(mark) for w in words):
            found.append(words)
    return found
