"""The machine "gpu-2" of the documents: an SSH server on loopback, and a home that knows it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.plugins.needs import find_program
from tests.ssh_server import running_server
from tests.sshd import Server, running_sshd

# A reader has all of this in ~/.ssh. Every name is the one server; no agent of the user's is asked.
_CONFIG = """\
Host gpu-2 gpu-3 bastion
    HostName 127.0.0.1
    Port {port}
    User {server.user}
    IdentityFile {server.key}
    UserKnownHostsFile {home}/.ssh/known_hosts
"""


@contextmanager
def gpu_box() -> Iterator[None]:
    """Have ``SSHSpawner("gpu-2")`` reach a machine, by a ``~/.ssh/config`` as a user has it."""
    found = all(find_program(name) for name in ("sshd", "ssh-keygen"))
    with running_sshd(None, **_states()) if found else running_server() as server:
        home = server.directory / "home"
        write_home(home, server, server.port)
        try:
            with environment_of(home):
                yield
        finally:
            shutil.rmtree(home)


def _states() -> dict[str, str]:
    # What daemons there leave behind, such as their logs, is not for the user's own home.
    return {"SetEnv": f"XDG_STATE_HOME={os.environ['XDG_STATE_HOME']}/gpu-2"}


def write_home(home: Path, server: Server, port: int) -> None:
    """Write what a user has in his home to reach a machine by its name.

    Args:
        home: His home.
        server: The machine's.
        port: Where that is reached from here.
    """
    directory = home / ".ssh"
    directory.mkdir(parents=True, mode=0o700)
    key = " ".join(server.host_key.split()[:2])
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (directory / "config").write_text(_CONFIG.format(server=server, port=port, home=home))
    (directory / "gpu-2.pub").write_text(f"{key}\n")
    shutil.copy(server.key, directory / "id_ed25519")


@contextmanager
def environment_of(home: Path) -> Iterator[None]:
    """Have this home for the length of a block, and no agent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield
