"""Servers that people use, each ready by every mode of asking that it supports."""

from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.support import PATIENCE_S, lives
from tests.test_real_programs import etcd, nginx, redis
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    Exec,
    FileAppears,
    GRPCHealth,
    HealthCheck,
    LocalSpawner,
    TCPPort,
    UnixSocket,
)
from trio_lifecycle.abc import ReadyMode

REDIS = [
    TCPPort(FREE_PORT),
    UnixSocket("redis.sock"),
    Exec(["redis-cli", "-p", FREE_PORT, "ping"]),
    Exec(["redis-cli", "-s", "redis.sock", "ping"]),
    FileAppears("redis.pid", min_bytes=2),
]


async def answer_of(stream: trio.abc.Stream, question: bytes) -> bytes:
    async with stream:
        await stream.send_all(question)
        with trio.fail_after(PATIENCE_S):
            return bytes(await stream.receive_some(65_536))


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("mode", REDIS, ids=lambda mode: repr(mode)[:24])
async def test_redis_serves_when_it_is_ready_and_is_gone_afterwards(
    mode: ReadyMode, tmp_path: Path
) -> None:
    config = redis(tmp_path)
    more = ("--unixsocket", "redis.sock", "--pidfile", "redis.pid")
    config = evolve(config, ready_mode=mode, args=[*config.args, *more], working_dir=tmp_path)
    async with DaemonLifecycle(config).running() as daemon:
        assert daemon.port is not None
        stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
        assert b"+PONG\r\n" == await answer_of(stream, b"PING\r\n")
        assert "running" == await daemon.check()
        pid = daemon.pid
    assert pid is not None
    assert not lives(pid)


@pytest.mark.needs("nginx")
async def test_nginx_is_asked_over_its_unix_socket(tmp_path: Path) -> None:
    config = nginx(tmp_path)
    path = tmp_path / "nginx.sock"
    file = trio.Path(tmp_path / "nginx.conf")
    (url,) = config.ready_mode.texts
    address = url.removeprefix("http://").strip("/")
    await file.write_text((await file.read_text()).replace(address, f"unix:{path}"))
    for mode in (
        HealthCheck("http://nginx/", unix_socket=path, body="from nginx"),
        UnixSocket(path),
    ):
        async with DaemonLifecycle(evolve(config, ready_mode=mode)).running() as daemon:
            assert "running" == await daemon.check()


# --- a TCP accept is no readiness -----------------------------------------------------------------


@pytest.mark.needs("etcd")
async def test_etcd_takes_connections_before_it_serves(tmp_path: Path) -> None:
    """Of two members only one is there, so it never serves; it listens all the same."""
    config = etcd(tmp_path)
    args = [arg.replace("alone=", "other=http://127.0.0.1:1,alone=") for arg in config.args]
    config = evolve(config, args=args, ready_mode=TCPPort(FREE_PORT))
    async with DaemonLifecycle(config).running() as daemon:
        assert daemon.port is not None
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
async def test_etcd_says_by_grpc_that_it_serves(tmp_path: Path) -> None:
    config = evolve(etcd(tmp_path), ready_mode=GRPCHealth(f"localhost:{FREE_PORT}"))
    async with DaemonLifecycle(config).running() as daemon:
        assert daemon.port is not None
        assert "running" == await daemon.check()
        stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
        question = b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        assert b'"health":"true"' in await answer_of(stream, question)
        unknown = GRPCHealth(f"127.0.0.1:{daemon.port}", "no.such.Service")
        sighting = await unknown.find_running(LocalSpawner().open_prober())
        assert sighting is not None
        assert sighting.detail.endswith("it has no service of this name")
