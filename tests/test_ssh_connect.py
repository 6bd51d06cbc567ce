"""What goes wrong on the way to another machine, and what is said then."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import errno
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.ssh_server import server, ssh_server
from tests.sshd import Server, free_port, make_key, running_sshd
from trio_lifecycle import ConfigError, SSHAuthError, SSHConnectError, SSHHostKeyError
from trio_lifecycle._ssh._connections import connection
from trio_lifecycle._ssh._failures import Progress, explain
from trio_lifecycle._ssh._target import LEFT_OUT, SSHTarget

__all__ = ("server", "ssh_server")


async def refused(target: SSHTarget) -> SSHConnectError:
    """The error of a machine that can't be had."""
    with pytest.raises(SSHConnectError) as raised:
        await connection(target)
    error = raised.value
    assert target.host == error.host
    return error


async def assert_works(target: SSHTarget) -> None:
    """Run a command there."""
    transport = await connection(target)
    session = await transport.open_session("exit 7")
    assert 7 == await session.wait_end()
    session.close()


def known(server: Server, tmp_path: Path, *lines: str) -> Path:
    """A file of known hosts; what is in braces is filled in."""
    path = tmp_path / "known_hosts"
    key = " ".join(server.host_key.split()[:2])
    path.write_text("".join(f"{line.format(port=server.port, key=key)}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys") / "other")


async def test_a_machine_that_is_known_by_a_file_is_let_through(
    server: Server, tmp_path: Path
) -> None:
    known_hosts = known(server, tmp_path, "# ours", "other {key}", "[127.0.0.1]:{port} {key}")
    await assert_works(server.target(host_key=None, known_hosts=known_hosts))


async def test_a_machine_is_also_known_by_its_name_alone(server: Server, tmp_path: Path) -> None:
    known_hosts = known(server, tmp_path, "127.0.0.1 {key}")
    missing = tmp_path / "missing"
    await assert_works(server.target(host_key=None, known_hosts=[missing, known_hosts]))


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.fault(69)
async def test_an_unknown_machine_is_refused_with_its_key_and_the_way_to_pin_it(
    server: Server, tmp_path: Path, is_there: bool
) -> None:
    known_hosts = known(server, tmp_path, "[127.0.0.2]:{port} {key}")
    if not is_there:
        known_hosts.unlink()
    error = await refused(server.target(host_key=None, known_hosts=known_hosts))
    assert SSHHostKeyError is type(error)
    assert (server.user, server.port) == (error.user, error.port)
    assert "checking the host key" == error.phase
    assert "ssh-ed25519 SHA256:" in error.problem
    assert f"is not known (known hosts: {known_hosts})" in error.problem
    assert "host_key=" in error.cure
    assert f"ssh-keyscan -p {server.port} 127.0.0.1" in error.cure
    assert "HostKeyNotVerifiable" == type(error.__cause__).__name__


@pytest.mark.fault(68)
async def test_a_machine_whose_key_has_changed_is_refused(
    server: Server, tmp_path: Path, other_key: Path
) -> None:
    other = " ".join(Path(f"{other_key}.pub").read_text().split()[:2])
    known_hosts = known(server, tmp_path, f"[127.0.0.1]:{{port}} {other}")
    error = await refused(server.target(host_key=None, known_hosts=known_hosts))
    assert SSHHostKeyError is type(error)
    assert "is another one than before" in error.problem
    assert f"'ssh-keygen -R \"[127.0.0.1]:{server.port}\"' removes" in error.cure
    pinned = await refused(server.target(host_key=other))
    assert SSHHostKeyError is type(pinned)
    assert "is not the one given as host_key" in pinned.problem


async def test_a_machine_with_no_key_of_a_known_kind_is_refused(
    server: Server, tmp_path: Path
) -> None:
    make_key(tmp_path / "ec", "-t", "ecdsa")
    error = await refused(server.target(host_key=(tmp_path / "ec.pub").read_text()))
    assert "'ssh-keyscan" in error.cure


