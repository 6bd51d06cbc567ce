"""Servers that people use, each up for a block, each killed in it, and all of it gone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.plugins.needs import SYSTEM_DIRECTORIES
from tests.support import PATIENCE_S, die, free_port, lives
from trio_lifecycle import (
    FREE_PORT,
    DaemonDiedError,
    DaemonHandle,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    Manual,
)
from trio_lifecycle._proc import all_stats, tree_of


def redis(directory: Path) -> LifecycleConfig:
    """It says nothing of itself over HTTP."""
    args = ["--port", FREE_PORT, "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    return LifecycleConfig(
        "redis-server", args=args, ready_mode=Manual(), search_path=SYSTEM_DIRECTORIES
    )


NGINX = """
daemon off; worker_processes 2; pid nginx.pid; error_log stderr; user root;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen 127.0.0.1:PORT; location / { return 200 "from nginx"; } }
}
"""


def nginx(directory: Path) -> LifecycleConfig:
    """A master and two workers; the port stands in its configuration file."""
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(NGINX.replace("PORT", str(port)))
    return LifecycleConfig(
        "nginx",
        args=["-p", str(directory), "-e", "stderr", "-c", str(config)],
        ready_mode=HealthCheck(f"http://127.0.0.1:{port}/"),
        search_path=SYSTEM_DIRECTORIES,
    )


def etcd(directory: Path) -> LifecycleConfig:
    """It listens long before it is healthy."""
    client, peer = f"http://127.0.0.1:{FREE_PORT}", f"http://127.0.0.1:{free_port()}"
    args = ["--data-dir", str(directory / "data"), "--name", "alone"]
    args += ["--listen-client-urls", client, "--advertise-client-urls", client]
    args += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    args += ["--initial-cluster", f"alone={peer}"]
    return LifecycleConfig("etcd", args=args, ready_mode=HealthCheck(f"{client}/health"))


async def ask(daemon: DaemonHandle, question: bytes) -> bytes:
    """What a client gets that tries until the server takes its connection."""
    assert daemon.port is not None
    with trio.fail_after(PATIENCE_S):
        async with await connect(daemon.port) as stream:
            await stream.send_all(question)
            return bytes(await stream.receive_some(65_536))


async def connect(port: int) -> trio.SocketStream:
    """Try until somebody listens."""
    while True:
        try:
            return await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.01)


GET = b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
PROGRAMS = [
    pytest.param(redis, b"PING\r\n", b"+PONG", marks=pytest.mark.needs("redis-server"), id="redis"),
    pytest.param(nginx, GET % b"/", b"from nginx", marks=pytest.mark.needs("nginx"), id="nginx"),
    pytest.param(
        etcd, GET % b"/health", b'"health":"true"', marks=pytest.mark.needs("etcd"), id="etcd"
    ),
]
Config = Callable[[Path], LifecycleConfig]


def tree(daemon: DaemonHandle) -> list[int]:
    """The daemon's processes."""
    assert daemon.pid is not None
    return [stat.pid for stat in tree_of(daemon.pid, all_stats())]


@pytest.mark.parametrize(("config", "question", "answer"), PROGRAMS)
async def test_it_is_up_in_the_block_and_gone_afterwards(
    config: Config, question: bytes, answer: bytes, tmp_path: Path
) -> None:
    async with DaemonLifecycle(config(tmp_path)).running() as daemon:
        assert answer in await ask(daemon, question)
        pids = tree(daemon)
        assert (3 if config is nginx else 1) == len(pids)
    assert [] == [pid for pid in pids if lives(pid)]
    assert "SIGTERM" == (await daemon.stop()).rung


@pytest.mark.fault(30)
@pytest.mark.parametrize(("config", "question", "answer"), PROGRAMS)
async def test_all_of_it_is_gone_when_its_main_process_is_killed_in_the_block(
    config: Config, question: bytes, answer: bytes, tmp_path: Path
) -> None:
    pids: list[int] = []

    async def body(daemon: DaemonHandle) -> None:
        assert answer in await ask(daemon, question)
        pids.extend(tree(daemon))
        await die(daemon)

    with pytest.raises(DaemonDiedError, match="was killed by SIGKILL") as caught:
        async with DaemonLifecycle(config(tmp_path)).running() as daemon:
            await body(daemon)
    assert -9 == caught.value.exit_status
    assert [] == [pid for pid in pids if lives(pid)]
