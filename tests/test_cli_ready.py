"""Every way to be ready, from the command line: it waits for it, and says what it has seen."""

import sys
from pathlib import Path

import pytest

from tests import cli
from tests.cli import finish
from tests.support import QUICK_PYTHON
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    Callback,
    Exec,
    FileAppears,
    GRPCHealth,
    HealthCheck,
    LogLine,
    Manual,
    NewlineOnFD,
    Notify,
    TCPPort,
    UnixSocket,
    UnlessLine,
)
from trio_lifecycle._cli._ready_options import ReadyOptions
from trio_lifecycle.abc import ReadyMode

ask, handlers = cli.ask, cli.handlers

QUICK = (sys.executable, *QUICK_PYTHON)

MODES: list[tuple[dict[str, str | bool], ReadyMode]] = [
    ({}, Manual()),
    ({"manual": True}, Manual()),
    ({"health": "http://localhost:{port}/"}, HealthCheck(f"http://localhost:{FREE_PORT}/")),
    ({"tcp": "80"}, TCPPort(80)),
    ({"tcp": ":80"}, TCPPort(80)),
    ({"tcp": "{port}"}, TCPPort(FREE_PORT)),
    ({"tcp": "localhost:80"}, TCPPort(80, "localhost")),
    ({"tcp": "[::1]:{port}"}, TCPPort(FREE_PORT, "::1")),
    ({"unix": "x.{port}.sock"}, UnixSocket(f"x.{FREE_PORT}.sock")),
    ({"grpc": "{port}"}, GRPCHealth(f"127.0.0.1:{FREE_PORT}")),
    ({"grpc": ":80"}, GRPCHealth("127.0.0.1:80")),
    ({"grpc": "localhost:80"}, GRPCHealth("localhost:80")),
    ({"log": "port {port}"}, LogLine(f"port {FREE_PORT}")),
    ({"notify": True}, Notify()),
    ({"fd": "3"}, NewlineOnFD(3)),
    ({"exec": "ask {port} | grep up"}, Exec(["/bin/sh", "-c", f"ask {FREE_PORT} | grep up"])),
    ({"file": "x.{port}"}, FileAppears(f"x.{FREE_PORT}")),
    ({"callback": True}, Callback()),
    ({"tcp": "80", "log": "up", "notify": True}, AllOf(TCPPort(80), LogLine("up"), Notify())),
    ({"tcp": "80", "fatal_log": "no {port}"}, UnlessLine(TCPPort(80), f"no {FREE_PORT}")),
    ({"tcp": "80", "stable_for": "2"}, TCPPort(80).stable_for(2)),
]


@pytest.mark.parametrize(("options", "mode"), MODES, ids=[str(options) for options, _ in MODES])
def test_an_option_means_its_mode_and_several_mean_all(
    options: dict[str, str], mode: ReadyMode
) -> None:
    assert mode == ReadyOptions(**options).ready_mode()  # type: ignore[arg-type]


SERVE = "import socket, time; s = socket.{make}; s.listen(); time.sleep(1000)"
WAYS = {
    "a port": (
        ["--tcp", "{port}"],
        SERVE.format(make="create_server(('127.0.0.1', {port}))"),
        "ready at port ",
    ),
    "a UNIX socket": (
        ["--unix", "x.sock"],
        SERVE.format(make="socket(socket.AF_UNIX); s.bind('x.sock')"),
        "ready, process ",
    ),
    "a line": (
        ["--log", r"up at (?P<url>\S+)"],
        "import time; print('up at http://127.0.0.1:7/x', flush=True); time.sleep(1000)",
        "ready at http://127.0.0.1:7/x, process ",
    ),
    "a descriptor": (
        ["--fd", "7"],
        "import os, time; os.write(7, b'\\n'); time.sleep(1000)",
        "ready, process ",
    ),
    "systemd's way": (
        ["--notify"],
        "import os, socket as s, time; s = s.socket(s.AF_UNIX, s.SOCK_DGRAM);"  # noqa: ISC004
        "s.sendto(b'READY=1', '\\0' + os.environ['NOTIFY_SOCKET'][1:]); time.sleep(1000)",
        "ready, process ",
    ),
    "a command and a file": (
        ["--exec", "test -e up", "--file", "up"],
        "import time; open('up', 'w'); time.sleep(1000)",
        "ready, process ",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_waited_for(way: str, tmp_path: Path) -> None:
    options, code, said = WAYS[way]
    done = finish(*options, "--cwd", str(tmp_path), "--then", "true", "--", *QUICK, code)
    assert 0 == done.process.returncode, done.err
    assert said in done.err


def test_a_line_that_means_that_it_has_failed_ends_the_wait() -> None:
    script = "echo bind failed; sleep 1000"
    done = finish("--tcp", "{port}", "--fatal-log", "failed$", "--", "sh", "-c", script)
    assert "it wrote 'bind failed', which means that it has failed" in done.err
    assert 125 == done.process.returncode


def test_silence_is_told_as_such_and_what_to_change() -> None:
    words = ("--log", "never", "--stall-timeout", "0.2", "--", "sh", "-c", "echo one; sleep 1000")
    done = finish(*words)
    assert 124 == done.process.returncode
    assert "its last line was 'one'" in done.err
    assert "raise --stall-timeout" in done.err