@pytest.mark.parametrize("where", ["[127.0.0.1]:{port}", "127.0.0.1", "*"])
@pytest.mark.fault(68)
async def test_a_revoked_key_is_refused_even_when_it_is_known_or_pinned(
    server: Server, tmp_path: Path, where: str
) -> None:
    revoked = f"@revoked {where} {{key}}"
    known_hosts = known(server, tmp_path, "[127.0.0.1]:{port} {key}", "127.0.0.1 {key}", revoked)
    error = await refused(server.target(host_key=None, known_hosts=known_hosts))
    assert SSHHostKeyError is type(error)
    assert "is marked as revoked" in error.problem
    pinned = await refused(server.target(known_hosts=known_hosts))
    assert "is marked as revoked" in pinned.problem


async def test_known_hosts_that_cannot_be_read_are_named(server: Server, tmp_path: Path) -> None:
    known_hosts = known(server, tmp_path, "@nonsense a b")
    error = await refused(server.target(host_key=None, known_hosts=known_hosts))
    assert f"{known_hosts}: " in error.problem
    assert "nonsense" in error.problem
    assert "reading the known hosts" == error.phase
    error = await refused(server.target(host_key=None, known_hosts=tmp_path))
    assert f"{tmp_path}: Is a directory" == error.problem


async def test_a_machine_is_not_known_by_the_address_that_its_name_leads_to(
    server: Server, tmp_path: Path, other_key: Path
) -> None:
    other = " ".join(Path(f"{other_key}.pub").read_text().split()[:2])
    by_address = ("127.0.0.1 {key}", "[127.0.0.1]:{port} {key}")
    known_hosts = known(server, tmp_path, *by_address)
    there = server.target(host="localhost", host_key=None, known_hosts=known_hosts)
    assert "is not known" in (await refused(there)).problem
    known(server, tmp_path, *by_address, f"localhost {other}")
    assert "is another one than before" in (await refused(there)).problem
    known(server, tmp_path, "localhost {key}", "@revoked 127.0.0.1 {key}")
    assert "is marked as revoked" in (await refused(there)).problem
    known(server, tmp_path, "localhost {key}")
    await assert_works(there)


@pytest.mark.needs("sshd")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-n", "127.0.0.1"), None),
        (("-n", "elsewhere"), "Certificate principal mismatch"),
        (("-n", "127.0.0.1", "-V", "20200101:20200102"), "Certificate expired"),
    ],
)
async def test_a_machine_may_be_known_by_who_has_signed_its_key(
    tmp_path: Path, options: tuple[str, ...], said: str | None
) -> None:
    authority = make_key(tmp_path / "authority")
    with running_sshd() as first:
        signed = first.directory / "host.pub"
        sign = [
            "ssh-keygen",
            "-q",
            "-s",
            str(authority),
            "-I",
            "a machine",
            "-h",
            *options,
            str(signed),
        ]
        await trio.run_process(sign)
        shutil.copytree(first.directory, tmp_path / "keys")
    certificate, key = tmp_path / "keys" / "host-cert.pub", tmp_path / "keys" / "host"
    trusted = tmp_path / "known_hosts"
    trusted.write_text(f"@cert-authority 127.0.0.1 {Path(f'{authority}.pub').read_text()}")
    with running_sshd(HostKey=str(key), HostCertificate=str(certificate)) as server:
        target = server.target(host_key=None, known_hosts=trusted)
        if said is None:
            await assert_works(target)
        else:
            error = await refused(target)
            assert SSHHostKeyError is type(error)
            assert said in error.problem


async def test_a_user_whose_key_is_not_accepted_is_told_so(server: Server, other_key: Path) -> None:
    error = await refused(server.target(client_keys=other_key))
    assert SSHAuthError is type(error)
    assert "logging in" == error.phase
    assert "authorized_keys" in error.cure
    assert (server.user, server.port) == (error.user, error.port)


@pytest.mark.needs("sshd")
async def test_a_user_who_offers_too_many_keys_is_told_so(other_key: Path) -> None:
    with running_sshd(MaxAuthTries=1) as server:
        keys = [other_key, server.key]
        error = await refused(server.target(client_keys=keys))
    assert SSHAuthError is type(error)
    assert "too many keys" in error.problem


