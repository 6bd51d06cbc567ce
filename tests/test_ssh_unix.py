"""UNIX sockets of another machine: who takes no connection is told from who is not reached."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import asyncssh
import pytest
import trio

from tests.shells import OpenLine, each_shell, open_line
from tests.ssh_server import running_server
from tests.sshd import Server, plain_user, running_sshd, sshd
from trio_lifecycle import DaemonLifecycle, LifecycleConfig, SSHConnectError, UnixSocket
from trio_lifecycle._ssh._machine import machine
from trio_lifecycle._ssh._remote_sockets import unix_listeners
from trio_lifecycle._ssh._transport import Transport
from trio_lifecycle._ssh._unix_way import open_unix

__all__ = ("open_line", "sshd")

FORBIDDEN = ({"AllowStreamLocalForwarding": "no"}, {"DisableForwarding": "yes"})


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Somebody listens."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


SERVE = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
time.sleep(600)
"""


@pytest.mark.needs("sshd")
@pytest.mark.parametrize("settings", FORBIDDEN, ids=str)
async def test_a_server_that_passes_on_nothing_fails_a_start_with_the_cure(
    settings: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    config = LifecycleConfig(
        "python3",
        args=["-I", "-c", SERVE, str(path)],
        name="service",
        ready_mode=UnixSocket(path),
    )
    with (
        running_sshd(None, **settings) as server,
        pytest.raises(SSHConnectError, match="although somebody listens there") as raised,
    ):
        async with DaemonLifecycle(config, spawner=server.spawner()).running():
            raise AssertionError("it is ready")
    assert "AllowStreamLocalForwarding in its sshd_config" in raised.value.cure
    assert f"connecting to {path} there" == raised.value.phase


@pytest.mark.needs("sshd")
async def test_who_runs_behind_such_a_server_is_not_taken_for_absent(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running_sshd(AllowStreamLocalForwarding="no") as server:
        prober = server.spawner().open_prober()
        nobody = await prober.connect_unix(str(path))
        with listening(path), pytest.raises(SSHConnectError, match="does not pass it on"):
            await prober.connect_unix(str(path))
        await (await machine(server.target()).transport()).close()
    assert (False, True) == (nobody.made, nobody.absent)


@pytest.mark.needs("sshd")
@pytest.mark.skipif(os.getuid() != 0, reason="only root logs others in")
async def test_a_socket_that_the_user_may_not_connect_to_is_told() -> None:
    user = plain_user()
    if user is None:
        pytest.skip("there is no ordinary user")
    with (
        tempfile.TemporaryDirectory(prefix="plain-") as home,
        running_sshd(user, UsePAM="yes", SetEnv=f"HOME={home}") as server,
    ):
        shutil.chown(home, user)
        prober = server.spawner().open_prober()
        path = Path(home) / "socket"
        with listening(path):
            path.chmod(0o700)
            forbidden = await prober.connect_unix(str(path))
            path.chmod(0o777)
            allowed = await prober.connect_unix(str(path))
            hide(Path(home))
            hidden = await prober.connect_unix(str(path))
        await (await machine(server.target()).transport()).close()
    assert (False, False) == (forbidden.made, forbidden.absent)
    assert "Permission denied" in forbidden.problem
    assert allowed.made
    assert (False, False) == (hidden.made, hidden.absent)


def hide(directory: Path) -> None:
    """Let only root see what is in it."""
    shutil.chown(directory, "root")
    directory.chmod(0)


@pytest.mark.needs("sshd")
async def test_who_begins_to_listen_between_a_try_and_a_look_is_tried_again(
    sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "socket"
    open_there = Transport.open_unix

    async def refuse_once(self: Transport, path: str) -> trio.abc.HalfCloseableStream:
        monkeypatch.setattr(Transport, "open_unix", open_there)
        raise ConnectionRefusedError

    monkeypatch.setattr(Transport, "open_unix", refuse_once)
    with listening(path):
        stream = await open_unix(machine(sshd.target()), str(path))
    await trio.aclose_forcefully(stream)


@pytest.mark.needs("sshd")
async def test_a_daemon_that_too_many_wait_for_is_not_absent_and_no_server_is_blamed(
    sshd: Server, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    prober = sshd.spawner().open_prober()
    with listening(path) as listener:
        assert (await prober.connect_unix(str(path))).made
        listener.listen(0)
        with crowd(path):
            contact = await prober.connect_unix(str(path))
    assert (False, False) == (contact.made, contact.absent)
    assert "too many wait already" in str(contact)


@contextmanager
def crowd(path: Path) -> Iterator[None]:
    """As many wait at a socket as may."""
    with ExitStack() as stack:
        while True:
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            if one.connect_ex(str(path)):
                break
        yield


async def test_a_server_that_says_that_it_forbids_it_is_believed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> bool:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not here")

    monkeypatch.setattr("tests.ssh_server._Policy.unix_connection_requested", forbid)
    with running_server() as server:
        there = machine(server.target())
        with pytest.raises(SSHConnectError, match=r"forbids it \(not here\).*StreamLocal"):
            await open_unix(there, str(tmp_path / "socket"))
        await (await there.transport()).close()


@each_shell
async def test_every_shell_says_who_listens_at_a_path(
    shell: str, open_line: OpenLine, tmp_path: Path
) -> None:
    path = tmp_path / "it's\na socket"
    async with open_line(shell) as line:
        assert not await unix_listeners(line, str(path))
        path.touch()
        assert not await unix_listeners(line, str(path))
        path.unlink()
        with listening(path) as listener:
            inode = str(os.fstat(listener.fileno()).st_ino)
            assert {inode} == await unix_listeners(line, str(path))
        assert not await unix_listeners(line, str(path))
        path.unlink()
        path.symlink_to(path)
        with pytest.raises(PermissionError, match="Too many levels"):
            await unix_listeners(line, str(path))
