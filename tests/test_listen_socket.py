"""Sockets to be passed: what can be asked for, how they are opened, and what is left of them."""

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import start
from tests.support import free_port, python_daemon
from trio_lifecycle import FREE_PORT, ConfigError, ListenSocket, SpawnError
from trio_lifecycle._passed_sockets import CannotListenError, PassedSockets
from trio_lifecycle._preparation import open_sockets
from trio_lifecycle._requests import DESCRIPTOR_NUMBERS

# --- what can be asked for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "either a port or unix"),
        ({"port": 80, "unix": "/x"}, "either a port or unix"),
        ({"port": 0}, "port must be FREE_PORT or a number from 1 to 65535, not 0"),
        ({"port": 65_536}, "not 65536"),
        ({"port": True}, "not True"),
        ({"port": "80"}, "not '80'"),
        ({"port": 80, "host": "example.org"}, "in digits, or localhost, not 'example.org'"),
        ({"port": 80, "mode": 0o600}, "mode is for the file of a UNIX socket"),
        ({"unix": "/x", "host": "::1"}, "a UNIX socket has no host"),
        ({"unix": ""}, "the path of a socket file, not ''"),
        ({"unix": "a\0b"}, "the path of a socket file"),
        ({"unix": 3}, "the path of a socket file, not 3"),
        ({"unix": "/" + "x" * 107}, "longer than 107 bytes"),
        ({"unix": "/x", "mode": 0o1777}, "permissions such as 0o660"),
        ({"port": 80, "name": "a:b"}, "no colon"),
        ({"port": 80, "name": ""}, "1 to 255 printable"),
        ({"port": 80, "name": "ä"}, "printable ASCII"),
        ({"port": 80, "name": "x" * 256}, "1 to 255"),
        ({"port": 80, "name": "a\n"}, "printable ASCII"),
        ({"port": 80, "backlog": 0}, "backlog must be a number from 1 on, not 0"),
        ({"port": 80, "backlog": 1.5}, "not 1.5"),
    ],
)
def test_what_can_not_be_meant_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=r"^listen: .*") as caught:
        ListenSocket(**wrong)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (ListenSocket(port=80), "must be a list such as"),
        ("8080", "must be a list such as"),
        ([8080], "a list of ListenSocket"),
        ([ListenSocket(port=FREE_PORT), ListenSocket("::1", FREE_PORT)], "only one socket"),
        ([ListenSocket(port=80), ListenSocket("localhost", 80, name="b")], "same address twice"),
    ],
)
def test_a_list_that_can_not_be_meant_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        python_daemon("", listen=wrong)


def test_there_can_be_as_many_as_a_daemon_can_be_given_descriptors() -> None:
    most = len(DESCRIPTOR_NUMBERS)
    many = [ListenSocket(port=port) for port in range(1, most + 2)]
    assert most == len(python_daemon("", listen=many[1:]).listen)
    with pytest.raises(ConfigError, match=f"listen: can hold {most} sockets, not {most + 1}"):
        python_daemon("", listen=many)


def test_other_sockets_are_another_configuration() -> None:
    one, same, other = (
        python_daemon("", listen=[ListenSocket(port=port)]) for port in (80, 80, 81)
    )
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_it_is_written_as_people_write_addresses() -> None:
    texts = [ListenSocket("::1", 80), ListenSocket(port=FREE_PORT), ListenSocket(unix="/x")]
    assert ["[::1]:80", "127.0.0.1:FREE_PORT", "/x"] == [str(each) for each in texts]


# --- opening --------------------------------------------------------------------------------------


def opened(*wanted: ListenSocket) -> PassedSockets:
    """Sockets that are open."""
    sockets = PassedSockets(wanted)
    sockets.open()
    return sockets


def test_they_stay_the_same_when_they_are_opened_again_and_are_blocking_anew() -> None:
    sockets = opened(ListenSocket(port=FREE_PORT), ListenSocket("::1", free_port("::1")))
    port, before = sockets.free_port, sockets.descriptors
    assert [3, 4] == list(before)
    for fd in before.values():
        assert not os.get_inheritable(fd)
        os.set_blocking(fd, False)  # as many a daemon does, for all copies
    assert port is not None
    with socket.create_connection(("127.0.0.1", port)):
        assert sockets.queue_at("127.0.0.1", port)
        sockets.open()
        assert (port, before) == (sockets.free_port, sockets.descriptors)
        assert sockets.queue_at("127.0.0.1", port)
        assert [True, True] == [os.get_blocking(fd) for fd in before.values()]
    sockets.close()
    sockets.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_connections_are_taken_again_when_the_daemon_before_has_shut_the_socket_down() -> None:
    sockets = opened(ListenSocket(port=FREE_PORT))
    port = sockets.free_port
    assert port is not None
    copy = socket.socket(fileno=os.dup(sockets.descriptors[3]))
    with copy:
        copy.shutdown(socket.SHUT_RDWR)
    sockets.open()
    socket.create_connection(("127.0.0.1", port)).close()
    sockets.close()


def test_a_queue_is_known_by_every_address_that_leads_to_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sockets = opened(ListenSocket("0.0.0.0", FREE_PORT), ListenSocket(unix=path))
    port = sockets.free_port
    assert port is not None
    assert [False, None, False] == [
        sockets.queue_at("127.0.0.2", port),
        sockets.queue_at("127.0.0.2", port + 1),
        sockets.queue_at(str(path), 0),
    ]
    sockets.close()
    assert sockets.queue_at(str(path), 0) is None


def test_none_is_opened_when_one_can_not_be_had(tmp_path: Path) -> None:
    path, port = tmp_path / "socket", free_port()
    with socket.create_server(("127.0.0.1", port)):
        sockets = PassedSockets([ListenSocket(unix=path), ListenSocket(port=port)])
        with pytest.raises(CannotListenError) as caught:
            sockets.open()
        assert errno.EADDRINUSE == caught.value.errno
        assert not sockets.are_open
        assert not path.exists()


def test_nothing_is_told_where_there_is_nothing_to_pass() -> None:
    assert ({}, {}, None) == (
        PassedSockets([]).env,
        PassedSockets([]).descriptors,
        PassedSockets([]).free_port,
    )


# --- UNIX sockets ---------------------------------------------------------------------------------


@given(mode=st.sampled_from([0o600, 0o660, 0o666, 0o000]), mask=st.sampled_from([0, 0o077]))
def test_the_file_has_its_permissions_whatever_the_umask(mode: int, mask: int) -> None:
    path = Path(f"/tmp/trio-lifecycle-mode-{os.getpid()}")
    before = os.umask(mask)
    try:
        sockets = opened(ListenSocket(unix=path, mode=mode))
    finally:
        os.umask(before)
    assert mode == stat.S_IMODE(path.stat().st_mode)
    sockets.close()
    assert not path.exists()


def test_the_file_of_a_dead_listener_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    sockets = opened(ListenSocket(unix=path))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    sockets.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("full", [False, True])
def test_a_live_listener_keeps_its_file(tmp_path: Path, kind: int, full: bool) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, kind) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(str(path))
        if kind == socket.SOCK_STREAM:
            live.listen(0)
            if full:
                client.connect(str(path))
        with pytest.raises(CannotListenError) as caught:
            opened(ListenSocket(unix=path))
        assert errno.EADDRINUSE == caught.value.errno
        assert path.is_socket()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "socket"
    make(path)
    with pytest.raises(CannotListenError) as caught:
        opened(ListenSocket(unix=path))
    assert "no socket" in caught.value.detail
    assert os.path.lexists(path)


def test_a_file_that_another_has_put_there_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sockets = opened(ListenSocket(unix=path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        sockets.close()
        assert path.is_socket()


def test_one_whose_file_was_removed_is_opened_anew(tmp_path: Path) -> None:
    # Servers remove it when they end, unless they know that it is not theirs.
    path = tmp_path / "socket"
    sockets = opened(ListenSocket(unix=path), ListenSocket(port=FREE_PORT))
    kept = sockets.free_port
    path.unlink()
    sockets.open()
    assert path.is_socket()
    assert kept == sockets.free_port
    assert [3, 4] == list(sockets.descriptors)
    sockets.close()


def test_what_can_not_be_opened_anew_can_be_as_soon_as_its_place_is_free(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sockets = opened(ListenSocket(unix=path), ListenSocket(port=FREE_PORT))
    port = sockets.free_port
    assert port is not None
    path.unlink()
    path.mkdir()
    with socket.socket(fileno=os.dup(sockets.descriptors[4])) as copy:
        copy.shutdown(socket.SHUT_RDWR)
    for _ in range(2):
        with pytest.raises(CannotListenError, match="no socket"):
            sockets.open()
        assert not sockets.are_open
    path.rmdir()
    sockets.open()
    assert path.is_socket()
    assert port == sockets.free_port
    sockets.close()


async def test_a_port_of_the_kernels_choice_that_another_took_is_told_with_its_number() -> None:
    config = python_daemon("", listen=[ListenSocket(port=FREE_PORT)])
    sockets = opened(*config.listen)
    port = sockets.free_port
    assert port is not None
    with socket.socket(fileno=os.dup(sockets.descriptors[3])) as copy:
        copy.shutdown(socket.SHUT_RDWR)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(SpawnError, match=f"process {os.getpid()} .* has taken port {port}"):
            await open_sockets(config, sockets, start().prober)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotListenError) as caught:
        opened(ListenSocket(unix=tmp_path / "missing" / "socket"))
    assert errno.ENOENT == caught.value.errno