async def test_a_locked_key_needs_its_passphrase(server: Server, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", "-N", "open sesame", "-a", "1")
    authorized = server.directory / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(before + Path(f"{key}.pub").read_text())
    try:
        await assert_works(server.target(client_keys=key, passphrase="open sesame"))
    finally:
        authorized.write_text(before)
    for wrong in (None, "shut"):
        error = await refused(server.target(client_keys=key, passphrase=wrong))
        assert SSHAuthError is type(error)
        assert "passphrase=" in error.cure
        assert str(key) in error.problem


async def test_a_key_that_is_none_is_named(server: Server, tmp_path: Path) -> None:
    error = await refused(server.target(client_keys=tmp_path / "missing"))
    assert f"{tmp_path}/missing: No such file or directory" == error.problem
    (tmp_path / "text").write_text("hello")
    error = await refused(server.target(client_keys=tmp_path / "text"))
    assert SSHAuthError is type(error)


async def test_a_pinned_key_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no public key") as raised:
        await connection(
            SSHTarget(host="127.0.0.1", config=None, host_key="ssh-ed25519 " + "A" * 68)
        )
    assert "host_key" == raised.value.field


def nowhere(port: int, **changes: Any) -> SSHTarget:
    """A machine that is no SSH server."""
    given: dict[str, Any] = {"host": "127.0.0.1", "user": "me", "config": None, "agent": None}
    return SSHTarget(**{**given, "port": port, "known_hosts": "/nowhere", **changes})


async def test_a_port_where_nobody_listens_is_named() -> None:
    port = free_port()
    error = await refused(nowhere(port))
    assert f"me@127.0.0.1:{port}: connecting failed: nothing listens there" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    error = await refused(nowhere(port, host="localhost"))
    assert "nothing listens there (connection refused)" == error.problem


async def test_a_name_without_an_address_is_named() -> None:
    error = await refused(nowhere(22, host="nobody.invalid"))
    assert "looking up its address" == error.phase
    assert isinstance(error.__cause__, socket.gaierror)


async def test_a_configuration_that_does_not_come_is_given_up_in_time(tmp_path: Path) -> None:
    config = tmp_path / "config"
    os.mkfifo(config)
    try:
        with trio.fail_after(5):
            error = await refused(nowhere(22, config=config, connect_timeout=0.2))
        assert "0.2 s (connect_timeout)" in error.problem
    finally:
        # Who reads it still waits for a writer.
        config.open("w").close()


@asynccontextmanager
async def peer(
    serve: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[int]:
    """Something that listens on a port, and is no SSH server."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        ipv4 = [one for one in listeners if one.socket.family == socket.AF_INET]
        yield ipv4[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.fault(78)
async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    async def serve(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with peer(serve) as port:
        error = await refused(nowhere(port, connect_timeout=0.2))
    assert "no SSH server has answered within 0.2 s (connect_timeout)" == error.problem


@pytest.mark.fault(78)
async def test_a_server_that_speaks_but_goes_no_further_is_given_up_in_time() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"SSH-2.0-slow\r\n")
        await trio.sleep_forever()

    async with peer(serve) as port:
        error = await refused(nowhere(port, connect_timeout=0.2))
    assert "it was not done within 0.2 s (connect_timeout)" == error.problem


async def test_a_peer_that_speaks_something_else_is_named_at_once() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    async with peer(serve) as port:
        with trio.fail_after(5):
            error = await refused(nowhere(port, connect_timeout=60))
    assert "hung up before it spoke SSH" in error.problem


async def test_a_server_that_hangs_up_is_asked_again_until_the_time_is_up() -> None:
    callers: list[int] = []

    async def serve(stream: trio.SocketStream) -> None:
        callers.append(1)
        await stream.aclose()

    async with peer(serve) as port:
        error = await refused(nowhere(port, connect_timeout=1))
    assert "and so it went for 1 s (connect_timeout)" in error.problem
    assert "MaxStartups" in error.cure
    assert len(callers) > 2


async def test_the_configuration_is_honoured(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    known_hosts = known(server, tmp_path, "box {key}")
    config.write_text(
        f"Host box\n HostName 127.0.0.1\n Port {server.port}\n User {server.user}\n"
        f" IdentityFile {server.key}\n UserKnownHostsFile {known_hosts}\n HostKeyAlias box\n"
        " ServerAliveInterval 7\n ServerAliveCountMax 9\n StrictHostKeyChecking no\n"
    )
    target = SSHTarget(host="box", config=config, agent=None)
    await assert_works(target)
    options = (await connection(target)).connection._options
    assert (7, 9) == (options.keepalive_interval, options.keepalive_count_max)
    known_hosts.unlink()
    error = await refused(SSHTarget(host="box", config=[config], agent=None, user=server.user))
    assert SSHHostKeyError is type(error)


async def test_a_configuration_without_known_hosts_knows_nobody(
    server: Server, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host box\n HostName 127.0.0.1\n UserKnownHostsFile none\n GlobalKnownHostsFile /dev/null\n"
    )
    target = server.target(host="box", host_key=None, config=config)
    assert target.known_hosts is LEFT_OUT
    error = await refused(target)
    assert SSHHostKeyError is type(error)
    # ssh-keyscan(1) knows nothing of the configuration's names.
    assert f"ssh-keyscan -p {server.port} 127.0.0.1" in error.cure


async def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Port many\n")
    error = await refused(SSHTarget(host="box", config=config))
    assert "reading the configuration" == error.phase
    assert "config" in error.problem
    error = await refused(SSHTarget(host="box", config=tmp_path / "missing"))
    assert "No such file" in error.problem


async def test_a_proxy_command_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("ProxyCommand /no/such/program %h\n")
    error = await refused(server.target(config=config))
    assert "ProxyCommand" in error.problem
    assert "/no/such/program" in error.problem


async def test_the_way_may_lead_through_other_machines(server: Server, tmp_path: Path) -> None:
    await assert_works(server.target(tunnel=server.target(user=server.user, connect_timeout=9)))
    known_hosts = known(server, tmp_path, "[127.0.0.1]:{port} {key}")
    hop = f"{server.user}@127.0.0.1:{server.port}"
    await assert_works(server.target(host_key=None, known_hosts=known_hosts, tunnel=f"{hop},{hop}"))
    error = await refused(server.target(known_hosts="/nowhere", tunnel=hop))
    assert SSHHostKeyError is type(error)


async def test_a_jump_of_the_configuration_is_checked_by_our_known_hosts(
    server: Server, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host inner\n HostName 127.0.0.1\n ProxyJump 127.0.0.1:{server.port}\n")
    known_hosts = known(server, tmp_path, "[127.0.0.1]:{port} {key}")
    target = server.target(host="inner", config=config, host_key=None, known_hosts=known_hosts)
    transport = await connection(target)
    assert transport.target is target
    await assert_works(target)
    with pytest.raises(SSHHostKeyError) as raised:
        await connection(server.target(host="inner", config=config, known_hosts="/nowhere"))
    assert "127.0.0.1" == raised.value.host


async def test_jumps_that_lead_in_a_circle_are_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with trio.fail_after(5), pytest.raises(SSHConnectError, match="in a circle"):
        await connection(SSHTarget(host="a", config=config, agent=None, user="me"))


@pytest.mark.parametrize("missing", ["asyncssh", "trio_asyncio"])
async def test_what_is_not_installed_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'trio-lifecycle\[ssh\]'"):
        await connection(nowhere(1))


async def test_a_python_without_trio_asyncio_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    with pytest.raises(ConfigError, match=r"Python 3\.14"):
        await connection(nowhere(1))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "there is no route to it"),
        (OSError(errno.ENETUNREACH, "x"), "there is no route to its network"),
        (OSError(errno.ETIMEDOUT, "x"), "it does not answer"),
        (
            OSError("Multiple exceptions: [Errno 113] Connect call failed"),
            "there is no route to it",
        ),
        (OSError("Multiple exceptions: [Errno 7] Connect call failed"), "Multiple exceptions"),
        (OSError(errno.EIO, "worn out"), "worn out"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "hung up before it spoke SSH"),
        (RuntimeError(), "hung up before it spoke SSH"),
    ],
    ids=repr,
)
def test_what_the_system_says_is_put_into_words(error: Exception, said: str) -> None:
    assert said in explain(error, Progress("gpu-2")).problem


def test_what_was_explained_stays_as_it_is() -> None:
    error = SSHConnectError("gpu-2", None, None, "connecting", "odd")
    assert error is explain(error, Progress("gpu-2"))
