"""Servers that people use, by every mode that they support: ready is never said too early."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.real_programs import SERVERS, Server, make_cluster, needed
from tests.support import PATIENCE_S, lives
from trio_lifecycle import (
    DaemonHandle,
    DaemonLifecycle,
)
from trio_lifecycle._proc import all_stats, tree_of

EACH = [
    pytest.param(name, mode, marks=pytest.mark.needs(*needed(server)), id=f"{name}-{mode}")
    for name, server in SERVERS.items()
    for mode in server.modes
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A directory that initdb has made, once for all tests."""
    # The user that runs PostgreSQL must be able to go there.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield make_cluster(Path(directory))


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the server of the test keeps its files."""
    is_postgres = request.node.callspec.params["name"] == "postgres"
    found: Path = request.getfixturevalue("cluster") if is_postgres else tmp_path
    return found


async def ask_once(server: Server, daemon: DaemonHandle, directory: Path) -> bytes:
    """What a client gets that does not try again."""
    with trio.fail_after(PATIENCE_S):
        if server.socket is None:
            assert daemon.port is not None
            stream: trio.SocketStream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
        else:
            stream = await trio.open_unix_socket(directory / server.socket)
        async with stream:
            await stream.send_all(server.question)
            reply = bytearray()
            while server.answer not in reply and (more := await stream.receive_some(65_536)):
                reply += more
            return bytes(reply)


def tree(daemon: DaemonHandle) -> list[int]:
    """The daemon's processes."""
    assert daemon.pid is not None
    return [stat.pid for stat in tree_of(daemon.pid, all_stats())]


@pytest.mark.parametrize(("name", "mode"), EACH)
async def test_the_first_request_after_ready_is_served_and_all_of_it_goes(
    name: str, mode: str, place: Path
) -> None:
    server = SERVERS[name]
    async with DaemonLifecycle(server.config(place, mode)).running() as daemon:
        assert server.answer in await ask_once(server, daemon, place)
        assert "running" == await daemon.check()
        pids = tree(daemon)
    assert [] == [pid for pid in pids if lives(pid)]
