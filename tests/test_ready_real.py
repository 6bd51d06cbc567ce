"""Servers that people use, by every mode that they support: ready is never said too early."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from _pytest.mark import ParameterSet

from tests.plugins.needs import SYSTEM_DIRECTORIES
from tests.real_programs import (
    SERVERS,
    Server,
    make_cluster,
    needed,
    postgres,
    sshd,
    who_runs_postgres,
)
from tests.support import PATIENCE_S, UNMEASURED, free_port, lives
from trio_lifecycle import (
    FREE_PORT,
    DaemonHandle,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    ReadyTimeoutError,
    TCPPort,
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


# --- taking connections is not being ready --------------------------------------------------------


@pytest.mark.needs("postgres")
async def test_postgres_takes_connections_while_it_only_recovers(cluster: Path) -> None:
    # It waits for a file of its log that never comes, and answers that it starts up.
    signal = cluster / "recovery.signal"
    signal.touch()
    options = dict(postgres(cluster))
    options["args"] = [*options["args"], "-c", "restore_command=sleep 1000"]
    try:
        config = LifecycleConfig(ready_mode=TCPPort(FREE_PORT), **options)
        async with DaemonLifecycle(config).running() as daemon:
            reply = await ask_once(SERVERS["postgres"], daemon, cluster)
            assert b"the database system is starting up" in reply
    finally:
        signal.unlink(missing_ok=True)


@pytest.mark.needs("etcd")
async def test_etcd_takes_connections_while_it_has_no_leader(tmp_path: Path) -> None:
    options = dict(SERVERS["etcd"].options(tmp_path))
    peer = options["args"][-1].partition("=")[2]
    alone = f"alone={peer},other=http://127.0.0.1:{free_port()}"
    options["args"] = [*options["args"][:-1], alone]
    config = LifecycleConfig("etcd", ready_mode=TCPPort(FREE_PORT), **options)
    health = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/health")
    late = LifecycleConfig("etcd", ready_mode=health, ready_timeout=0.5, **options)
    async with DaemonLifecycle(config).running():
        pass
    with pytest.raises(ReadyTimeoutError):
        async with DaemonLifecycle(late).running():
            pass


# --- what the documentation shows -----------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "daemons.md"
ROWS = re.findall(r"^\| (\S+) \| `trio-lifecycle run (.+)` \|$", PAGE.read_text(), re.MULTILINE)
FILES = re.findall(r":caption: (\S+)\n\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
NEEDED = {"redis": "redis-server", "PostgreSQL": "postgres"}
PYTHONS = {"gunicorn", "uvicorn", "hypercorn", "http.server"}


def row(daemon: str, words: str) -> ParameterSet:
    """A row of the page's table."""
    needed = [] if daemon in PYTHONS else [NEEDED.get(daemon, daemon)]
    return pytest.param(daemon, words, marks=pytest.mark.needs(*needed), id=daemon)


@pytest.mark.parametrize(("daemon", "words"), [row(*words) for words in ROWS])
def test_the_line_of_the_documentation_starts_its_daemon(
    daemon: str, words: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for name, text in FILES:
        (tmp_path / name).write_text(text)
    place = tmp_path
    if daemon == "PostgreSQL":
        place = request.getfixturevalue("cluster").parent
        if (user := who_runs_postgres()) is not None:
            words = f"--user {user} {words}"
    if daemon == "sshd":
        sshd(tmp_path)
    scripts = Path(sys.executable).parent
    path = os.pathsep.join(map(str, (scripts, os.environ["PATH"], *SYSTEM_DIRECTORIES)))
    command = f"{shlex.quote(sys.executable)} -m trio_lifecycle run --then true {words}"
    env = {**os.environ, **UNMEASURED, "PATH": path}
    done = subprocess.run(
        command, shell=True, cwd=place, env=env, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert 0 == done.returncode, done.stderr
    assert re.search(r"^\S+: ready ", done.stderr, re.MULTILINE), done.stderr


def test_the_page_has_twelve_of_them() -> None:
    assert 12 == len(ROWS)
    assert SERVERS.keys() == {
        daemon.lower().replace("postgresql", "postgres") for daemon, _ in ROWS
    }
