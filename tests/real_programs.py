"""Servers that nobody here wrote: how each is started, how it says that it is up, one request."""

import os
import pwd
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from tests.plugins.needs import SYSTEM_DIRECTORIES, find_program
from tests.support import free_port
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    Exec,
    FileAppears,
    GRPCHealth,
    HealthCheck,
    LifecycleConfig,
    LogLine,
    Notify,
    TCPPort,
    UnixSocket,
)
from trio_lifecycle.abc import ReadyMode

GET = b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
TCP = TCPPort(FREE_PORT)


@frozen
class Server:
    """A server, and what is known of it.

    Attributes:
        program: What is installed.
        options: Gives the fields of its configuration; the directory is empty, and its alone.
        modes: By what it can be known to be ready, by name; each is given the directory.
        question: What a client sends as soon as it is told to be ready.
        answer: What must be in the reply.
        needs: What else must be installed.
        socket: The name of the UNIX socket in its directory at which it is asked; else by its port.
    """

    program: str
    options: Callable[[Path], Mapping[str, Any]]
    modes: Mapping[str, Callable[[Path], ReadyMode]]
    question: bytes
    answer: bytes
    needs: tuple[str, ...] = field(default=(), kw_only=True)
    socket: str | None = field(default=None, kw_only=True)

    def config(self, directory: Path, mode: str) -> LifecycleConfig:
        """Describe it."""
        return LifecycleConfig(
            ready_mode=self.modes[mode](directory),
            **{
                "binary_name": self.program,
                "search_path": SYSTEM_DIRECTORIES,
                **self.options(directory),
            },
        )


def always(mode: ReadyMode) -> Callable[[Path], ReadyMode]:
    """A mode that needs no directory."""
    return lambda directory: mode


def written(directory: Path, name: str, text: str) -> str:
    """Write a configuration file, and give its path."""
    path = directory / name
    path.write_text(text)
    return str(path)


# --- each of them ---------------------------------------------------------------------------------


def redis(directory: Path) -> Mapping[str, Any]:
    """It says so to systemd only when it is told to."""
    listens = ["--bind", "127.0.0.1", "--unixsocket", str(directory / "redis.sock")]
    rest = ["--supervised", "systemd", "--save", "", "--dir", str(directory)]
    pid_file = ["--pidfile", str(directory / "redis.pid")]
    return {"args": ["--port", FREE_PORT, *listens, *rest, *pid_file]}


def nginx(directory: Path) -> Mapping[str, Any]:
    """A master and a worker; the port stands in its configuration file."""
    text = f"""
        daemon off; worker_processes 1; pid nginx.pid; error_log stderr notice; user root;
        events {{ worker_connections 64; }}
        http {{
            access_log off;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server {{
                listen 127.0.0.1:{free_port()}; listen unix:{directory}/nginx.sock;
                location / {{ return 200 "from nginx"; }}
            }}
        }}
    """
    path = written(directory, "nginx.conf", text)
    return {"args": ["-p", str(directory), "-e", "stderr", "-c", path]}


def haproxy(directory: Path) -> Mapping[str, Any]:
    """A master that speaks to systemd, and a worker."""
    text = """
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend all
    bind "127.0.0.1:$PORT"
    monitor-uri /health
    http-request return status 200 content-type text/plain string "from haproxy"
"""
    path = written(directory, "haproxy.cfg", text)
    return {"args": ["-Ws", "-f", path], "env": {"PORT": FREE_PORT}}


def etcd(directory: Path) -> Mapping[str, Any]:
    """It listens long before it is healthy."""
    client, peer = f"http://127.0.0.1:{FREE_PORT}", f"http://127.0.0.1:{free_port()}"
    args = ["--data-dir", str(directory / "data"), "--name", "alone"]
    args += ["--listen-client-urls", client, "--advertise-client-urls", client]
    args += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    args += ["--initial-cluster", f"alone={peer}"]
    return {"args": args}


def mosquitto(directory: Path) -> Mapping[str, Any]:
    """An MQTT broker; the port stands in its configuration file."""
    text = "allow_anonymous true\nlog_dest stderr\nuser root\n"
    return {"args": ["-c", written(directory, "mosquitto.conf", text), "-p", FREE_PORT]}


def sshd(directory: Path) -> Mapping[str, Any]:
    """In the foreground, with a key of its own."""
    key = directory / "host_key"
    if not key.exists():
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(make, check=True)
    text = f"ListenAddress 127.0.0.1\nHostKey {key}\nPidFile {directory}/sshd.pid\nUsePAM no\n"
    # It needs its directory for the separation of rights, where it runs as root.
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    path = written(directory, "sshd_config", text)
    # It re-executes itself, and wants its own full path for that.
    return {
        "binary_name": find_program("sshd") or "sshd",
        "args": ["-D", "-e", "-f", path, "-p", FREE_PORT],
    }


def memcached(directory: Path) -> Mapping[str, Any]:
    """It says nothing."""
    args = ["-l", "127.0.0.1", "-p", FREE_PORT]
    return {"args": [*args, "-u", "root"] if os.geteuid() == 0 else args}


def postgres(directory: Path) -> Mapping[str, Any]:
    """It never runs as root, and wants a directory that was made by initdb."""
    args = ["-D", str(directory), "-k", str(directory), "-p", FREE_PORT]
    args += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    return {
        "binary_name": str(bin_of_postgres() / "postgres"),
        "args": args,
        "working_dir": directory,
        "user": who_runs_postgres(),
    }


def bin_of_postgres() -> Path:
    """Where its programs are: those that initdb needs are beside it."""
    return Path(os.path.realpath(find_program("postgres") or "postgres")).parent


def who_runs_postgres() -> str | None:
    """A user who may: Debian's own where this one may not."""
    return "postgres" if os.geteuid() == 0 else None


