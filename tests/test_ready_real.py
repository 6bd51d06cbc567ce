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
from tests.support import PATIENCE_S, UNMEASURED, lives
from trio_lifecycle import (
    FREE_PORT,
    DaemonHandle,
    DaemonLifecycle,
    GRPCHealth,
    HealthCheck,
    LifecycleConfig,
    LocalSpawner,
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
async def test_etcd_takes_connections_before_it_serves(tmp_path: Path) -> None:
    """Of two members only one is there, so it never serves; it listens all the same."""
    options = dict(SERVERS["etcd"].options(tmp_path))
    options["args"] = [
        arg.replace("alone=", "other=http://127.0.0.1:1,alone=") for arg in options["args"]
    ]
    config = LifecycleConfig("etcd", ready_mode=TCPPort(FREE_PORT), **options)
    async with DaemonLifecycle(config).running() as daemon:
        where, limit_s = f"127.0.0.1:{daemon.port}", 0.3
        for mode in (
            HealthCheck(f"http://{where}/health", probe_timeout=limit_s),
            GRPCHealth(where, probe_timeout=limit_s),
        ):
            sighting = await mode.find_running(LocalSpawner().open_prober())
            assert sighting is not None
            assert sighting.report is None
            assert "gave no answer within 0.3 s" in sighting.detail


@pytest.mark.needs("etcd")
async def test_etcd_has_no_service_of_another_name(tmp_path: Path) -> None:
    async with DaemonLifecycle(SERVERS["etcd"].config(tmp_path, "grpc")).running() as daemon:
        unknown = GRPCHealth(f"127.0.0.1:{daemon.port}", "no.such.Service")
        sighting = await unknown.find_running(LocalSpawner().open_prober())
        assert sighting is not None
        assert sighting.detail.endswith("it has no service of this name")


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
