"""Servers that people use, each by what it says itself: it serves from that moment on."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.plugins.needs import SYSTEM_DIRECTORIES
from tests.support import PATIENCE_S, free_port
from trio_lifecycle import FREE_PORT, DaemonLifecycle, LifecycleConfig, LogLine, Notify
from trio_lifecycle.abc import ReadyMode

Config = Callable[[Path, ReadyMode], LifecycleConfig]


def redis(directory: Path, mode: ReadyMode) -> LifecycleConfig:
    """It notifies only if it is told to."""
    args = ["--port", FREE_PORT, "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    supervised = ["--supervised", "systemd"] if isinstance(mode, Notify) else []
    return LifecycleConfig(
        "redis-server",
        args=[*args, *supervised],
        ready_mode=mode,
        search_path=SYSTEM_DIRECTORIES,
    )


NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr notice; user root;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen 127.0.0.1:PORT; location / { return 200 "from nginx"; } }
}
"""


def nginx(directory: Path, mode: ReadyMode) -> LifecycleConfig:
    """It says nothing of its port, and it listens before it starts its workers."""
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(NGINX.replace("PORT", str(port)))
    args = ["-p", str(directory), "-e", "stderr", "-c", str(config)]
    return LifecycleConfig(
        "nginx",
        args=args,
        ready_mode=mode,
        search_path=SYSTEM_DIRECTORIES,
        env={"NGINX_PORT": str(port)},
    )


def etcd(directory: Path, mode: ReadyMode) -> LifecycleConfig:
    """It notifies whenever there is a socket."""
    client, peer = f"http://127.0.0.1:{FREE_PORT}", f"http://127.0.0.1:{free_port()}"
    args = ["--data-dir", str(directory / "data"), "--name", "alone"]
    args += ["--listen-client-urls", client, "--advertise-client-urls", client]
    args += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    args += ["--initial-cluster", f"alone={peer}"]
    return LifecycleConfig("etcd", args=args, ready_mode=mode)


def sshd(directory: Path, mode: ReadyMode) -> LifecycleConfig:
    """Debian's notifies whenever there is a socket."""
    if os.geteuid() == 0:
        # Its init script makes it, after each boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    key = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    args = ["-D", "-e", "-f", "/dev/null", "-h", str(key), "-p", FREE_PORT]
    return LifecycleConfig(
        "sshd",
        args=[*args, "-o", "ListenAddress=127.0.0.1", "-o", "PidFile=none"],
        ready_mode=mode,
        search_path=SYSTEM_DIRECTORIES,
    )


GET = b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
needs = pytest.mark.needs
PROGRAMS = [
    pytest.param(
        redis, Notify(), b"PING\r\n", b"+PONG", marks=needs("redis-server"), id="redis notifies"
    ),
    pytest.param(
        redis,
        LogLine("Ready to accept connections", fatal="Failed listening"),
        b"PING\r\n",
        b"+PONG",
        marks=needs("redis-server"),
        id="redis writes",
    ),
    pytest.param(
        nginx,
        LogLine("start worker process ", fatal=r"\[emerg\]"),
        GET % b"/",
        b"from nginx",
        marks=needs("nginx"),
        id="nginx writes",
    ),
    pytest.param(
        etcd,
        Notify(),
        GET % b"/health",
        b'"health":"true"',
        marks=needs("etcd"),
        id="etcd notifies",
    ),
    pytest.param(
        etcd,
        LogLine("ready to serve client requests"),
        GET % b"/health",
        b'"health":"true"',
        marks=needs("etcd"),
        id="etcd writes",
    ),
    pytest.param(sshd, Notify(), b"", b"SSH-2.0", marks=needs("sshd"), id="sshd notifies"),
    pytest.param(
        sshd,
        LogLine(r"Server listening on \S+ port (?P<port>\d+)", fatal="fatal:"),
        b"",
        b"SSH-2.0",
        marks=needs("sshd"),
        id="sshd writes",
    ),
]


@pytest.mark.parametrize(("config", "mode", "question", "answer"), PROGRAMS)
async def test_it_serves_from_the_moment_at_which_it_says_so(
    config: Config, mode: ReadyMode, question: bytes, answer: bytes, tmp_path: Path
) -> None:
    configured = config(tmp_path, mode)
    async with DaemonLifecycle(configured).running() as daemon:
        port = daemon.port or int(configured.env["NGINX_PORT"] or 0)
        with trio.fail_after(PATIENCE_S):
            # Once, with no second try.
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                if question:
                    await stream.send_all(question)
                assert answer in bytes(await stream.receive_some(65_536))