def make_cluster(directory: Path) -> Path:
    """Have initdb make a directory of data."""
    data = directory / "data"
    data.mkdir(mode=0o700)
    user = who_runs_postgres()
    if user is not None:
        os.chown(data, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    make = [str(bin_of_postgres() / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres"]
    subprocess.run([*make, "--no-sync"], check=True, capture_output=True, user=user, cwd="/")
    return data


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    head = {"type": "http.response.start", "status": 200, "headers": []}
    await send(head)
    await send({"type": "http.response.body", "body": b"from python"})
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("content-length", "11")])
    return [b"from python"]
"""


def python_server(module: str, *args: str, app: str = ASGI) -> Callable[[Path], Mapping[str, Any]]:
    """One that is run by this Python."""

    def options(directory: Path) -> Mapping[str, Any]:
        written(directory, "served.py", app)
        return {
            "binary_name": sys.executable,
            "args": ["-m", module, *args],
            "working_dir": directory,
            "env": {"PYTHONUNBUFFERED": "1"},
            "name": module,
        }

    return options


def http_server(directory: Path) -> Mapping[str, Any]:
    """The standard library's, with a port that it chooses itself."""
    written(directory, "index.html", "from python")
    return {
        "binary_name": sys.executable,
        "args": ["-u", "-m", "http.server", "--bind", "127.0.0.1", FREE_PORT],
        "working_dir": directory,
        "name": "http.server",
    }


def _startup_message() -> bytes:
    # PostgreSQL's protocol 3.0: https://www.postgresql.org/docs/current/protocol-message-formats.html
    body = struct.pack("!i", 196608) + b"user\0postgres\0\0"
    return struct.pack("!i", len(body) + 4) + body


PG_ISREADY = Exec([str(bin_of_postgres() / "pg_isready"), "-h", "127.0.0.1", "-p", FREE_PORT])
HEALTH = f"http://127.0.0.1:{FREE_PORT}/"
SERVERS: Mapping[str, Server] = {
    "redis": Server(
        "redis-server",
        redis,
        {
            "tcp": always(TCP),
            "unix": lambda directory: UnixSocket(directory / "redis.sock"),
            "line": always(LogLine("Ready to accept connections")),
            "notify": always(Notify()),
            "exec": always(Exec(["redis-cli", "-p", FREE_PORT, "-e", "ping"])),
            "file": lambda directory: FileAppears(directory / "redis.pid", min_bytes=2),
        },
        b"PING\r\n",
        b"+PONG",
        needs=("redis-cli",),
    ),
    "nginx": Server(
        "nginx",
        nginx,
        {
            "unix": lambda directory: UnixSocket(directory / "nginx.sock"),
            "http over unix": lambda directory: HealthCheck(
                "http://localhost/", unix_socket=directory / "nginx.sock"
            ),
            "line": always(LogLine("start worker process")),
            "file": lambda directory: FileAppears(directory / "nginx.pid", min_bytes=1),
        },
        GET % b"/",
        b"from nginx",
        socket="nginx.sock",
    ),
    "haproxy": Server(
        "haproxy",
        haproxy,
        {
            "http": always(HealthCheck(f"{HEALTH}health")),
            "tcp": always(TCP),
            "notify": always(Notify()),
            "line": always(LogLine("Loading success")),
        },
        GET % b"/",
        b"from haproxy",
    ),
    "etcd": Server(
        "etcd",
        etcd,
        {
            "http": always(HealthCheck(f"{HEALTH}health")),
            "grpc": always(GRPCHealth(f"127.0.0.1:{FREE_PORT}")),
            "notify": always(Notify()),
            "line": always(LogLine("ready to serve client requests")),
        },
        GET % b"/health",
        b'"health":"true"',
    ),
    "mosquitto": Server(
        "mosquitto",
        mosquitto,
        {
            "tcp": always(TCP),
            "notify": always(Notify()),
            "line": always(LogLine(r"mosquitto version .* running")),
        },
        # CONNECT of MQTT 3.1.1, with an empty client id and a clean session; CONNACK, accepted.
        b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0",
        b"\x20\x02\0\0",
    ),
    "sshd": Server(
        "sshd",
        sshd,
        {
            "tcp": always(TCP),
            "notify": always(Notify()),
            "line": always(LogLine(r"Server listening on (?P<address>\S+) port (?P<port>\d+)")),
        },
        b"SSH-2.0-question\r\n",
        b"SSH-2.0-OpenSSH",
        needs=("ssh-keygen",),
    ),
    "memcached": Server("memcached", memcached, {"tcp": always(TCP)}, b"version\r\n", b"VERSION"),
    "postgres": Server(
        "postgres",
        postgres,
        {
            "unix and exec": lambda directory: AllOf(
                UnixSocket(f"{directory}/.s.PGSQL.{FREE_PORT}"), PG_ISREADY
            ),
            "line": always(LogLine("database system is ready to accept connections")),
            "notify": always(Notify()),
            "exec": always(PG_ISREADY),
        },
        _startup_message(),
        b"R\0\0\0\x08\0\0\0\0",
    ),
    "gunicorn": Server(
        "python",
        python_server("gunicorn", "--bind", f"127.0.0.1:{FREE_PORT}", "served:app", app=WSGI),
        {
            "http": always(HealthCheck(HEALTH)),
            "notify and tcp": always(Notify()),
            "tcp": always(TCP),
        },
        GET % b"/",
        b"from python",
    ),
    "uvicorn": Server(
        "python",
        python_server("uvicorn", "--port", FREE_PORT, "served:app"),
        {
            "http": always(HealthCheck(HEALTH)),
            "tcp": always(TCP),
            "line": always(LogLine(r"Uvicorn running on (?P<url>http://\S+)")),
        },
        GET % b"/",
        b"from python",
    ),
    "hypercorn": Server(
        "python",
        python_server("hypercorn", "--bind", f"127.0.0.1:{FREE_PORT}", "served:app"),
        {
            "http": always(HealthCheck(HEALTH)),
            "tcp": always(TCP),
        },
        GET % b"/",
        b"from python",
    ),
    "http.server": Server(
        "python",
        http_server,
        {
            "http": always(HealthCheck(HEALTH)),
            "tcp": always(TCP),
            "line": always(LogLine(r"Serving HTTP on (?P<host>\S+) port (?P<port>\d+)")),
        },
        GET % b"/",
        b"from python",
    ),
}


def needed(server: Server) -> list[str]:
    """What must be installed for it; this Python always is."""
    programs = [server.program, *server.needs]
    return [name for name in programs if name != "python"]
