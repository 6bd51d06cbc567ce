"""Sockets of another machine: the same answers as on this one, and ports that nobody else gets."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests import processes, shells
from tests.processes import Start, say
from tests.shells import OpenLine, each_shell
from trio_lifecycle import _proc
from trio_lifecycle._proc import listeners_at
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._remote_sockets import (
    connection_uid,
    listening_at,
    release_port,
    reserve_port,
)
from trio_lifecycle._ssh._session import LostError

open_line = shells.open_line
start = processes.start

# Serves on a port, with a child that holds the socket, too, and a file whose name looks like it.
SERVER = """if 1:
    import os, socket, sys
    listener = socket.create_server(("127.0.0.1", 0))
    if not os.fork():
        os.setsid()
        sys.stdin.read()
        os._exit(0)
    print(os.getpid(), listener.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[tuple[str, int]]]:
    """Addresses at which somebody listens, or would, or nobody does."""
    with ExitStack() as stack:
        one = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = one.getsockname()[1]
        every = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        found = [
            ("127.0.0.1", port),
            ("::ffff:127.0.0.1", port),
            ("127.0.0.2", port),
            ("::1", port),
        ]
        found += [("127.9.9.9", every.getsockname()[1]), ("192.0.2.1", every.getsockname()[1])]
        if socket.has_dualstack_ipv6():
            six = stack.enter_context(
                socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            )
            found += [(host, six.getsockname()[1]) for host in ("::1", "127.0.0.1", "2001:db8::1")]
        for name in ("plain", "a b\n1: 2 3 4 5 6 7 "):
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(str(tmp_path / name))
            unix.listen()
            found.append((str(tmp_path / name), 0))
        yield [*found, (str(tmp_path / "pla"), 0), ("/", 0)]


@each_shell
async def test_who_listens_is_found_as_on_this_machine(
    shell: str, open_line: OpenLine, places: list[tuple[str, int]]
) -> None:
    async with open_line(shell) as line:
        for host, port in places:
            found = await listening_at(line, host, port)
            here = listeners_at(host.removeprefix("::ffff:"), port)
            assert here == [
                each._replace(ipv6_only=old.ipv6_only)
                for each, old in zip(found.listeners, here, strict=True)
            ]
            assert (found.main and found.main.pid) == (os.getpid() if here else None)


@each_shell
async def test_the_main_process_holds_a_socket_of_many(
    shell: str, open_line: OpenLine, start: Start, tmp_path: Path
) -> None:
    pid, port = say(start(SERVER, start_new_session=True))
    (listener,) = listeners_at("127.0.0.1", port)
    # Another's descriptor that looks like this socket.
    odd = tmp_path / f"x\n/proc/1/fd:\nl 1 r r 64 now 5 -> socket:[{listener.inode}]"
    odd.parent.mkdir(parents=True)
    with opened(odd):
        async with open_line(shell) as line:
            found = await listening_at(line, "127.0.0.1", port)
    assert (pid, 2) == (found.main and found.main.pid, len(found.holders))
    assert {pid, *processes_below(pid)} == {holder.pid for holder in found.holders}


@contextmanager
def opened(path: Path) -> Iterator[None]:
    with path.open("w"):
        yield


def processes_below(pid: int) -> set[int]:
    return {stat.pid for stat in _proc.all_stats().values() if stat.ppid == pid}


@each_shell
async def test_the_user_at_the_other_end_of_a_connection_is_told(
    shell: str, open_line: OpenLine
) -> None:
    async with open_line(shell) as line:
        with connected() as (client, server):
            expected = _proc.connection_uid(client, server)
            assert expected is not None
            assert expected == await connection_uid(line, client, server)
            mapped = ("::ffff:127.0.0.1", client[1])
            assert expected == await connection_uid(line, mapped, server)
            assert await connection_uid(line, ("127.0.0.2", client[1]), server) is None
            assert await connection_uid(line, server, ("127.0.0.1", 1)) is None


@contextmanager
def connected() -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Two ends of a connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(socket.create_connection(server.getsockname())) as client,
    ):
        yield client.getsockname(), server.getsockname()


