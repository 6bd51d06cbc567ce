"""Each ready mode once with a daemon of another machine: a real sshd, real programs."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from tests.sshd import Server, plain_user, running_sshd, sshd
from tests.support import PATIENCE_S, Heard, python_daemon
from trio_lifecycle import (
    Callback,
    DaemonLifecycle,
    Output,
    ReadyError,
    SSHConnectError,
    SSHSpawner,
)
from trio_lifecycle._markers import CALLBACK_URL
from trio_lifecycle._receiver import CallbackReceiver
from trio_lifecycle._ssh._machine import machine

__all__ = ("sshd",)

pytestmark = pytest.mark.needs("sshd")


def spawner_of(server: Server, **options: Any) -> SSHSpawner:
    """The machine behind an sshd."""
    return SSHSpawner(
        "127.0.0.1",
        user=server.user,
        port=server.port,
        config=None,
        agent=None,
        client_keys=server.key,
        host_key=server.host_key,
        **options,
    )


@pytest.fixture
def there(sshd: Server) -> SSHSpawner:
    return spawner_of(sshd)


# --- callbacks --------------------------------------------------------------------------------

# Calls the URL in its first argument, or else in its environment, as the user in its second.
CALL = """
import os, socket, sys
url = sys.argv[1] if len(sys.argv) > 1 else os.environ["TRIO_LIFECYCLE_CALLBACK_URL"]
authority, _, path = url.split("//")[1].partition("/")
host, _, port = authority.partition(":")
if len(sys.argv) > 2 and not os.fork():
    # Out of its tree for whoever looks, for it is another user's and has a session of its own.
    os.setsid()
    os.setuid(int(sys.argv[2]))
caller = socket.create_connection((host, int(port)))
body = b'{"port": 1234}'
line = f"POST /{path} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
caller.sendall(line.encode() + body)
print(caller.recv(100).split(b" ")[1].decode(), flush=True)
os.read(os.pipe()[0], 1)
"""


async def test_a_callback_comes_from_another_machine_and_is_answered(there: SSHSpawner) -> None:
    heard = Heard()
    config = python_daemon(CALL, ready_mode=Callback(), output=Output(to=heard))
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert {"port": 1234} == daemon.report
        assert "00" == await heard.line("2")
