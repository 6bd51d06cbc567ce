"""How often another machine is asked: a round trip is one channel that is opened."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.sshd import Server, sshd
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    Output,
    SQLiteRegistry,
)
from trio_lifecycle._ssh._connections import connection

__all__ = ["sshd"]

pytestmark = pytest.mark.needs("sshd")

# It listens as soon as it is there, so the first probe that is not refused is answered.
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def service(log: Path, *, detach: bool) -> LifecycleConfig:
    """A service whose health is asked over its machine's loopback."""
    return LifecycleConfig(
        "python3",
        args=["-c", SERVER, FREE_PORT],
        name="service",
        ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/"),
        detach=detach,
        output=Output(to=log) if detach else Output(),
    )


async def test_an_owned_start_takes_two_round_trips_and_the_next_one_takes_one(
    sshd: Server, tmp_path: Path
) -> None:
    transport = await connection(sshd.target())
    lifecycle = DaemonLifecycle(service(tmp_path, detach=False), spawner=sshd.spawner())
    opened = [transport.channels_opened]
    for _ in range(2):
        async with lifecycle.running() as daemon:
            opened.append(transport.channels_opened)
            await daemon.stop()
            opened.append(transport.channels_opened)
    # The line, the guard and the probe; a stop; a probe; a stop.
    assert [0, 3, 3, 4, 4] == opened


async def test_a_detached_start_takes_two_to_find_it_one_and_a_stop_none(
    sshd: Server, tmp_path: Path
) -> None:
    transport = await connection(sshd.target())
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        config, spawner = service(tmp_path / "log", detach=True), sshd.spawner()
        daemon = await DaemonLifecycle(config, spawner=spawner, registry=registry).ensure_running()
        # The line belongs to the connection; then the launcher, and the probe.
        opened = [transport.channels_opened]
        found = await DaemonLifecycle(config, spawner=spawner, registry=registry).ensure_running()
        assert daemon.pid == found.pid
        opened.append(transport.channels_opened)
        await found.stop()
        opened.append(transport.channels_opened)
    assert [3, 4, 4] == opened