async def test_a_machine_whose_sockets_cant_be_read_has_no_listener_that_is_believed(
    open_line: OpenLine,
) -> None:
    async with open_line() as line:
        await line.run("ulimit", "-n", 4)
        with pytest.raises(LostError):
            await listening_at(line, "127.0.0.1", 1)


# --- ports ----------------------------------------------------------------------------------------


@each_shell
async def test_a_port_is_free_kept_and_let_go(
    shell: str, open_line: OpenLine, tmp_path: Path
) -> None:
    async with open_line(shell, TMPDIR=str(tmp_path)) as line:
        ports = [await reserve_port(line) for _ in range(3)]
        assert 3 == len({port.number for port in ports})
        for port in ports:
            assert port.number not in _proc.ephemeral_ports()
            with socket.create_server(("", port.number)):
                pass
        marks = marks_in(tmp_path)
        assert {port.mark for port in ports} == marks
        await release_port(line, ports[0])
        await release_port(line, ports[0])
        assert {port.mark for port in ports[1:]} == marks_in(tmp_path)


def marks_in(directory: Path) -> set[str]:
    return set(map(str, directory.glob("trio_lifecycle-ports-*/*")))


def only_from(number: int) -> tuple[str, ...]:
    """A look that finds this port first."""
    low = 10_000
    return "tl_reserve_port", str(number - low)


async def test_of_two_who_look_in_the_same_place_each_gets_a_port_of_its_own(
    open_line: OpenLine, tmp_path: Path
) -> None:
    tmp = str(tmp_path)
    async with open_line(TMPDIR=tmp) as one, open_line(TMPDIR=tmp) as two:
        wanted = (await reserve_port(one)).number
        found = [await ask(line, wanted) for line in (two, two, one)]
        assert 4 == len({wanted, *found})


async def ask(line: Line, number: int) -> int:
    looked = await line.run(*only_from(number))
    return int(looked.output.split(b"\0")[0])


async def test_marks_of_shells_that_have_ended_are_swept(
    open_line: OpenLine, tmp_path: Path
) -> None:
    tmp = str(tmp_path)
    async with open_line(TMPDIR=tmp) as line:
        left = await reserve_port(line)
    old = Path(left.mark).with_name(f"{left.number}.older-boot.1.1")
    old.mkdir()
    async with open_line(TMPDIR=tmp) as line:
        assert left.number == await ask(line, left.number)
        assert 1 == len(marks_in(tmp_path))


async def test_a_port_that_somebody_has_or_has_marked_is_not_given(
    open_line: OpenLine, tmp_path: Path
) -> None:
    async with open_line(TMPDIR=str(tmp_path)) as line:
        first = await reserve_port(line)
        await release_port(line, first)
        with socket.create_server(("127.0.0.1", first.number)):
            assert first.number != await ask(line, first.number)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mark:
            mark.bind(b"\0trio-lifecycle/port/%d" % first.number)
            assert first.number != await ask(line, first.number)


async def test_a_place_for_marks_that_somebody_else_has_made_is_left_for_the_home_directory(
    open_line: OpenLine, tmp_path: Path
) -> None:
    tmp_path.joinpath("elsewhere").mkdir()
    name = f"trio_lifecycle-ports-{os.geteuid()}"
    tmp_path.joinpath(name).symlink_to("elsewhere")
    home = tmp_path / "home"
    async with open_line(TMPDIR=str(tmp_path), HOME=str(home)) as line:
        port = await reserve_port(line)
        assert port.mark.startswith(f"{home}/.local/state/trio-lifecycle/{name}/")
        await release_port(line, port)
        place = home / ".local/state/trio-lifecycle" / name
        place.rmdir()  # so it is empty
        place.symlink_to(tmp_path)
        with pytest.raises(OSError, match="is another user's"):
            await reserve_port(line)


async def test_nothing_but_a_mark_is_removed_as_one(open_line: OpenLine, tmp_path: Path) -> None:
    async with open_line() as line:
        await line.run("tl_release_port", str(tmp_path))
    assert tmp_path.name in os.listdir(tmp_path.parent)  # noqa: PTH208
